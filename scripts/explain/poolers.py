"""The poolers that can be drawn, each with the function of `ops` that makes its plan."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ops.errors import InputError
from ops.prroi_pool import integral_axis, prroi_pool
from ops.roi_align import pooled, roi_align, sampled
from ops.roi_plan import Grid, RoIPlan, at_least, grid, round_half_away
from ops.roi_pool import cells, roi_pool
from ops.roi_warp import corner_sampled, roi_warp

WORDS = (
    "pool",
    "pool_floor",
    "warp",
    "warp_floor",
    "warp_mnc",
    "align",
    "align_thirds",
    "align_adaptive",
    "prroi",
)


@dataclass(frozen=True)
class Pooler:
    """A pooler with its settings.

    Attributes:
        word: how the command line calls it.
        title, subtitle: how a figure names it and what is particular about it.
        agg: "avg" or "max".
        op: ``op(features, rois, output_size, spatial_scale)``.
        plan: the plan that `op` computes with, of a grid of boxes.
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
) -> Pooler:
    """The pooler of a word of `WORDS`.

    Args:
        sampling_ratio: samples per bin and axis, where it has samples; 0 adapts to the RoI.
        aligned: of RoIAlign and RoIWarp, see `ops.roi_align.roi_align`.
        agg: "avg" or "max"; None is each one's own (RoIPool and MNC's RoIWarp: max).

    Raises:
        InputError: an unknown word, or a setting that the pooler does not have.
    """
    if word not in WORDS:
        raise InputError(f"pooler: {word!r} is unknown; choose {', '.join(WORDS)}")
    if word.startswith("pool"):
        return _pool("floor" if word == "pool_floor" else "caffe", agg)
    if word == "prroi":
        return _prroi(agg)
    if word == "warp_mnc":
        return _warp_mnc(sampling_ratio, agg or "max")
    if word.startswith("warp"):
        return _warp(word, sampling_ratio, aligned, agg or "avg")
    return _align(word, sampling_ratio, aligned, agg or "avg")


def _pool(rounding: str, agg: str | None) -> Pooler:
    if agg not in (None, "max"):
        raise InputError(f"agg: RoIPool takes the maximum, not {agg!r}; leave it out")
    word, subtitle = {
        "caffe": ("pool", "box and bins rounded"),
        "floor": ("pool_floor", "box and bins cut down"),
    }[rounding]
    op = partial(roi_pool, rounding=rounding)
    return Pooler(word, "RoIPool", subtitle, "max", op, partial(_cells, rounding=rounding), False)


def _cells(area: Grid, rounding: str) -> RoIPlan:
    return cells(area, rounding)


def _prroi(agg: str | None) -> Pooler:
    if agg not in (None, "avg"):
        raise InputError(f"agg: PrRoIPool is a mean, not {agg!r}; leave it out")

    def plan(area: Grid) -> RoIPlan:
        rows, columns = integral_axis(*area.along(0)), integral_axis(*area.along(1))
        return RoIPlan(area.image, rows, columns)

    return Pooler(
        "prroi", "PrRoIPool", "the exact mean over each bin", "avg", prroi_pool, plan, False
    )


def _warp_mnc(samples: int, agg: str) -> Pooler:
    def plan(area: Grid) -> RoIPlan:
        return corner_sampled(area.with_boxes(round_half_away(area.boxes)), samples)

    op = partial(roi_warp, sampling_ratio=samples, agg=agg, mode="mnc")
    return Pooler("warp_mnc", "RoIWarp (MNC)", "box rounded, corner samples", agg, op, plan, True)


def _warp(word: str, samples: int, aligned: bool, agg: str) -> Pooler:
    """RoIWarp of the paper's table; or, for teaching, with the box cut down instead of rounded and
    the points at the thirds of a bin."""
    placement = "thirds" if word == "warp_floor" else "uniform"
    whole = torch.floor if word == "warp_floor" else round_half_away

    def plan(area: Grid) -> RoIPlan:
        start = whole(area.boxes[:, :2])
        size = area.boxes[:, 2:] - area.boxes[:, :2]
        end = start + size.floor() if word == "warp_floor" else whole(area.boxes[:, 2:])
        boxes = torch.cat((start, start + at_least(end - start, 1)), dim=1)
        return sampled(area.with_boxes(boxes), samples, aligned, placement)

    if word == "warp_floor":
        op = partial(_from_plan, plan=plan, agg=agg)
        return Pooler(word, "RoIWarp", "box cut down, bins exact", agg, op, plan, True)
    op = partial(roi_warp, sampling_ratio=samples, aligned=aligned, agg=agg)
    return Pooler(word, "RoIWarp", "box rounded, bins exact", agg, op, plan, True)


def _from_plan(
    features: Tensor,
    rois: Tensor,
    output_size: tuple[int, int],
    spatial_scale: float,
    *,
    plan: Callable[[Grid], RoIPlan],
    agg: str,
) -> Tensor:
    """Pool by a plan that no op of ours makes."""
    return pooled(features, plan(grid(features, rois, output_size, spatial_scale)), agg)


def _align(word: str, samples: int, aligned: bool, agg: str) -> Pooler:
    placement = "thirds" if word == "align_thirds" else "uniform"
    samples = 0 if word == "align_adaptive" else samples
    op = partial(roi_align, sampling_ratio=samples, aligned=aligned, agg=agg, placement=placement)

    def plan(area: Grid) -> RoIPlan:
        return sampled(area, samples, aligned, placement)

    subtitle = (
        "nothing rounded"
        + {
            "align": "",
            "align_thirds": ", points at thirds",
            "align_adaptive": ", adaptive",
        }[word]
    )
    return Pooler(word, "RoIAlign", subtitle, agg, op, plan, True)
