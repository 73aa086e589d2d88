"""PrRoIPool: no rounding and no samples, the exact mean of the interpolated map over each bin."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ops.roi_align import pooled
from ops.roi_plan import AxisPlan, Grid, RoIPlan, grid


def prroi_pool(
    features: Tensor,
    rois: Tensor | Sequence[Tensor],
    output_size: int | tuple[int, int],
    spatial_scale: float,
) -> Tensor:
    """Pool each RoI into ``[K, C, h, w]``, in features' dtype; differentiable in the RoIs.

    Jiang et al., "Acquisition of Localization Confidence for Accurate Object Detection" (2018),
    section 3.3: cell k's centre is at k of the scaled image (no half-cell offset), and the map
    falls linearly to 0 within a cell of its border. An RoI of no size gives 0.

    Args:
        features: ``[N, C, H, W]``.
        rois: ``[K, 5]`` (image index, x1, y1, x2, y2) or N boxes ``[L, 4]``, in image pixels.
        output_size: bins, or (rows, columns) of bins.
        spatial_scale: feature cells per image pixel, 1 / stride.

    Raises:
        ValueError: shapes that do not fit, or an RoI that is not finite.
    """
    return pooled(features, plan(grid(features, rois, output_size, spatial_scale)), "avg")


def plan(rois_on_map: Grid) -> RoIPlan:
    """One weighted sum of cells for each bin."""
    rows, columns = (integral_axis(*rois_on_map.along(axis)) for axis in (0, 1))
    return RoIPlan(rois_on_map.image, rows, columns)


def integral_axis(start: Tensor, end: Tensor, bins: int, size: int) -> AxisPlan:
    """Cells of each bin, weighted by the mean over the bin of their interpolation kernel."""
    length = (end - start).clamp(min=0) / bins  # [K]
    edges = start[:, None] + torch.arange(bins + 1, device=start.device) * length[:, None]
    low, high = edges[:, :-1, None].clamp(-1, size), edges[:, 1:, None].clamp(-1, size)  # [K, P, 1]
    first = low.detach().floor()
    taps = int((high.detach().ceil() - first).amax()) + 1 if len(start) else 1
    cells = first + torch.arange(taps, device=start.device)  # [K, P, T]
    real = (length > 0)[:, None, None]
    area = _kernel_integral(high - cells) - _kernel_integral(low - cells)
    share = area / torch.where(real, length[:, None, None], 1)
    weights = torch.where(real & (cells >= 0) & (cells < size), share, 0)
    counts = real[..., 0].expand(-1, bins).to(torch.int64)
    pairs = torch.stack((edges[:, :-1], edges[:, 1:]), dim=-1).detach() + 0.5
    return AxisPlan(
        cells.clamp(0, size - 1).to(torch.int64)[:, :, None],
        weights[:, :, None],
        counts,
        pairs.mean(-1, keepdim=True),
        pairs,
    )


def _kernel_integral(t: Tensor) -> Tensor:
    """Integral of ``max(0, 1 - |u|)`` for u up to t."""
    t = t.clamp(-1, 1)
    return torch.where(t < 0, (1 + t) ** 2 / 2, 1 - (1 - t) ** 2 / 2)
