"""TensorFlow's crop-and-resize with 2 x 2 max pooling, which is often taken for RoIAlign."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ops.roi_align import pooled
from ops.roi_plan import AxisPlan, Grid, RoIPlan, grid, linear_axis

SAMPLES = 2  # a bin and axis: the crop has twice the output's size


def crop_resize(
    features: Tensor,
    rois: Tensor | Sequence[Tensor],
    output_size: int | tuple[int, int],
    spatial_scale: float,
) -> Tensor:
    """Pool each RoI into ``[K, C, h, w]``, in features' dtype; differentiable in the RoIs.

    The layer of tf-faster-rcnn and its ports: ``tf.image.crop_and_resize`` to 2h x 2w, then 2 x 2
    max pooling. Unlike RoIAlign it puts cell k's centre at k of the scaled image (half a cell off),
    its first and last samples lie on the box's edges (corners aligned, ends included), and a sample
    beyond the centres of the map's border cells is 0.

    Args:
        features: ``[N, C, H, W]``.
        rois: ``[K, 5]`` (image index, x1, y1, x2, y2) or N boxes ``[L, 4]``, in image pixels.
        output_size: bins, or (rows, columns) of bins.
        spatial_scale: feature cells per image pixel, 1 / stride.

    Raises:
        ValueError: shapes that do not fit, or an RoI that is not finite.
    """
    return pooled(features, plan(grid(features, rois, output_size, spatial_scale)), "max")


def plan(rois_on_map: Grid) -> RoIPlan:
    """2 x 2 bilinear samples a bin, those of all bins evenly spaced from edge to edge."""
    rows, columns = (_edge_to_edge(*rois_on_map.along(axis)) for axis in (0, 1))
    return RoIPlan(rois_on_map.image, rows, columns)


def _edge_to_edge(start: Tensor, end: Tensor, bins: int, size: int) -> AxisPlan:
    number = bins * SAMPLES
    length = (end - start)[:, None]
    steps = torch.arange(number, device=start.device) * length / (number - 1)
    index = (start[:, None] + steps).unflatten(1, (bins, SAMPLES))  # [K, P, S]
    counts = torch.full_like(index[..., 0], SAMPLES, dtype=torch.int64)
    edges = start[:, None] + torch.arange(bins + 1, device=start.device) * length / bins + 0.5
    pairs = torch.stack((edges[:, :-1], edges[:, 1:]), dim=-1).detach()
    return linear_axis(index, counts, pairs, size, (0.0, size - 1.0))
