"""RoIPool: the box and its bins are rounded to whole cells, the largest cell is taken."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ops import roi_kernels as kernels
from ops.roi_align import pooled
from ops.roi_plan import AxisPlan, Grid, RoIPlan, cell_axis, choice, grid, round_half_away


def roi_pool(
    features: Tensor,
    rois: Tensor | Sequence[Tensor],
    output_size: int | tuple[int, int],
    spatial_scale: float,
    *,
    rounding: str = "caffe",
) -> Tensor:
    """Pool each RoI into ``[K, C, h, w]``, in features' dtype; a bin outside the map is 0.

    Girshick, "Fast R-CNN" (2015), section 2.1, in the form of its Caffe layer.

    Args:
        features: ``[N, C, H, W]``.
        rois: ``[K, 5]`` (image index, x1, y1, x2, y2) or N boxes ``[L, 4]``, in image pixels.
        output_size: bins, or (rows, columns) of bins.
        spatial_scale: feature cells per image pixel, 1 / stride.
        rounding: "caffe" rounds the four corners half away from zero, counts the last cell in, and
            lets bins overlap; "floor" (for teaching) cuts the corner and the size down, gives every
            bin the same whole number of cells and drops the rest.

    Raises:
        ValueError: shapes that do not fit, or an RoI that is not finite.
        InputError: an unknown setting.
    """
    choice("rounding", rounding, ("caffe", "floor"))
    rois_on_map = grid(features, rois, output_size, spatial_scale)
    rois_on_map = rois_on_map.with_boxes(rois_on_map.boxes.detach())
    if rounding == "caffe" and kernels.serve_pool(features, rois_on_map):
        return kernels.pool(features, rois_on_map)
    return pooled(features, plan(rois_on_map, rounding), "max")


def plan(rois_on_map: Grid, rounding: str = "caffe") -> RoIPlan:
    """The whole cells of every bin; the setting is that of `roi_pool`."""
    axis = _caffe_axis if rounding == "caffe" else _floor_axis
    return RoIPlan(rois_on_map.image, axis(*rois_on_map.along(0)), axis(*rois_on_map.along(1)))


def _caffe_axis(start: Tensor, end: Tensor, bins: int, size: int) -> AxisPlan:
    first, last = round_half_away(start), round_half_away(end)
    step = (last - first + 1).clamp(min=1) / bins
    i = torch.arange(bins, device=start.device)
    # The product is rounded in the RoIs' dtype before floor and ceil, as in the Caffe layer.
    low = (i * step[:, None]).floor() + first[:, None]  # [K, P]
    high = ((i + 1) * step[:, None]).ceil() + first[:, None]
    return _clipped(low, high, size)


def _floor_axis(start: Tensor, end: Tensor, bins: int, size: int) -> AxisPlan:
    first = start.floor()
    step = ((end - start).floor() / bins).floor().clamp(min=1)
    low = first[:, None] + torch.arange(bins, device=start.device) * step[:, None]
    return _clipped(low, low + step[:, None], size)


def _clipped(low: Tensor, high: Tensor, size: int) -> AxisPlan:
    return cell_axis(low.clamp(0, size).long(), high.clamp(0, size).long(), size)
