"""Arithmetic on boxes: area, overlap, deltas, clipping. Frame and format: `ops.structures`."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from ops.structures import Detections

# A box grows by at most this factor (of 16 px, to 1000 px) in one regression step; beyond it an
# untrained regressor would overflow exp().
MAX_LOG_SCALE = math.log(1000.0 / 16)


def area(boxes: Tensor) -> Tensor:
    """Area in square pixels: ``[..., 4] -> [...]``. Reversed corners give a signed product."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of every pair: ``[P, 4] x [Q, 4] -> [P, Q]``, 0 where they miss."""
    x1, y1, x2, y2 = boxes[:, None].unbind(-1)  # each [P, 1]
    u1, v1, u2, v2 = others[None].unbind(-1)  # each [1, Q]
    width = (torch.minimum(x2, u2) - torch.maximum(x1, u1)).clamp_(min=0)  # [P, Q]
    height = (torch.minimum(y2, v2) - torch.maximum(y1, v1)).clamp_(min=0)
    intersection = width.mul_(height)
    union = area(boxes)[:, None] + area(others)[None] - intersection
    return torch.where(intersection > 0, intersection / union, torch.zeros_like(intersection))


def encode(boxes: Tensor, anchors: Tensor, weights: tuple[float, float, float, float]) -> Tensor:
    """The deltas that carry `anchors` onto `boxes`, both ``[K, 4]``; result ``[K, 4]``.

    ``(wx (x - xa) / wa, wy (y - ya) / ha, ww log(w / wa), wh log(h / ha))`` with centres x, y:
    R-CNN (Girshick et al., 2014), appendix C, eq. 6 to 9, times the weights of Fast R-CNN's code.
    """
    w, h = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    wa, ha = anchors[:, 2] - anchors[:, 0], anchors[:, 3] - anchors[:, 1]
    x, y = boxes[:, 0] + 0.5 * w, boxes[:, 1] + 0.5 * h
    xa, ya = anchors[:, 0] + 0.5 * wa, anchors[:, 1] + 0.5 * ha
    wx, wy, ww, wh = weights
    return torch.stack(
        (
            wx * (x - xa) / wa,
            wy * (y - ya) / ha,
            ww * torch.log(w / wa),
            wh * torch.log(h / ha),
        ),
        dim=1,
    )


def decode(deltas: Tensor, anchors: Tensor, weights: tuple[float, float, float, float]) -> Tensor:
    """Inverse of `encode`: ``[K, 4 B]`` deltas of B boxes for each of K anchors -> ``[K, 4 B]``.

    Log-scales are clamped above at log(1000 / 16), as all Detectron descendants do.
    """
    deltas = deltas.float().unflatten(1, (-1, 4))  # [K, B, 4]
    anchors = anchors.to(deltas.dtype)[:, None]  # [K, 1, 4]
    wa, ha = anchors[..., 2] - anchors[..., 0], anchors[..., 3] - anchors[..., 1]
    xa, ya = anchors[..., 0] + 0.5 * wa, anchors[..., 1] + 0.5 * ha
    wx, wy, ww, wh = weights
    x = deltas[..., 0] / wx * wa + xa
    y = deltas[..., 1] / wy * ha + ya
    w = torch.exp((deltas[..., 2] / ww).clamp(max=MAX_LOG_SCALE)) * wa
    h = torch.exp((deltas[..., 3] / wh).clamp(max=MAX_LOG_SCALE)) * ha
    corners = (x - 0.5 * w, y - 0.5 * h, x + 0.5 * w, y + 0.5 * h)
    return torch.stack(corners, dim=-1).flatten(1)


def clip(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes ``[..., 4]`` cut to an image of `size` (height, width) pixels."""
    height, width = size
    x1, y1, x2, y2 = boxes.unbind(-1)
    return torch.stack(
        (x1.clamp(0, width), y1.clamp(0, height), x2.clamp(0, width), y2.clamp(0, height)), dim=-1
    )


def is_nonempty(boxes: Tensor) -> Tensor:
    """Which of ``[K, 4]`` have a positive width and height: bool ``[K]``."""
    return (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])


def with_image_index(boxes: list[Tensor]) -> Tensor:
    """Boxes of each image, ``N x [K_n, 4]``, as one tensor of RoIs ``[sum K_n, 5]``."""
    index = torch.cat([b.new_full((len(b), 1), i) for i, b in enumerate(boxes)])
    return torch.cat((index, torch.cat(boxes)), dim=1)


def rescale(detections: Detections, size: tuple[int, int], new_size: tuple[int, int]) -> Detections:
    """Carry detections from an image of `size` (height, width) to the same one at `new_size`.

    Boxes are scaled per axis and clipped; those that vanish are dropped. Masks live inside their
    boxes and need no change.
    """
    scale_y, scale_x = new_size[0] / size[0], new_size[1] / size[1]
    factors = detections.boxes.new_tensor((scale_x, scale_y, scale_x, scale_y))
    boxes = clip(detections.boxes * factors, new_size)
    keep = is_nonempty(boxes)
    masks = None if detections.masks is None else detections.masks[keep]
    return replace(
        detections,
        boxes=boxes[keep],
        scores=detections.scores[keep],
        labels=detections.labels[keep],
        masks=masks,
    )
