"""The feature maps as a table of cells: what averaging and maximum have in common.

A cell is a row of C channels, contiguous in memory, so that it is read in one go. `read` makes each
output row a weighted sum of cells. `spread`, its adjoint, is computed as a weighted sum too: each
cell collects from the rows that read it. No two threads add to the same number, so the results do
not depend on the number of threads.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

# Rows handled at a time where a temporary of the whole would be large.
_BLOCK = 4096


def compute_dtype(features: Tensor) -> torch.dtype:
    """Half types are computed in float32."""
    return torch.promote_types(features.dtype, torch.float32)


def cell_table(features: Tensor) -> Tensor:
    """The maps ``[N, C, H, W]`` as ``[N H W, C]``: a view if they are channels-last and float."""
    rows = features.permute(0, 2, 3, 1).to(compute_dtype(features)).contiguous()
    return rows.view(-1, features.shape[1])


def as_maps(table: Tensor, features: Tensor) -> Tensor:
    """A `cell_table` back in the shape and dtype of `features`, channels last in memory."""
    n, c, h, w = features.shape
    return table.to(features.dtype).view(n, h, w, c).permute(0, 3, 1, 2)


def empty_output(features: Tensor, row_cells: Tensor, column_cells: Tensor) -> Tensor:
    """Room for the result ``[K, C, P, Q]`` of cells ``[K, P, ...]`` and ``[K, Q, ...]``, channels
    last in memory."""
    shape = (row_cells.shape[0], row_cells.shape[1], column_cells.shape[1], features.shape[1])
    return features.new_empty(shape).permute(0, 3, 1, 2)


def read(table: Tensor, cells: Tensor, weights: Tensor) -> Tensor:
    """``out[b] = sum_t weights[b, t] * table[cells[b, t]]``: ``[B, C]``, for ``[B, T]`` cells."""
    return F.embedding_bag(cells, table, mode="sum", per_sample_weights=weights)


def read_sparse(
    table: Tensor, cells: Tensor, weights: Tensor, dtype: torch.dtype | None = None
) -> Tensor:
    """The same as `read`, quicker where many weights are 0. The result is in `dtype`."""
    keep = weights != 0
    cells, weights, ends = cells[keep], weights[keep], keep.sum(1).cumsum(0)
    starts = F.pad(ends, (1, 0))  # [B + 1]
    if dtype in (None, table.dtype):
        return _bags(table, cells, weights, starts)
    pooled = table.new_empty((len(keep), table.shape[1]), dtype=dtype)
    for i in range(0, len(keep), _BLOCK):
        bounds = starts[i : i + _BLOCK + 1]
        part = slice(int(bounds[0]), int(bounds[-1]))
        pooled[i : i + _BLOCK] = _bags(table, cells[part], weights[part], bounds - bounds[0])
    return pooled


def spread(total: Tensor, rows: Tensor, cells: Tensor, weights: Tensor) -> None:
    """Adjoint of `read`, added to `total`: ``total[cells[b, t]] += weights[b, t] * rows[b]``."""
    row, tap = (weights != 0).nonzero(as_tuple=True)  # [E] each, of the weights that count
    cells, weights = cells[row, tap], weights[row, tap]
    order = _stable_order(cells)
    counts = torch.bincount(cells, minlength=len(total))
    touched = counts.nonzero()[:, 0]
    starts = F.pad(counts[touched].cumsum(0), (1, 0))
    total.index_add_(0, touched, _bags(rows, row[order], weights[order], starts))


def tap_gradients(rows: Tensor, table: Tensor, cells: Tensor) -> Tensor:
    """Gradient of `read` in its weights: ``rows[b] . table[cells[b, t]]``, ``[B, T]``."""
    gradients = table.new_empty(cells.shape)
    for i in range(0, len(cells), _BLOCK):
        part = slice(i, i + _BLOCK)
        for t in range(cells.shape[1]):
            gradients[part, t] = (table[cells[part, t]] * rows[part]).sum(1)
    return gradients


def _bags(table: Tensor, index: Tensor, weights: Tensor, starts: Tensor) -> Tensor:
    return F.embedding_bag(
        index,
        table,
        starts,
        mode="sum",
        per_sample_weights=weights,
        include_last_offset=True,
    )


def _stable_order(cells: Tensor) -> Tensor:
    """The permutation that sorts int64 `cells`, equal ones left in order."""
    if cells.is_cuda:
        return torch.sort(cells, stable=True).indices
    # NumPy sorts 16-bit integers by radix, some ten times faster than torch.sort.
    keys = cells.numpy()
    order = np.argsort(keys.astype(np.uint16), kind="stable")
    if keys.size and keys.max() >> 16:
        high = (keys >> 16).astype(np.uint16)
        order = order[np.argsort(high[order], kind="stable")]
    return torch.from_numpy(order)


def register_gradients(
    operator: Any, to_features: Any, to_weights: Any, weights_at: tuple[int, int]
) -> None:
    """Tell autograd and the compiler about an operator ``(features, plan) -> [K, C, P, Q]``.

    Args:
        operator: registered with `torch.library.custom_op`, as are the other two.
        to_features, to_weights: ``(grad, features, plan)`` -> its gradients.
        weights_at: where the rows' and the columns' weights stand in `plan`; the cells that they
            weigh stand before them.
    """
    rows, columns = weights_at

    def save(ctx: Any, inputs: tuple[Tensor, Sequence[Tensor]], output: Tensor) -> None:
        features, plan = inputs
        ctx.save_for_backward(features, *plan)

    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, list[Tensor | None]]:
        features, *plan = ctx.saved_tensors
        for_features, for_plan = ctx.needs_input_grad
        gradients: list[Tensor | None] = [None] * len(plan)
        if any(for_plan):
            gradients[rows], gradients[columns] = to_weights(grad, features, plan)
        return to_features(grad, features, plan) if for_features else None, gradients

    @operator.register_fake
    def _(features: Tensor, plan: Sequence[Tensor]) -> Tensor:
        return empty_output(features, plan[rows - 1], plan[columns - 1])

    @to_features.register_fake
    def _(grad: Tensor, features: Tensor, plan: Sequence[Tensor]) -> Tensor:
        return torch.empty_like(features, memory_format=torch.channels_last)

    @to_weights.register_fake
    def _(grad: Tensor, features: Tensor, plan: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        return torch.empty_like(plan[rows]), torch.empty_like(plan[columns])

    operator.register_autograd(backward, setup_context=save)
