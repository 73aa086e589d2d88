"""The report's tables, as words and numbers; `reporting.formats` writes them down."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ops.poolers import BY_TITLE
from reporting import paper
from reporting.scores import (
    FIGURES,
    KINDS,
    THRESHOLD_NAMES,
    Difference,
    Scored,
    figure_difference,
    strictness,
)
from reporting.study import Group, Study, paper_difference

NOTHING = "–"
SIZES = ("APs", "APm", "APl")


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        title: what it shows.
        columns: their headings.
        rows: as many variants each.
        words: how many leading columns hold words; the others hold numbers.
        note: what is to be known to read it.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: int
    note: str = ""


def group_name(group: Group) -> str:
    """Stride 16, ResNet-50."""
    backbone, stride = group
    return f"Stride {stride}, {backbone}"


def number(value: float | None) -> str:
    """One decimal, or a dash."""
    return NOTHING if value is None or math.isnan(value) else f"{value:.1f}"


def signed(value: float | None) -> str:
    """One decimal with its sign; what rounds to zero has none."""
    if value is None or math.isnan(value):
        return NOTHING
    text = f"{abs(value):.1f}"
    return text if text == "0.0" else f"{'−' if value < 0 else '+'}{text}"


def mean_and_spread(values: Iterable[float]) -> str:
    """Mean over the seeds ± their standard deviation."""
    numbers = np.array(list(values))
    if not len(numbers) or np.isnan(numbers).any():
        return NOTHING
    spread = f" ± {numbers.std(ddof=1):.1f}" if len(numbers) > 1 else ""
    return f"{numbers.mean():.1f}{spread}"


def bounds(difference: Difference) -> str:
    """[low, high]."""
    interval = difference.interval
    return NOTHING if interval is None else f"[{signed(interval.low)}, {signed(interval.high)}]"


def value_of(difference: Difference) -> float | None:
    """The difference itself, in points."""
    return None if difference.interval is None else difference.interval.value


def paper_layout(study: Study, group: Group) -> Table:
    """The paper's own table: 2c at stride 16, 2d at stride 32; every row of it, run or not."""
    stride = group[1]
    there = study.of_group(group)
    figures = [f"{kind}/{name}" for kind in study.kinds for name in FIGURES]
    rows = []
    missing = list(paper.ROWS.get(stride, ()))
    for one in there:
        if (one.variant.pooler, one.variant.agg) in missing:
            missing.remove((one.variant.pooler, one.variant.agg))
    entries: list[tuple[str, str, Scored | None]] = [
        *((one.variant.pooler, one.variant.agg, one) for one in there),
        *((pooler, agg, None) for pooler, agg in missing),
    ]
    order = [*paper.ROWS.get(stride, ())]
    entries.sort(key=lambda e: order.index(e[:2]) if e[:2] in order else len(order))
    for pooler, agg, found in entries:
        known = BY_TITLE.get(pooler.removesuffix(" (MNC)"))
        properties = (
            ("yes" if known.aligns else "", "yes" if known.bilinear else "")
            if known
            else ("?", "?")
        )
        name = found.variant.label.replace(f" {agg}", "", 1) if found else pooler
        values = [mean_and_spread(found.values(f)) if found else NOTHING for f in figures]
        status = found.variant.status if found else "not run"
        rows.append((name, *properties, agg, status, *values))
    table = paper.TABLES.get(stride)
    return Table(
        title=f"{group_name(group)}" + (f", laid out as table {table}" if table else ""),
        columns=("", "align?", "bilinear?", "agg.", "seeds", *map(_heading, figures)),
        rows=tuple(rows),
        words=5,
        note="Percent; mean over the seeds ± their standard deviation.",
    )


def _heading(figure: str) -> str:
    kind, _, name = figure.partition("/")
    return f"{KINDS[kind]} {name}"


def differences(study: Study, group: Group) -> Table:
    """Each row against the baseline, the paper's figures beside it."""
    rows = []
    baseline = study.baselines.get(group)
    for one in study.of_group(group):
        variant = one.variant
        for kind in one.kinds:
            for name in FIGURES:
                figure = f"{kind}/{name}"
                own = float(np.mean(one.values(figure)))
                published = paper.value(variant.stride, variant.pooler, variant.agg, figure)
                told: tuple[str, ...] = ("", "", "")
                further = None
                if baseline and baseline.variant.name != variant.name:
                    found = study.to_baseline[variant.name, figure]
                    told = (signed(value_of(found)), bounds(found), found.verdict)
                    further = paper_difference(variant, baseline.variant, figure)
                ours = (variant.label, _heading(figure), number(own), *told)
                rows.append((*ours, number(published), signed(further)))
    against = study.baseline_label(group)
    note = (
        "Points. Intervals of 95 %, each on its own; differences are taken between runs of the "
        f"same seed. Paper: {paper.SETTING}, table {paper.TABLES.get(group[1], NOTHING)}."
    )
    if baseline is None or not baseline.scores:
        note += f" {against} is not finished here, so that there is nothing to compare with."
    return Table(
        title=f"{group_name(group)}: difference to {against}",
        columns=(
            "",
            "figure",
            "here",
            "difference",
            "interval",
            "verdict",
            "paper",
            "paper's difference",
        ),
        rows=tuple(rows),
        words=2,
        note=note,
    )


def aggregations(study: Study) -> Table:
    """Average against maximum, for each pooler that was run with both."""
    rows = []
    for group in study.groups:
        there = {(one.variant.pooler, one.variant.agg): one for one in study.of_group(group)}
        for pooler, agg in there:
            if agg != "avg" or (pooler, "max") not in there:
                continue
            average, largest = there[pooler, "avg"], there[pooler, "max"]
            for kind in average.kinds:
                for name in FIGURES:
                    figure = f"{kind}/{name}"
                    found = figure_difference(average, largest, figure)
                    published = paper_difference(average.variant, largest.variant, figure)
                    lead = (study.short_name(group), pooler, _heading(figure))
                    rows.append((*lead, *_told(found), signed(published)))
    return Table(
        title="Average minus maximum",
        columns=("", "", "figure", "difference", "interval", "verdict", "paper"),
        rows=tuple(rows),
        words=3,
    )


def _told(found: Difference) -> tuple[str, str, str]:
    return signed(value_of(found)), bounds(found), found.verdict


def alignment(study: Study) -> Table:
    """Whether the gain over the baseline is larger at the strict threshold."""
    rows = []
    for group, baseline in study.baselines.items():
        for one in study.of_group(group):
            if one.variant.name == baseline.variant.name:
                continue
            for kind in one.kinds:
                found = strictness(one, baseline, kind)
                strict, loose = (
                    paper_difference(one.variant, baseline.variant, f"{kind}/{name}")
                    for name in ("AP75", "AP50")
                )
                published = None if strict is None or loose is None else strict - loose
                lead = (study.short_name(group), one.variant.label, KINDS[kind])
                rows.append((*lead, *_told(found), signed(published)))
    return Table(
        title="Gain in AP75 minus gain in AP50",
        columns=("", "", "", "difference", "interval", "verdict", "paper"),
        rows=tuple(rows),
        words=3,
        note="Above zero: the pooler helps more where outlines must fit closely.",
    )


def sizes(study: Study) -> Table:
    """AP of small, medium and large objects."""
    figures = [f"{kind}/{name}" for kind in study.kinds for name in SIZES]
    rows = tuple(
        (
            study.short_name(one.variant.group),
            one.variant.label,
            *(mean_and_spread(one.values(figure)) for figure in figures),
        )
        for one in study.scored
        if one.scores
    )
    return Table(
        title="AP by size",
        columns=("", "", *map(_heading, figures)),
        rows=rows,
        words=2,
        note="s: below 32² pixels, m: to 96², l: above. Mean over the seeds ± standard deviation.",
    )


def thresholds(study: Study, kind: str) -> Table:
    """AP at each IoU threshold, mean over the seeds."""
    rows = tuple(
        (
            study.short_name(one.variant.group),
            one.variant.label,
            *map(number, np.mean([curve[kind] for curve in one.curves], axis=0)),
        )
        for one in study.scored
        if kind in one.kinds
    )
    return Table(
        title=f"{KINDS[kind].capitalize()} AP by IoU threshold",
        columns=("", "", *THRESHOLD_NAMES),
        rows=rows,
        words=2,
    )


def incomplete(study: Study) -> Table:
    """Runs without a result, and why."""
    rows = tuple(
        (run.variant, str(run.seed), run.state, run.reason)
        for run in study.runs
        if run.state != "finished"
    )
    return Table("Runs without a result", ("variant", "seed", "state", "reason"), rows, words=4)


def costs(study: Study) -> Table:
    """What each run took."""
    rows = tuple(
        (
            run.variant,
            str(run.seed),
            f"{run.metrics['train_seconds'] / 60:.1f}",
            str(run.metrics["steps"]),
        )
        for run in study.runs
        if run.state == "finished" and run.metrics.get("train_seconds") is not None
    )
    return Table("Cost of each run", ("variant", "seed", "minutes", "steps"), rows, words=1)
