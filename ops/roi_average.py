"""Averaging: for every pooler, an output bin is a weighted sum of cells.

The operator takes the cells and weights of a `RoIPlan` and is differentiable in the features and in
the weights; through the weights a gradient reaches the RoIs.

Letters: K RoIs, P x Q bins, T rows and U columns read per bin, C channels, N maps of H x W cells.
"""

import torch
from torch import Tensor

from ops.roi_plan import RoIPlan
from ops.roi_table import (
    as_maps,
    cell_table,
    compute_dtype,
    empty_output,
    read_sparse,
    register_gradients,
    spread,
    tap_gradients,
)


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
    """Weights ``[K, P, T]`` with those of a repeated cell added up at its first place, 0 elsewhere.

    The samples of a bin often read the same cells. Two samples in a bin of at most one cell name
    four cells per axis, of which two or three differ, so about 6 of the bin's 16 reads are left.
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


register_gradients(
    weighted_sum, weighted_sum_backward, weighted_sum_weights_backward, weights_at=(2, 4)
)
