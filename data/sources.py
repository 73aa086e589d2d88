"""What a user points at: images and videos, by name, by folder or by a pattern."""

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2

# A folder gives its files of these endings; a file named by itself may have any.
IMAGE_ENDINGS = (
    *(".jpg", ".jpeg", ".jpe", ".jp2", ".png", ".apng", ".bmp", ".dib", ".tif", ".tiff"),
    *(".webp", ".avif", ".gif", ".ppm", ".pgm", ".pbm", ".pnm"),
)
VIDEO_ENDINGS = (
    *(".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".ogv"),
    *(".mts", ".m2ts", ".3gp"),
)


@dataclass(frozen=True)
class Source:
    """A file with one image, or with a video's frames."""

    path: Path
    kind: Literal["image", "video"]


def find_sources(
    inputs: Sequence[str | Path], *, apart_from: Path
) -> tuple[list[Source], list[str]]:
    """The files that `inputs` name, each once, in their order; within a folder by name.

    Args:
        inputs: files, folders (with all folders in them) and patterns such as ``shots/**/*.jpg``.
        apart_from: a folder that no search enters; results are written there.

    Returns:
        The files, and one line for each input that gives none.
    """
    found: dict[Path, Source] = {}
    problems = []
    for given in map(str, inputs):
        path = Path(given).expanduser()
        if path.exists():
            matches = [path]
        else:
            matches = _matching(str(path))
            if not matches:
                what = "matches nothing" if glob.has_magic(given) else "no such file"
                problems.append(f"{given}: {what}; name images, videos, folders or a pattern")
        for match in matches:
            sources = list(_in_folder(match, apart_from)) if match.is_dir() else [_source(match)]
            if not sources:
                problems.append(f"{match}: no image or video in this folder; name another")
            for source in sources:
                found.setdefault(source.path.resolve(), source)
    return list(found.values()), problems


def _matching(pattern: str) -> list[Path]:
    return [Path(name) for name in sorted(glob.glob(pattern, recursive=True))]  # noqa: PTH207


def _in_folder(folder: Path, apart_from: Path) -> Iterator[Source]:
    excluded = apart_from.resolve()
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        known = path.suffix.lower() in (*IMAGE_ENDINGS, *VIDEO_ENDINGS)
        if known and not hidden and path.is_file() and excluded not in path.resolve().parents:
            yield _source(path)


def _source(path: Path) -> Source:
    ending = path.suffix.lower()
    if ending in IMAGE_ENDINGS:
        return Source(path, "image")
    if ending in VIDEO_ENDINGS or not cv2.haveImageReader(str(path)):
        return Source(path, "video")
    return Source(path, "image")
