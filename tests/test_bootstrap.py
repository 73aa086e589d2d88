"""Intervals hold the truth as often as they say: images and seeds simulated, the truth known."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from made_up_runs import made_up_matches
from numpy.typing import NDArray

from judging.matches import Matches, average_precision
from reporting.bootstrap import Interval, paired_interval, resampled_counts

IMAGES, RESAMPLES, SEEDS, REPEATS, TRUTH = 60, 200, 3, 400, 2.0
AP_REPEATS = 150  # dearer: every one draws detections and scores them
Method = Callable[[NDArray[np.float64], NDArray[np.int64]], Interval]


def _ours(effects: NDArray[np.float64], counts: NDArray[np.int64]) -> Interval:
    """`effects` [N, S]: what each image adds to the difference of each seed."""
    return paired_interval(effects.mean(axis=0), (counts @ effects / len(effects)).T)


def _seeds_resampled(effects: NDArray[np.float64], counts: NDArray[np.int64]) -> Interval:
    """The tempting way: draw the three seeds with replacement, as the images are."""
    seeds = effects.shape[1]
    chosen = resampled_counts(seeds, len(counts)) / seeds  # [B, S]
    values = ((counts @ effects / len(effects)) * chosen).sum(axis=1)
    return Interval(float(effects.mean()), *map(float, np.quantile(values, [0.025, 0.975])))


def _simulated(
    method: Method, *, image: float, seed: float, both: float, seeds: int = SEEDS
) -> tuple[float, float]:
    """Coverage and mean width; images, seeds and their interplay have these standard deviations."""
    draw = np.random.default_rng(7)
    counts = resampled_counts(IMAGES, RESAMPLES)
    hits, widths = 0, 0.0
    for _ in range(REPEATS):
        effects = (
            TRUTH
            + image * draw.standard_normal((IMAGES, 1))
            + seed * draw.standard_normal((1, seeds))
            + both * draw.standard_normal((IMAGES, seeds))
        )
        interval = method(effects, counts)
        hits += interval.low <= TRUTH <= interval.high
        widths += interval.high - interval.low
    return hits / REPEATS, widths / REPEATS


# Three standard deviations of the share of REPEATS that cover at 95 %.
SLACK = 3 * float(np.sqrt(0.95 * 0.05 / REPEATS))


def test_where_seeds_decide_the_interval_covers_at_its_rate() -> None:
    coverage, _ = _simulated(_ours, image=0.3, seed=1.0, both=0.3)
    assert abs(coverage - 0.95) < SLACK


def test_one_seed_leaves_an_interval_of_the_images_that_covers_at_its_rate() -> None:
    coverage, _ = _simulated(_ours, image=1.0, seed=0.0, both=0.0, seeds=1)
    assert abs(coverage - 0.95) < SLACK


@pytest.mark.parametrize("both", [0.5, 3.0])
@pytest.mark.parametrize("seed", [0.0, 0.2])
def test_the_interval_never_covers_less_than_it_says(seed: float, both: float) -> None:
    coverage, _ = _simulated(_ours, image=1.0, seed=seed, both=both)
    assert coverage > 0.95 - SLACK


def test_resampling_three_seeds_would_cover_far_too_rarely() -> None:
    coverage, width = _simulated(_seeds_resampled, image=0.3, seed=1.0, both=0.3)
    assert coverage < 0.85
    assert width < 0.6 * _simulated(_ours, image=0.3, seed=1.0, both=0.3)[1]


def test_images_alone_would_cover_too_rarely_where_seeds_differ() -> None:
    def images_alone(effects: NDArray[np.float64], counts: NDArray[np.int64]) -> Interval:
        return _ours(effects.mean(axis=1, keepdims=True), counts)

    assert _simulated(images_alone, image=1.0, seed=0.5, both=0.5)[0] < 0.8


def _one_class(quality: float, draw: np.random.Generator, set_seed: int) -> Matches:
    """Detections of one class at one IoU threshold, .50, on images that `set_seed` draws."""
    matches = made_up_matches(
        quality, draw, images=IMAGES, classes=1, per_image=2, set_seed=set_seed, image_noise=0.1
    )
    return dataclasses.replace(matches, tp=matches.tp[:, :1], ignored=matches.ignored[:, :1])


def _ap(matches: Matches, counts: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
    return average_precision(matches, counts)[:, 0, 0]


def _ap_coverage(quality: tuple[float, float], truth: float, repeats: int) -> float:
    draw = np.random.default_rng(11)
    counts = resampled_counts(IMAGES, RESAMPLES)
    hits = 0
    for repeat in range(repeats):
        upper, lower = (
            [_one_class(q + draw.normal(0, 0.02), draw, repeat) for _ in range(SEEDS)]
            for q in quality
        )
        interval = paired_interval(
            np.array([_ap(u)[0] - _ap(v)[0] for u, v in zip(upper, lower, strict=True)]),
            np.stack([_ap(u, counts) - _ap(v, counts) for u, v in zip(upper, lower, strict=True)]),
        )
        hits += interval.low <= truth <= interval.high
    return hits / repeats


def test_ap_of_equally_good_networks_differs_by_zero_as_often_as_the_interval_says() -> None:
    coverage = _ap_coverage((0.6, 0.6), truth=0.0, repeats=AP_REPEATS)
    assert coverage > 0.95 - 3 * np.sqrt(0.95 * 0.05 / AP_REPEATS)


def test_a_known_difference_in_ap_lies_in_the_interval_as_often_as_it_says() -> None:
    draw = np.random.default_rng(5)
    means = [
        np.mean([_ap(_one_class(q + draw.normal(0, 0.02), draw, 10**6 + k)) for k in range(800)])
        for q in (0.68, 0.6)
    ]
    truth = float(means[0] - means[1])
    assert truth > 0.1
    coverage = _ap_coverage((0.68, 0.6), truth, repeats=AP_REPEATS)
    assert coverage > 0.95 - 3 * np.sqrt(0.95 * 0.05 / AP_REPEATS)


def test_pairing_the_images_narrows_the_interval() -> None:
    draw = np.random.default_rng(3)
    upper, lower = (_one_class(quality, draw, 0) for quality in (0.64, 0.6))
    counts = resampled_counts(IMAGES, 2 * RESAMPLES)
    first, second = counts[:RESAMPLES], counts[RESAMPLES:]
    value = _ap(upper) - _ap(lower)
    paired = paired_interval(value, (_ap(upper, first) - _ap(lower, first))[None])
    unpaired = paired_interval(value, (_ap(upper, first) - _ap(lower, second))[None])
    assert unpaired.high - unpaired.low > 1.3 * (paired.high - paired.low)


def test_every_resample_has_as_many_images_as_there_are_and_is_the_same_each_time() -> None:
    counts = resampled_counts(50, 300)
    assert counts.shape == (300, 50)
    assert (counts.sum(axis=1) == 50).all()
    assert (counts == resampled_counts(50, 300)).all()
    assert abs(counts.var(axis=0).mean() - (1 - 1 / 50)) < 0.05  # of a multinomial draw


def test_equal_seeds_leave_the_bootstrap_of_the_images() -> None:
    draw = np.random.default_rng(0)
    one = draw.normal(1, 1, 500)
    same = paired_interval(np.ones(3), np.stack([one, one, one]))
    alone = paired_interval(np.ones(1), one[None])
    assert (same.low, same.high) == pytest.approx((alone.low, alone.high), abs=0.1)
    assert alone.low == pytest.approx(np.quantile(one, 0.025))


def test_without_noise_of_the_images_the_interval_is_students() -> None:
    differences = np.array([1.0, 2.0, 3.0])
    interval = paired_interval(differences, np.repeat(differences[:, None], 2000, axis=1))
    half = 4.3027 / np.sqrt(3)  # t of two degrees of freedom at 97.5 %, and a deviation of 1
    assert interval.value == 2
    assert (interval.low, interval.high) == pytest.approx((2 - half, 2 + half), abs=0.1)
    assert not interval.distinguishable


@pytest.mark.parametrize(
    ("low", "high", "told"), [(0.1, 2, True), (-2, -0.1, True), (-1, 1, False)]
)
def test_a_difference_is_distinguishable_where_the_bounds_leave_zero_out(
    low: float, high: float, told: bool
) -> None:
    assert Interval(0.5 * (low + high), low, high).distinguishable is told
