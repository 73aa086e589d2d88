"""The poolers that can be drawn: each of `ops.poolers` with its usual settings, and other forms."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor

from ops.errors import InputError
from ops.poolers import POOLERS
from ops.roi_plan import Grid, RoIPlan


@dataclass(frozen=True)
class Form:
    """A pooler of the table with some settings fixed, and what is particular about it."""

    pooler: str
    subtitle: str
    settings: dict[str, Any] = field(default_factory=dict)
    agg: str = "avg"


FORMS = {
    **{word: Form(word, pooler.rounds) for word, pooler in POOLERS.items()},
    "pool_floor": Form("pool", "box and bins cut down", {"rounding": "floor"}),
    "warp_floor": Form("warp", "box cut down, bins exact", {"mode": "floor"}),
    "warp_mnc": Form("warp", "box rounded, corner samples", {"mode": "mnc"}, "max"),
    "align_thirds": Form("align", "nothing rounded, points at thirds", {"placement": "thirds"}),
    "align_adaptive": Form("align", "nothing rounded, adaptive", {"sampling_ratio": 0}),
}
WORDS = tuple(sorted(FORMS, key=lambda word: list(POOLERS).index(FORMS[word].pooler)))


@dataclass(frozen=True)
class DrawnPooler:
    """A pooler with its settings.

    Attributes:
        word: how the command line calls it.
        title, subtitle: how a figure names it and what is particular about it.
        agg: "avg" or "max".
        op: ``op(features, rois, output_size, spatial_scale)``.
        plan: the plan that `op` computes with, of RoIs on a map.
        sampled: whether its plan holds bilinear samples (else whole cells, or an integral).
    """

    word: str
    title: str
    subtitle: str
    agg: str
    op: Callable[..., Tensor]
    plan: Callable[[Grid], RoIPlan]
    sampled: bool


def choose(
    word: str, *, sampling_ratio: int = 2, aligned: bool = True, agg: str | None = None
) -> DrawnPooler:
    """The pooler of a word of `WORDS`.

    Args:
        sampling_ratio: samples per bin and axis, where it has samples; 0 adapts to the RoI.
        aligned: of RoIAlign and RoIWarp, see `ops.roi_align.roi_align`.
        agg: "avg" or "max"; None is the pooler's usual one.

    Raises:
        InputError: an unknown word, or an aggregation that the pooler does not have.
    """
    if word not in FORMS:
        raise InputError(f"pooler: {word!r} is unknown; choose {', '.join(WORDS)}")
    form = FORMS[word]
    pooler = POOLERS[form.pooler]
    if pooler.agg and agg not in (None, pooler.agg):
        raise InputError(f"agg: {pooler.title} always takes the {pooler.agg}; leave agg out")
    agg = agg or pooler.agg or form.agg
    wanted = {"sampling_ratio": sampling_ratio, "aligned": aligned, "agg": agg, **form.settings}
    settings = {name: wanted[name] for name in pooler.settings if name in wanted}
    of_plan = inspect.signature(pooler.plan).parameters
    return DrawnPooler(
        word=word,
        title=pooler.title + (" (MNC)" if form.settings.get("mode") == "mnc" else ""),
        subtitle=form.subtitle,
        agg=agg,
        op=partial(pooler.function, **settings),
        plan=partial(pooler.plan, **{k: v for k, v in settings.items() if k in of_plan}),
        sampled=pooler.samples,
    )


def page_table() -> dict[str, dict[str, Any]]:
    """What the interactive page has to know of each pooler."""
    return {
        word: {
            "title": pooler.title,
            "agg": pooler.agg,
            "samples": pooler.samples,
            "settings": pooler.settings,
            "about": pooler.about,
        }
        for word, pooler in POOLERS.items()
    }
