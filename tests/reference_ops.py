"""The poolers again, as loops that follow their definitions word for word, in Python's floats.

Nothing here is shared with `ops`. Arguments as in `ops`, but one RoI tensor ``[K, 5]`` and square
settings; the result is float64 ``[K, C, h, w]``.
"""

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

Size = tuple[int, int]


def roi_pool(
    features: Tensor, rois: Tensor, size: Size, scale: float, rounding: str = "caffe"
) -> Tensor:
    def pool(plane: Tensor, box: list[float]) -> Tensor:
        out = torch.zeros(len(plane), *size, dtype=torch.float64)
        for i in range(size[0]):
            for j in range(size[1]):
                rows = _cells(box[1], box[3], i, size[0], plane.shape[1], rounding)
                columns = _cells(box[0], box[2], j, size[1], plane.shape[2], rounding)
                for c in range(len(plane)):
                    values = [float(plane[c, y, x]) for y in rows for x in columns]
                    out[c, i, j] = max(values, default=0.0)
        return out

    return _each(features, rois, scale, pool)


def roi_align(
    features: Tensor,
    rois: Tensor,
    size: Size,
    scale: float,
    sampling_ratio: int = 2,
    aligned: bool = True,
    agg: str = "avg",
    placement: str = "uniform",
) -> Tensor:
    def pool(plane: Tensor, box: list[float]) -> Tensor:
        return _align(plane, box, size, sampling_ratio, aligned, agg, placement)

    return _each(features, rois, scale, pool)


def roi_warp(
    features: Tensor,
    rois: Tensor,
    size: Size,
    scale: float,
    sampling_ratio: int = 2,
    aligned: bool = True,
    agg: str = "avg",
) -> Tensor:
    def pool(plane: Tensor, box: list[float]) -> Tensor:
        x1, y1, x2, y2 = (_round(v) for v in box)
        rounded = [x1, y1, max(x2, x1 + 1), max(y2, y1 + 1)]
        return _align(plane, rounded, size, sampling_ratio, aligned, agg, "uniform")

    return _each(features, rois, scale, pool)


def roi_warp_mnc(features: Tensor, rois: Tensor, size: Size, scale: float) -> Tensor:
    """The layer alone: one sample at the first corner of each bin."""

    def pool(plane: Tensor, box: list[float]) -> Tensor:
        x1, y1, x2, y2 = (_round(v) for v in box)
        height, width = plane.shape[1:]
        out = torch.zeros(len(plane), *size, dtype=torch.float64)
        for i in range(size[0]):
            for j in range(size[1]):
                y = y1 + i * max(y2 - y1, 0) / size[0]
                x = x1 + j * max(x2 - x1, 0) / size[1]
                if -0.5 <= y <= height - 0.5 and -0.5 <= x <= width - 0.5:
                    out[:, i, j] = _bilinear(plane, y, x)
        return out

    return _each(features, rois, scale, pool)


def prroi_pool(features: Tensor, rois: Tensor, size: Size, scale: float) -> Tensor:
    """The mean over each bin, piece by piece: within a cell the midpoint rule is exact."""

    def pool(plane: Tensor, box: list[float]) -> Tensor:
        out = torch.zeros(len(plane), *size, dtype=torch.float64)
        width, height = (box[2] - box[0]) / size[1], (box[3] - box[1]) / size[0]
        if width <= 0 or height <= 0:
            return out
        for i in range(size[0]):
            for j in range(size[1]):
                for y, dy in _pieces(box[1] + i * height, box[1] + (i + 1) * height):
                    for x, dx in _pieces(box[0] + j * width, box[0] + (j + 1) * width):
                        out[:, i, j] += dy * dx * _tent(plane, y, x) / (width * height)
        return out

    return _each(features, rois, scale, pool)


def _each(
    features: Tensor, rois: Tensor, scale: float, pool: Callable[[Tensor, list[float]], Tensor]
) -> Tensor:
    planes = features.to(torch.float64)
    return torch.stack(
        [pool(planes[int(roi[0])], [v * scale for v in roi[1:]]) for roi in rois.tolist()]
    )


def _round(value: float) -> int:
    """Nearest integer, halves away from zero."""
    return int(math.copysign(math.floor(abs(value) + 0.5), value))


def _cells(start: float, end: float, i: int, bins: int, size: int, rounding: str) -> range:
    if rounding == "caffe":
        first = _round(start)
        step = max(_round(end) - first + 1, 1) / bins
        low, high = first + math.floor(i * step), first + math.ceil((i + 1) * step)
    else:
        step = max(math.floor(end - start) // bins, 1)
        low = math.floor(start) + i * step
        high = low + step
    return range(min(max(low, 0), size), min(max(high, 0), size))


def _align(
    plane: Tensor,
    box: list[float],
    size: Size,
    sampling_ratio: int,
    aligned: bool,
    agg: str,
    placement: str,
) -> Tensor:
    x1, y1, x2, y2 = (v - 0.5 for v in box) if aligned else box
    width, height = x2 - x1, y2 - y1
    if not aligned:
        width, height = max(width, 1.0), max(height, 1.0)
    bin_h, bin_w = height / size[0], width / size[1]
    ny = sampling_ratio if sampling_ratio > 0 else max(math.ceil(bin_h), 0)
    nx = sampling_ratio if sampling_ratio > 0 else max(math.ceil(bin_w), 0)
    out = torch.zeros(len(plane), *size, dtype=torch.float64)
    for i in range(size[0]):
        for j in range(size[1]):
            samples = []
            for k in range(ny):
                for m in range(nx):
                    fy = (k + 0.5) / ny if placement == "uniform" else (k + 1) / (ny + 1)
                    fx = (m + 0.5) / nx if placement == "uniform" else (m + 1) / (nx + 1)
                    samples.append(_sample(plane, y1 + (i + fy) * bin_h, x1 + (j + fx) * bin_w))
            if samples:
                values = torch.stack(samples)
                out[:, i, j] = values.mean(0) if agg == "avg" else values.amax(0)
    return out


def _sample(plane: Tensor, y: float, x: float) -> Tensor:
    height, width = plane.shape[1:]
    if y < -1 or y > height or x < -1 or x > width:
        return plane.new_zeros(len(plane))
    return _bilinear(plane, y, x)


def _bilinear(plane: Tensor, y: float, x: float) -> Tensor:
    """Interpolation at a point of index space; beyond the outermost centres, the outermost cell."""
    height, width = plane.shape[1:]
    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
    return _tent(plane, y, x)


def _tent(plane: Tensor, y: float, x: float) -> Tensor:
    """Interpolation at a point of index space; the map is 0 beyond its border."""
    value = plane.new_zeros(len(plane))
    for row in (math.floor(y), math.floor(y) + 1):
        for column in (math.floor(x), math.floor(x) + 1):
            if 0 <= row < plane.shape[1] and 0 <= column < plane.shape[2]:
                value = value + (1 - abs(y - row)) * (1 - abs(x - column)) * plane[:, row, column]
    return value


def _pieces(start: float, end: float) -> list[tuple[float, float]]:
    """Middle and length of the pieces into which the integers cut an interval."""
    cuts = [start, *range(math.floor(start) + 1, math.ceil(end)), end]
    return [((a + b) / 2, b - a) for a, b in pairwise(cuts)]
