"""Marks on a picture that no background swallows: masks, boxes and their names.

Pictures are uint8 RGB ``[H, W, 3]`` and are drawn on in place; lines and letters grow with them.
"""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor

from ops.masks import paste_masks

Colour = tuple[int, int, int]  # RGB
Area = tuple[int, int, int, int]  # x1, y1, x2, y2 in whole pixels of the picture
Patch = tuple[Area, np.ndarray]  # where a mask lies in the image, and its pixels there, bool [h, w]

ENOUGH = 640  # a picture's longer side, in pixels, at which text is easy to read
LEAST_LETTERS = 0.4  # the smallest letters that are, in the font's own size
WHITE: Colour = (255, 255, 255)
INK: Colour = (24, 24, 24)
FONT = cv2.FONT_HERSHEY_SIMPLEX


def as_area(corners: np.ndarray) -> Area:
    x1, y1, x2, y2 = (int(value) for value in corners)
    return x1, y1, x2, y2


def _line_width(picture: np.ndarray) -> int:
    longer = max(picture.shape[:2])
    return max(1 if longer <= ENOUGH // 2 else 2, round(longer / 400))


def patch_of(mask: np.ndarray) -> Patch:
    """The part of a mask ``[H, W]`` around what it covers."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return (0, 0, 0, 0), mask[:0, :0].astype(bool)
    x1, y1, x2, y2 = int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
    return (x1, y1, x2, y2), mask[y1:y2, x1:x2].astype(bool)


def pasted_patches(masks: Tensor, boxes: Tensor, size: tuple[int, int]) -> list[Patch]:
    """Maps ``[D, m, m]`` that fill their boxes, put into an image of `size`; no full-size masks."""
    patches = []
    limit = torch.tensor([size[1], size[0]] * 2)
    for mask, box in zip(masks, boxes.detach().cpu(), strict=True):
        near = torch.cat([box[:2].floor() - 1, box[2:].ceil() + 1]).clamp(min=0).minimum(limit)
        x1, y1, x2, y2 = (int(value) for value in near)
        here = box - torch.tensor([x1, y1, x1, y1])
        pasted = paste_masks(mask[None], here[None], (max(y2 - y1, 0), max(x2 - x1, 0)))[0]
        patches.append(((x1, y1, x2, y2), pasted.numpy()))
    return patches


def draw_mask(
    picture: np.ndarray, patch: Patch, factor: int, colour: Colour, *, hatched: bool
) -> None:
    """A translucent fill, or stripes for a crowd, and an opaque outline."""
    (x1, y1, x2, y2), mask = patch
    if not mask.any():
        return
    size = (factor * (x2 - x1), factor * (y2 - y1))
    shape = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    x, y = factor * x1, factor * y1
    under = picture[y : y + size[1], x : x + size[0]]
    inside = shape.astype(bool)
    width = _line_width(picture)
    if hatched:
        # Dark beside bright, as around a box, so that stripes are seen on every background.
        rows, columns = np.indices(inside.shape)
        phase = (rows + y + columns + x) % (8 * width)
        under[inside & (phase < 3 * width)] = INK
        under[inside & (phase >= width // 2) & (phase < 2 * width)] = colour
    else:
        under[inside] = (0.65 * under[inside] + 0.35 * np.array(colour)).astype(np.uint8)
    outlines, _ = cv2.findContours(shape, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, outlines, -1, colour, width, cv2.LINE_AA, None, 1 << 30, (x, y))


def draw_box(picture: np.ndarray, corners: np.ndarray, colour: Colour) -> None:
    """A line in the class's colour between two dark ones, so that no background swallows it."""
    x1, y1, x2, y2 = as_area(corners)
    width = _line_width(picture)
    for line, ink in ((width + 2, INK), (width, colour)):
        cv2.rectangle(picture, (x1, y1), (x2 - 1, y2 - 1), ink, line)


def draw_labels(picture: np.ndarray, labels: Sequence[tuple[str, Area, Colour]]) -> None:
    used: list[Area] = []
    size = max(0.42 * max(picture.shape[:2]) / ENOUGH, LEAST_LETTERS)
    for text, box, colour in labels:
        stamp = _text_stamp(text, size)
        height, width = stamp.shape
        place = _free_place(box, (width, height), picture.shape, used)
        if place is not None:
            used.append((*place, place[0] + width, place[1] + height))
            _stamp_text(picture, stamp, place, colour)


def _free_place(
    box: Area, size: tuple[int, int], picture: tuple[int, ...], used: Sequence[Area]
) -> tuple[int, int] | None:
    """The corner of the first place on, in or under the box where no other text is, or None."""
    (x1, y1, x2, y2), (width, height) = box, size
    wanted = [(x1, y1 - height), (x1, y1 + 1), (x2 - width, y2 - height), (x1, y2)]
    for x, y in wanted:
        x = min(max(x, 0), max(picture[1] - width, 0))
        y = min(max(y, 0), max(picture[0] - height, 0))
        if not any(
            x < right and left < x + width and y < bottom and top < y + height
            for left, top, right, bottom in used
        ):
            return x, y
    return None


def _text_stamp(text: str, size: float) -> np.ndarray:
    """The letters' coverage, uint8 ``[h, w]``, with room for an outline around them."""
    weight = max(1, round(1.6 * size))
    (width, height), below = cv2.getTextSize(text, FONT, size, weight)
    room = 2 + weight
    stamp = np.zeros((height + below + 2 * room, width + 2 * room), np.uint8)
    cv2.putText(stamp, text, (room, room + height), FONT, size, 255, weight, cv2.LINE_AA)
    return stamp


def _stamp_text(
    picture: np.ndarray, stamp: np.ndarray, place: tuple[int, int], colour: Colour
) -> None:
    """White letters in a dark outline over a veil of `colour`, cut at the picture's border."""
    x, y = place
    under = picture[y : y + stamp.shape[0], x : x + stamp.shape[1]]
    letters = stamp[: under.shape[0], : under.shape[1], None] / 255
    # The letters themselves grown by a pixel or two: a thicker font would also be wider.
    grown = cv2.dilate(stamp, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5)))
    outline = grown[: under.shape[0], : under.shape[1], None] / 255
    mixed = 0.5 * under + 0.5 * np.array(colour)
    mixed = mixed * (1 - outline) + np.array(INK) * outline
    under[...] = (mixed * (1 - letters) + np.array(WHITE) * letters).astype(np.uint8)
