"""Crop, resize, flip and recolour an image together with its target and proposals.

Each step is a function from `Sample` to `Sample`. Random ones use the NumPy generator that they are
given and nothing else, so a training sample is determined by its image and seed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from torch import Tensor

from ops.boxes import clip, is_nonempty
from ops.errors import InputError
from ops.structures import Bitmap, Polygons, Sample, Segmentation, Target


def resized_shape(size: tuple[int, int], short_edge: int, long_edge: int) -> tuple[int, int]:
    """(height, width) with the shorter edge at `short_edge`, unless the longer exceeds `long_edge`.

    Rounded as in detectron2, int(v + 0.5), but at least 1.
    """
    scale = short_edge / min(size)
    if max(size) * scale > long_edge:
        scale = long_edge / max(size)
    height, width = (max(int(edge * scale + 0.5), 1) for edge in size)
    return height, width


def resize(sample: Sample, size: tuple[int, int]) -> Sample:
    """Resize the sample to `size` (height, width).

    Pixels are averaged over areas if the image shrinks, and interpolated bilinearly if it grows.
    Boxes and outlines are scaled exactly; a bitmap keeps its pixels, and its box is scaled.
    """
    height, width = sample.image.shape[1:]
    if (height, width) == size:
        return sample
    shrinks = size[0] * size[1] < height * width
    pixels = cv2.resize(
        _pixels(sample), size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    )
    return _scale_and_shift(sample, _image(pixels), (size[1] / width, size[0] / height), (0.0, 0.0))


def resize_shortest_edge(sample: Sample, short_edge: int, long_edge: int) -> Sample:
    """Resize to `resized_shape`."""
    height, width = sample.image.shape[1:]
    return resize(sample, resized_shape((height, width), short_edge, long_edge))


def horizontal_flip(sample: Sample) -> Sample:
    """Mirror left and right."""
    width = sample.image.shape[2]
    image = _image(cv2.flip(_pixels(sample), 1))
    return _scale_and_shift(sample, image, (-1.0, 1.0), (float(width), 0.0))


def vertical_flip(sample: Sample) -> Sample:
    """Mirror top and bottom."""
    height = sample.image.shape[1]
    image = _image(cv2.flip(_pixels(sample), 0))
    return _scale_and_shift(sample, image, (1.0, -1.0), (0.0, float(height)))


def crop(sample: Sample, window: tuple[int, int, int, int]) -> Sample:
    """Crop the sample to `window` (x1, y1, x2, y2), whole pixels inside the image.

    Objects outside are dropped. A cut object keeps the part inside, and its box becomes the
    bounding box of that part; without masks the box itself is clipped. Parts less than a pixel wide
    or high are dropped. Proposals are clipped, and dropped if nothing of them is left.
    """
    x1, y1, x2, y2 = window
    size = (y2 - y1, x2 - x1)
    image = _image(np.ascontiguousarray(_pixels(sample)[y1:y2, x1:x2]))
    moved = _scale_and_shift(sample, image, (1.0, 1.0), (-float(x1), -float(y1)))
    target = moved.target
    boxes = clip(target.boxes, size)
    masks = list(target.masks)
    kept = is_nonempty(boxes)
    for index in (kept & (boxes != target.boxes).any(dim=1)).nonzero()[:, 0].tolist():
        if masks:
            part = cut_mask(masks[index], size)
            if part is None:
                kept[index] = False
                continue
            masks[index], boxes[index] = part[0], torch.tensor(part[1])
        kept[index] = bool((boxes[index, 2:] - boxes[index, :2]).min() >= 1)
    masks_kept = tuple(mask for mask, keep in zip(masks, kept.tolist(), strict=False) if keep)
    proposals = moved.proposals
    if proposals is not None:
        proposals = clip(proposals, size)
        proposals = proposals[is_nonempty(proposals)]
    cropped = Target(boxes[kept], target.labels[kept], masks_kept)
    return replace(moved, target=cropped, proposals=proposals)


def pad_with_mean(sample: Sample, size: tuple[int, int], offset: tuple[int, int]) -> Sample:
    """Pad the image with its mean colour to `size` (height, width), its corner at `offset` (x, y).

    Raises:
        ValueError: the image does not fit in there.
    """
    height, width = sample.image.shape[1:]
    x, y = offset
    if not (0 <= x <= size[1] - width and 0 <= y <= size[0] - height):
        raise ValueError(f"an image of {(height, width)} at {offset} is not within {size}")
    mean = sample.image.float().mean(dim=(1, 2)).round().to(torch.uint8)  # [3]
    padded = mean[:, None, None].repeat(1, *size)  # [3, H, W]
    padded[:, y : y + height, x : x + width] = sample.image
    return _scale_and_shift(sample, padded, (1.0, 1.0), (float(x), float(y)))


def random_crop(sample: Sample, edge: int, generator: np.random.Generator) -> Sample:
    """Crop a square of `edge` pixels at a random place; a shorter side of the image stays whole."""
    height, width = sample.image.shape[1:]
    y1 = int(generator.integers(max(height - edge, 0) + 1))
    x1 = int(generator.integers(max(width - edge, 0) + 1))
    return crop(sample, (x1, y1, min(x1 + edge, width), min(y1 + edge, height)))


def jitter_colour(
    sample: Sample,
    brightness: float,
    contrast: float,
    saturation: float,
    generator: np.random.Generator,
) -> Sample:
    """Scale brightness, contrast and saturation, each by a random factor in [1 - s, 1 + s].

    Contrast scales about the image's mean grey, saturation about each pixel's grey.
    """
    strengths = np.array([brightness, contrast, saturation])
    factors = generator.uniform(1 - strengths, 1 + strengths).astype(np.float32)
    pixels = _pixels(sample).astype(np.float32) * factors[0]
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[..., None]
    pixels = grey + (pixels - grey) * factors[2]
    pixels = grey.mean() + (pixels - grey.mean()) * factors[1]
    return replace(sample, image=_image(np.rint(pixels).clip(0, 255).astype(np.uint8)))


@dataclass(frozen=True)
class TrainTransform:
    """The transform of training images: crop, resize, flip, colour, in this order.

    Attributes:
        short_edges: one is drawn for each image; several make the scale augmentation. Pixels.
        long_edge: the longer edge never exceeds it. Pixels.
        flip: probability of mirroring left and right.
        vertical_flip: probability of mirroring top and bottom.
        crop: edge of a random square crop, in pixels of the original; None for no crop.
        brightness, contrast, saturation: see `jitter_colour`; 0 does not change the colours.
    """

    short_edges: Sequence[int]
    long_edge: int
    flip: float = 0.5
    vertical_flip: float = 0.0
    crop: int | None = None
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0

    def __post_init__(self) -> None:
        if isinstance(self.short_edges, int) or not self.short_edges:
            remedy = "a list of one size in pixels or more, such as [800]"
            raise _bad_setting("train_transform.short_edges", self.short_edges, remedy)
        for name, lengths in (
            ("short_edges", self.short_edges),
            ("long_edge", (self.long_edge,)),
            ("crop", (1 if self.crop is None else self.crop,)),
        ):
            if min(lengths) < 1:
                raise _bad_setting(f"train_transform.{name}", min(lengths), "pixels, at least 1")
        for name in ("flip", "vertical_flip", "brightness", "contrast", "saturation"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise _bad_setting(f"train_transform.{name}", value, "a number from 0 to 1")

    def __call__(self, sample: Sample, generator: np.random.Generator) -> Sample:
        if self.crop is not None:
            sample = random_crop(sample, self.crop, generator)
        short_edge = int(generator.choice(self.short_edges))
        sample = resize_shortest_edge(sample, short_edge, self.long_edge)
        if generator.random() < self.flip:
            sample = horizontal_flip(sample)
        if generator.random() < self.vertical_flip:
            sample = vertical_flip(sample)
        if self.brightness or self.contrast or self.saturation:
            sample = jitter_colour(
                sample, self.brightness, self.contrast, self.saturation, generator
            )
        return sample


@dataclass(frozen=True)
class EvalTransform:
    """The transform of images in evaluation: it resizes them.

    Attributes:
        short_edge: of the resized image, pixels; None scales each image by `scale` instead.
        long_edge: the longer edge never exceeds it, pixels; None sets no limit.
        scale: factor used where `short_edge` is None.
    """

    short_edge: int | None
    long_edge: int | None = None
    scale: float = 1.0

    def __post_init__(self) -> None:
        for name in ("short_edge", "long_edge", "scale"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise _bad_setting(f"eval_transform.{name}", value, "a number above 0")

    def __call__(self, sample: Sample, generator: np.random.Generator | None = None) -> Sample:
        height, width = sample.image.shape[1:]
        short = self.short_edge or max(round(min(height, width) * self.scale), 1)
        return resize_shortest_edge(sample, short, self.long_edge or 1 << 30)


def _bad_setting(name: str, value: object, remedy: str) -> InputError:
    return InputError(f"data.{name}={value}: give {remedy}")


def _pixels(sample: Sample) -> np.ndarray:
    """The image as ``[H, W, 3]``; not copied if its memory is channels-last."""
    return np.ascontiguousarray(sample.image.permute(1, 2, 0).numpy())


def _image(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1)  # [3, H, W]


def _scale_and_shift(
    sample: Sample, image: Tensor, scale: tuple[float, float], shift: tuple[float, float]
) -> Sample:
    """The sample with `image`, its target and proposals mapped by v -> scale v + shift, given for
    (x, y)."""

    def mapped(boxes: Tensor) -> Tensor:
        return torch.from_numpy(_map_boxes(boxes.double().numpy(), scale, shift)).float()

    masks = tuple(_map_mask(mask, scale, shift) for mask in sample.target.masks)
    target = replace(sample.target, boxes=mapped(sample.target.boxes), masks=masks)
    proposals = None if sample.proposals is None else mapped(sample.proposals)
    return replace(sample, image=image, target=target, proposals=proposals)


def _map_boxes(
    boxes: np.ndarray, scale: tuple[float, float], shift: tuple[float, float]
) -> np.ndarray:
    """Boxes ``[G, 4]``; where an axis is mirrored, their corners are put in order again."""
    corners = boxes.reshape(-1, 2, 2) * scale + shift  # [G, corner, axis]
    return np.sort(corners, axis=1).reshape(-1, 4)


def _map_mask(
    mask: Segmentation, scale: tuple[float, float], shift: tuple[float, float]
) -> Segmentation:
    if isinstance(mask, Polygons):
        return Polygons(tuple(ring * scale + shift for ring in mask.rings))
    x1, y1, x2, y2 = _map_boxes(np.array([mask.box]), scale, shift)[0].tolist()
    pixels = mask.pixels[:: -1 if scale[1] < 0 else 1, :: -1 if scale[0] < 0 else 1]
    return Bitmap(np.ascontiguousarray(pixels), (x1, y1, x2, y2))


Box = tuple[float, float, float, float]


def cut_mask(mask: Segmentation, size: tuple[int, int]) -> tuple[Segmentation, Box] | None:
    """The part of a mask inside an image of `size` (height, width), and its bounding box.

    None if no part is inside.
    """
    if isinstance(mask, Polygons):
        return _cut_polygons(mask, size)
    return _cut_bitmap(mask, size)


def _cut_polygons(mask: Polygons, size: tuple[int, int]) -> tuple[Polygons, Box] | None:
    """Clip each ring by the image's four edges, one after the other (Sutherland and Hodgman)."""
    rings = []
    for ring in mask.rings:
        ring = clip_ring(ring, size[::-1])
        if len(ring) >= 3 and np.ptp(ring, axis=0).min() > 0:
            rings.append(ring.clip(0, size[::-1]))  # rounding may put crossings outside
    if not rings:
        return None
    points = np.concatenate(rings)
    (x1, y1), (x2, y2) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    return Polygons(tuple(rings)), (x1, y1, x2, y2)


def clip_ring(ring: np.ndarray, limits: tuple[float, ...]) -> np.ndarray:
    """The part of a ring ``[P, 2]`` between 0 and `limits` (x, y)."""
    for axis, limit in enumerate(limits):
        ring = _clip_at_line(ring, ring[:, axis])
        ring = _clip_at_line(ring, limit - ring[:, axis])
    return ring


def _clip_at_line(ring: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """The part of a ring ``[P, 2]`` inside a line, at distances `depth` ``[P]`` (< 0: outside).

    A ring that the line cuts into several pieces stays one ring: its pieces are joined along the
    line, which adds no area.
    """
    if len(ring) == 0 or depth.min() >= 0:
        return ring
    following, next_depth = np.roll(ring, -1, axis=0), np.roll(depth, -1)
    inside = depth >= 0
    crosses = inside != (next_depth >= 0)
    fraction = depth / np.where(crosses, depth - next_depth, 1)
    crossing = ring + fraction[:, None] * (following - ring)
    corners = np.stack((ring, crossing), axis=1)  # [P, 2 candidates, 2]
    return corners[np.stack((inside, crosses), axis=1)]


def _cut_bitmap(mask: Bitmap, size: tuple[int, int]) -> tuple[Bitmap, Box] | None:
    """The pixels whose centres lie inside the image."""
    x1, y1, x2, y2 = mask.box
    height, width = mask.pixels.shape
    pixel_w, pixel_h = (x2 - x1) / width, (y2 - y1) / height
    rows = y1 + (np.arange(height) + 0.5) * pixel_h
    columns = x1 + (np.arange(width) + 0.5) * pixel_w
    inside = mask.pixels.astype(bool)
    inside &= ((rows > 0) & (rows < size[0]))[:, None] & ((columns > 0) & (columns < size[1]))
    y, x = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    if not len(y):
        return None
    top, bottom, left, right = int(y[0]), int(y[-1]) + 1, int(x[0]), int(x[-1]) + 1
    box = (x1 + left * pixel_w, y1 + top * pixel_h, x1 + right * pixel_w, y1 + bottom * pixel_h)
    return Bitmap(mask.pixels[top:bottom, left:right], box), box
