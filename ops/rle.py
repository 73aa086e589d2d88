"""COCO's run-length encoding of masks.

A mask ``[H, W]`` is read column after column; its *run lengths* are the lengths of the stretches of
0, 1, 0, 1 ... met on the way, the first possibly 0. COCO files hold them as a list of numbers
("uncompressed") or as a string ("compressed"). Inside the project they are uint32 ``[R]``.

A string is taken apart here and its sum checked before use, because a damaged one handed to a C
decoder writes beyond the image. The format is that of the COCO API (`maskApi.c`).
"""

from collections.abc import Sequence

import numpy as np
from pycocotools import mask as coco_mask

RunLengths = np.ndarray
"""uint32 ``[R]``, R >= 1, summing to the height times the width of the image."""
LONGEST = 7  # groups of a number of 32 bits and its sign


def encode(
    mask: np.ndarray, corner: tuple[int, int] = (0, 0), size: tuple[int, int] | None = None
) -> RunLengths:
    """Run lengths of a binary mask, which may be a part of an image that is 0 elsewhere.

    Args:
        mask: ``[h, w]``.
        corner: column and row of the image where the mask's first pixel lies.
        size: (height, width) of the image; None: the mask is the whole image.
    """
    h, w = mask.shape
    height, width = size or mask.shape
    # A column of the part is followed by a 0, unless the image's next column follows directly.
    step = h + (h < height)
    flat = np.zeros(w * step + 2, dtype=bool)
    flat[1:-1].reshape(w, step)[:, :h] = mask.T
    columns, rows = np.divmod(np.flatnonzero(flat[1:] != flat[:-1]), step)
    changes = (corner[0] + columns) * height + corner[1] + rows
    changes = changes[changes < height * width]  # the image's end is no change
    return np.diff(changes, prepend=0, append=height * width).astype(np.uint32)


def from_list(counts: object) -> RunLengths:
    """Run lengths from an uncompressed list; ValueError where they are not whole numbers >= 0."""
    if not isinstance(counts, list) or not counts:
        raise ValueError("no list of run lengths")
    if not all(type(run) is int and 0 <= run < 1 << 32 for run in counts):
        raise ValueError("a run length that is no whole number")
    return np.array(counts, dtype=np.uint32)


def decompress(text: str) -> RunLengths:
    """The run lengths that a compressed string stands for.

    Each number is written in groups of five bits, lowest first, one character (offset 48) a group;
    bit 6 says that another follows, the last group's bit 5 is the sign. From the fourth number on,
    what is written is the difference to the number two before.

    Raises:
        ValueError: the string is cut short, holds foreign characters, or a run below zero.
    """
    runs: list[int] = []
    number = shift = 0
    for code in text.encode():
        group = code - 48
        if not 0 <= group < 64:
            raise ValueError("a foreign character in the run lengths")
        number |= (group & 31) << shift
        shift += 5
        if group & 32:
            continue
        if group & 16:
            number -= 1 << shift
        if len(runs) > 2:
            number += runs[-2]
        if not 0 <= number < 1 << 32:
            raise ValueError("a run length below zero or beyond 32 bits")
        runs.append(number)
        number = shift = 0
    if shift:
        raise ValueError("run lengths cut short")
    return np.array(runs, dtype=np.uint32)


def decompress_all(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray, dict[int, str]]:
    """`decompress` of many strings at once: a quarter of the time, from some tens of strings on.

    Returns:
        Run lengths, int64 ``[R]``; where those of each string begin and the last ends, int64
        ``[len(texts) + 1]``; and what is wrong, by the string's index. The run lengths of a string
        with a problem mean nothing.
    """
    parts = [text.encode() for text in texts]
    codes = np.frombuffer(b"".join(parts), np.uint8) - np.uint8(48)
    ends = np.cumsum([len(part) for part in parts], dtype=np.int64)
    follows = (codes & 32) > 0
    last = ~follows  # the last group of a number
    last[ends[np.diff(ends, prepend=0) > 0] - 1] = True  # if cut short, the next is unharmed
    stop = np.flatnonzero(last)
    start = np.concatenate((np.zeros(1, np.int64), stop[:-1] + 1))[: len(stop)]
    groups = stop + 1 - start
    written = np.zeros(len(stop), np.int64)
    for place in range(min(int(groups.max(initial=0)), LONGEST)):
        has = np.flatnonzero(groups > place)
        written[has] += (codes[start[has] + place] & 31).astype(np.int64) << 5 * place
    shift = 5 * np.minimum(groups, LONGEST)
    written -= np.where(codes[stop] & 16, np.int64(1) << shift, 0)

    begins = np.searchsorted(stop, np.concatenate((np.zeros(1, np.int64), ends)))
    text_of = np.repeat(np.arange(len(parts)), np.diff(begins))  # of a number
    place_of = np.arange(len(stop)) - begins[text_of]
    runs = written
    for chain in (place_of % 2 == 1, (place_of % 2 == 0) & (place_of > 0)):
        sums = np.cumsum(np.where(chain, written, 0))  # each adds to the one two before it
        runs = np.where(chain, sums - sums[begins[text_of]], runs)

    problems: dict[int, str] = {}
    for wrong, what in (
        (np.searchsorted(ends, np.flatnonzero(codes > 63), side="right"), "a foreign character"),
        (text_of[follows[stop]], "run lengths cut short"),
        (text_of[groups > LONGEST], "a run length beyond 32 bits"),
        (text_of[(runs < 0) | (runs >= 1 << 32)], "a run length below zero or beyond 32 bits"),
    ):
        for index in np.unique(wrong).tolist():
            problems.setdefault(index, what)
    return runs, begins, problems


def compress(runs: RunLengths) -> str:
    """The compressed string of run lengths; inverse of `decompress`."""
    size = [int(runs.sum(dtype=np.int64)), 1]
    return coco_mask.frPyObjects({"size": size, "counts": runs}, *size)["counts"].decode("ascii")


def area(runs: RunLengths) -> int:
    """Pixels inside the mask."""
    return int(runs[1::2].sum())


def crop(runs: RunLengths, height: int) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """The mask cut to its tight box, without drawing the rest of the image.

    Args:
        runs: of a mask that is not empty.
        height: of the image.

    Returns:
        uint8 ``[h, w]`` of 0 and 1, and its place (x1, y1, x2, y2) in the image, whole pixels.
    """
    ends = np.cumsum(runs, dtype=np.int64)
    starts, stops = ends[0:-1:2], ends[1::2]  # each stretch of 1, as [start, stop)
    starts, stops = starts[stops > starts], stops[stops > starts]
    x1, x2 = int(starts[0]) // height, int(stops[-1] - 1) // height + 1
    changes = np.empty(2 * len(starts) + 2, dtype=np.int64)
    changes[0], changes[-1] = x1 * height, x2 * height
    changes[1:-1:2], changes[2:-1:2] = starts, stops
    values = (np.arange(len(changes) - 1) & 1).astype(np.uint8)
    columns = np.repeat(values, changes[1:] - changes[:-1]).reshape(x2 - x1, height)
    rows = np.flatnonzero(columns.any(axis=0))
    y1, y2 = int(rows[0]), int(rows[-1]) + 1
    return np.ascontiguousarray(columns[:, y1:y2].T), (x1, y1, x2, y2)
