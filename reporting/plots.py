"""The report's plots: differences with their intervals, and AP against the IoU threshold.

A pooler has one colour everywhere; the average is drawn solid and filled, the maximum dashed and
hollow.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from judging.matches import IOU_THRESHOLDS
from ops.poolers import BY_TITLE, OTHER_COLOUR
from reporting.rows import Variant
from reporting.scores import FIGURES, KINDS, Scored
from reporting.study import Group, Study, paper_difference
from reporting.tables import group_name

MARKERS = {"AP": "o", "AP50": "^", "AP75": "s"}
DPI = 160


@dataclass(frozen=True)
class Ink:
    """The colours of a page: 0 light, 1 dark."""

    scheme: int

    @property
    def paper(self) -> str:
        return ("#ffffff", "#16181d")[self.scheme]

    @property
    def text(self) -> str:
        return ("#1c1e21", "#e6e7ea")[self.scheme]

    @property
    def faint(self) -> str:
        return ("#d4d6da", "#3c4048")[self.scheme]

    def of(self, variant: Variant) -> str:
        known = BY_TITLE.get(variant.pooler)
        return (known.colour if known else OTHER_COLOUR)[self.scheme]


LIGHT, DARK = Ink(0), Ink(1)


def plot_differences(study: Study, group: Group, kind: str, ink: Ink = LIGHT) -> bytes | None:
    """A forest plot of one table: each row's AP, AP50 and AP75 against the baseline, as PNG.

    None where there is nothing to compare.
    """
    baseline = study.baselines.get(group)
    rows = [
        one
        for one in study.of_group(group)
        if baseline is not None
        and one.variant.name != baseline.variant.name
        and study.to_baseline[one.variant.name, f"{kind}/AP"].interval is not None
    ]
    if not rows or baseline is None:
        return None
    figure = Figure(figsize=(5.2, 1.5 + 0.72 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for place, one in enumerate(rows):
        for k, name in enumerate(FIGURES):
            _interval(axes, study, one, baseline, f"{kind}/{name}", place + 0.24 * (k - 1), ink)
    axes.axvline(0, color=ink.text, linewidth=1)
    axes.set_yticks(range(len(rows)), [one.variant.label for one in rows])
    axes.set_ylim(len(rows) - 0.45, -0.55)
    _same_range(axes, study, kind)
    axes.set_xlabel(f"{KINDS[kind]} AP above {baseline.variant.label}, points")
    axes.set_title(group_name(group))
    _legend_of_markers(axes, ink, any(_published(o, baseline, kind) for o in rows))
    axes.tick_params(axis="y", length=0)
    _style(axes, ink, grid="x")
    return _png(figure, ink)


def _interval(
    axes: Any, study: Study, one: Scored, baseline: Scored, figure: str, height: float, ink: Ink
) -> None:
    name = figure.partition("/")[2]
    colour, marker = ink.of(one.variant), MARKERS[name]
    published = paper_difference(one.variant, baseline.variant, figure)
    if published is not None:
        axes.plot(published, height, marker="|", ms=11, mew=2, color=ink.text, zorder=3)
    interval = study.to_baseline[one.variant.name, figure].interval
    if interval is None:
        return
    axes.plot([interval.low, interval.high], [height, height], color=colour, linewidth=2.2)
    fill = ink.paper if one.variant.agg == "max" else colour
    axes.plot(
        interval.value, height, marker=marker, ms=6.5, mew=1.6, mfc=fill, mec=colour, zorder=4
    )


def _published(one: Scored, baseline: Scored, kind: str) -> bool:
    return paper_difference(one.variant, baseline.variant, f"{kind}/AP") is not None


def _same_range(axes: Any, study: Study, kind: str) -> None:
    """The same scale at every stride, so that panels can be compared."""
    ends = [0.0]
    for (name, figure), found in study.to_baseline.items():
        if figure.startswith(kind) and found.interval is not None:
            ends += [found.interval.low, found.interval.high]
            one = next(s for s in study.scored if s.variant.name == name)
            published = paper_difference(
                one.variant, study.baselines[one.variant.group].variant, figure
            )
            ends += [] if published is None else [published]
    margin = 0.05 * (max(ends) - min(ends)) + 0.2
    axes.set_xlim(min(ends) - margin, max(ends) + margin)


def _legend_of_markers(axes: Any, ink: Ink, with_paper: bool) -> None:
    for name, marker in MARKERS.items():
        axes.plot([], [], marker=marker, ls="", ms=6.5, color=ink.text, label=name)
    if with_paper:
        axes.plot([], [], marker="|", ls="", ms=11, mew=2, color=ink.text, label="paper")
    entries = len(MARKERS) + with_paper
    axes.figure.legend(
        *axes.get_legend_handles_labels(),
        loc="outside lower center",
        ncols=entries,
        frameon=False,
        labelcolor=ink.text,
        handletextpad=0.2,
        columnspacing=1.2,
    )


def plot_thresholds(study: Study, group: Group, kind: str, ink: Ink = LIGHT) -> bytes | None:
    """AP against the IoU threshold, a line a row; the band spans its seeds. None without runs."""
    rows = [one for one in study.of_group(group) if kind in one.kinds]
    if not rows:
        return None
    figure = Figure(figsize=(5.2, 3.7), layout="constrained")
    axes = figure.subplots()
    for one in rows:
        curves = np.stack([curve[kind] for curve in one.curves])
        colour, largest = ink.of(one.variant), one.variant.agg == "max"
        if len(curves) > 1:
            band = (curves.min(axis=0), curves.max(axis=0))
            axes.fill_between(IOU_THRESHOLDS, *band, color=colour, alpha=0.16, linewidth=0)
        axes.plot(
            IOU_THRESHOLDS,
            curves.mean(axis=0),
            color=colour,
            linewidth=1.8,
            linestyle=(0, (4, 2)) if largest else "-",
            marker="o",
            ms=4,
            mfc=ink.paper if largest else colour,
            label=one.variant.label,
        )
    axes.set_xlabel("IoU threshold")
    axes.set_ylabel(f"{KINDS[kind]} AP")
    axes.set_title(group_name(group))
    axes.set_xticks(IOU_THRESHOLDS[::2])
    axes.set_xlim(0.485, 0.965)
    axes.set_ylim(0, _highest(study.scored, kind) * 1.06 + 1)
    axes.legend(frameon=False, labelcolor=ink.text)
    _style(axes, ink, grid="both")
    return _png(figure, ink)


def _highest(scored: Sequence[Scored], kind: str) -> float:
    return max(float(c[kind].max()) for one in scored for c in one.curves if kind in c)


def _style(axes: Any, ink: Ink, grid: str) -> None:
    axes.figure.set_facecolor(ink.paper)
    axes.set_facecolor(ink.paper)
    axes.grid(True, axis=grid, color=ink.faint, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(colors=ink.text)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(ink.faint)
    for label in (axes.title, axes.xaxis.label, axes.yaxis.label):
        label.set_color(ink.text)


def _png(figure: Figure, ink: Ink) -> bytes:
    buffer = io.BytesIO()
    # Without the writer's name and version: the same figures give the same bytes.
    figure.savefig(buffer, format="png", dpi=DPI, facecolor=ink.paper, metadata={"Software": None})
    return buffer.getvalue()
