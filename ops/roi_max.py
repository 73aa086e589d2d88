"""Maximum: for every pooler, an output bin is the largest of its samples.

As in Caffe's RoI pooling, the first sample in row-major order wins a tie, and a NaN never wins.
Only the winning sample gets the gradient, and passes it on to the cells that it reads. Which sample
won is not stored. The backward pass computes the samples again, a block of RoIs at a time, and
overwrites them with their gradients. So memory beyond the output is bounded by the block's size,
and computing the samples twice is quicker than writing and reading the winners' numbers.

Letters: K RoIs (k in a block), P x Q bins, S x R samples per bin, T x U cells per sample.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ops.roi_plan import RoIPlan
from ops.roi_table import (
    as_maps,
    cell_table,
    compute_dtype,
    empty_output,
    read,
    register_gradients,
    spread,
    tap_gradients,
)

# Bytes of a block's output; a core's L2 cache should hold this and one sample of each bin.
_FORWARD_BLOCK = 1 << 20
# Bytes of a block's samples in the backward pass.
_BACKWARD_BLOCK = 8 << 20


def maximum(features: Tensor, plan: RoIPlan) -> Tensor:
    """Largest sample of each bin: ``[N, C, H, W] -> [K, C, P, Q]``, 0 where a bin has no sample."""
    rows, columns = plan.rows, plan.columns
    axes = [rows.cells, rows.weights, rows.counts, columns.cells, columns.weights, columns.counts]
    return sample_max(features, [plan.image, *axes])


@torch.library.custom_op("roi_poolers::sample_max", mutates_args=())
def sample_max(features: Tensor, plan: list[Tensor]) -> Tensor:
    """Largest of the samples of each bin.

    Args:
        features: ``[N, C, H, W]``.
        plan: the image of each RoI, int64 ``[K]``; the rows its samples read, int64
            ``[K, P, S, T]``, their weights, and how many of the S are no padding, int64 ``[K, P]``;
            the same three of the columns, ``[K, Q, R, U]``.

    Returns:
        ``[K, C, P, Q]`` in features' dtype, channels last in memory; 0 where there is no sample.
    """
    pooled = empty_output(features, plan[1], plan[4])
    rows = pooled.permute(0, 2, 3, 1).flatten(1)  # [K, P Q C], a view
    table = _clean_table(features)
    for block in _blocks(features, plan, _FORWARD_BLOCK, buffers=1):
        best = _read(table, block.cells[0], block.weights[0])
        torch.clamp(best, min=_lowest(table), out=best)
        for cells, weights in zip(block.cells[1:], block.weights[1:], strict=True):
            torch.maximum(best, _read(table, cells, weights), out=best)
        if block.absent is not None:
            best[block.absent] = 0
        rows.index_copy_(0, block.rois, best.view(len(block.rois), -1).to(rows.dtype))
    return pooled


@dataclass(frozen=True)
class _Block:
    """RoIs that take equally many samples.

    Attributes:
        rois: int64 ``[k]``, their places among the K.
        cells, weights: of each of the samples, ``[S R, k P Q, T U]``.
        absent: bool ``[k P Q]``, which bins have no sample; None if every bin has one.
    """

    rois: Tensor
    cells: Tensor
    weights: Tensor
    absent: Tensor | None


def _blocks(
    features: Tensor, plan: list[Tensor], size: int, buffers: int | None = None
) -> Iterator[_Block]:
    """Cut the RoIs into blocks of about `size` bytes.

    Args:
        buffers: how many arrays of the output's size count; None: one for each sample.
    """
    if features.numel() == 0 or len(plan[0]) == 0:
        return
    dtype = compute_dtype(features)
    bins = plan[1].shape[1] * plan[4].shape[1]
    samples = torch.stack((plan[3].amax(1), plan[6].amax(1)), dim=1).clamp(min=1)  # [K, 2]
    order = (samples[:, 0] * (plan[4].shape[2] + 1) + samples[:, 1]).argsort(stable=True)
    plan = [part[order] for part in plan]
    groups, lengths = torch.unique_consecutive(samples[order], dim=0, return_counts=True)
    start = 0
    for (s, r), length in zip(groups.tolist(), lengths.tolist(), strict=True):
        roi_bytes = bins * features.shape[1] * dtype.itemsize * (buffers or s * r)
        step = max(1, size // roi_bytes)
        for i in range(start, start + length, step):
            part = slice(i, min(i + step, start + length))
            yield _block(features, order[part], [value[part] for value in plan], s, r)
        start += length


def _block(features: Tensor, rois: Tensor, plan: list[Tensor], s: int, r: int) -> _Block:
    image, row_cells, row_weights, row_counts, column_cells, column_weights, column_counts = plan
    height, width = features.shape[2:]
    rows = (image[:, None, None, None] * height + row_cells[:, :, :s]) * width
    cells = _by_sample(rows, column_cells[:, :, :r], torch.add)
    weights = _by_sample(row_weights[:, :, :s], column_weights[:, :, :r], torch.mul)
    absent = ((row_counts == 0)[:, :, None] | (column_counts == 0)[:, None]).flatten()
    some_absent = bool(absent.any())
    return _Block(rois, cells, weights.to(compute_dtype(features)), absent if some_absent else None)


def _by_sample(rows: Tensor, columns: Tensor, combine: Callable[..., Tensor]) -> Tensor:
    """Pair the rows' ``[k, P, S, T]`` and the columns' ``[k, Q, R, U]``: ``[S R, k P Q, T U]``."""
    rows = rows.permute(2, 0, 1, 3)[:, None, :, :, None, :, None]  # [S, 1, k, P, 1, T, 1]
    columns = columns.permute(2, 0, 1, 3)[None, :, :, None, :, None, :]  # [1, R, k, 1, Q, 1, U]
    return combine(rows, columns).flatten(5).flatten(2, 4).flatten(0, 1)


def _lowest(table: Tensor) -> float:
    return torch.finfo(table.dtype).min


def _clean_table(features: Tensor) -> Tensor:
    """The `cell_table` with the lowest finite number for NaN and -inf, so that they never win."""
    table = cell_table(features)
    return table.nan_to_num(nan=_lowest(table), neginf=_lowest(table), posinf=torch.inf)


def _read(table: Tensor, cells: Tensor, weights: Tensor) -> Tensor:
    if cells.shape[1] == 1:
        return table.index_select(0, cells[:, 0])
    return read(table, cells, weights)


def _gradients(
    grad: Tensor, features: Tensor, plan: list[Tensor]
) -> Iterator[tuple[_Block, Tensor]]:
    """Each block with the gradient of its samples, ``[S R, k P Q, C]``."""
    table = _clean_table(features)
    rows = grad.permute(0, 2, 3, 1)  # [K, P, Q, C], a view: copied block by block
    all_finite = features.numel() == 0 or bool(table.amin() > _lowest(table))
    for block in _blocks(features, plan, _BACKWARD_BLOCK):
        samples = _read(table, block.cells.flatten(0, 1), block.weights.flatten(0, 1))
        samples = samples.view(len(block.cells), -1, table.shape[1])
        best = samples.amax(0)
        # The gradient of bins whose winner is still to come. There is none without samples, or
        # where all samples are NaN.
        unclaimed = rows[block.rois].to(table.dtype).reshape(best.shape)
        if block.absent is not None:
            unclaimed[block.absent] = 0
        if not all_finite:
            unclaimed *= best > _lowest(table)
        for sample in samples[:-1]:
            sample.eq_(best).mul_(unclaimed)
            unclaimed -= sample
        samples[-1] = unclaimed  # in the remaining bins the last sample is the largest
        yield block, samples


@torch.library.custom_op("roi_poolers::sample_max_backward", mutates_args=())
def sample_max_backward(grad: Tensor, features: Tensor, plan: list[Tensor]) -> Tensor:
    """Gradient of `sample_max` with respect to the features, ``[N, C, H, W]``."""
    total = torch.zeros_like(cell_table(features))
    for block, gradients in _gradients(grad, features, plan):
        spread(
            total, gradients.flatten(0, 1), block.cells.flatten(0, 1), block.weights.flatten(0, 1)
        )
    return as_maps(total, features)


@torch.library.custom_op("roi_poolers::sample_max_weights_backward", mutates_args=())
def sample_max_weights_backward(
    grad: Tensor, features: Tensor, plan: list[Tensor]
) -> tuple[Tensor, Tensor]:
    """Gradients of `sample_max` with respect to the row and the column weights."""
    _, row_cells, row_weights, _, column_cells, column_weights, _ = plan
    table = cell_table(features)
    to_rows, to_columns = torch.zeros_like(row_weights), torch.zeros_like(column_weights)
    p, t = row_cells.shape[1], row_cells.shape[3]
    q, u = column_cells.shape[1], column_cells.shape[3]
    for block, gradients in _gradients(grad, features, plan):
        k, width = len(block.rois), int(plan[6][block.rois].amax().clamp(min=1))
        for number, gradient in enumerate(gradients):
            i, j = divmod(number, width)
            taps = tap_gradients(gradient, table, block.cells[number]).to(row_weights.dtype)
            taps = taps.view(k, p, q, t, u)
            rows, columns = row_weights[block.rois, :, i], column_weights[block.rois, :, j]
            to_rows[block.rois, :, i] += torch.einsum("kpqtu,kqu->kpt", taps, columns)
            to_columns[block.rois, :, j] += torch.einsum("kpqtu,kpt->kqu", taps, rows)
    return to_rows, to_columns


register_gradients(sample_max, sample_max_backward, sample_max_weights_backward, weights_at=(2, 5))
