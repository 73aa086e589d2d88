"""Averaging pooler: each output bin is a weighted sum of feature cells.

The map is read as a table of cells ``[N H W, C]`` and a bin as a bag of its rows. The gradient is
the same sum the other way round: each cell is a bag of the bins that read it, so no two threads add
to one number and the result does not depend on how many there are.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ops.roi_plan import RoIPlan


def average(features: Tensor, plan: RoIPlan) -> Tensor:
    """Mean over the samples of each bin: ``[N, C, H, W] -> [K, C, P, Q]``, in features' dtype."""
    row_cells, row_weights = plan.rows.averaged()
    column_cells, column_weights = plan.columns.averaged()
    return weighted_sum(features, plan.image, row_cells, row_weights, column_cells, column_weights)


def compute_dtype(features: Tensor) -> torch.dtype:
    """Half types are summed in float32."""
    return torch.promote_types(features.dtype, torch.float32)


def cell_table(features: Tensor) -> Tensor:
    """The maps ``[N, C, H, W]`` as rows of channels ``[N H W, C]`` (no copy if channels-last)."""
    rows = features.permute(0, 2, 3, 1).to(compute_dtype(features)).contiguous()
    return rows.view(-1, features.shape[1])


def bags(features: Tensor, image: Tensor, row_cells: Tensor, column_cells: Tensor) -> Tensor:
    """Rows of `cell_table` that each bin reads: int64 ``[K P Q, T U]``."""
    height, width = features.shape[2:]
    rows = (image[:, None, None] * height + row_cells) * width  # [K, P, T]
    cells = rows[:, :, None, :, None] + column_cells[:, None, :, None, :]  # [K, P, Q, T, U]
    return cells.flatten(3).flatten(0, 2)


def products(row_weights: Tensor, column_weights: Tensor, dtype: torch.dtype) -> Tensor:
    """Weights of `bags`: ``[K P Q, T U]``."""
    weights = row_weights[:, :, None, :, None] * column_weights[:, None, :, None, :]
    return weights.to(dtype).flatten(3).flatten(0, 2)


@torch.library.custom_op("roi_poolers::weighted_sum", mutates_args=())
def weighted_sum(
    features: Tensor,
    image: Tensor,
    row_cells: Tensor,
    row_weights: Tensor,
    column_cells: Tensor,
    column_weights: Tensor,
) -> Tensor:
    """Sum of ``row_weight * column_weight * features[image, :, row, column]`` over a bin's cells.

    Args:
        features: ``[N, C, H, W]``.
        image: int64 ``[K]``.
        row_cells: int64 ``[K, P, T]``, with `row_weights` of the same shape.
        column_cells: int64 ``[K, Q, U]``, with `column_weights`.

    Returns:
        ``[K, C, P, Q]`` in features' dtype, channels last in memory.
    """
    (k, p), q = row_cells.shape[:2], column_cells.shape[1]
    if k == 0:
        return _output(features, k, p, q)
    index = bags(features, image, row_cells, column_cells)
    weights = products(row_weights, column_weights, compute_dtype(features))
    pooled = F.embedding_bag(index, cell_table(features), mode="sum", per_sample_weights=weights)
    return pooled.to(features.dtype).view(k, p, q, -1).permute(0, 3, 1, 2)


def _output(features: Tensor, k: int, p: int, q: int) -> Tensor:
    return features.new_empty((k, p, q, features.shape[1])).permute(0, 3, 1, 2)


@weighted_sum.register_fake
def _(features, image, row_cells, row_weights, column_cells, column_weights):  # type: ignore[no-untyped-def]
    return _output(features, row_cells.shape[0], row_cells.shape[1], column_cells.shape[1])


def spread(rows: Tensor, index: Tensor, weights: Tensor, cells: int) -> Tensor:
    """Adjoint of a bag sum: ``out[index[b, t]] += weights[b, t] * rows[b]``, ``[cells, C]``."""
    if index.numel() == 0:
        return rows.new_zeros((cells, rows.shape[1]))
    taps = index.shape[1]
    sorted_index, order = torch.sort(index.flatten(), stable=True)
    bounds = torch.arange(cells, device=index.device)
    offsets = torch.searchsorted(sorted_index, bounds)
    return F.embedding_bag(
        order // taps, rows, offsets, mode="sum", per_sample_weights=weights.flatten()[order]
    )


@torch.library.custom_op("roi_poolers::weighted_sum_backward", mutates_args=())
def weighted_sum_backward(
    grad: Tensor,
    features: Tensor,
    image: Tensor,
    row_cells: Tensor,
    row_weights: Tensor,
    column_cells: Tensor,
    column_weights: Tensor,
) -> Tensor:
    """Gradient of `weighted_sum` with respect to the features, ``[N, C, H, W]``."""
    n, c, h, w = features.shape
    index = bags(features, image, row_cells, column_cells)
    dtype = compute_dtype(features)
    weights = products(row_weights, column_weights, dtype)
    rows = grad.permute(0, 2, 3, 1).to(dtype).reshape(-1, c)  # [K P Q, C]
    spreaded = spread(rows, index, weights, n * h * w)
    return spreaded.to(features.dtype).view(n, h, w, c).permute(0, 3, 1, 2)


@weighted_sum_backward.register_fake
def _(grad, features, image, row_cells, row_weights, column_cells, column_weights):  # type: ignore[no-untyped-def]
    n, c, h, w = features.shape
    return features.new_empty((n, h, w, c)).permute(0, 3, 1, 2)


def _save(ctx, inputs, output):  # type: ignore[no-untyped-def]
    ctx.save_for_backward(*inputs)


def _backward(ctx, grad):  # type: ignore[no-untyped-def]
    return weighted_sum_backward(grad, *ctx.saved_tensors), None, None, None, None, None


weighted_sum.register_autograd(_backward, setup_context=_save)
