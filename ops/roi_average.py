"""Averaging: an output bin is a weighted sum of cells, whatever the pooler.

The operator takes the cells and weights of a `RoIPlan` and is differentiable in the features and in
the weights; through the weights a gradient reaches the RoIs.

Letters: K RoIs, P x Q bins, T rows and U columns read per bin, C channels, N maps of H x W cells.
"""

import torch
from torch import Tensor

from ops.roi_plan import RoIPlan
from ops.roi_table import as_maps, cell_table, compute_dtype, read_sparse, spread, tap_gradients


def average(features: Tensor, plan: RoIPlan) -> Tensor:
    """Mean over the samples of each bin: ``[N, C, H, W] -> [K, C, P, Q]``, in features' dtype."""
    return weighted_sum(features, [plan.image, *plan.rows.averaged(), *plan.columns.averaged()])


@torch.library.custom_op("roi_poolers::weighted_sum", mutates_args=())
def weighted_sum(features: Tensor, plan: list[Tensor]) -> Tensor:
    """Sum of ``row_weight * column_weight * features[image, :, row, column]`` over a bin's cells.

    Args:
        features: ``[N, C, H, W]``.
        plan: the image of each RoI, int64 ``[K]``; the rows its bins read, int64 ``[K, P, T]``, and
            their weights; the columns, int64 ``[K, Q, U]``, and their weights.

    Returns:
        ``[K, C, P, Q]`` in features' dtype, channels last in memory.
    """
    pooled = empty_output(features, plan[1], plan[3])
    if pooled.numel() == 0:
        return pooled
    cells, weights = _merged_bins(features, plan)
    rows = read_sparse(cell_table(features), cells, weights, features.dtype)  # [K P Q, C]
    k, c, p, q = pooled.shape
    return rows.view(k, p, q, c).permute(0, 3, 1, 2)


def empty_output(features: Tensor, row_cells: Tensor, column_cells: Tensor) -> Tensor:
    """Room for ``[K, C, P, Q]``, channels last in memory."""
    shape = (row_cells.shape[0], row_cells.shape[1], column_cells.shape[1], features.shape[1])
    return features.new_empty(shape).permute(0, 3, 1, 2)


def bin_cells(features: Tensor, image: Tensor, row_cells: Tensor, column_cells: Tensor) -> Tensor:
    """Rows of the `cell_table` that each bin reads: int64 ``[K P Q, T U]``."""
    height, width = features.shape[2:]
    rows = (image[:, None, None] * height + row_cells) * width  # [K, P, T]
    cells = rows[:, :, None, :, None] + column_cells[:, None, :, None, :]  # [K, P, Q, T, U]
    return cells.flatten(3).flatten(0, 2)


def bin_weights(row_weights: Tensor, column_weights: Tensor) -> Tensor:
    """The weights that go with `bin_cells`: ``[K P Q, T U]``."""
    weights = row_weights[:, :, None, :, None] * column_weights[:, None, :, None, :]
    return weights.flatten(3).flatten(0, 2)


def bin_gradients(grad: Tensor, dtype: torch.dtype) -> Tensor:
    """The output's gradient ``[K, C, P, Q]`` as rows ``[K P Q, C]``."""
    return grad.permute(0, 2, 3, 1).to(dtype).reshape(-1, grad.shape[1])


def _merged_bins(features: Tensor, plan: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Cells and weights ``[K P Q, T U]``, each cell of a bin weighted once."""
    image, row_cells, row_weights, column_cells, column_weights = plan
    cells = bin_cells(features, image, row_cells, column_cells)
    weights = bin_weights(_merged(row_cells, row_weights), _merged(column_cells, column_weights))
    return cells, weights.to(compute_dtype(features))


def _merged(cells: Tensor, weights: Tensor) -> Tensor:
    """Weights ``[K, P, T]`` moved to the first mention of each cell of a bin, 0 at the others.

    Neighbouring samples share cells: at two samples per bin of at most a cell, 4 mentions per axis
    are 2 or 3 cells, so a bin of 16 reads needs some 6.
    """
    same = cells[..., :, None] == cells[..., None, :]
    first = same.to(torch.uint8).argmax(-1)
    return torch.zeros_like(weights).scatter_add_(-1, first, weights)


@torch.library.custom_op("roi_poolers::weighted_sum_backward", mutates_args=())
def weighted_sum_backward(grad: Tensor, features: Tensor, plan: list[Tensor]) -> Tensor:
    """Gradient of `weighted_sum` with respect to the features, ``[N, C, H, W]``."""
    total = torch.zeros_like(cell_table(features))
    cells, weights = _merged_bins(features, plan)
    spread(total, bin_gradients(grad, total.dtype), cells, weights)
    return as_maps(total, features)


@torch.library.custom_op("roi_poolers::weighted_sum_weights_backward", mutates_args=())
def weighted_sum_weights_backward(
    grad: Tensor, features: Tensor, plan: list[Tensor]
) -> tuple[Tensor, Tensor]:
    """Gradients of `weighted_sum` with respect to the row and the column weights."""
    image, row_cells, row_weights, column_cells, column_weights = plan
    table = cell_table(features)
    cells = bin_cells(features, image, row_cells, column_cells)
    taps = tap_gradients(bin_gradients(grad, table.dtype), table, cells).to(row_weights.dtype)
    (k, p, t), (_, q, u) = row_cells.shape, column_cells.shape
    taps = taps.view(k, p, q, t, u)
    return (
        torch.einsum("kpqtu,kqu->kpt", taps, column_weights),
        torch.einsum("kpqtu,kpt->kqu", taps, row_weights),
    )


@weighted_sum.register_fake
def _(features: Tensor, plan: list[Tensor]) -> Tensor:
    return empty_output(features, plan[1], plan[3])


@weighted_sum_backward.register_fake
def _(grad: Tensor, features: Tensor, plan: list[Tensor]) -> Tensor:
    return torch.empty_like(features, memory_format=torch.channels_last)


@weighted_sum_weights_backward.register_fake
def _(grad: Tensor, features: Tensor, plan: list[Tensor]) -> tuple[Tensor, Tensor]:
    return torch.empty_like(plan[2]), torch.empty_like(plan[4])


def _save(ctx, inputs, output):  # type: ignore[no-untyped-def]
    features, plan = inputs
    ctx.save_for_backward(features, *plan)


def _backward(ctx, grad):  # type: ignore[no-untyped-def]
    features, *plan = ctx.saved_tensors
    to_features, to_plan = ctx.needs_input_grad
    gradient = weighted_sum_backward(grad, features, plan) if to_features else None
    rows, columns = None, None
    if any(to_plan):
        rows, columns = weighted_sum_weights_backward(grad, features, plan)
    return gradient, [None, None, rows, None, columns]


weighted_sum.register_autograd(_backward, setup_context=_save)
