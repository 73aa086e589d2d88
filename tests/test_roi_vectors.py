"""Published and hand-checked values of the poolers: each row says what the op must return."""

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ops.crop_resize import crop_resize
from ops.prroi_pool import prroi_pool
from ops.roi_align import roi_align
from ops.roi_pool import roi_pool
from ops.roi_warp import roi_warp


def maps(values: object) -> Tensor:
    """One map of one channel, float64 ``[1, 1, H, W]``."""
    return torch.as_tensor(values, dtype=torch.float64)[None, None]


def roi(*box: float) -> Tensor:
    return torch.tensor([[0.0, *box]], dtype=torch.float64)


def assert_same(actual: Tensor, expected: object, tolerance: float = 1e-5) -> None:
    expected = torch.as_tensor(expected, dtype=actual.dtype)
    expected = expected.expand(actual.squeeze().shape) if expected.ndim == 0 else expected
    torch.testing.assert_close(actual.detach().squeeze(), expected, rtol=0, atol=tolerance)


def outer(rows: list[float], columns: list[float]) -> Tensor:
    """The table whose entry (i, j) is ``rows[i] + columns[j]``."""
    return torch.tensor(rows, dtype=torch.float64)[:, None] + torch.tensor(columns)


# ------------------------------------------------------------------ a ramp, the article's box

RAMP = maps(torch.arange(256.0).view(16, 16))
ARTICLE = roi(296, 192, 496, 337)


@pytest.mark.parametrize(
    ("pooler", "settings", "expected"),
    [
        (roi_pool, {}, outer([123, 155, 187], [0, 3, 4])),
        (roi_align, {}, outer([109.875, 134.041667, 158.208333], [0, 2.083333, 4.166667])),
        (
            roi_align,
            {"sampling_ratio": 0},
            outer([109.875, 134.041667, 158.208333], [0, 2.083333, 4.166667]),
        ),
        (
            roi_align,
            {"placement": "thirds"},
            outer([109.875, 134.041667, 158.208333], [0, 2.083333, 4.166667]),
        ),
        (
            roi_align,
            {"agg": "max"},
            outer([116.4375, 140.604167, 164.770833], [0, 2.083333, 4.166667]),
        ),
        (
            roi_align,
            {"agg": "max", "placement": "thirds"},
            outer([114.25, 138.416667, 162.583333], [0, 2.083333, 4.166667]),
        ),
        (
            roi_align,
            {"aligned": False},
            outer([118.375, 142.541667, 166.708333], [0, 2.083333, 4.166667]),
        ),
        (
            roi_align,
            {"aligned": False, "sampling_ratio": 1},
            outer([118.375, 142.541667, 166.708333], [0, 2.083333, 4.166667]),
        ),
        (
            roi_align,
            {"aligned": False, "sampling_ratio": 0},
            outer([118.375, 142.541667, 166.708333], [0, 2.083333, 4.115741]),
        ),
        (
            roi_warp,
            {"mode": "mnc", "sampling_ratio": 1},
            outer([105, 131.666667, 158.333333], [0, 2.333333, 4.666667]),
        ),
        (
            roi_warp,
            {"mode": "mnc", "agg": "max"},
            outer([119.5, 146.166667, 172.833333], [0, 2.333333, 4.666667]),
        ),
        (roi_warp, {}, outer([111, 137.666667, 164.333333], [0, 2.333333, 4.666667])),
        (
            roi_warp,
            {"agg": "max"},
            outer([118.25, 144.916667, 171.583333], [0, 2.333333, 4.666667]),
        ),
        (
            roi_warp,
            {"aligned": False},
            outer([119.5, 146.166667, 172.833333], [0, 2.333333, 4.458333]),
        ),
        (
            roi_warp,
            {"aligned": False, "agg": "max"},
            outer([126.75, 153.416667, 180.083333], [0, 2.333333, 4.25]),
        ),
    ],
)
def test_ramp_under_the_articles_box(pooler, settings, expected):
    assert_same(pooler(RAMP, ARTICLE, 3, 1 / 32, **settings), expected)


def test_mnc_preset_is_the_released_layer_at_twice_the_size_then_max_pooling():
    layer = roi_warp(RAMP, ARTICLE, 6, 1 / 32, mode="mnc", sampling_ratio=1)
    preset = roi_warp(RAMP, ARTICLE, 3, 1 / 32, mode="mnc", agg="max", sampling_ratio=2)
    assert_same(preset, F.max_pool2d(layer, 2).squeeze(), 1e-12)


# ------------------------------------------------------------------ OpenMMLab's published cases

SMALL = maps([[1, 2], [3, 4]])
FALLING = maps([[4, 3], [2, 1]])
LARGE = maps([[1, 2, 5, 6], [3, 4, 7, 8], [9, 10, 13, 14], [11, 12, 15, 16]])
ALIGN_C = [
    [0.47265625, 0.4296875, 0.4296875, 0.04296875],
    [0.4296875, 0.390625, 0.390625, 0.0390625],
    [0.4296875, 0.390625, 0.390625, 0.0390625],
    [0.04296875, 0.0390625, 0.0390625, 0.00390625],
]
MAX_C = [
    [0.140625, 0.234375, 0.328125, 0.046875],
    [0.234375, 0.390625, 0.546875, 0.078125],
    [0.328125, 0.546875, 0.765625, 0.109375],
    [0.046875, 0.078125, 0.109375, 0.015625],
]
CORNERS_C = [[0, 0, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0], [0, 1, 0, 1]]
MNC_C = [[1, 0.5, 0.5, 0], [0.5, 0.25, 0.25, 0], [0.5, 0.25, 0.25, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize(
    ("pooler", "settings", "features", "side", "out", "grad"),
    [
        (roi_align, {}, SMALL, 1, [[1, 1.25], [1.5, 1.75]], [[3.0625, 0.4375], [0.4375, 0.0625]]),
        (roi_align, {}, FALLING, 1, [[4, 3.75], [3.5, 3.25]], [[3.0625, 0.4375], [0.4375, 0.0625]]),
        (roi_align, {}, LARGE, 3, [[1.9375, 4.75], [7.5625, 10.375]], ALIGN_C),
        (roi_pool, {}, SMALL, 1, [[1, 2], [3, 4]], [[1, 1], [1, 1]]),
        (roi_pool, {}, FALLING, 1, [[4, 3], [2, 1]], [[1, 1], [1, 1]]),
        (roi_pool, {}, LARGE, 3, [[4, 8], [12, 16]], CORNERS_C),
        (
            roi_align,
            {"agg": "max"},
            SMALL,
            1,
            [[1, 1.375], [1.75, 2.125]],
            [[2.640625, 0.609375], [0.609375, 0.140625]],
        ),
        (roi_align, {"agg": "max"}, FALLING, 1, [[4, 3.875], [3.75, 3.625]], None),
        (roi_align, {"agg": "max"}, LARGE, 3, [[2.875, 6.375], [9.875, 13.375]], MAX_C),
        (roi_warp, {"mode": "mnc", "sampling_ratio": 1}, SMALL, 1, [[1, 1.5], [2, 2.5]], None),
        (roi_warp, {"mode": "mnc", "sampling_ratio": 1}, LARGE, 3, [[1, 3.5], [6, 8.5]], MNC_C),
        (prroi_pool, {}, SMALL, 1, [[1.75, 2.25], [2.75, 3.25]], [[1, 1], [1, 1]]),
        (prroi_pool, {}, FALLING, 1, [[3.25, 2.75], [2.25, 1.75]], [[1, 1], [1, 1]]),
        (prroi_pool, {}, LARGE, 3, [[3.75, 6.916667], [10.083333, 13.25]], None),
    ],
)
def test_openmmlabs_cases(pooler, settings, features, side, out, grad):
    features = features.clone().requires_grad_()
    pooled = pooler(features, roi(0, 0, side, side), 2, 1.0, **settings)
    assert_same(pooled, out)
    pooled.sum().backward()
    if grad is not None:
        assert_same(features.grad, grad)


@pytest.mark.parametrize(
    ("pooler", "settings", "features", "side", "expected"),
    [
        (roi_warp, {"mode": "mnc", "sampling_ratio": 1}, LARGE, 3, [0, 5, 10, 3, 6]),
        (prroi_pool, {}, SMALL, 1, [0, 2, 4, 2, 4]),
        (prroi_pool, {}, torch.cat((SMALL, FALLING), 1), 1, [0, 0, 0, 0, 0]),
        (prroi_pool, {}, LARGE, 3, [0, 3.333333, 6.666667, 3.333333, 6.666667]),
    ],
)
def test_published_gradients_of_the_box(pooler, settings, features, side, expected):
    rois = roi(0, 0, side, side).requires_grad_()
    pooler(features, rois, 2, 1.0, **settings).sum().backward()
    assert_same(rois.grad, expected)


# ------------------------------------------------------------------ boxes that tell poolers apart

Y, X = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
MODULAR = maps((3 * Y + 5 * X + X * Y) % 7)
MNC4 = {"mode": "mnc", "sampling_ratio": 1}
INSIDE, HALVES, LEFT, RIGHT, TINY = (
    roi(8, 24, 88, 104),
    roi(40, 40, 56, 72),
    roi(-24, -8, 40, 40),
    roi(96, 80, 140, 136),
    roi(50, 50, 51, 51),
)


@pytest.mark.parametrize(
    ("pooler", "settings", "rois", "size", "expected"),
    [
        (roi_pool, {}, INSIDE, 2, [[6, 6], [5, 6]]),
        (roi_align, {}, INSIDE, 2, [[4, 4.789062], [2.046875, 4]]),
        (roi_align, {"sampling_ratio": 0}, INSIDE, 2, [[3.989198, 4.803241], [2.142747, 3.989198]]),
        (roi_align, {"agg": "max"}, INSIDE, 2, [[4.640625, 5.859375], [2.59375, 4.640625]]),
        (roi_align, {"aligned": False}, INSIDE, 2, [[4.3125, 4.464844], [2.324219, 3.75]]),
        (
            roi_align,
            {"aligned": False, "sampling_ratio": 0},
            INSIDE,
            2,
            [[4.155864, 4.448302], [2.365741, 3.814815]],
        ),
        (
            roi_warp,
            MNC4,
            INSIDE,
            4,
            [
                [6, 6, 6, 6],
                [2.25, 3.8125, 5.375, 1.6875],
                [2, 1.625, 4.75, 2.625],
                [1.75, 3.375, 4.125, 3.5625],
            ],
        ),
        (roi_pool, {}, HALVES, 2, [[5, 6], [4, 6]]),
        (roi_pool, {}, HALVES, 3, [[5, 6, 6], [4, 6, 6], [3, 6, 6]]),
        (roi_align, {}, HALVES, 2, [[5.125, 5.375], [3.375, 4.125]]),
        (roi_pool, {}, LEFT, 2, [[3, 5], [6, 6]]),
        (roi_pool, {}, LEFT, 3, [[0, 5, 3], [0, 6, 6], [0, 6, 6]]),
        (roi_align, {}, LEFT, 2, [[0.09375, 3.171875], [1.875, 3.328125]]),
        (roi_align, {"aligned": False}, LEFT, 2, [[0.9375, 3.21875], [4.8125, 4.4375]]),
        (roi_pool, {}, RIGHT, 2, [[5, 0], [2, 0]]),
        (roi_align, {}, RIGHT, 2, [[2.715332, 2.34375], [1.57373, 0.625]]),
        (roi_align, {"aligned": False}, RIGHT, 2, [[2.264648, 1.265625], [0.328125, 0]]),
        (roi_pool, {}, TINY, 2, 5.0),
        (roi_align, {}, TINY, 2, [[5.12915, 5.14917], [5.08667, 5.107666]]),
        (roi_align, {"aligned": False}, TINY, 2, [[5.140625, 5.828125], [4.828125, 5.765625]]),
        (roi_warp, MNC4, TINY, 4, 5.0),
    ],
)
def test_boxes_that_tell_poolers_apart(pooler, settings, rois, size, expected):
    assert_same(pooler(MODULAR, rois, size, 1 / 16, **settings), expected, 2e-6)


def test_halves_round_away_from_zero_in_mncs_warp():
    first = roi_warp(MODULAR, HALVES, 4, 1 / 16, **MNC4)[0, 0, 0]
    assert_same(first, [5, 5.25, 5.5, 5.75])


# ------------------------------------------------------------------ degenerate boxes

COUNT = maps(torch.arange(1.0, 37).view(6, 6))
FINE = {"sampling_ratio": 0}
OLD = {"aligned": False}


@pytest.mark.parametrize(
    ("pooler", "settings", "box", "expected"),
    [
        (roi_pool, {}, (2, 2, 2, 2), 15.0),
        (roi_align, OLD, (2, 2, 2, 2), [[16.75, 17.25], [19.75, 20.25]]),
        (roi_align, OLD | FINE, (2, 2, 2, 2), [[16.75, 17.25], [19.75, 20.25]]),
        (roi_align, FINE, (2, 2, 2, 2), 0.0),
        (roi_align, {}, (2, 2, 2, 2), 11.5),
        (roi_align, FINE, (1, 3, 4, 3), 0.0),
        (roi_align, {}, (1, 3, 4, 3), [[17.25, 18.75], [17.25, 18.75]]),
        (roi_pool, {}, (1, 3, 4, 3), [[21, 23], [21, 23]]),
        (roi_pool, {}, (4, 4, 1, 1), 29.0),
        (roi_align, OLD, (4, 4, 1, 1), [[30.75, 31.25], [33.75, 34.25]]),
        (roi_align, FINE, (4, 4, 1, 1), 0.0),
        (roi_align, {}, (4, 4, 1, 1), [[20.25, 18.75], [11.25, 9.75]]),
        (roi_align, FINE, (1, 5, 5, 0), 0.0),
        (roi_align, FINE | {"agg": "max"}, (1, 5, 5, 0), 0.0),
        (roi_pool, {}, (-2, -2, 2, 2), [[1, 3], [13, 15]]),
        (roi_align, OLD, (-2, -2, 2, 2), [[0.25, 1], [3.5, 8]]),
        (roi_align, {}, (-2, -2, 2, 2), [[0.25, 0.75], [2, 4.5]]),
        (roi_pool, {}, (4, 4, 9, 9), [[36, 0], [0, 0]]),
        (roi_align, {}, (4, 4, 9, 9), [[32.9375, 0], [0, 0]]),
        (roi_pool, {}, (20, 20, 30, 30), 0.0),
        (roi_align, {}, (20, 20, 30, 30), 0.0),
        (roi_align, {"agg": "max"}, (20, 20, 30, 30), 0.0),
        (roi_warp, {}, (20, 20, 30, 30), 0.0),
        (roi_warp, {"mode": "mnc"}, (-30, -30, -20, -20), 0.0),
        (prroi_pool, {}, (20, 20, 30, 30), 0.0),
        (prroi_pool, {}, (2, 2, 2, 2), 0.0),
        (prroi_pool, {}, (4, 4, 1, 1), 0.0),
    ],
)
def test_degenerate_boxes_have_defined_values(pooler, settings, box, expected):
    assert_same(pooler(COUNT, roi(*box), 2, 1.0, **settings), expected, 1e-12)


# ------------------------------------------------------------------ detectron2's published cases

FIVE = maps(torch.arange(25.0).view(5, 5))
TABLE = outer([0, 2.5, 5, 7.5], [0, 0.5, 1, 1.5])


@pytest.mark.parametrize(
    ("settings", "first"),
    [
        ({"aligned": False, "sampling_ratio": 0}, 7.5),
        ({"sampling_ratio": 0}, 4.5),
        ({"agg": "max"}, 5.25),
    ],
)
def test_detectron2s_five_by_five(settings, first):
    assert_same(roi_align(FIVE, roi(1, 1, 3, 3), 4, 1.0, **settings), TABLE + first, 1e-12)


def test_aligned_pooling_agrees_with_resizing_the_map():
    image = np.random.default_rng(0).random((30, 30)).astype(np.float32) * 100
    half = cv2.resize(image, (15, 15), interpolation=cv2.INTER_LINEAR)
    fine = roi_align(maps(image), roi(10, 10, 20, 20), 5, 1.0, sampling_ratio=0)
    coarse = roi_align(maps(half), roi(5, 5, 10, 10), 5, 1.0, sampling_ratio=0)
    assert_same(fine, coarse.squeeze(), 1e-4)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_aligned_pooling_agrees_with_grid_sample(n):
    torch.manual_seed(0)
    features = torch.rand(1, 4, 12, 15, dtype=torch.float64)
    x1, y1, x2, y2 = 2.3, 1.7, 11.1, 9.2
    xs = x1 + (torch.arange(5 * n) + 0.5) * (x2 - x1) / (5 * n)
    ys = y1 + (torch.arange(5 * n) + 0.5) * (y2 - y1) / (5 * n)
    y, x = torch.meshgrid(ys * 2 / 12 - 1, xs * 2 / 15 - 1, indexing="ij")
    points = torch.stack((x, y), dim=-1)[None].double()
    expected = F.avg_pool2d(F.grid_sample(features, points, align_corners=False), n)
    assert_same(
        roi_align(features, roi(x1, y1, x2, y2), 5, 1.0, sampling_ratio=n), expected[0], 1e-6
    )


def test_an_empty_box_gives_zeros_and_no_gradient():
    features = torch.rand(1, 2, 8, 8, requires_grad=True)
    pooled = roi_align(features, roi(3, 4, 5, 4), 7, 1.0, sampling_ratio=0)
    pooled.sum().backward()
    assert pooled.shape == (1, 2, 7, 7)
    assert not pooled.any()
    assert not features.grad.any()


class TestCropAndResize:
    """Corner-aligned samples, ends included, zero outside the map; then the largest of 2 x 2."""

    def test_a_ramp_gives_each_bins_last_sample(self) -> None:
        # The box is 1 .. 10 by 2 .. 9 in cells: six samples an axis, 1.8 and 1.4 cells apart.
        found = crop_resize(RAMP, roi(32, 64, 320, 288), 3, 1 / 32)
        rows, columns = (
            [start + step * k for k in (1, 3, 5)] for start, step in ((2, 1.4), (1, 1.8))
        )
        assert_same(found, outer([16 * y for y in rows], columns))

    def test_one_bin_reads_the_four_corners(self) -> None:
        assert_same(crop_resize(RAMP, roi(32, 64, 320, 288), 1, 1 / 32), 16 * 9 + 10)

    def test_samples_beyond_the_border_cells_centres_are_zero(self) -> None:
        found = crop_resize(-torch.ones_like(RAMP), roi(0, 0, 16 * 32, 15 * 32), 2, 1 / 32)
        assert_same(
            found, [[-1, 0], [-1, 0]]
        )  # the last column of samples lies at 16, the last cell at 15

    def test_inside_the_map_it_is_grid_sample_with_aligned_corners(self) -> None:
        features = torch.randn(1, 3, 9, 12, dtype=torch.float64)
        found = crop_resize(features, roi(8, 16, 80, 60), 5, 1 / 8)  # 1 .. 10 by 2 .. 7.5 in cells
        x = torch.linspace(1, 10, 10, dtype=torch.float64) / 11 * 2 - 1
        y = torch.linspace(2, 7.5, 10, dtype=torch.float64) / 8 * 2 - 1
        places = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)[None]
        sampled = F.grid_sample(features, places, mode="bilinear", align_corners=True)
        torch.testing.assert_close(found, F.max_pool2d(sampled, 2))

    def test_it_reads_half_a_cell_below_and_right_of_roi_align(self) -> None:
        box = roi(64, 64, 256, 256)
        corner = crop_resize(RAMP, box, 4, 1 / 32).mean() - roi_align(RAMP, box, 4, 1 / 32).mean()
        assert corner > 0.5 * (16 + 1)  # half a cell on both axes, and the maximum above the mean

    def test_gradients_reach_features_and_boxes(self) -> None:
        features = torch.randn(1, 2, 7, 8, dtype=torch.float64, requires_grad=True)
        boxes = roi(9.3, 7.1, 40.2, 37.9).requires_grad_()
        assert torch.autograd.gradcheck(lambda f, b: crop_resize(f, b, 3, 1 / 8), (features, boxes))
