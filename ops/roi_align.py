"""RoIAlign: no rounding anywhere, bilinear samples inside each bin (Mask R-CNN, section 3)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ops import roi_kernels as kernels
from ops.roi_average import average
from ops.roi_max import maximum
from ops.roi_plan import Grid, RoIPlan, at_least, choice, grid, sampled_axis


def roi_align(
    features: Tensor,
    rois: Tensor | Sequence[Tensor],
    output_size: int | tuple[int, int],
    spatial_scale: float,
    *,
    sampling_ratio: int = 2,
    aligned: bool = True,
    agg: str = "avg",
    placement: str = "uniform",
    coordinate_grad: bool = False,
) -> Tensor:
    """Pool each RoI into ``[K, C, h, w]``, in features' dtype.

    He et al., "Mask R-CNN" (2017), section 3; borders and `aligned` as in torchvision.

    Args:
        features: ``[N, C, H, W]``.
        rois: ``[K, 5]`` (image index, x1, y1, x2, y2) or N boxes ``[L, 4]``, in image pixels.
        output_size: bins, or (rows, columns) of bins.
        spatial_scale: feature cells per image pixel, 1 / stride.
        sampling_ratio: samples per bin and axis; 0 adapts it to the RoI, ceil(size / bins).
        aligned: cell k's centre is at k + 0.5 of the scaled image; False is the older form, half a
            cell off and at least one cell large.
        agg: "avg" or "max" of a bin's samples.
        placement: "uniform", or "thirds" of the bin for teaching.
        coordinate_grad: also differentiate with respect to the RoIs.

    Raises:
        ValueError: shapes that do not fit, or an RoI that is not finite.
        InputError: an unknown setting.
    """
    rois_on_map = grid(features, rois, output_size, spatial_scale)
    if not coordinate_grad:
        rois_on_map = rois_on_map.with_boxes(rois_on_map.boxes.detach())
    return align(features, rois_on_map, sampling_ratio, aligned, agg, placement)


def align(
    features: Tensor,
    rois_on_map: Grid,
    sampling_ratio: int,
    aligned: bool,
    agg: str,
    placement: str = "uniform",
) -> Tensor:
    """RoIAlign of boxes that are in feature coordinates already: ``[K, C, h, w]``."""
    choice("agg", agg, ("avg", "max"))
    choice("placement", placement, ("uniform", "thirds"))
    if kernels.serve(features, rois_on_map) and kernels.can_align(sampling_ratio, agg, placement):
        return kernels.align(features, rois_on_map, sampling_ratio, aligned, agg)
    return pooled(features, plan(rois_on_map, sampling_ratio, aligned, placement), agg)


def plan(
    rois_on_map: Grid, sampling_ratio: int = 2, aligned: bool = True, placement: str = "uniform"
) -> RoIPlan:
    """The bilinear samples of every bin; the settings are those of `roi_align`."""
    axes = []
    for axis in (0, 1):
        start, end, bins, size = rois_on_map.along(axis)
        if aligned:
            start, end = start - 0.5, end - 0.5
        length = end - start if aligned else at_least(end - start, 1)
        axes.append(sampled_axis(start, length, bins, size, sampling_ratio, placement))
    return RoIPlan(rois_on_map.image, *axes)


def pooled(features: Tensor, plan: RoIPlan, agg: str) -> Tensor:
    """The average or maximum of each bin's samples: ``[K, C, h, w]``."""
    choice("agg", agg, ("avg", "max"))
    with torch.autocast(features.device.type, enabled=False):
        return average(features, plan) if agg == "avg" else maximum(features, plan)
