"""RoIWarp: the box is rounded to whole cells, then read with bilinear samples."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ops import roi_align
from ops.errors import InputError
from ops.roi_align import align, pooled
from ops.roi_plan import Grid, RoIPlan, at_least, choice, grid, linear_axis, round_half_away


def roi_warp(
    features: Tensor,
    rois: Tensor | Sequence[Tensor],
    output_size: int | tuple[int, int],
    spatial_scale: float,
    *,
    sampling_ratio: int = 2,
    aligned: bool = True,
    agg: str = "avg",
    mode: str = "paper",
) -> Tensor:
    """Pool each RoI into ``[K, C, h, w]``, in features' dtype; differentiable in the RoIs.

    Rounding passes gradients straight through (Dai et al., "Instance-aware Semantic Segmentation
    via Multi-task Network Cascades", 2016, section 3.2).

    Args:
        features: ``[N, C, H, W]``.
        rois: ``[K, 5]`` (image index, x1, y1, x2, y2) or N boxes ``[L, 4]``, in image pixels.
        output_size: bins, or (rows, columns) of bins.
        spatial_scale: feature cells per image pixel, 1 / stride.
        sampling_ratio: samples per bin and axis; 0 adapts it to the RoI (not under "mnc"). Under
            "mnc" with agg "max", 2 is MNC's crop of twice the output's size and its 2 x 2 max
            pooling in one, and 1 is the bare layer.
        aligned: as in RoIAlign; "mnc" has its own frame.
        agg: "avg" or "max" of a bin's samples.
        mode: "paper" is RoIAlign on the rounded box, the comparison of Mask R-CNN's table 2c;
            "mnc" is the layer that the authors of MNC released: samples at the bins' corners;
            "floor" (for teaching) cuts corner and size down and samples at the thirds of a bin.

    Raises:
        ValueError: shapes that do not fit, or an RoI that is not finite.
        InputError: an unknown setting.
    """
    rois_on_map = grid(features, rois, output_size, spatial_scale)
    if mode == "paper":
        return align(features, _rounded(rois_on_map), sampling_ratio, aligned, agg)
    return pooled(features, plan(rois_on_map, sampling_ratio, aligned, mode), agg)


def plan(
    rois_on_map: Grid, sampling_ratio: int = 2, aligned: bool = True, mode: str = "paper"
) -> RoIPlan:
    """The bilinear samples of every bin; the settings are those of `roi_warp`."""
    choice("mode", mode, ("paper", "mnc", "floor"))
    if mode == "mnc":
        boxes = round_half_away(rois_on_map.boxes)
        return _corner_samples(rois_on_map.with_boxes(boxes), sampling_ratio)
    if mode == "floor":
        return roi_align.plan(_cut_down(rois_on_map), sampling_ratio, aligned, "thirds")
    return roi_align.plan(_rounded(rois_on_map), sampling_ratio, aligned)


def _rounded(rois_on_map: Grid) -> Grid:
    """Corners rounded to whole cells, a side at least one cell long."""
    start, end = round_half_away(rois_on_map.boxes).split(2, dim=1)
    return rois_on_map.with_boxes(torch.cat((start, start + at_least(end - start, 1)), dim=1))


def _cut_down(rois_on_map: Grid) -> Grid:
    """First corner and size cut down to whole cells, a side at least one cell long."""
    start, end = rois_on_map.boxes.split(2, dim=1)
    size = at_least((end - start).floor(), 1)
    return rois_on_map.with_boxes(torch.cat((start.floor(), start.floor() + size), dim=1))


def _corner_samples(rois_on_map: Grid, samples: int) -> RoIPlan:
    """MNC's samples: the first corner of each of ``samples`` equal parts of a bin."""
    if samples < 1:
        raise InputError(f"pooler.sampling_ratio: {samples} under mode mnc; give at least 1")
    axes = []
    for axis in (0, 1):
        start, end, bins, size = rois_on_map.along(axis)
        length = at_least(end - start, 0)
        step = torch.arange(bins * samples, device=start.device)
        index = start[:, None] + step * length[:, None] / (bins * samples)  # [K, P S]
        index = index.unflatten(1, (bins, samples))
        counts = torch.full_like(index[..., 0], samples, dtype=torch.int64)
        edges = (
            start[:, None] + torch.arange(bins + 1, device=start.device) * length[:, None] / bins
        )
        pairs = torch.stack((edges[:, :-1], edges[:, 1:]), dim=-1).detach()
        axes.append(linear_axis(index, counts, pairs, size, (-0.5, size - 0.5)))
    return RoIPlan(rois_on_map.image, *axes)
