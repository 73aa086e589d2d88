"""The plan of what a pooler reads, on the worked example that explains RoIAlign by pictures.

A 512 x 512 image at stride 32 gives a 16 x 16 map; the box is 200 wide and 145 high at (296, 192).
"""

import pytest
import torch

from ops.roi_align import plan as align_plan
from ops.roi_plan import Grid, RoIPlan, grid, round_half_away
from ops.roi_pool import plan as pool_plan
from ops.roi_warp import plan as warp_plan

BOX = torch.tensor([[0, 296, 192, 496, 337]], dtype=torch.float64)


@pytest.fixture
def area() -> Grid:
    return grid(torch.zeros(1, 1, 16, 16), BOX, 3, 1 / 32)


def assert_close(actual: torch.Tensor, expected: list[float], tolerance: float = 1e-6) -> None:
    expected_tensor = torch.tensor(expected, dtype=actual.dtype)
    torch.testing.assert_close(actual.flatten(), expected_tensor, rtol=0, atol=tolerance)


def read_cells(plan: RoIPlan) -> set[tuple[int, int]]:
    """Cells (x, y) that a positive weight reaches."""
    rows = set(plan.rows.cells[plan.rows.weights > 0].tolist())
    columns = set(plan.columns.cells[plan.columns.weights > 0].tolist())
    return {(x, y) for x in columns for y in rows}


def block(columns: range, rows: range) -> set[tuple[int, int]]:
    return {(x, y) for x in columns for y in rows}


def test_the_box_lies_on_the_map_off_the_grid(area):
    x1, y1, x2, y2 = area.boxes[0].tolist()
    assert (x1, y1, x2, y2) == (9.25, 6, 15.5, 10.53125)
    plan = align_plan(area, 2, aligned=True)
    assert_close(plan.columns.bins[0], [9.25, 11.333333, 11.333333, 13.416667, 13.416667, 15.5])
    assert_close(plan.rows.bins[0], [6, 7.510417, 7.510417, 9.020833, 9.020833, 10.53125])


def test_thirds_give_the_36_points(area):
    plan = align_plan(area, 2, aligned=True, placement="thirds")
    xs = [9.944444, 10.638889, 12.027778, 12.722222, 14.111111, 14.805556]
    ys = [6.503472, 7.006944, 8.013889, 8.517361, 9.524306, 10.027778]
    assert_close(plan.columns.points, xs)
    assert_close(plan.rows.points, ys)


def test_two_samples_lie_at_the_quarters_of_a_bin(area):
    plan = align_plan(area, 2, aligned=True)
    assert_close(plan.columns.points, [9.770833, 10.8125, 11.854167, 12.895833, 13.9375, 14.979167])
    assert_close(plan.rows.points, [6.377604, 7.132812, 7.888021, 8.643229, 9.398438, 10.153646])


def test_adaptive_sampling_takes_a_sample_per_cell_begun(area):
    plan = align_plan(area, 0, aligned=True)
    assert plan.columns.counts.unique().tolist() == [3]
    assert plan.rows.counts.unique().tolist() == [2]


@pytest.mark.parametrize(
    ("k", "m", "cells_xy", "weights"),
    [
        (0, 0, ([9, 10], [6, 7]), [0.553627, 0.442901, 0.001929, 0.001543]),
        (1, 0, ([9, 10], [6, 7]), [0.273920, 0.219136, 0.281636, 0.225309]),
        (0, 1, ([10, 11], [6, 7]), [0.858121, 0.138407, 0.002990, 0.000482]),
        (1, 1, ([10, 11], [6, 7]), [0.424576, 0.068480, 0.436535, 0.070409]),
    ],
    ids=["top left", "bottom left", "top right", "bottom right"],
)
def test_neighbours_and_weights_of_the_first_bins_points(area, k, m, cells_xy, weights):
    plan = align_plan(area, 2, aligned=True, placement="thirds")
    rows, columns = plan.rows, plan.columns
    assert (columns.cells[0, 0, m].tolist(), rows.cells[0, 0, k].tolist()) == cells_xy
    assert_close(rows.weights[0, 0, k][:, None] * columns.weights[0, 0, m], weights)


@pytest.mark.parametrize(
    ("placement", "columns_without"), [("thirds", [11, 13, 15]), ("uniform", [15])]
)
def test_cells_of_the_box_without_a_point(area, placement, columns_without):
    plan = align_plan(area, 2, aligned=True, placement=placement)
    xs = {int(x) for x in plan.columns.points.flatten()}
    ys = {int(y) for y in plan.rows.points.flatten()}
    box = block(range(9, 16), range(6, 11))
    without = box - {(x, y) for x in xs for y in ys}
    assert without == {(x, y) for x in columns_without for y in range(6, 11)}


def test_coverage_of_the_three_poolers(area):
    rounded = area.with_boxes(round_half_away(area.boxes))
    columns = range(9, 16)
    assert read_cells(pool_plan(area, "caffe")) == block(
        columns, range(6, 12)
    )  # a row below the box
    assert read_cells(pool_plan(area, "floor")) == block(
        range(9, 15), range(6, 9)
    )  # two rows short
    assert read_cells(align_plan(area, 2, aligned=True)) == block(columns, range(5, 11))
    assert read_cells(align_plan(rounded, 2, aligned=True)) == block(columns, range(5, 12))


def test_caffes_bins_overlap_and_end_at_the_map(area):
    plan = pool_plan(area, "caffe")
    assert plan.columns.bins[0].tolist() == [[9, 12], [11, 15], [14, 16]]
    assert plan.rows.bins[0].tolist() == [[6, 8], [8, 10], [10, 12]]


def test_floor_bins_drop_the_remainder(area):
    plan = pool_plan(area, "floor")
    assert plan.columns.bins[0].tolist() == [[9, 11], [11, 13], [13, 15]]
    assert plan.rows.bins[0].tolist() == [[6, 7], [7, 8], [8, 9]]


def test_mncs_samples_lie_at_the_corners_of_the_bins(area):
    plan = warp_plan(area, 1, mode="mnc")
    assert_close(plan.columns.points - 0.5, [9, 11.333333, 13.666667])
    assert_close(plan.rows.points - 0.5, [6, 7.666667, 9.333333])


@pytest.mark.parametrize(
    ("value", "expected"),
    [(2.5, 3), (0.5, 1), (-0.5, -1), (3.5, 4), (-2.5, -3), (0.49999997, 0), (2.4, 2), (-1.6, -2)],
)
def test_halves_round_away_from_zero(value, expected):
    assert round_half_away(torch.tensor(value)).item() == expected
