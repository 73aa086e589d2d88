"""Images and videos that a user names, by file, folder or pattern."""

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2

# Of a folder, files with these endings are taken; a file named directly may have any.
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


def find_sources(inputs: Sequence[str | Path], *, exclude: Path) -> tuple[list[Source], list[str]]:
    """The files that `inputs` name, each once, in their order; within a folder by name.

    Args:
        inputs: files, folders (searched recursively) and patterns such as ``shots/**/*.jpg``.
        exclude: a folder that is not searched, since results are written there.

    Returns:
        The files, and one line for each input without any.
    """
    sources: dict[Path, Source] = {}
    problems = []
    for given in map(str, inputs):
        path = Path(given).expanduser()
        names = [path] if path.exists() else sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207
        if not names:
            what = "matches nothing" if glob.has_magic(given) else "no such file"
            problems.append(f"{given}: {what}; name images, videos, folders or a pattern")
        for match in map(Path, names):
            files = list(_in_folder(match, exclude)) if match.is_dir() else [_source(match)]
            if not files:
                problems.append(f"{match}: no image or video in this folder; name another")
            for source in files:
                sources.setdefault(source.path.resolve(), source)
    return list(sources.values()), problems


def _in_folder(folder: Path, exclude: Path) -> Iterator[Source]:
    excluded = exclude.resolve()
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
