"""Masks: from an object's outline into a RoI (targets), and from a RoI back into the image."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor
from torchvision.ops import roi_align

from ops import rle
from ops.structures import Bitmap, Polygons, Segmentation

SHEET_PIXELS = 1 << 22  # bitmaps are sampled side by side, on sheets of 16 MB at most


def mask_targets(masks: Sequence[Segmentation], boxes: Tensor, resolution: int) -> Tensor:
    """What the mask head should say: the part of each object that its RoI sees, m x m.

    The object is rasterised directly at the RoI's m x m cells, never as a full-size bitmap
    (Mask R-CNN, section 3.1: "the intersection between an RoI and its associated ground-truth
    mask").

    Args:
        masks: K segmentations, in the pixels of the image.
        boxes: float ``[K, 4]``, the RoI of each.
        resolution: m, 14 for C4 and 28 for the convolutional mask head.

    Returns:
        float32 ``[K, m, m]`` of 0 and 1, on the device of `boxes`.

    Raises:
        ValueError: not one mask for each box.
    """
    frames = boxes.detach().cpu().float().numpy()
    if len(masks) != len(frames):
        raise ValueError(f"{len(masks)} masks for {len(frames)} boxes; give one for each")
    targets = np.zeros((len(masks), resolution, resolution), dtype=np.float32)
    outlines = [k for k, mask in enumerate(masks) if isinstance(mask, Polygons)]
    for k in outlines:
        targets[k] = _draw_polygons(masks[k], frames[k], resolution)  # type: ignore[arg-type]
    for bitmaps, ks, which in _sheets(masks):
        targets[ks] = _sample_bitmaps(bitmaps, which, frames[ks], resolution)
    return torch.from_numpy(targets).to(boxes.device)


def _draw_polygons(mask: Polygons, frame: np.ndarray, m: int) -> np.ndarray:
    """COCO's own rasteriser on the outline moved and stretched to the m x m RoI: ``[m, m]``."""
    corner = frame[:2]
    # In float32 as detectron2 has it: a vertex at a cell's border falls on the same side.
    scale = np.float32(m) / np.maximum(frame[2:] - corner, np.float32(0.1))
    rings = [((ring - corner) * scale).ravel().tolist() for ring in mask.rings]
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(rings, m, m)))


def _sheets(
    masks: Sequence[Segmentation],
) -> Iterator[tuple[list[Bitmap], list[int], list[int]]]:
    """The different bitmaps among `masks`, a few of similar size at a time, with who asks for them.

    Yields bitmaps, positions in `masks`, and for each position the index of its bitmap.
    """
    askers: dict[int, list[int]] = {}  # several RoIs ask for the same object
    for k, mask in enumerate(masks):
        if isinstance(mask, Bitmap):
            askers.setdefault(id(mask), []).append(k)
    by_size = sorted(askers.values(), key=lambda ks: masks[ks[0]].pixels.size)  # type: ignore[union-attr]
    while by_size:
        heights, widths = zip(*(masks[ks[0]].pixels.shape for ks in by_size), strict=True)  # type: ignore[union-attr]
        tallest, widest = np.maximum.accumulate(heights), np.maximum.accumulate(widths)
        sizes = tallest * widest * np.arange(1, len(by_size) + 1)
        fitting = max(int((sizes <= SHEET_PIXELS).sum()), 1)
        group, by_size = by_size[:fitting], by_size[fitting:]
        bitmaps = [masks[ks[0]] for ks in group]
        which = [index for index, ks in enumerate(group) for _ in ks]
        yield bitmaps, [k for ks in group for k in ks], which  # type: ignore[misc]


def _sample_bitmaps(
    bitmaps: Sequence[Bitmap], which: Sequence[int], frames: np.ndarray, m: int
) -> np.ndarray:
    """RoIAlign (aligned, adaptive) of bitmap ``which[r]`` in frame r, cut at one half, as
    detectron2's BitMasks do: ``[R, m, m]``."""
    height = max(bitmap.pixels.shape[0] for bitmap in bitmaps)
    width = max(bitmap.pixels.shape[1] for bitmap in bitmaps)
    # At least one pixel of zeros around each crop: outside it there is no object, while RoIAlign
    # would repeat the border.
    sheet = np.zeros((len(bitmaps), 1, height + 2, width + 2), dtype=np.float32)
    for place, bitmap in zip(sheet[:, 0], bitmaps, strict=True):
        h, w = bitmap.pixels.shape
        place[1 : h + 1, 1 : w + 1] = bitmap.pixels
    lengths = np.array([bitmap.pixels.shape[::-1] * 2 for bitmap in bitmaps])  # w h w h
    corners = np.array([bitmap.box for bitmap in bitmaps])[which]  # [R, 4]
    origin = np.tile(corners[:, :2], 2)
    scale = lengths[which] / np.tile(corners[:, 2:] - corners[:, :2], 2)
    in_crop = (frames.astype(np.float64) - origin) * scale + 1
    rois = torch.from_numpy(np.column_stack([which, in_crop])).float()  # [R, 5]
    sampled = roi_align(torch.from_numpy(sheet), rois, (m, m), 1.0, sampling_ratio=0, aligned=True)
    return (sampled[:, 0] >= 0.5).numpy()


def paste_masks(masks: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Put each m x m probability map back into the image and cut it at one half.

    The value at a pixel's centre is the map's bilinear interpolation there, zero beyond its border
    (detectron2's paste; Mask R-CNN, section 3.1: "resized to the RoI size, and binarized at a
    threshold of 0.5"). Bilinear interpolation is separable, so an object costs two small matrix
    products over the pixels of its own box.

    Args:
        masks: float ``[D, m, m]``, probabilities.
        boxes: float ``[D, 4]``, in the pixels of the image.
        size: (height, width) of the image.

    Returns:
        bool ``[D, height, width]``, on the CPU.
    """
    pasted = torch.zeros((len(masks), *size), dtype=torch.bool)
    for canvas, (pixels, x, y) in zip(pasted, _pasted_parts(masks, boxes, size), strict=True):
        canvas[y : y + pixels.shape[0], x : x + pixels.shape[1]] = pixels
    return pasted


def encode_masks(masks: Tensor, boxes: Tensor, size: tuple[int, int]) -> list[dict[str, Any]]:
    """What `paste_masks` puts into the image, as D compressed RLEs of COCO; no mask is ever held at
    the size of the image.

    Returns:
        dicts of "size", the list [height, width], and "counts", a string.
    """
    height_width = list(size)
    return [
        {"size": height_width, "counts": rle.compress(rle.encode(pixels.numpy(), (x, y), size))}
        for pixels, x, y in _pasted_parts(masks, boxes, size)
    ]


def _pasted_parts(
    masks: Tensor, boxes: Tensor, size: tuple[int, int]
) -> Iterator[tuple[Tensor, int, int]]:
    """Of each mask the part of the image beyond which it is 0: bool ``[h, w]``, and the column and
    row of its first pixel."""
    height, width = size
    masks, boxes = masks.detach().cpu().float(), boxes.detach().cpu().float()
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.tolist(), strict=True):
        rows, columns = _pixels_near(y1, y2, height), _pixels_near(x1, x2, width)
        vertical = _interpolation(rows, y1, y2, mask.shape[0])  # [h, m]
        horizontal = _interpolation(columns, x1, x2, mask.shape[1])  # [w, m]
        yield vertical @ mask @ horizontal.T >= 0.5, columns.start, rows.start


def _pixels_near(low: float, high: float, limit: int) -> range:
    """The pixels of one axis that a map stretched over [low, high] can reach."""
    first, end = max(math.floor(low) - 1, 0), min(math.ceil(high) + 1, limit)
    return range(first, max(first, end))


def _interpolation(pixels: range, low: float, high: float, m: int) -> Tensor:
    """Linear weights ``[len(pixels), m]`` of the map's cells at the pixels' centres."""
    centres = np.arange(pixels.start, pixels.stop, dtype=np.float32) + np.float32(0.5)
    with np.errstate(all="ignore"):  # a box of hardly any width reaches no centre, at infinity
        at = (centres - low) / (high - low) * m - 0.5  # index space: cell k of the map is at k
        weights = 1 - np.abs(at[:, None] - np.arange(m, dtype=np.float32))
    return torch.from_numpy(weights.clip(min=0))
