"""What a pooler does with one box, as things to draw: taken from the plan the op computes with.

Nothing here knows how a pooler rounds or samples. Each `DrawnPooler` has the function of `ops` that
makes its plan; box, bins, points, weights and coverage are read off that plan.

Coordinates are continuous feature coordinates, in cells: cell (x, y) covers ``[x, x + 1)`` by
``[y, y + 1)``, so the centre of cell 9 is 9.5. Only `Scene.box` is in image pixels.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ops.errors import InputError
from ops.roi_plan import AxisPlan, Grid, RoIPlan, grid
from scripts.explain.poolers import DrawnPooler
from scripts.explain.poolers import choose as choose  # a reading is made of both

Box = tuple[float, float, float, float]  # x1, y1, x2, y2
Cell = tuple[int, int]  # x, y
Cells = frozenset[Cell]


@dataclass(frozen=True)
class Scene:
    """One box on one image, and the map under it.

    Attributes:
        box: x1 y1 x2 y2 in image pixels.
        image_size: (height, width) in pixels.
        stride: image pixels per feature cell.
        output_size: (rows, columns) of bins.
        cells: (rows, columns) of the map where it is known; None derives them from the stride.
    """

    box: Box
    image_size: tuple[int, int]
    stride: int
    output_size: tuple[int, int]
    cells: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        x1, y1, x2, y2 = self.box
        if not (x1 < x2 and y1 < y2):
            raise InputError(f"box: {self.box} has no area; give x1 y1 x2 y2 with x1 < x2, y1 < y2")
        if min(self.image_size) < 1 or self.stride < 1:
            raise InputError("image size and stride: give whole numbers of at least 1")
        if min(self.output_size) < 1:
            raise InputError(f"output size: {self.output_size}; give at least 1 bin")

    @property
    def map_size(self) -> tuple[int, int]:
        """(rows, columns) of the feature map; an unfinished cell at the border counts."""
        height, width = self.image_size
        return self.cells or (-(-height // self.stride), -(-width // self.stride))

    def blank(self) -> Tensor:
        """A map of zeros ``[1, 1, H, W]``, for the sizes alone."""
        return torch.zeros(1, 1, *self.map_size, dtype=torch.float64)

    def rois(self) -> Tensor:
        """float64 ``[1, 5]``: image index 0 and the box."""
        return torch.tensor([[0.0, *self.box]], dtype=torch.float64)

    def grid(self, output_size: tuple[int, int] | None = None) -> Grid:
        return grid(self.blank(), self.rois(), output_size or self.output_size, 1 / self.stride)


@dataclass(frozen=True)
class Point:
    """One bilinear sample: where it lies, the cells it reads, and their weights (same order)."""

    x: float
    y: float
    cells: tuple[Cell, ...]
    weights: tuple[float, ...]

    def value(self, features: Tensor) -> float:
        """The sample's value on a map ``[H, W]``."""
        read = zip(self.cells, self.weights, strict=True)
        return sum(weight * float(features[y, x]) for (x, y), weight in read)


@dataclass(frozen=True)
class Coverage:
    """Cells by what becomes of them.

    Attributes:
        inside: cells that the true box overlaps.
        read: cells that some output reads with a weight other than zero.
        lost_mapping: inside, unread, and outside the box as the pooler maps it to the grid.
        lost_cutting: inside, unread, although within the mapped box: cut off with the bins.
        foreign: read, although the true box does not touch them.
    """

    inside: Cells
    read: Cells
    lost_mapping: Cells
    lost_cutting: Cells
    foreign: Cells


@dataclass(frozen=True)
class Reading:
    """What `pooler` does in `scene`."""

    pooler: DrawnPooler
    scene: Scene

    @cached_property
    def plan(self) -> RoIPlan:
        return self.pooler.plan(self.scene.grid())

    @cached_property
    def box(self) -> Box:
        """The true box, in cells."""
        x1, y1, x2, y2 = self.scene.grid().boxes[0].tolist()
        return x1, y1, x2, y2

    @cached_property
    def mapped(self) -> Box:
        """The box as the pooler maps it to the grid: what a single bin of it would be."""
        (whole,) = _bins(self.pooler.plan(self.scene.grid((1, 1))))
        return whole[0]

    @cached_property
    def bins(self) -> tuple[tuple[Box, ...], ...]:
        """``bins[i][j]``: row i, column j of the output."""
        return _bins(self.plan)

    @property
    def bin_size(self) -> tuple[float, float]:
        """(width, height) of the first bin, in cells."""
        x1, y1, x2, y2 = self.bins[0][0]
        return x2 - x1, y2 - y1

    def points(self, i: int, j: int) -> tuple[Point, ...]:
        """The samples of bin (i, j), row by row."""
        rows, columns = _samples(self.plan.rows, i), _samples(self.plan.columns, j)
        return tuple(_point(row, column) for row in rows for column in columns)

    @cached_property
    def all_points(self) -> tuple[Point, ...]:
        rows, columns = self.scene.output_size
        return tuple(p for i in range(rows) for j in range(columns) for p in self.points(i, j))

    @cached_property
    def coverage(self) -> Coverage:
        return coverage(self.plan, self.box, self.mapped, self.scene.map_size)

    def cells_without_point(self) -> Cells:
        """Cells inside the true box in which no sample lies."""
        return self.coverage.inside - {(int(p.x // 1), int(p.y // 1)) for p in self.all_points}

    def weights(self) -> dict[Cell, float]:
        """What each cell contributes to all bins together; 1 for each where whole cells compete."""
        if self.pooler.agg == "max" and not self.pooler.sampled:
            return dict.fromkeys(self.coverage.read, 1.0)
        rows, columns = _totals(self.plan.rows), _totals(self.plan.columns)
        return {(x, y): rows[y] * columns[x] for x, y in self.coverage.read}

    def foreign_share(self) -> float:
        """How much of all weight lies on cells that the true box does not touch."""
        share = self.weights()
        total = sum(share.values())
        return sum(share[cell] for cell in self.coverage.foreign) / total if total else 0.0

    def values(self, features: Tensor) -> Tensor:
        """The op's own output ``[rows, columns]`` on a map ``[H, W]``."""
        maps = features[None, None].to(torch.float64)
        scale = 1 / self.scene.stride
        return self.pooler.op(maps, self.scene.rois(), self.scene.output_size, scale)[0, 0]


def coverage(plan: RoIPlan, box: Box, mapped: Box, map_size: tuple[int, int]) -> Coverage:
    """Sort the cells that a plan of one RoI reads or leaves.

    Args:
        box, mapped: the true box and the pooler's, in continuous coordinates.
        map_size: (rows, columns) of the map.
    """
    rows, columns = map_size
    inside = frozenset((x, y) for x, y in overlapped(box) if 0 <= x < columns and 0 <= y < rows)
    read = frozenset((x, y) for x in _read(plan.columns) for y in _read(plan.rows))
    lost, kept = inside - read, overlapped(mapped)
    return Coverage(inside, read, lost - kept, lost & kept, read - inside)


def overlapped(box: Box) -> Cells:
    """Cells that a box shares some area with, on a map without end."""
    x1, y1, x2, y2 = box
    columns = range(math.floor(x1), math.ceil(x2))
    return frozenset((x, y) for y in range(math.floor(y1), math.ceil(y2)) for x in columns)


def _read(axis: AxisPlan) -> set[int]:
    """Cells of one axis with a weight other than zero in some bin."""
    cells, weights = axis.averaged()
    return set(cells[0][weights[0] != 0].tolist())


def _totals(axis: AxisPlan) -> dict[int, float]:
    """The weights of each cell of one axis, summed over bins."""
    totals: dict[int, float] = {}
    cells, weights = axis.averaged()
    for cell, weight in zip(cells.flatten().tolist(), weights.flatten().tolist(), strict=True):
        totals[cell] = totals.get(cell, 0.0) + weight
    return totals


def _bins(plan: RoIPlan) -> tuple[tuple[Box, ...], ...]:
    rows, columns = plan.rows.bins[0].tolist(), plan.columns.bins[0].tolist()
    return tuple(tuple((x1, y1, x2, y2) for x1, x2 in columns) for y1, y2 in rows)


_AxisSample = tuple[float, list[int], list[float]]  # place, cells, weights


def _samples(axis: AxisPlan, i: int) -> list[_AxisSample]:
    """The samples of bin i along one axis."""
    return [
        (axis.points[0, i, k].item(), axis.cells[0, i, k].tolist(), axis.weights[0, i, k].tolist())
        for k in range(int(axis.counts[0, i]))
    ]


def _point(row: _AxisSample, column: _AxisSample) -> Point:
    """The sample at a row's and a column's place; cells row by row (TL, TR, BL, BR)."""
    y, ys, v = row
    x, xs, u = column
    cells = tuple((cx, cy) for cy in ys for cx in xs)
    return Point(x, y, cells, tuple(wy * wx for wy in v for wx in u))


def bump(map_size: tuple[int, int], around: Box) -> Tensor:
    """A map float64 ``[H, W]`` between 0 and 1 in steps of 0.01, as if an object lay in `around`.

    A made-up response for the drawings: two blobs and a slope. Steps of 0.01, so that the numbers
    printed in the cells are the numbers computed with.
    """
    rows, columns = map_size
    x1, y1, x2, y2 = around
    y = (torch.arange(rows, dtype=torch.float64)[:, None] + 0.5 - y1) / (y2 - y1)
    x = (torch.arange(columns, dtype=torch.float64) + 0.5 - x1) / (x2 - x1)
    head = 0.75 * torch.exp(-(((x - 0.3) / 0.3) ** 2) - ((y - 0.3) / 0.35) ** 2)
    tail = 0.85 * torch.exp(-(((x - 0.75) / 0.25) ** 2) - ((y - 0.65) / 0.3) ** 2)
    slope = 0.1 + 0.04 * torch.sin(5 * x + 3 * y)
    return (head + tail + slope).clamp(0, 1).mul(100).round() / 100
