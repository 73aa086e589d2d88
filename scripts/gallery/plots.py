"""A data set's statistics as plots, for a light and for a dark page."""

import io
from collections.abc import Callable
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from data.statistics import LARGE_FROM, SIZES, SMALL_BELOW, Statistics

SHOWN_CATEGORIES = 25


@dataclass(frozen=True)
class Theme:
    """Colours of a plot, as matplotlib names them."""

    paper: str
    ink: str
    faint: str
    bar: str
    accent: str


LIGHT = Theme(paper="#ffffff", ink="#1c2530", faint="#ccd3db", bar="#2f6db3", accent="#c4501b")
DARK = Theme(paper="#171d24", ink="#e3e8ee", faint="#3a4551", bar="#6aa5e8", accent="#f29461")


def plot_statistics(statistics: Statistics, theme: Theme) -> dict[str, Figure]:
    """The plots by name."""
    plots: dict[str, Callable[[Statistics, Theme], Figure]] = {
        "objects_per_image": plot_objects_per_image,
        "sizes": plot_sizes,
        "categories": plot_categories,
    }
    return {name: plot(statistics, theme) for name, plot in plots.items()}


def plot_objects_per_image(statistics: Statistics, theme: Theme) -> Figure:
    """How many images hold how many objects; those without any in another colour."""
    counts = statistics.objects_per_image
    most = int(counts.max())
    width = max(1, -(-most // 30))  # objects a bar
    edges = np.arange(1, most + width + 1, width)
    figure, axes = _empty("Objects per image", theme)
    axes.bar(edges[:-1], np.histogram(counts, edges)[0], width * 0.9, align="edge", color=theme.bar)
    without = int((counts == 0).sum())
    axes.bar(-width, without, width * 0.9, align="edge", color=theme.accent)
    axes.set_xlabel(
        f"objects (mean {counts.mean():.1f}, median {np.median(counts):g}, most {most})"
    )
    axes.set_ylabel("images")
    axes.text(
        0.98,
        0.95,
        f"{without} of {len(counts)} without objects",
        color=theme.accent,
        ha="right",
        va="top",
        transform=axes.transAxes,
    )
    return figure


def plot_sizes(statistics: Statistics, theme: Theme) -> Figure:
    """Square roots of the objects' areas, with COCO's borders of small, medium and large."""
    figure, axes = _empty("Sizes of objects", theme)
    sides = np.sqrt(statistics.areas.clip(min=1))
    axes.set_xscale("log", base=2)
    if len(sides):
        top = max(float(sides.max()), LARGE_FROM**0.5) * 1.05
        edges = np.geomspace(min(float(sides.min()), SMALL_BELOW**0.5), top, 41)
        axes.hist(sides, edges, color=theme.bar, rwidth=0.9)
    low, high = axes.get_xlim()
    borders = [low, SMALL_BELOW**0.5, LARGE_FROM**0.5, high]
    sizes = statistics.summary()["sizes"]
    axes.set_ylim(top=axes.get_ylim()[1] * 1.22)
    for name, left, right in zip(SIZES, borders[:-1], borders[1:], strict=True):
        share = 100 * sizes[name] / max(len(sides), 1)
        axes.text(
            (left * right) ** 0.5,
            axes.get_ylim()[1] * 0.97,
            f"{name}\n{'< 1' if 0 < share < 1 else f'{share:.0f}'} %",
            ha="center",
            va="top",
            color=theme.ink,
        )
    for border in borders[1:-1]:
        axes.axvline(border, color=theme.accent, linewidth=1.5)
    axes.set_xlim(low, high)
    ticks = [side for side in (4, 8, 16, 32, 96, 256, 512, 1024) if low <= side <= high]
    axes.set_xticks(ticks, [str(side) for side in ticks])
    axes.set_xlabel("square root of the area, pixels of the file")
    axes.set_ylabel("objects")
    return figure


def plot_categories(statistics: Statistics, theme: Theme) -> Figure:
    """How many objects each category has; beyond the first few, the rest in one bar."""
    rows = statistics.by_category
    shown, rest = rows[:SHOWN_CATEGORIES], rows[SHOWN_CATEGORIES:]
    if rest:
        shown = [*shown, (f"{len(rest)} more", sum(count for _, count in rest))]
    figure, axes = _empty("Categories", theme, height=1.5 + 0.21 * max(len(shown), 4))
    places = np.arange(len(shown))
    colours = [theme.bar] * (len(shown) - bool(rest)) + [theme.faint] * bool(rest)
    axes.barh(places, [count for _, count in shown], color=colours)
    axes.set_yticks(places, [name for name, _ in shown])
    axes.set_ylim(max(len(shown), 4) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x", color=theme.faint, linewidth=0.6)
    for place, (_, count) in zip(places, shown, strict=True):
        axes.text(count, place, f" {count:,}", va="center", color=theme.ink, fontsize=8)
    axes.margins(x=0.14)
    axes.set_xlabel("objects")
    return figure


def _empty(title: str, theme: Theme, height: float = 3.6) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5.6, height), layout="constrained", facecolor=theme.paper)
    axes = figure.add_subplot(facecolor=theme.paper)
    axes.set_title(title, color=theme.ink, loc="left", fontweight="bold")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(theme.faint)
    axes.tick_params(colors=theme.ink, which="both")
    axes.xaxis.label.set_color(theme.ink)
    axes.yaxis.label.set_color(theme.ink)
    axes.grid(visible=True, axis="y", color=theme.faint, linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def rendered(figure: Figure, kind: str) -> bytes:
    """The plot as a file, "png" or "svg"; the same plot gives the same bytes."""
    written = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "statistics"}):
        figure.savefig(
            written, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None
        )
    return written.getvalue()
