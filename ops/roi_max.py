"""Maximum: an output bin is the largest of its samples, whatever the pooler.

As in Caffe's RoI pooling, the first sample in row-major order wins a tie and a NaN wins nothing.
The gradient goes to the winning sample alone, and from it to the cells that the sample reads.
Which sample won is not stored: the backward pass reads the samples again, block by block, into a
buffer that then becomes their gradient. Memory beyond the output stays constant that way, and a
second reading is cheaper than writing an argmax and masking with it.

Letters: K RoIs (k in a block), P x Q bins, S x R samples per bin, T x U cells per sample.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ops.roi_average import bin_cells, bin_weights, empty_output
from ops.roi_plan import RoIPlan
from ops.roi_table import as_maps, cell_table, compute_dtype, read, spread, tap_gradients

# Bytes of a block's output, which a core's L2 cache should hold beside one candidate.
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
            the same of the columns, ``[K, Q, R, U]``.

    Returns:
        ``[K, C, P, Q]`` in features' dtype, channels last in memory; 0 where there is no sample.
    """
    pooled = empty_output(features, plan[1], plan[4])
    rows = pooled.permute(0, 2, 3, 1).flatten(1)  # [K, P Q C], a view
    table = _clean_table(features)
    for block in _blocks(features, plan, _FORWARD_BLOCK, buffers=1):
        best = table.new_full((len(block.present), table.shape[1]), _lowest(table))
        candidate = torch.empty_like(best)
        for sample in range(block.samples):
            _read_sample(table, block, sample, out=candidate)
            torch.maximum(best, candidate, out=best)
        best[~block.present] = 0
        rows.index_copy_(0, block.rois, best.view(len(block.rois), -1).to(rows.dtype))
    return pooled


@dataclass(frozen=True)
class _Block:
    """RoIs that take equally many samples.

    Attributes:
        rois: int64 ``[k]``, their places among the K.
        present: bool ``[k P Q]``, which bins have a sample.
        cells, weights: of each of the samples, ``[S R, k P Q, T U]``.
    """

    rois: Tensor
    present: Tensor
    cells: Tensor
    weights: Tensor

    @property
    def samples(self) -> int:
        return len(self.cells)


def _blocks(
    features: Tensor, plan: list[Tensor], size: int, buffers: int | None = None
) -> Iterator[_Block]:
    """Cut the RoIs into blocks of about `size` bytes in `buffers` (default: one per sample)."""
    image, row_cells, row_weights, row_counts, column_cells, column_weights, column_counts = plan
    if features.numel() == 0 or len(image) == 0:
        return
    dtype = compute_dtype(features)
    bin_bytes = row_cells.shape[1] * column_cells.shape[1] * features.shape[1] * dtype.itemsize
    s, r = row_counts.amax(1).clamp(min=1), column_counts.amax(1).clamp(min=1)  # [K]
    key = s * (column_cells.shape[2] + 1) + r
    order = key.argsort(stable=True)
    for group in order.split(torch.unique_consecutive(key[order], return_counts=True)[1].tolist()):
        height, width = int(s[group[0]]), int(r[group[0]])
        for rois in group.split(max(1, size // (bin_bytes * (buffers or height * width)))):
            rows, columns = row_cells[rois, :, :height], column_cells[rois, :, :width]
            row_parts = row_weights[rois, :, :height].to(dtype)
            column_parts = column_weights[rois, :, :width].to(dtype)
            pairs = [(i, j) for i in range(height) for j in range(width)]
            yield _Block(
                rois,
                (row_counts[rois][:, :, None] * column_counts[rois][:, None] > 0).flatten(),
                torch.stack(
                    [
                        bin_cells(features, image[rois], rows[:, :, i], columns[:, :, j])
                        for i, j in pairs
                    ]
                ),
                torch.stack(
                    [bin_weights(row_parts[:, :, i], column_parts[:, :, j]) for i, j in pairs]
                ),
            )


def _lowest(table: Tensor) -> float:
    return torch.finfo(table.dtype).min


def _clean_table(features: Tensor) -> Tensor:
    """The `cell_table` with NaN and -inf at the lowest finite number, which wins nothing."""
    table = cell_table(features)
    return table.nan_to_num(nan=_lowest(table), neginf=_lowest(table), posinf=torch.inf)


def _read_sample(table: Tensor, block: _Block, sample: int, out: Tensor) -> None:
    cells, weights = block.cells[sample], block.weights[sample]
    if cells.shape[1] == 1:
        torch.index_select(table, 0, cells[:, 0], out=out)
    else:
        out.copy_(read(table, cells, weights))


def _gradients(
    grad: Tensor, features: Tensor, plan: list[Tensor]
) -> Iterator[tuple[_Block, Tensor]]:
    """Each block with the gradient of its samples, ``[S R, k P Q, C]``."""
    table = _clean_table(features)
    rows = grad.permute(0, 2, 3, 1).flatten(1)  # [K, P Q C]
    for block in _blocks(features, plan, _BACKWARD_BLOCK):
        # What no sample has claimed yet; a bin of nothing but NaN, or of no sample, has no winner.
        unclaimed = rows[block.rois].to(table.dtype).view(-1, table.shape[1])
        unclaimed[~block.present] = 0
        samples = table.new_empty((block.samples, *unclaimed.shape))
        best = torch.full_like(unclaimed, _lowest(table))
        for i, sample in enumerate(samples):
            _read_sample(table, block, i, out=sample)
            torch.maximum(best, sample, out=best)
        unclaimed *= best > _lowest(table)
        for sample in samples:
            sample.eq_(best).mul_(unclaimed)
            unclaimed -= sample
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


@sample_max.register_fake
def _(features: Tensor, plan: list[Tensor]) -> Tensor:
    return empty_output(features, plan[1], plan[4])


@sample_max_backward.register_fake
def _(grad: Tensor, features: Tensor, plan: list[Tensor]) -> Tensor:
    return torch.empty_like(features, memory_format=torch.channels_last)


@sample_max_weights_backward.register_fake
def _(grad: Tensor, features: Tensor, plan: list[Tensor]) -> tuple[Tensor, Tensor]:
    return torch.empty_like(plan[2]), torch.empty_like(plan[5])


def _save(ctx, inputs, output):  # type: ignore[no-untyped-def]
    features, plan = inputs
    ctx.save_for_backward(features, *plan)


def _backward(ctx, grad):  # type: ignore[no-untyped-def]
    features, *plan = ctx.saved_tensors
    to_features, to_plan = ctx.needs_input_grad
    gradient = sample_max_backward(grad, features, plan) if to_features else None
    rows, columns = None, None
    if any(to_plan):
        rows, columns = sample_max_weights_backward(grad, features, plan)
    return gradient, [None, None, rows, None, None, columns, None]


sample_max.register_autograd(_backward, setup_context=_save)
