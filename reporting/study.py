"""All that a report says, computed: the variants, their scores, their differences."""

from dataclasses import dataclass
from pathlib import Path

from reporting import paper
from reporting.bootstrap import RESAMPLES
from reporting.rows import Variant, baseline_of, variants_of
from reporting.runs import Run, read_runs
from reporting.scores import (
    FIGURES,
    KINDS,
    Difference,
    Scored,
    figure_difference,
    score_variants,
)

Group = tuple[str, int]  # backbone and stride: what the rows of one table share


@dataclass(frozen=True)
class Study:
    """A family of runs, compared.

    Attributes:
        name: of its folder.
        runs: all of them, with the RPN's.
        scored: the rows, in the order of the tables.
        baselines: what each table's rows are compared with; tables without one are absent.
        to_baseline: the differences, by variant's name and figure such as "segm/AP75".
        resamples: of the images.
    """

    name: str
    runs: tuple[Run, ...]
    scored: tuple[Scored, ...]
    baselines: dict[Group, Scored]
    to_baseline: dict[tuple[str, str], Difference]
    resamples: int

    @property
    def groups(self) -> tuple[Group, ...]:
        return tuple(dict.fromkeys(one.variant.group for one in self.scored))

    def of_group(self, group: Group) -> tuple[Scored, ...]:
        return tuple(one for one in self.scored if one.variant.group == group)

    def baseline_label(self, group: Group) -> str:
        """Its name, also where it has not been run."""
        there = self.baselines.get(group)
        return there.variant.label if there else "RoIPool"

    def short_name(self, group: Group) -> str:
        """Stride 16; with the backbone, where there are several."""
        backbone, stride = group
        several = len({b for b, _ in self.groups}) > 1
        return f"stride {stride}" + (f", {backbone}" if several else "")

    @property
    def kinds(self) -> tuple[str, ...]:
        """Masks and boxes, as far as any run has them."""
        return tuple(k for k in KINDS if any(k in one.kinds for one in self.scored))

    @property
    def extent(self) -> str:
        """What all runs are judged by."""
        for run in self.runs:
            for matches in run.matches.values():
                objects = int(matches.objects[0].sum())
                classes = len(matches.category_ids)
                return (
                    f"{len(matches.image_ids)} images with {objects:,} objects of {classes} classes"
                )
        return "nothing yet: no run is finished"


def study_family(
    folder: Path,
    *,
    resamples: int = RESAMPLES,
    baseline: str | None = None,
    progress: bool = True,
) -> Study:
    """Read the runs below `folder` and compare them.

    Args:
        resamples: of the images.
        baseline: what the others are compared with; see `reporting.rows.baseline_of`.

    Raises:
        InputError: runs that cannot be read or must not be compared; an unknown baseline.
    """
    runs = read_runs(folder)
    variants = variants_of(runs)
    chosen = {variant.name for variant in baseline_of(variants, baseline).values()}
    scored = score_variants(variants, resamples, progress)
    baselines = {one.variant.group: one for one in scored if one.variant.name in chosen}
    return Study(
        name=folder.resolve().name,
        runs=tuple(runs),
        scored=tuple(scored),
        baselines=baselines,
        to_baseline=_to_baseline(scored, baselines),
        resamples=resamples,
    )


def _to_baseline(
    scored: list[Scored], baselines: dict[Group, Scored]
) -> dict[tuple[str, str], Difference]:
    return {
        (one.variant.name, f"{kind}/{name}"): figure_difference(
            one, baselines[one.variant.group], f"{kind}/{name}"
        )
        for one in scored
        if one.variant.group in baselines
        for kind in KINDS
        for name in FIGURES
    }


def paper_difference(upper: Variant, lower: Variant, figure: str) -> float | None:
    """The paper's figure of one variant's pooler minus that of another's at the same stride."""
    return paper.difference(
        upper.stride, (upper.pooler, upper.agg), (lower.pooler, lower.agg), figure
    )
