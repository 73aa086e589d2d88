"""Masks: from an object's outline into a RoI (targets), and from a RoI back into the image."""

from collections.abc import Sequence

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor
from torchvision.ops import roi_align

from ops.structures import Bitmap, Polygons, Segmentation


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
    """
    frames = boxes.detach().cpu().float().numpy()
    targets = np.zeros((len(masks), resolution, resolution), dtype=np.float32)
    # Several RoIs ask for the same object: each is prepared once.
    askers: dict[int, list[int]] = {}
    for k, (mask, _) in enumerate(zip(masks, frames, strict=True)):
        askers.setdefault(id(mask), []).append(k)
    for ks in askers.values():
        mask = masks[ks[0]]
        draw = _draw_polygons if isinstance(mask, Polygons) else _sample_bitmap
        targets[ks] = draw(mask, frames[ks], resolution)  # type: ignore[arg-type]
    return torch.from_numpy(targets).to(boxes.device)


def _draw_polygons(mask: Polygons, frames: np.ndarray, m: int) -> np.ndarray:
    """COCO's own rasteriser on the outline moved and stretched to each m x m RoI: ``[R, m, m]``."""
    drawn = []
    for frame in frames:
        corner = frame[:2]
        # In float32 as detectron2 has it: a vertex at a cell's border falls on the same side.
        scale = np.float32(m) / np.maximum(frame[2:] - corner, np.float32(0.1))
        rings = [((ring - corner) * scale).ravel().tolist() for ring in mask.rings]
        drawn.append(coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(rings, m, m))))
    return np.stack(drawn)


def _sample_bitmap(mask: Bitmap, frames: np.ndarray, m: int) -> np.ndarray:
    """RoIAlign (aligned, adaptive) of the bitmap, cut at one half, as detectron2's BitMasks do."""
    height, width = mask.pixels.shape
    x1, y1, x2, y2 = mask.box
    scale = np.array([width / (x2 - x1), height / (y2 - y1)] * 2)
    # One pixel of zeros around the crop: outside it there is no object, while RoIAlign would
    # repeat the border.
    padded = torch.from_numpy(np.pad(mask.pixels, 1)).float()[None, None]
    in_crop = (frames.astype(np.float64) - [x1, y1, x1, y1]) * scale + 1
    rois = torch.from_numpy(in_crop).float()
    sampled = roi_align(padded, [rois], (m, m), 1.0, sampling_ratio=0, aligned=True)
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
    height, width = size
    masks, boxes = masks.detach().cpu().float(), boxes.detach().cpu().float()
    pasted = torch.zeros((len(masks), height, width), dtype=torch.bool)
    for canvas, mask, (x1, y1, x2, y2) in zip(pasted, masks, boxes.tolist(), strict=True):
        rows = _pixels_near(y1, y2, height)
        columns = _pixels_near(x1, x2, width)
        vertical = _interpolation(rows, y1, y2, mask.shape[0])  # [rows, m]
        horizontal = _interpolation(columns, x1, x2, mask.shape[1])  # [columns, m]
        values = vertical @ mask @ horizontal.T  # [rows, columns]
        canvas[rows.start : rows.stop, columns.start : columns.stop] = values >= 0.5
    return pasted


def _pixels_near(low: float, high: float, limit: int) -> range:
    """The pixels of one axis that a map stretched over [low, high] can reach."""
    return range(max(int(np.floor(low)) - 1, 0), min(int(np.ceil(high)) + 1, limit))


def _interpolation(pixels: range, low: float, high: float, m: int) -> Tensor:
    """Linear weights ``[len(pixels), m]`` of the map's cells at the pixels' centres."""
    centres = torch.arange(pixels.start, max(pixels.stop, pixels.start), dtype=torch.float32) + 0.5
    at = (centres - low) / (high - low) * m - 0.5  # index space: cell k of the map is at k
    return (1 - (at[:, None] - torch.arange(m)).abs()).clamp(min=0)
