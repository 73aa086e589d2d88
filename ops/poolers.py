"""What is known of each pooler, in one table: tables, plots, drawings and the page read it.

A pooler is a function ``op(features, rois, output_size, spatial_scale, *, settings)``. In the same
file, ``plan(rois_on_map, settings)`` says which cells it reads, with which weights. A new one needs
that file, a YAML in configs/pooler, a row here, and its arithmetic in the page's pooling.js.
"""

import inspect
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Pooler:
    """One pooler, whatever its settings.

    Attributes:
        title: what papers call it.
        op: where its function is: the `_target_` of its YAML.
        rounds: what it does to the box and its bins, in a few words.
        aligns: whether nothing is rounded (table 2c's "align?").
        bilinear: whether it interpolates between cells (table 2c's "bilinear?").
        samples: whether its plan holds interpolated samples, and not whole cells or an integral.
        agg: its aggregation where it leaves no choice, else None.
        colour: on a light and on a dark page; the colours differ for every kind of colour vision.
        source: the paper, or the code where no paper describes it.
        about: a sentence or two for the interactive page.
    """

    title: str
    op: str
    rounds: str
    aligns: bool
    bilinear: bool
    samples: bool
    agg: str | None
    colour: tuple[str, str]
    source: str
    about: str

    @property
    def function(self) -> Callable[..., Any]:
        """The op itself; its file is loaded when it is asked for."""
        return pkgutil.resolve_name(self.op)

    @property
    def plan(self) -> Callable[..., Any]:
        """The function of the same file that makes the plan the op computes with."""
        return pkgutil.resolve_name(f"{self.op.rpartition('.')[0]}.plan")

    @property
    def settings(self) -> tuple[str, ...]:
        """Names of the op's settings."""
        parameters = inspect.signature(self.function).parameters.values()
        return tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)


POOLERS = {
    "pool": Pooler(
        title="RoIPool",
        op="ops.roi_pool.roi_pool",
        rounds="box and bins rounded",
        aligns=False,
        bilinear=False,
        samples=False,
        agg="max",
        colour=("#c44e00", "#ff9248"),
        source="Girshick, Fast R-CNN (2015), section 2.1",
        about="It rounds the four corners to whole cells and counts the last one in. Then it "
        "rounds each bin outwards to whole cells, so that bins may overlap, and keeps the largest "
        "cell of each.",
    ),
    "warp": Pooler(
        title="RoIWarp",
        op="ops.roi_warp.roi_warp",
        rounds="box rounded, bins exact",
        aligns=False,
        bilinear=True,
        samples=True,
        agg=None,
        colour=("#8e4a86", "#e29bd8"),
        source="Dai et al., MNC (2016), section 3.2",
        about="It rounds the four corners as RoIPool does. From there on nothing is rounded: bins "
        "have real sizes, and their points are read between the cells.",
    ),
    "align": Pooler(
        title="RoIAlign",
        op="ops.roi_align.roi_align",
        rounds="nothing rounded",
        aligns=True,
        bilinear=True,
        samples=True,
        agg=None,
        colour=("#0068a8", "#5fb8f2"),
        source="He et al., Mask R-CNN (2017), section 3",
        about="It rounds nothing. Bins have real sizes, and each point is read between the four "
        "cells around it, nearer ones counting more.",
    ),
    "prroi": Pooler(
        title="PrRoIPool",
        op="ops.prroi_pool.prroi_pool",
        rounds="the exact mean over each bin",
        aligns=True,
        bilinear=True,
        samples=False,
        agg="avg",
        colour=("#00795a", "#3fd0a4"),
        source="Jiang et al., IoU-Net (2018), section 3.3",
        about="It takes no points. Each bin is the exact mean of the interpolated map over its "
        "area, in a frame that is half a cell off.",
    ),
    "crop": Pooler(
        title="Crop and resize",
        op="ops.crop_resize.crop_resize",
        rounds="nothing rounded, edge to edge",
        aligns=False,
        bilinear=True,
        samples=True,
        agg="max",
        colour=("#7a6a00", "#d8c84a"),
        source="tf.image.crop_and_resize, as in tf-faster-rcnn",
        about="It rounds nothing, but spreads its points from edge to edge of the box in a frame "
        "that is half a cell off, so that everything is read to the lower right. Beyond the "
        "centres of the border cells it reads 0.",
    ),
}
OTHER_COLOUR = ("#555555", "#bbbbbb")  # of a pooler that is not in the table
BY_TITLE = {pooler.title: pooler for pooler in POOLERS.values()}


def describe_pooler(settings: dict[str, Any]) -> tuple[str, str]:
    """Title and aggregation of a configured pooler; one not in the table goes by its function."""
    target = str(settings["_target_"])
    known = next((pooler for pooler in POOLERS.values() if pooler.op == target), None)
    title = known.title if known else target.rpartition(".")[-1]
    if settings.get("mode") == "mnc":
        title += " (MNC)"
    return title, str(settings.get("agg", (known.agg if known else None) or ""))
