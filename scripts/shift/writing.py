"""The results of the shift probe as CSV, as Markdown tables and as a plot."""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

from files.atomic import make_folder, replacing, write_text
from ops.poolers import by_title, colour
from scripts.shift.measuring import ShiftedRun

PANELS = {
    "AP": "{} AP, percent",
    "feature_change": "pooled features, change in percent",
    "jump": "position that a bin reads, jump in pixels",
}
EXPLANATION = """\
Each validation image is padded with its mean colour by at least one stride on every side, and
shifted right and down by whole pixels. The padded size is the same at every shift and no object is
cut. Detections are shifted back and scored against the file's annotations. Means are over all
shifts between 0 and the stride; ± is the standard deviation over seeds.

- **unshifted**: AP at shift 0, in the padded image; **shifted**: its mean over the shifts;
  **range**: the largest minus the smallest of them. The range is coarse: at every shift a few
  detections change by chance.
- **features**: mean |f(shift) - f(0)| / mean |f(0)| of the network's pooled features of the true
  boxes, which are shifted with the image. Part of the change comes from the backbone, which is
  equivariant to whole strides only; **whole stride** is the control: its change comes from the
  padding's border.
- **jump**: of the pooler only: how far the position that a bin reads moves relative to the object,
  in image pixels. It is measured on a map of positions; nothing that is trained affects it.
"""


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation over seeds (None for one seed)."""

    mean: float
    sd: float | None

    @staticmethod
    def over(values: Sequence[float]) -> "Spread":
        sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
        return Spread(float(np.mean(values)), sd)

    def __str__(self) -> str:
        return f"{self.mean:.2f}" + ("" if self.sd is None else f" ± {self.sd:.2f}")


@dataclass(frozen=True)
class ShiftedVariant:
    """The runs of one variant, which differ only in their seed."""

    name: str
    runs: tuple[ShiftedRun, ...]

    @property
    def stride(self) -> int:
        """Image pixels per cell of the feature map."""
        return int(self.runs[0].settings["stride"])

    @property
    def label(self) -> str:
        """Pooler and aggregation."""
        settings = self.runs[0].settings
        return f"{settings['pooler']} {settings['agg']}".strip()

    @property
    def kind(self) -> str:
        """ "segm", or "bbox" for a network without masks."""
        return "segm" if "segm/AP" in self.runs[0].figures[0] else "bbox"

    @property
    def shifts(self) -> list[int]:
        """In pixels, ascending, 0 first."""
        return list(self.runs[0].figures)

    def at(self, shift: int, figure: str) -> Spread:
        """A figure at one shift."""
        return Spread.over([run.figures[shift][figure] for run in self.runs])

    def over_shifts(self, figure: str, reduce: Callable[[list[float]], float]) -> Spread | None:
        """`reduce` of a figure's values at the shifts between 0 and the stride."""
        between = [shift for shift in self.shifts if 0 < shift < self.stride]
        if not between:
            return None
        return Spread.over([reduce([r.figures[s][figure] for s in between]) for r in self.runs])


def write_all(folder: Path, variants: Sequence[ShiftedVariant], images: int) -> list[Path]:
    """Write shift.csv, shift.md and shift.png into `folder`; returns their paths.

    Args:
        images: number of images that were shifted.
    """
    make_folder(folder)
    paths = [folder / f"shift.{form}" for form in ("csv", "md", "png")]
    write_text(paths[0], as_csv(variants))
    write_text(paths[1], as_markdown(variants, images))
    plot(variants, paths[2])
    return paths


def as_csv(variants: Sequence[ShiftedVariant]) -> str:
    """One row per variant and shift: mean and standard deviation of each figure over seeds."""
    figures = list(dict.fromkeys(f for variant in variants for f in variant.runs[0].figures[0]))
    text = io.StringIO()
    columns = [name for figure in figures for name in (figure, f"{figure}/sd")]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["variant", "pooler", "agg", "backbone", "stride", "seeds", "shift", *columns])
    for variant in variants:
        run = variant.runs[0]
        settings = [run.settings[key] for key in ("pooler", "agg", "backbone", "stride")]
        for shift in variant.shifts:
            values: list[float | None] = []
            for figure in figures:
                spread = variant.at(shift, figure) if figure in run.figures[shift] else None
                values += [spread.mean, spread.sd] if spread else [None, None]
            texts = ["" if value is None else f"{value:.6g}" for value in values]
            writer.writerow([variant.name, *settings, len(variant.runs), shift, *texts])
    return text.getvalue()


def as_markdown(variants: Sequence[ShiftedVariant], images: int) -> str:
    """One table per stride, one row per variant."""
    lines = ["# Shifted images", "", f"{images} validation images.", "", EXPLANATION]
    for stride in sorted({variant.stride for variant in variants}):
        rows = [variant for variant in variants if variant.stride == stride]
        shifts = ", ".join(map(str, rows[0].shifts))
        lines += [
            f"## Stride {stride}",
            "",
            f"Shifts of {shifts} pixels.",
            "",
            "| pooler | variant | seeds | AP of | unshifted | shifted | range | features, % "
            "| whole stride, % | jump, pixels |",
            "|---|---|--:|---|--:|--:|--:|--:|--:|--:|",
            *map(_row, rows),
            "",
        ]
    return "\n".join(lines)


def _row(variant: ShiftedVariant) -> str:
    ap, stride = f"{variant.kind}/AP", variant.stride
    values = [
        variant.at(0, ap),
        variant.over_shifts(ap, np.mean),
        variant.over_shifts(ap, np.ptp),
        variant.over_shifts("feature_change", np.mean),
        variant.at(stride, "feature_change") if stride in variant.shifts else None,
        variant.over_shifts("jump", np.mean),
    ]
    texts = ["-" if value is None else str(value) for value in values]
    kind = {"segm": "masks", "bbox": "boxes"}[variant.kind]
    return f"| {' | '.join([variant.label, variant.name, str(len(variant.runs)), kind, *texts])} |"


def plot(variants: Sequence[ShiftedVariant], path: Path) -> None:
    """AP, features and jump against the shift: a row of panels per stride, a line per variant."""
    strides = sorted({variant.stride for variant in variants})
    figure = Figure(figsize=(13, 3.6 * len(strides)), layout="tight")
    grid = figure.subplots(len(strides), len(PANELS), squeeze=False)
    for stride, axes in zip(strides, grid, strict=True):
        rows = [variant for variant in variants if variant.stride == stride]
        for panel, ax in zip(PANELS, axes, strict=True):
            for variant in rows:
                _line(ax, variant, f"{variant.kind}/AP" if panel == "AP" else panel)
            kind = {"segm": "mask", "bbox": "box"}[rows[0].kind]
            ax.set_title(PANELS[panel].format(kind), fontsize=11)
            ax.set_xlabel(f"shift in pixels (stride {stride})")
            ax.set_xlim(0, stride)
            ax.xaxis.set_major_locator(MultipleLocator(stride // 4))
            ax.grid(alpha=0.3)
            ax.spines[["top", "right"]].set_visible(False)
        for ax in axes[1:]:
            ax.set_ylim(bottom=-0.03 * ax.get_ylim()[1])  # keeps a line along 0 visible
        axes[2].legend(fontsize=9, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130)


def _line(ax: Axes, variant: ShiftedVariant, figure: str) -> None:
    spreads = [variant.at(shift, figure) for shift in variant.shifts]
    mean = np.array([spread.mean for spread in spreads])
    sd = np.array([spread.sd or 0.0 for spread in spreads])
    settings = variant.runs[0].settings
    pooler = by_title(str(settings["pooler"]))
    dashes = "--" if settings["agg"] == "max" and not (pooler and pooler.agg) else "-"
    tint = colour(str(settings["pooler"]))[0]
    ax.plot(
        variant.shifts, mean, dashes, color=tint, marker="o", ms=3.5, lw=1.6, label=variant.label
    )
    ax.fill_between(variant.shifts, mean - sd, mean + sd, color=tint, alpha=0.15, lw=0)
