"""Maximum pooler: each output bin is the largest of its samples.

The first sample in row-major order wins a tie, and a NaN wins nothing, as in Caffe's RoI pooling.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ops.roi_average import cell_table, compute_dtype, spread
from ops.roi_plan import RoIPlan

# Bytes of one block of output bins; a block and its candidates should fit a core's L2 cache.
_BLOCK = 1 << 20


def maximum(features: Tensor, plan: RoIPlan) -> Tensor:
    """Largest sample of each bin: ``[N, C, H, W] -> [K, C, P, Q]``, 0 where a bin has no sample."""
    rows, columns = plan.rows, plan.columns
    return sample_max(
        features,
        plan.image,
        rows.cells,
        rows.weights,
        rows.counts,
        columns.cells,
        columns.weights,
        columns.counts,
    )[0]


@torch.library.custom_op("roi_poolers::sample_max", mutates_args=())
def sample_max(
    features: Tensor,
    image: Tensor,
    row_cells: Tensor,
    row_weights: Tensor,
    row_counts: Tensor,
    column_cells: Tensor,
    column_weights: Tensor,
    column_counts: Tensor,
) -> tuple[Tensor, Tensor]:
    """Largest weighted sample of each bin, and which it was.

    Args:
        features: ``[N, C, H, W]``.
        image: int64 ``[K]``.
        row_cells: int64 ``[K, P, S, T]``, with `row_weights` alike and `row_counts` ``[K, P]``.
        column_cells: int64 ``[K, Q, R, U]``, with its weights and counts.

    Returns:
        The maxima ``[K, C, P, Q]`` and the winning sample ``s R + r``, int16 ``[K P Q, C]``, -1
        where there is none.
    """
    (k, p), q, c = row_cells.shape[:2], column_cells.shape[1], features.shape[1]
    table = cell_table(features)
    pooled = features.new_empty((k, p * q, c))
    winner = torch.empty((k, p * q, c), dtype=torch.int16, device=features.device)
    for part in _blocks(k, p * q * c * table.element_size()):
        best, arg = pooled[part].flatten(0, 1), winner[part].flatten(0, 1)
        value = table.new_full(best.shape, torch.finfo(table.dtype).min)
        arg.fill_(-1)
        for number, index, weights in _samples(
            features, image, row_cells, row_weights, column_cells, column_weights, part
        ):
            sample = _read(table, index, weights)
            better = sample > value
            value = torch.where(better, sample, value)
            arg.masked_fill_(better, number)
        count = row_counts[part][:, :, None] * column_counts[part][:, None]  # [k, P, Q]
        value.masked_fill_((count == 0).flatten()[:, None], 0)
        arg.masked_fill_((count == 0).flatten()[:, None], -1)
        best.copy_(value)
    return pooled.view(k, p, q, c).permute(0, 3, 1, 2), winner.view(-1, c)


def _blocks(k: int, size: int) -> list[slice]:
    step = max(1, _BLOCK // max(size, 1))
    return [slice(i, min(i + step, k)) for i in range(0, k, step)]


def _samples(features, image, row_cells, row_weights, column_cells, column_weights, part):  # type: ignore[no-untyped-def]
    height, width = features.shape[2:]
    rows = (image[part, None, None, None] * height + row_cells[part]) * width
    for s in range(row_cells.shape[2]):
        for r in range(column_cells.shape[2]):
            index = (
                rows[:, :, None, s, :, None] + column_cells[part][:, None, :, r, None, :]
            )  # [k, P, Q, T, U]
            weights = (
                row_weights[part][:, :, None, s, :, None]
                * column_weights[part][:, None, :, r, None, :]
            ).to(compute_dtype(features))
            number = s * column_cells.shape[2] + r
            yield number, index.flatten(3).flatten(0, 2), weights.flatten(3).flatten(0, 2)


def _read(table: Tensor, index: Tensor, weights: Tensor) -> Tensor:
    if index.shape[1] == 1:
        return table.index_select(0, index[:, 0])
    return F.embedding_bag(index, table, mode="sum", per_sample_weights=weights)


@sample_max.register_fake
def _(
    features, image, row_cells, row_weights, row_counts, column_cells, column_weights, column_counts
):  # type: ignore[no-untyped-def]  # noqa: E501
    k, p = row_cells.shape[:2]
    q, c = column_cells.shape[1], features.shape[1]
    pooled = features.new_empty((k, p, q, c)).permute(0, 3, 1, 2)
    return pooled, features.new_empty((k * p * q, c), dtype=torch.int16)


@torch.library.custom_op("roi_poolers::sample_max_backward", mutates_args=())
def sample_max_backward(
    grad: Tensor,
    winner: Tensor,
    features: Tensor,
    image: Tensor,
    row_cells: Tensor,
    row_weights: Tensor,
    column_cells: Tensor,
    column_weights: Tensor,
) -> Tensor:
    """Gradient of `sample_max` with respect to the features, ``[N, C, H, W]``."""
    n, c, h, w = features.shape
    total = torch.zeros((n * h * w, c), dtype=compute_dtype(features), device=grad.device)
    k, p = row_cells.shape[:2]
    q = column_cells.shape[1]
    grads = grad.permute(0, 2, 3, 1).reshape(k, p * q, c)
    winners = winner.view(k, p * q, c)
    for part in _blocks(k, p * q * c * total.element_size()):
        block, arg = grads[part].flatten(0, 1).to(total.dtype), winners[part].flatten(0, 1)
        for number, index, weights in _samples(
            features, image, row_cells, row_weights, column_cells, column_weights, part
        ):
            total += spread(block * (arg == number), index, weights, n * h * w)
    return total.to(features.dtype).view(n, h, w, c).permute(0, 3, 1, 2)


@sample_max_backward.register_fake
def _(grad, winner, features, image, row_cells, row_weights, column_cells, column_weights):  # type: ignore[no-untyped-def]
    n, c, h, w = features.shape
    return features.new_empty((n, h, w, c)).permute(0, 3, 1, 2)


def _save(ctx, inputs, output):  # type: ignore[no-untyped-def]
    features, image, row_cells, row_weights, _, column_cells, column_weights, _ = inputs
    ctx.save_for_backward(
        output[1], features, image, row_cells, row_weights, column_cells, column_weights
    )
    ctx.mark_non_differentiable(output[1])


def _backward(ctx, grad, _):  # type: ignore[no-untyped-def]
    return (sample_max_backward(grad, *ctx.saved_tensors), *([None] * 7))


sample_max.register_autograd(_backward, setup_context=_save)
