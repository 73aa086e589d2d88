"""Pictures of objects: boxes, masks, class names and scores drawn over the image.

Pictures are uint8 RGB ``[H, W, 3]``. A small image is enlarged by a whole factor before anything is
drawn on it, so that the text is legible; lines and letters grow with the picture.
"""

import colorsys
import math
import zlib
from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ops.masks import mask_targets, paste_masks
from ops.structures import Detections, Sample, Target

Colour = tuple[int, int, int]  # RGB
Area = tuple[int, int, int, int]  # x1, y1, x2, y2 in whole pixels of the picture
Patch = tuple[Area, np.ndarray]  # where a mask lies in the image, and its pixels there, bool [h, w]

ENOUGH = 640  # a picture's longer side, in pixels, at which text is easy to read
LEAST_LETTERS = 0.4  # the smallest letters that are, in the font's own size
WHITE: Colour = (255, 255, 255)
INK: Colour = (24, 24, 24)
FONT = cv2.FONT_HERSHEY_SIMPLEX

TRUTH_RESOLUTION = 112  # cells across a true object's outline: finer than a pixel for most
HUES = 24
TINTS = ((0.85, 1.0), (0.5, 1.0), (0.9, 0.72), (0.45, 0.78))  # saturation, value


def class_colours(names: Sequence[str]) -> list[Colour]:
    """A colour for each class, found from its name, so that it is the same in every picture.

    Up to 96 classes all differ: one whose colour is taken (in alphabetical order) moves on.
    """
    slots = HUES * len(TINTS)
    taken: dict[str, int] = {}
    for name in sorted(set(names)):
        slot = zlib.crc32(name.encode()) % slots
        if len(taken) < slots:
            while slot in taken.values():
                slot = (slot + 37) % slots  # shares no factor with 96: visits every slot
        taken[name] = slot
    return [_colour(taken[name]) for name in names]


def _colour(slot: int) -> Colour:
    tint, hue = divmod(slot, HUES)
    red, green, blue = colorsys.hsv_to_rgb(hue / HUES, *TINTS[tint])
    return round(255 * red), round(255 * green), round(255 * blue)


def draw_objects(
    image: np.ndarray,
    boxes: ArrayLike | Tensor,
    labels: ArrayLike | Tensor,
    names: Sequence[str],
    *,
    scores: ArrayLike | Tensor | None = None,
    masks: ArrayLike | Tensor | None = None,
    enlarge: bool = True,
) -> np.ndarray:
    """Draw objects over a copy of `image`.

    A name is left out where it would cover another (the highest score comes first), and everywhere
    when there is one class only.

    Args:
        image: uint8 RGB ``[H, W, 3]``.
        boxes: ``[D, 4]``, x1 y1 x2 y2 in the image's pixels.
        labels: ``[D]``, indices into `names`.
        names: of the classes.
        scores: ``[D]``, 0 to 1, or None.
        masks: bool ``[D, H, W]``, or None.
        enlarge: whether a small image may grow.

    Returns:
        uint8 RGB ``[k H, k W, 3]`` with a whole k, 1 for images of more than 320 pixels.
    """
    patches = None if masks is None else [patch_of(mask) for mask in _array(masks)]
    return _draw(image, boxes, labels, names, scores=scores, patches=patches, enlarge=enlarge)


def _draw(
    image: np.ndarray,
    boxes: ArrayLike | Tensor,
    labels: ArrayLike | Tensor,
    names: Sequence[str],
    *,
    scores: ArrayLike | Tensor | None = None,
    patches: Sequence[Patch] | None = None,
    crowds_from: int | None = None,
    enlarge: bool = True,
) -> np.ndarray:
    """`draw_objects` with masks as patches; from index `crowds_from` on they are crowd regions."""
    factor = max(1, ENOUGH // max(image.shape[:2])) if enlarge else 1
    picture = _resize(image, factor) if factor > 1 else np.ascontiguousarray(image).copy()
    corners = np.rint(_array(boxes).reshape(-1, 4) * factor).astype(int)
    kinds = [int(label) for label in _array(labels)]
    colours = class_colours(names)
    order = _drawing_order(corners, None if scores is None else _array(scores))
    crowds = range(len(kinds) if crowds_from is None else crowds_from, len(kinds))
    if patches is not None:
        for k in sorted(order, key=lambda k: -int(patches[k][1].sum())):
            draw_mask(picture, patches[k], factor, colours[kinds[k]], hatched=k in crowds)
    for k in reversed(order):
        draw_box(picture, corners[k], colours[kinds[k]])
    texts = [
        "crowd: " * (k in crowds)
        + _label(names, kind, None if scores is None else float(_array(scores)[k]))
        for k, kind in enumerate(kinds)
    ]
    draw_labels(
        picture,
        [
            (texts[k].rstrip(": "), as_area(corners[k]), colours[kinds[k]])
            for k in order
            if texts[k]
        ],
    )
    return picture


def _array(values: ArrayLike | Tensor) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def _resize(image: np.ndarray, factor: float) -> np.ndarray:
    height, width = image.shape[:2]
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC)


def _drawing_order(corners: np.ndarray, scores: np.ndarray | None) -> list[int]:
    """Who comes first when two want the same place: the higher score, or the larger box."""
    if scores is None:
        scores = (corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1])
    return np.argsort(-scores, kind="stable").tolist()


def _label(names: Sequence[str], kind: int, score: float | None) -> str:
    name = names[kind] if len(names) > 1 else ""
    return f"{name} {'' if score is None else f'{score:.2f}'}".strip()


def caption(picture: np.ndarray, text: str) -> np.ndarray:
    """The picture under a white strip with a line of text."""
    height = max(18, picture.shape[1] // 24)
    strip = np.full((height, picture.shape[1], 3), 255, np.uint8)
    size = height / 42
    while (
        size > 0.2 and cv2.getTextSize(text, FONT, size, 1)[0][0] > picture.shape[1] - height // 2
    ):
        size *= 0.9
    baseline = round(height * 0.68)
    cv2.putText(strip, text, (height // 4, baseline), FONT, size, INK, 1, cv2.LINE_AA)
    return np.concatenate([strip, picture])


def grid(pictures: Sequence[np.ndarray], columns: int | None = None, gap: int = 8) -> np.ndarray:
    """Pictures of any sizes in rows on white; `columns` None makes the grid about square."""
    if not pictures:
        raise ValueError("grid: no pictures")
    columns = columns or math.ceil(math.sqrt(len(pictures)))
    cell_height = max(p.shape[0] for p in pictures)
    cell_width = max(p.shape[1] for p in pictures)
    rows = math.ceil(len(pictures) / columns)
    columns = min(columns, len(pictures))
    size = (rows * (cell_height + gap) - gap, columns * (cell_width + gap) - gap, 3)
    sheet = np.full(size, 255, np.uint8)
    for index, picture in enumerate(pictures):
        row, column = divmod(index, columns)
        y, x = row * (cell_height + gap), column * (cell_width + gap)
        sheet[y : y + picture.shape[0], x : x + picture.shape[1]] = picture
    return sheet


def draw_target(
    image: np.ndarray,
    target: Target,
    names: Sequence[str],
    *,
    crowds: Target | None = None,
    resolution: int = TRUTH_RESOLUTION,
) -> np.ndarray:
    """What is true of an image, drawn over it.

    Args:
        image: uint8 RGB ``[H, W, 3]``.
        target: its objects, in its pixels.
        names: of the classes.
        crowds: its crowd regions, hatched; None draws none.
        resolution: cells across each object's mask. With the mask head's own, the picture shows
            what is learned: the outline rasterised in the object's box and put back.
    """
    masks = _true_masks(target, resolution)
    if crowds is None or not len(crowds.labels):
        return _draw_stretched(image, target.boxes, target.labels, names, masks=masks)
    size = (image.shape[0], image.shape[1])
    patches = _patches(masks, target.boxes, size)
    hatched = _patches(_true_masks(crowds, TRUTH_RESOLUTION), crowds.boxes, size)
    return _draw(
        image,
        torch.cat([target.boxes, crowds.boxes]),
        torch.cat([target.labels, crowds.labels]),
        names,
        patches=patches + hatched,
        crowds_from=len(target.labels),
    )


def draw_detections(
    image: np.ndarray,
    detections: Detections,
    names: Sequence[str],
    *,
    min_score: float = 0.5,
    enlarge: bool = True,
) -> np.ndarray:
    """The detections of at least `min_score`, drawn over the image whose pixels they are in."""
    found = detections.cpu()
    kept = found.scores >= min_score
    return _draw_stretched(
        image,
        found.boxes[kept],
        found.labels[kept],
        names,
        scores=found.scores[kept],
        masks=None if found.masks is None else found.masks[kept],
        enlarge=enlarge,
    )


def truth_beside_prediction(
    sample: Sample, detections: Detections, names: Sequence[str], *, min_score: float = 0.5
) -> np.ndarray:
    """The truth on the left, the detections on the right, each under a caption.

    Args:
        sample: the image as the network saw it, and its target in the same pixels. A larger one
            than 640 pixels is shown at that size.
        detections: in the pixels of the original image.
        names: of the classes.
        min_score: detections below it are not drawn.
    """
    seen = sample.image.permute(1, 2, 0).cpu().numpy()
    shown = _resize(seen, ENOUGH / max(seen.shape)) if max(seen.shape) > ENOUGH else seen
    target, found = sample.target, detections.cpu()
    truth = _draw_stretched(
        shown,
        target.boxes.cpu() * _stretch(seen.shape, shown),
        target.labels,
        names,
        masks=_true_masks(target, TRUTH_RESOLUTION),
    )
    found = replace(found, boxes=found.boxes * _stretch(sample.original_size, shown))
    prediction = draw_detections(shown, found, names, min_score=min_score)
    count = int((found.scores >= min_score).sum())
    left = caption(truth, f"image {sample.image_id}, truth: {len(target.boxes)}")
    right = caption(prediction, f"prediction, score >= {min_score:g}: {count}")
    return grid([left, right], columns=2)


def _true_masks(target: Target, resolution: int) -> Tensor | None:
    """float32 ``[G, m, m]``: the objects within their own boxes, whatever the picture's size."""
    if not target.masks:
        return None
    return mask_targets(target.masks, target.boxes.cpu(), resolution)


def _patches(masks: Tensor | None, boxes: Tensor, size: tuple[int, int]) -> list[Patch]:
    """One for each box: what its mask covers, or nothing where masks are not known."""
    if masks is None:
        return [((0, 0, 0, 0), np.zeros((0, 0), bool))] * len(boxes)
    return pasted_patches(masks, boxes, size)


def _stretch(size: Sequence[int], picture: np.ndarray) -> Tensor:
    """What boxes in an image of (height, width) are multiplied by to lie in the picture."""
    x, y = picture.shape[1] / size[1], picture.shape[0] / size[0]
    return torch.tensor([x, y, x, y])


def _draw_stretched(
    image: np.ndarray,
    boxes: Tensor,
    labels: Tensor,
    names: Sequence[str],
    *,
    scores: Tensor | None = None,
    masks: Tensor | None = None,
    enlarge: bool = True,
) -> np.ndarray:
    """`draw_objects` with masks ``[D, m, m]`` that fill their boxes."""
    patches = _patches(masks, boxes, (image.shape[0], image.shape[1]))
    return _draw(image, boxes, labels, names, scores=scores, patches=patches, enlarge=enlarge)


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
