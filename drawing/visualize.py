"""Boxes, masks, class names and scores drawn over images.

Pictures are uint8 RGB ``[H, W, 3]``. A small image is first enlarged by a whole factor, so that the
text is legible; lines and letters grow with the picture.
"""

import colorsys
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import replace

import cv2
import numpy as np
import torch
from torch import Tensor

from ops.masks import mask_targets, paste_masks
from ops.structures import Detections, Sample, Target

Colour = tuple[int, int, int]  # RGB
Rectangle = tuple[int, int, int, int]  # x1, y1, x2, y2 in whole pixels
Patch = tuple[Rectangle, np.ndarray]  # a part of the image, and a mask's pixels there, bool [h, w]

LEGIBLE_SIZE = 640  # longer side of a picture in pixels, at which text is easy to read
MIN_FONT_SCALE = 0.4  # smallest legible letters, as OpenCV's font scale
WHITE: Colour = (255, 255, 255)
INK: Colour = (24, 24, 24)
FONT = cv2.FONT_HERSHEY_SIMPLEX

TRUTH_RESOLUTION = 112  # cells across the mask of a true object, finer than a pixel for most
HUES = 24
TINTS = ((0.85, 1.0), (0.5, 1.0), (0.9, 0.72), (0.45, 0.78))  # saturation, value


def class_colours(names: Sequence[str]) -> list[Colour]:
    """A colour for each class, derived from its name, so that it is the same in every picture.

    Up to 96 classes have different colours: in alphabetical order, each takes the next free one.
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
    boxes: Tensor | Sequence[Sequence[float]],
    labels: Tensor | Sequence[int],
    names: Sequence[str],
    *,
    scores: Tensor | Sequence[float] | None = None,
    masks: Tensor | Sequence[Tensor] | None = None,
    crowds: int = 0,
    enlarge: bool = True,
) -> np.ndarray:
    """Draw D objects over a copy of `image`.

    A name is left out if it would cover another (the highest score comes first), and all are if
    there is only one class.

    Args:
        image: uint8 RGB ``[H, W, 3]``.
        boxes: ``[D, 4]``, x1 y1 x2 y2 in the image's pixels.
        labels: ``[D]``, indices into `names`.
        names: of the classes.
        scores: ``[D]``, 0 to 1, or None.
        masks: of each object, probabilities ``[m, m]`` inside its box; None or empty for no masks.
        crowds: the last so many objects are crowd regions, which are hatched.
        enlarge: whether a small image may be enlarged.

    Returns:
        uint8 RGB ``[k H, k W, 3]`` with a whole k, which is 1 for images of more than 320 pixels.
    """
    factor = max(1, LEGIBLE_SIZE // max(image.shape[:2])) if enlarge else 1
    picture = _resize(image, factor) if factor > 1 else np.ascontiguousarray(image).copy()
    boxes = torch.as_tensor(boxes).detach().cpu().reshape(-1, 4)
    corners = np.rint(boxes.numpy() * factor).astype(int)
    values = None if scores is None else torch.as_tensor(scores).detach().cpu().numpy()
    kinds = torch.as_tensor(labels).tolist()
    colours = class_colours(names)
    order = _drawing_order(corners, values)
    is_crowd = [k >= len(kinds) - crowds for k in range(len(kinds))]
    if masks is not None and len(masks):
        patches = _paste(masks, boxes, (image.shape[0], image.shape[1]))
        for k in sorted(order, key=lambda k: -int(patches[k][1].sum())):
            draw_mask(picture, patches[k], factor, colours[kinds[k]], hatched=is_crowd[k])
    for k in reversed(order):
        draw_box(picture, corners[k], colours[kinds[k]])
    texts = {}
    for k in order:
        name = names[kinds[k]] if len(names) > 1 else ""
        score = "" if values is None else f"{values[k]:.2f}"
        texts[k] = f"{'crowd: ' * is_crowd[k]}{name} {score}".strip().rstrip(": ")
    draw_labels(
        picture, [(t, rectangle(corners[k]), colours[kinds[k]]) for k, t in texts.items() if t]
    )
    return picture


def _resize(image: np.ndarray, factor: float) -> np.ndarray:
    height, width = image.shape[:2]
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC)


def _drawing_order(corners: np.ndarray, scores: np.ndarray | None) -> list[int]:
    """Indices by priority: highest score first, or largest box first if there are no scores."""
    if scores is None:
        scores = (corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1])
    return np.argsort(-scores, kind="stable").tolist()


def caption(picture: np.ndarray, text: str) -> np.ndarray:
    """The picture below a white strip with a line of text."""
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


def draw_target(
    image: np.ndarray,
    target: Target,
    names: Sequence[str],
    *,
    crowds: Target | None = None,
    resolution: int = TRUTH_RESOLUTION,
) -> np.ndarray:
    """The ground truth of an image, drawn over it.

    Args:
        image: uint8 RGB ``[H, W, 3]``.
        target: its objects, in its pixels.
        names: of the classes.
        crowds: its crowd regions, which are hatched; None draws none.
        resolution: cells across each object's mask. With the resolution of the mask head, the
            masks are its targets: outlines rasterised in the object's box.
    """
    boxes, labels, masks = target.boxes, target.labels, [*_true_masks(target, resolution)]
    if crowds is not None:
        boxes, labels = torch.cat([boxes, crowds.boxes]), torch.cat([labels, crowds.labels])
        masks += _true_masks(crowds, TRUTH_RESOLUTION)
    number = 0 if crowds is None else len(crowds.labels)
    return draw_objects(image, boxes, labels, names, masks=masks, crowds=number)


def draw_detections(
    image: np.ndarray,
    detections: Detections,
    names: Sequence[str],
    *,
    min_score: float = 0.5,
    enlarge: bool = True,
) -> np.ndarray:
    """The detections of at least `min_score`, drawn over the image whose pixels they are in."""
    shown = detections[detections.scores >= min_score].cpu()
    return draw_objects(
        image,
        shown.boxes,
        shown.labels,
        names,
        scores=shown.scores,
        masks=shown.masks,
        enlarge=enlarge,
    )


def truth_beside_prediction(
    sample: Sample, detections: Detections, names: Sequence[str], *, min_score: float = 0.5
) -> np.ndarray:
    """The ground truth on the left, the detections on the right, each under a caption.

    Args:
        sample: the image as the network saw it, with its target. It is shown with at most 640
            pixels on its longer side.
        detections: in the pixels of the original image.
        names: of the classes.
        min_score: detections below it are not drawn.
    """
    image = sample.image.permute(1, 2, 0).cpu().numpy()
    longer = max(image.shape)
    shown = _resize(image, LEGIBLE_SIZE / longer) if longer > LEGIBLE_SIZE else image
    target = sample.target
    truth = draw_objects(
        shown,
        target.boxes.cpu() * _box_scale(image.shape, shown),
        target.labels,
        names,
        masks=_true_masks(target, TRUTH_RESOLUTION),
    )
    detections = detections.cpu()
    scaled = replace(detections, boxes=detections.boxes * _box_scale(sample.original_size, shown))
    prediction = draw_detections(shown, scaled, names, min_score=min_score)
    count = int((detections.scores >= min_score).sum())
    left = caption(truth, f"image {sample.image_id}, truth: {len(target.boxes)}")
    right = caption(prediction, f"prediction, score >= {min_score:g}: {count}")
    gap = np.full((left.shape[0], 8, 3), 255, np.uint8)
    return np.concatenate([left, gap, right], axis=1)


def _true_masks(target: Target, resolution: int) -> Sequence[Tensor]:
    """The objects inside their own boxes, ``[m, m]`` each; empty for a target without masks."""
    if not target.masks:
        return ()
    return tuple(mask_targets(target.masks, target.boxes.cpu(), resolution))


def _box_scale(size: Sequence[int], picture: np.ndarray) -> Tensor:
    """The factors that scale boxes from an image of `size` (height, width, ...) to the picture."""
    x, y = picture.shape[1] / size[1], picture.shape[0] / size[0]
    return torch.tensor([x, y, x, y])


def rectangle(corners: np.ndarray) -> Rectangle:
    x1, y1, x2, y2 = (int(value) for value in corners)
    return x1, y1, x2, y2


def _line_width(picture: np.ndarray) -> int:
    longer = max(picture.shape[:2])
    return max(1 if longer <= LEGIBLE_SIZE // 2 else 2, round(longer / 400))


def _paste(masks: Iterable[Tensor], boxes: Tensor, size: tuple[int, int]) -> list[Patch]:
    """Paste masks ``[m, m]`` into their boxes in an image of `size`, without full-size masks."""
    patches = []
    limit = torch.tensor([size[1], size[0]] * 2)
    for mask, box in zip(masks, boxes, strict=True):
        near = torch.cat([box[:2].floor() - 1, box[2:].ceil() + 1]).clamp(min=0).minimum(limit)
        x1, y1, x2, y2 = rectangle(near.numpy())
        in_patch = box - torch.tensor([x1, y1, x1, y1])
        pasted = paste_masks(mask[None], in_patch[None], (max(y2 - y1, 0), max(x2 - x1, 0)))[0]
        patches.append(((x1, y1, x2, y2), pasted.numpy()))
    return patches


def draw_mask(
    picture: np.ndarray, patch: Patch, factor: int, colour: Colour, *, hatched: bool
) -> None:
    """A translucent fill, or stripes for a crowd region, and an opaque outline."""
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
        # Dark next to bright, as around a box: visible on every background.
        rows, columns = np.indices(inside.shape)
        phase = (rows + y + columns + x) % (8 * width)
        under[inside & (phase < 3 * width)] = INK
        under[inside & (phase >= width // 2) & (phase < 2 * width)] = colour
    else:
        under[inside] = (0.65 * under[inside] + 0.35 * np.array(colour)).astype(np.uint8)
    outlines, _ = cv2.findContours(shape, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, outlines, -1, colour, width, cv2.LINE_AA, None, 1 << 30, (x, y))


def draw_box(picture: np.ndarray, corners: np.ndarray, colour: Colour) -> None:
    """A line in the class's colour between two dark ones, visible on every background."""
    x1, y1, x2, y2 = rectangle(corners)
    width = _line_width(picture)
    for line, ink in ((width + 2, INK), (width, colour)):
        cv2.rectangle(picture, (x1, y1), (x2 - 1, y2 - 1), ink, line)


def draw_labels(picture: np.ndarray, labels: Sequence[tuple[str, Rectangle, Colour]]) -> None:
    """Texts at their boxes; one that has no free place is left out."""
    used: list[Rectangle] = []
    size = max(0.42 * max(picture.shape[:2]) / LEGIBLE_SIZE, MIN_FONT_SCALE)
    for text, box, colour in labels:
        stamp = _text_stamp(text, size)
        height, width = stamp.shape
        place = _free_place(box, (width, height), picture.shape, used)
        if place is not None:
            used.append((*place, place[0] + width, place[1] + height))
            _stamp_text(picture, stamp, place, colour)


def _free_place(
    box: Rectangle, size: tuple[int, int], picture: tuple[int, ...], used: Sequence[Rectangle]
) -> tuple[int, int] | None:
    """The corner of the first place above, in or below the box without other text, or None."""
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
    """The letters' coverage, uint8 ``[h, w]``, with space for an outline around them."""
    weight = max(1, round(1.6 * size))
    (width, height), below = cv2.getTextSize(text, FONT, size, weight)
    room = 2 + weight
    stamp = np.zeros((height + below + 2 * room, width + 2 * room), np.uint8)
    cv2.putText(stamp, text, (room, room + height), FONT, size, 255, weight, cv2.LINE_AA)
    return stamp


def _stamp_text(
    picture: np.ndarray, stamp: np.ndarray, place: tuple[int, int], colour: Colour
) -> None:
    """White letters with a dark outline on translucent `colour`, cut at the picture's border."""
    x, y = place
    under = picture[y : y + stamp.shape[0], x : x + stamp.shape[1]]
    letters = stamp[: under.shape[0], : under.shape[1], None] / 255
    # The letters dilated by two pixels: a bolder font would also be wider.
    grown = cv2.dilate(stamp, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5)))
    outline = grown[: under.shape[0], : under.shape[1], None] / 255
    mixed = 0.5 * under + 0.5 * np.array(colour)
    mixed = mixed * (1 - outline) + np.array(INK) * outline
    under[...] = (mixed * (1 - letters) + np.array(WHITE) * letters).astype(np.uint8)
