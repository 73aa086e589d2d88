"""Which cells of the feature map each output bin reads, and with which weights.

This is the one description of every pooler: the computation (`ops.roi_average`, `ops.roi_max`),
the tests and the drawings all start from it. It is separable: a sample at (y, x) reads the cells
(row, column) with the product of a row's weight and a column's weight, so one `AxisPlan` for the
rows and one for the columns say everything.

Two frames of feature coordinates, both in cells:

- *continuous*: cell k covers ``[k, k + 1)``, its centre is ``k + 0.5``; a box in it is the image's
  box times the spatial scale;
- *index*: cell k's centre is ``k``; index = continuous - 0.5.

Letters: K RoIs, P bins along an axis, S samples per bin, T cells per sample (2 for linear
interpolation), C channels, N images, H rows and W columns of the feature map.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ops.errors import InputError


@dataclass(frozen=True)
class AxisPlan:
    """What is read along one axis.

    Attributes:
        cells: int64 ``[K, P, S, T]``, always inside the map.
        weights: float ``[K, P, S, T]``; all 0 for a sample outside the map. Differentiable with
            respect to the RoIs where the pooler is.
        counts: int64 ``[K, P]``, how many of the S samples there are; the rest is padding, which
            repeats the last sample (so that it never wins a maximum).
        points: float ``[K, P, S]``, the samples' places in continuous feature coordinates.
        bins: float ``[K, P, 2]``, the bins' first and last edge in continuous coordinates.
    """

    cells: Tensor
    weights: Tensor
    counts: Tensor
    points: Tensor
    bins: Tensor

    def averaged(self) -> tuple[Tensor, Tensor]:
        """Cells and weights ``[K, P, S T]`` of the mean over a bin's samples."""
        samples = self.cells.shape[2]
        present = torch.arange(samples, device=self.counts.device) < self.counts[..., None]
        share = present / self.counts.clamp(min=1)[..., None]  # [K, P, S]
        weights = self.weights * share.to(self.weights.dtype)[..., None]
        return self.cells.flatten(2), weights.flatten(2)


@dataclass(frozen=True)
class RoIPlan:
    """What a pooler reads of the maps ``[N, C, H, W]``; `image` is int64 ``[K]``."""

    image: Tensor
    rows: AxisPlan
    columns: AxisPlan


@dataclass(frozen=True)
class Grid:
    """The sizes and the frame a pooler works in.

    Attributes:
        image: int64 ``[K]``, the image of each RoI.
        boxes: float ``[K, 4]``, x1 y1 x2 y2 in continuous feature coordinates.
        bins: (rows, columns) of the output.
        size: (H, W) of the feature map.
    """

    image: Tensor
    boxes: Tensor
    bins: tuple[int, int]
    size: tuple[int, int]

    def along(self, axis: int) -> tuple[Tensor, Tensor, int, int]:
        """Start and end ``[K]`` of the boxes, bins and cells along y (axis 0) or x (axis 1)."""
        return self.boxes[:, 1 - axis], self.boxes[:, 3 - axis], self.bins[axis], self.size[axis]

    def with_boxes(self, boxes: Tensor) -> "Grid":
        return replace(self, boxes=boxes)


def grid(
    features: Tensor,
    rois: Tensor | Sequence[Tensor],
    output_size: int | tuple[int, int],
    spatial_scale: float,
) -> Grid:
    """Check a pooler's arguments and carry the RoIs into feature coordinates.

    Coordinates are computed in the RoIs' dtype, at least float32, float64 if the features are.

    Args:
        features: ``[N, C, H, W]``.
        rois: ``[K, 5]`` (image index, x1, y1, x2, y2) or N boxes ``[L, 4]``, in image pixels.
        output_size: bins, or (rows, columns) of bins.
        spatial_scale: feature cells per image pixel, 1 / stride.

    Raises:
        ValueError: shapes that do not fit, a coordinate that is not finite, or an image index
            outside 0 .. N - 1, naming the RoI.
    """
    if features.ndim != 4 or not features.is_floating_point():
        raise ValueError(f"features must be floating [N, C, H, W], not {list(features.shape)}")
    image, boxes = _split(rois, features)
    dtype = torch.promote_types(boxes.dtype, torch.float32)
    if features.dtype == torch.float64:
        dtype = torch.float64
    rows, columns = (output_size, output_size) if isinstance(output_size, int) else output_size
    if rows < 1 or columns < 1:
        raise InputError(f"output_size: {output_size} is not positive; give at least 1")
    height, width = features.shape[2:]
    return Grid(image, boxes.to(dtype) * spatial_scale, (rows, columns), (height, width))


def _split(rois: Tensor | Sequence[Tensor], features: Tensor) -> tuple[Tensor, Tensor]:
    """Image index int64 ``[K]`` and boxes ``[K, 4]``, checked."""
    if isinstance(rois, Tensor):
        if rois.ndim != 2 or rois.shape[1] != 5:
            raise ValueError(f"rois must be [K, 5] or a list of [L, 4], not {list(rois.shape)}")
        return checked_image_index(rois, features.shape[0]), rois[:, 1:]
    for boxes in rois:
        if boxes.ndim != 2 or boxes.shape[1] != 4:
            raise ValueError(f"each element of rois must be [L, 4], not {list(boxes.shape)}")
    if not rois:
        return features.new_zeros(0, dtype=torch.int64), features.new_zeros(0, 4)
    lengths = torch.tensor([len(boxes) for boxes in rois])
    image = torch.repeat_interleave(torch.arange(len(rois)), lengths).to(features.device)
    boxes = torch.cat(list(rois))
    with_index = torch.cat((image[:, None].to(torch.float64), boxes.detach().double()), dim=1)
    return checked_image_index(with_index, features.shape[0]), boxes


@torch.library.custom_op("roi_poolers::image_index", mutates_args=())
def checked_image_index(rois: Tensor, images: int) -> Tensor:
    """Image index int64 ``[K]`` of RoIs ``[K, 5]``; an operator, so that the check compiles."""
    finite = rois.isfinite().all(dim=1)
    index = torch.where(finite, rois[:, 0], 0).to(torch.int64)
    good = finite & (index >= 0) & (index < images)
    if not bool(good.all()):
        first = int(good.logical_not().nonzero()[0])
        raise ValueError(
            f"RoI {first} is {rois[first].tolist()}: coordinates must be finite and its image "
            f"index within 0 .. {images - 1}"
        )
    return index


@checked_image_index.register_fake
def _(rois: Tensor, images: int) -> Tensor:
    return rois.new_empty(rois.shape[0], dtype=torch.int64)


def round_half_away(value: Tensor) -> Tensor:
    """Nearest integer, halves away from zero, as C rounds; torch.round takes halves to even.

    The gradient is that of the identity (straight-through).
    """
    whole = value.trunc()  # adding 1/2 and flooring would lose 0.49999997 to float rounding
    rounded = whole + value.sign() * ((value - whole).abs() >= 0.5)
    return value + (rounded - value).detach() if value.requires_grad else rounded


def at_least(value: Tensor, minimum: float) -> Tensor:
    """`value`, or `minimum` where it is less. Unlike clamp's, the gradient at `minimum` is 1."""
    return torch.where(value < minimum, minimum, value)


def linear_axis(
    index: Tensor,
    counts: Tensor,
    bins: Tensor,
    size: int,
    window: tuple[float, float],
) -> AxisPlan:
    """Linear interpolation at the points `index` ``[K, P, S]`` of index space.

    Inside `window` (closed, index space) a point beyond the first or last cell's centre reads that
    cell alone; outside the window it reads 0.
    """
    inside = (index >= window[0]) & (index <= window[1])
    place = at_least(index, 0)
    low = place.detach().floor().clamp(max=size - 1)
    # At the last cell both neighbours are that cell, and moving the point changes nothing.
    fraction = torch.where(low >= size - 1, torch.zeros_like(place), place - low)
    low = low.to(torch.int64)
    cells = torch.stack((low, (low + 1).clamp(max=size - 1)), dim=-1)
    weights = torch.stack((1 - fraction, fraction), dim=-1)
    weights = torch.where(inside[..., None], weights, torch.zeros_like(weights))
    return AxisPlan(cells, weights, counts, (index + 0.5).detach(), bins)


def sampled_axis(
    start: Tensor, length: Tensor, bins: int, size: int, sampling_ratio: int, placement: str
) -> AxisPlan:
    """RoIAlign's samples along one axis: Mask R-CNN (He et al., 2017), section 3 and figure 3.

    Args:
        start: ``[K]`` in index space.
        length: ``[K]`` in cells; may be negative (a reversed box is read backwards).
        bins: P.
        size: cells of the axis.
        sampling_ratio: samples per bin; 0 or less takes ceil(length / P) for each RoI, none at all
            where that is not positive.
        placement: "uniform" puts sample k of n at (k + 1/2) / n of the bin, "thirds" at
            (k + 1) / (n + 1), which for two samples is one third and two thirds.
    """
    bin_length = length / bins  # [K]
    if sampling_ratio > 0:
        counts = torch.full_like(length, sampling_ratio, dtype=torch.int64)
        samples = sampling_ratio
    else:
        counts = bin_length.detach().ceil().clamp(min=0).to(torch.int64)
        samples = max(int(counts.max()), 1) if len(counts) else 1
    number = counts.clamp(min=1)[:, None]  # [K, 1]
    k = torch.arange(samples, device=start.device).expand(len(start), -1).minimum(number - 1)
    offset, parts = (k + 0.5, number) if placement == "uniform" else (k + 1.0, number + 1)
    i = torch.arange(bins, device=start.device)[:, None]  # [P, 1]
    within = offset.to(start.dtype) * bin_length[:, None] / parts  # [K, S]
    index = start[:, None, None] + i * bin_length[:, None, None] + within[:, None]  # [K, P, S]
    edges = torch.arange(bins + 1, device=start.device) * bin_length[:, None] + start[:, None] + 0.5
    pairs = torch.stack((edges[:, :-1], edges[:, 1:]), dim=-1).detach()  # [K, P, 2]
    return linear_axis(index, counts[:, None].expand(-1, bins), pairs, size, (-1.0, float(size)))


def cell_axis(first: Tensor, last: Tensor, size: int) -> AxisPlan:
    """Whole cells ``first <= cell < last`` of each bin, int64 ``[K, P]``, each with weight 1."""
    counts = (last - first).clamp(min=0)
    samples = max(int(counts.max()), 1) if counts.numel() else 1
    k = torch.arange(samples, device=first.device).minimum((counts - 1).clamp(min=0)[..., None])
    cells = (first[..., None] + k).clamp(0, size - 1)[..., None]  # [K, P, S, 1]
    weights = torch.ones_like(cells, dtype=torch.float32)
    bins = torch.stack((first, last), dim=-1).float()
    return AxisPlan(cells, weights, counts, cells[..., 0] + 0.5, bins)


def choice(setting: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise InputError unless `value` is one of `choices`."""
    if value not in choices:
        raise InputError(f"pooler.{setting}: {value!r} is unknown; choose {' or '.join(choices)}")
