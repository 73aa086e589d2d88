"""Images and videos that a user names, by file, folder or pattern."""

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2

from files.content import known_content

# Files with these endings are taken for what they say; what others are, their content tells.
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
        The files, and one line for each input without any, and for each picture, link and folder
        inside a folder that is passed over.
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
            if match.is_dir():
                found = list(_in_folder(match, exclude))
                if not any(isinstance(each, Source) for each in found):
                    problems.append(f"{match}: no image or video in this folder; name another")
            else:
                found = [_unreadable(match) or _source(match)]
            for each in found:
                if isinstance(each, Source):
                    sources.setdefault(each.path.resolve(), each)
                else:
                    problems.append(each)
    return list(sources.values()), problems


def _in_folder(folder: Path, exclude: Path) -> Iterator[Source | str]:
    """Sources, and what is wrong with pictures and links that are none."""
    excluded = exclude.resolve()
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if hidden or excluded in path.resolve().parents:
            continue
        if path.is_symlink() and path.is_dir():
            yield f"{path}: a link to a folder is not followed; name the folder itself"
        elif path.is_symlink() and not path.exists():
            yield f"{path}: a link to nothing; restore the file it leads to"
        elif path.is_file():
            problem = _unreadable(path)
            if problem:
                yield problem
            elif path.suffix.lower() in (*IMAGE_ENDINGS, *VIDEO_ENDINGS) or _is_image(path):
                yield _source(path)


def _unreadable(path: Path) -> str | None:
    """One line on a picture of a kind that nothing here decodes; None for any other file."""
    if not path.is_file() or not os.access(path, os.R_OK):
        return None  # said when it is opened
    what, remedy = known_content(path) or ("", "")
    if "picture" in what and not _is_image(path):
        return f"{path}: {what}; {remedy}"
    return None


def _is_image(path: Path) -> bool:
    return cv2.haveImageReader(str(path))


def _source(path: Path) -> Source:
    ending = path.suffix.lower()
    is_image = ending in IMAGE_ENDINGS or (ending not in VIDEO_ENDINGS and _is_image(path))
    return Source(path, "image" if is_image else "video")
