"""Each run's AP on the images as they are and on every resample of them, and differences of these.

Letters: B resamples, S seeds.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from judging.matches import IOU_THRESHOLDS, REMEDY, average_precision
from ops.errors import InputError
from reporting.bootstrap import Interval, paired_interval, resampled_counts
from reporting.rows import Variant
from reporting.runs import Run

KINDS = {"segm": "mask", "bbox": "box"}  # in the order of the paper's tables
FIGURES = ("AP", "AP50", "AP75")
THRESHOLD_NAMES = tuple(f"{threshold:.2f}"[1:] for threshold in IOU_THRESHOLDS)  # .50 ...
AGREEMENT = 1e-6  # points between a run's written figures and those of its matches

# Of one run, by name such as "segm/AP75": [1 + B] in percent, the images as they are first.
Scores = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Scored:
    """A variant and what its finished runs reach.

    Attributes:
        variant: the row.
        scores: of each finished run.
        curves: of each finished run, by kind: AP [10] at the IoU thresholds .50 to .95, percent.
    """

    variant: Variant
    scores: tuple[Scores, ...]
    curves: tuple[Mapping[str, NDArray[np.float64]], ...]

    @property
    def kinds(self) -> tuple[str, ...]:
        """Those that all of its runs have."""
        return tuple(k for k in KINDS if self.scores and all(f"{k}/AP" in s for s in self.scores))

    def values(self, figure: str) -> NDArray[np.float64]:
        """The figure of each seed; any that the runs' metrics hold."""
        numbers = [run.metrics.get(figure, -1.0) for run in self.variant.finished]
        return np.array([np.nan if v is None or v < 0 else v for v in numbers], float)


def score_variants(
    variants: Sequence[Variant], resamples: int, progress: bool = True
) -> list[Scored]:
    """Score all finished runs on the same resamples.

    Raises:
        InputError: a run's matches are not those of its metrics.
    """
    runs = [run for variant in variants for run in variant.finished]
    images = {len(m.image_ids) for run in runs for m in run.matches.values()}
    if not images:
        return [Scored(variant, (), ()) for variant in variants]
    (number,) = images  # rows.variants_of has seen to it
    counts = np.vstack([np.ones((1, number), int), resampled_counts(number, resamples)])
    with tqdm(runs, "resampling", disable=not progress, leave=False, unit="run") as bar:
        scored = {run.folder: _score(run, counts) for run in bar}
    return [
        Scored(
            variant,
            scores=tuple(scored[run.folder][0] for run in variant.finished),
            curves=tuple(scored[run.folder][1] for run in variant.finished),
        )
        for variant in variants
    ]


def _score(run: Run, counts: NDArray[np.int64]) -> tuple[Scores, dict[str, NDArray[np.float64]]]:
    scores: dict[str, NDArray[np.float64]] = {}
    curves: dict[str, NDArray[np.float64]] = {}
    for kind, matches in run.matches.items():
        ap = 100 * _over_classes(average_precision(matches, counts))  # [1 + B, 10]
        columns = (ap.mean(axis=1), ap[:, 0], ap[:, 5])
        scores |= {f"{kind}/{name}": c for name, c in zip(FIGURES, columns, strict=True)}
        curves[kind] = ap[0]
        _check_agreement(run.folder, run.metrics.get(f"{kind}/AP"), float(ap[0].mean()))
    return scores, curves


def _over_classes(ap: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the classes that are present, [.., K] to [..]; 0 where none is."""
    present = np.isfinite(ap)
    return np.where(present, ap, 0).sum(axis=-1) / np.maximum(present.sum(axis=-1), 1)


def _check_agreement(folder: Path, written: float | None, matched: float) -> None:
    # COCO writes -1 where there is no object at all.
    if written is None or abs(max(written, 0) - matched) > AGREEMENT:
        raise InputError(
            f"{folder / 'matches.npz'}: gives AP {matched:.4f}, metrics.json {written}; {REMEDY}"
        )


@dataclass(frozen=True)
class Difference:
    """How far one variant lies above another, over the seeds that both have.

    Attributes:
        interval: None where they share no finished seed, or not the figure.
        seeds: how many.
    """

    interval: Interval | None
    seeds: int

    @property
    def verdict(self) -> str:
        if self.interval is None:
            return "not measured"
        told = "distinguishable" if self.interval.distinguishable else "not distinguishable"
        return told if self.seeds > 1 else f"{told} (images alone)"


def difference(
    upper: Scored, lower: Scored, measure: Callable[[Scores], NDArray[np.float64]]
) -> Difference:
    """`upper` minus `lower` in what `measure` takes from a run's scores, paired by seed."""
    seeds = [seed for seed in upper.variant.seeds if seed in lower.variant.seeds]
    if not seeds:
        return Difference(None, 0)
    try:
        rows = [
            measure(upper.scores[upper.variant.seeds.index(seed)])
            - measure(lower.scores[lower.variant.seeds.index(seed)])
            for seed in seeds
        ]
    except KeyError:  # without masks
        return Difference(None, 0)
    table = np.stack(rows)  # [S, 1 + B]
    return Difference(paired_interval(table[:, 0], table[:, 1:]), len(seeds))


def figure_difference(upper: Scored, lower: Scored, figure: str) -> Difference:
    """`difference` in one figure, such as "segm/AP75"."""
    return difference(upper, lower, lambda scores: scores[figure])


def strictness(upper: Scored, lower: Scored, kind: str) -> Difference:
    """By how much the gain in AP75 exceeds the gain in AP50: what better alignment should show."""
    return difference(upper, lower, lambda s: s[f"{kind}/AP75"] - s[f"{kind}/AP50"])
