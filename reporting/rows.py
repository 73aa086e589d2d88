"""Runs put together as the rows of a table: one variant for each network, its seeds inside.

What is compared must differ in the pooler and in nothing else, and be judged by the same images;
whatever breaks that is refused by name.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from ops.errors import InputError
from ops.poolers import BY_TITLE, describe_pooler
from reporting.runs import Run
from running.run_folder import flatten
from running.tracking import describe_backbone

# Settings that may differ between a variant's seeds: they change neither what is learned nor what
# is judged.
NEUTRAL = ("seed", "run", "workers", "device", "threads", "expected", "evaluation.pictures")


@dataclass(frozen=True)
class Variant:
    """One network of the ablation: a row.

    Attributes:
        name: of its folder.
        pooler, agg: as in table 2c, such as "RoIAlign" and "avg".
        backbone, stride: with the pooler, what the row is of.
        finished: its finished runs, in the order of their seeds.
        others: its runs that failed or are unfinished.
        label: "RoIAlign avg", with the folder's name where two rows of a table would share it.
    """

    name: str
    pooler: str
    agg: str
    backbone: str
    stride: int
    finished: tuple[Run, ...]
    others: tuple[Run, ...]
    label: str

    @property
    def group(self) -> tuple[str, int]:
        """What the rows of one table share."""
        return self.backbone, self.stride

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(run.seed for run in self.finished)

    @property
    def status(self) -> str:
        """Its finished seeds, and what came of the others."""
        states = Counter(run.state for run in self.others)
        told = [f"{number} {state}" for state, number in sorted(states.items())]
        return ", ".join([*([str(len(self.seeds))] if self.seeds else []), *told])


def variants_of(runs: Sequence[Run]) -> list[Variant]:
    """The rows that `runs` make, by backbone, stride, pooler and aggregation.

    Raises:
        InputError: runs of one variant with different settings or the same seed; variants of one
            table that differ in more than the pooler; runs over different images.
    """
    detectors = [run for run in runs if not run.proposals_only]
    if not detectors:
        raise InputError(
            f"{runs[0].folder}: trains an RPN alone, as all runs here; no row of a table"
        )
    _check_images([run for run in detectors if run.state == "finished"])
    variants = [
        _variant(name, detectors) for name in dict.fromkeys(run.variant for run in detectors)
    ]
    for group in dict.fromkeys(variant.group for variant in variants):
        _check_settings(
            [run for variant in variants if variant.group == group for run in _all(variant)]
        )
    return sorted(_told_apart(variants), key=_order)


def _all(variant: Variant) -> tuple[Run, ...]:
    return (*variant.finished, *variant.others)


def _variant(name: str, runs: Iterable[Run]) -> Variant:
    own = sorted((run for run in runs if run.variant == name), key=lambda run: run.seed)
    for one, other in pairwise(own):
        if one.seed == other.seed:
            raise InputError(
                f"{other.folder}: has the seed {one.seed} of {one.folder}; move one of them away"
            )
    _check_settings(own, but=())
    config = own[0].config
    pooler, agg = describe_pooler(config["pooler"])
    return Variant(
        name=name,
        pooler=pooler,
        agg=agg,
        backbone=describe_backbone(config["backbone"]),
        stride=int(config["stride"]),
        finished=tuple(run for run in own if run.state == "finished"),
        others=tuple(run for run in own if run.state != "finished"),
        label=f"{pooler} {agg}",
    )


def _check_settings(runs: Sequence[Run], but: tuple[str, ...] = ("pooler",)) -> None:
    """InputError unless the runs' settings agree, but for neutral ones and those of `but`."""
    for run in runs[1:]:
        first, own = flatten(runs[0].config), flatten(run.config)
        for key in sorted({*first, *own}):
            free = any(key == name or key.startswith(f"{name}.") for name in (*NEUTRAL, *but))
            if not free and first.get(key) != own.get(key):
                raise InputError(
                    f"{run.folder}: has {key}: {own.get(key)}, where {runs[0].folder} has "
                    f"{first.get(key)}; compare runs that differ in the pooler alone, in a folder "
                    "of their own"
                )


def _check_images(runs: Sequence[Run]) -> None:
    for run in runs:
        for kind, matches in run.matches.items():
            judged = [r for r in runs if kind in r.matches]
            first = judged[0].matches[kind]
            same = (
                np.array_equal(matches.image_ids, first.image_ids)
                and np.array_equal(matches.category_ids, first.category_ids)
                and np.array_equal(matches.objects[0], first.objects[0])
            )
            if not same:
                raise InputError(
                    f"{run.folder}: is judged by {_extent(run, kind)}, {judged[0].folder} by "
                    f"{_extent(judged[0], kind)}; compare runs over the same validation set"
                )


def _extent(run: Run, kind: str) -> str:
    matches = run.matches[kind]
    objects = matches.objects[0].sum()
    return f"{objects} objects in {len(matches.image_ids)} images (ids {matches.image_ids[0]} ...)"


def _told_apart(variants: Sequence[Variant]) -> list[Variant]:
    shared = Counter((variant.group, variant.label) for variant in variants)
    return [
        replace(variant, label=f"{variant.label} ({variant.name})")
        if shared[variant.group, variant.label] > 1
        else variant
        for variant in variants
    ]


def _order(variant: Variant) -> tuple[Any, ...]:
    names = list(BY_TITLE)
    place = names.index(variant.pooler) if variant.pooler in names else len(names)
    return (
        variant.backbone,
        variant.stride,
        place,
        variant.pooler,
        variant.agg != "max",
        variant.name,
    )


def baseline_of(variants: Sequence[Variant], word: str | None) -> dict[tuple[str, int], Variant]:
    """The variant that each table's other rows are compared with; tables without it are left out.

    Args:
        word: "pool", "warp", "align", a pooler's name, or one with its aggregation ("warp avg");
            None: RoIPool, if it is there.

    Raises:
        InputError: no variant is called so, or two of a table.
    """
    wanted = (word or "pool").lower().removeprefix("roi").split()
    chosen: dict[tuple[str, int], Variant] = {}
    for variant in variants:
        names = [variant.pooler.lower().removeprefix("roi"), variant.agg]
        if wanted and wanted == names[: len(wanted)]:
            if variant.group in chosen:
                both = f"{chosen[variant.group].label} and {variant.label}"
                raise InputError(
                    f"--baseline {word or 'pool'}: is {both} at stride {variant.stride}; "
                    f"say which, such as --baseline '{' '.join(names)}'"
                )
            chosen[variant.group] = variant
    if word and not chosen:
        known = ", ".join(dict.fromkeys(variant.label for variant in variants))
        raise InputError(f"--baseline {word}: is none of the variants here; choose among {known}")
    return chosen
