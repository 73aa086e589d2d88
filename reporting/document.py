"""What the report says, in order: sections of text, tables and plots."""

from collections.abc import Callable
from dataclasses import dataclass

from reporting import paper
from reporting.plots import DARK, LIGHT, Ink, plot_differences, plot_thresholds
from reporting.scores import KINDS, Difference, Scored, figure_difference, strictness
from reporting.study import Group, Study, paper_difference
from reporting.tables import (
    Table,
    aggregations,
    alignment,
    bounds,
    costs,
    differences,
    group_name,
    incomplete,
    paper_layout,
    signed,
    sizes,
    thresholds,
    value_of,
)

Drawing = Callable[[Study, Group, str, Ink], bytes | None]


@dataclass(frozen=True)
class Plot:
    """A picture, drawn for light and for dark pages.

    Attributes:
        name: of its file, without extension.
        title: what it shows.
        light, dark: PNG.
    """

    name: str
    title: str
    light: bytes
    dark: bytes


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it."""

    title: str
    points: tuple[str, ...] = ()
    text: tuple[str, ...] = ()
    plots: tuple[Plot, ...] = ()
    tables: tuple[Table, ...] = ()


def compose(study: Study) -> list[Section]:
    """The whole report; the last section alone depends on how fast the machine was."""
    sections = [Section("In short", points=_in_short(study))]
    groups = study.groups
    sections.append(
        Section(
            "The paper's tables",
            tables=tuple(paper_layout(study, group) for group in groups),
        )
    )
    for kind in study.kinds:
        sections.append(_differences_of(study, kind))
    sections.append(
        Section(
            "Every difference",
            tables=tuple(differences(study, group) for group in groups),
        )
    )
    for table in (alignment(study), aggregations(study)):
        if table.rows:
            sections.append(Section(table.title, tables=(table,)))
    for kind in study.kinds:
        plots = _plots(study, kind, "iou", plot_thresholds, "AP by IoU threshold")
        table = thresholds(study, kind)
        sections.append(Section(table.title, plots=plots, tables=(table,)))
    if study.kinds:
        sections.append(Section("AP by size", tables=(sizes(study),)))
    unfinished = incomplete(study)
    if unfinished.rows:
        sections.append(Section(unfinished.title, tables=(unfinished,)))
    sections.append(Section("How to read this", text=_method(study)))
    sections.append(
        Section(
            "Cost",
            text=("Wall-clock minutes of training and evaluating, as each run recorded them.",),
            tables=(costs(study),),
        )
    )
    return sections


def _differences_of(study: Study, kind: str) -> Section:
    return Section(
        f"{KINDS[kind].capitalize()} AP against the baseline",
        plots=_plots(study, kind, "difference", plot_differences, "difference to the baseline"),
    )


def _plots(study: Study, kind: str, stem: str, draw: Drawing, what: str) -> tuple[Plot, ...]:
    plots = []
    for group in study.groups:
        light, dark = (draw(study, group, kind, ink) for ink in (LIGHT, DARK))
        if light is not None and dark is not None:
            name = f"{stem}_{KINDS[kind]}_{_file_part(study, group)}"
            title = f"{group_name(group)}: {KINDS[kind]} AP, {what}"
            plots.append(Plot(name, title, light, dark))
    return tuple(plots)


def _file_part(study: Study, group: Group) -> str:
    """s16, with the backbone before it where there are several."""
    backbone, stride = group
    several = len({b for b, _ in study.groups}) > 1
    word = "".join(c for c in backbone.lower() if c.isalnum())
    return f"{word}_s{stride}" if several else f"s{stride}"


def _in_short(study: Study) -> tuple[str, ...]:
    """The paper's claims, each with what these runs say to it."""
    points = []
    for group in study.groups:
        there = {(o.variant.pooler, o.variant.agg): o for o in study.of_group(group) if o.scores}
        pool, align = there.get(("RoIPool", "max")), there.get(("RoIAlign", "avg"))
        warp = there.get(("RoIWarp", "avg"))
        kind = study.kinds[0] if study.kinds else "segm"
        lead, what = study.short_name(group), KINDS[kind]
        if pool and align:
            figure = f"{kind}/AP75"
            found = figure_difference(align, pool, figure)
            points.append(_point(f"At {lead}: RoIAlign over RoIPool, {what} AP75", found))
            points[-1] += _in_the_paper(align, pool, figure)
            found = strictness(align, pool, kind)
            points.append(
                _point(f"At {lead}: RoIAlign's gain in {what} AP75 minus that in AP50", found)
            )
        if pool and warp:
            found = figure_difference(warp, pool, f"{kind}/AP")
            points.append(_point(f"At {lead}: RoIWarp over RoIPool, {what} AP", found))
            points[-1] += _in_the_paper(warp, pool, f"{kind}/AP")
        largest = there.get(("RoIAlign", "max"))
        if align and largest:
            found = figure_difference(align, largest, f"{kind}/AP")
            points.append(
                _point(f"At {lead}: RoIAlign's average over its maximum, {what} AP", found)
            )
            points[-1] += _in_the_paper(align, largest, f"{kind}/AP")
    return tuple(points) or ("No two rows of one table are finished yet.",)


def _point(claim: str, found: Difference) -> str:
    return f"{claim}: {signed(value_of(found))} {bounds(found)}, {found.verdict}"


def _in_the_paper(upper: Scored, lower: Scored, figure: str) -> str:
    published = paper_difference(upper.variant, lower.variant, figure)
    return "" if published is None else f"; in the paper {signed(published)}"


def _method(study: Study) -> tuple[str, ...]:
    seeds = max((len(one.variant.seeds) for one in study.scored), default=0)
    text = [
        f"Judged by {study.extent}. AP, AP50 and AP75 are COCO's, in percent; differences are in "
        "points. Rows of one table differ in the pooler alone: settings, images and proposals are "
        "the same, and that is checked.",
        f"Intervals hold the difference with 95 % confidence over new images and new seeds: "
        f"{study.resamples:,} resamples of the images, the same for every network, and Student's "
        "distribution for the mean over seeds. Runs of the same seed are compared with each other. "
        "A difference is called distinguishable where its interval leaves zero out. Each interval "
        "stands on its own: of twenty true zeros, one is expected to be called distinguishable.",
        f"The paper's figures are of {paper.SETTING}; how large a difference is depends on both, "
        "its sign and its pattern (AP75 above AP50) are what can be compared.",
    ]
    if seeds <= 1:
        text.append(
            "Rows of one seed have intervals of the images alone: what another seed would change "
            "is not in them."
        )
    return tuple(text)
