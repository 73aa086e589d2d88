"""One worked example in eight figures: a 200 x 145 box of a 512 x 512 image, at stride 32.

The example is that of the article "Understanding Region of Interest, part 2 (RoI Align)". The
figures are drawn from the plans of this project's ops, and the notes list the article's mistakes.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from files.atomic import write_text
from reporting import paper
from scripts.explain import article_steps as steps
from scripts.explain.article_notes import notes
from scripts.explain.canvas import Canvas, Item, Line, Rect, Text, arrow, write
from scripts.explain.drawing import (
    BOX,
    EDGE,
    FOREIGN,
    INK,
    LOST_CUTTING,
    MARGIN,
    MUTED,
    READ,
    heading,
    sheet,
)
from scripts.explain.figure import coverage_figure
from scripts.explain.geometry import Reading
from scripts.explain.poolers import choose

WIDTH = steps.WIDTH
Row = tuple[Any, ...]


def figures() -> dict[str, Canvas]:
    """The eight figures by file name."""
    return {
        "1_map": steps.figure_map(),
        "2_bins": steps.figure_bins(),
        "3_points": steps.figure_points(),
        "4_values": steps.figure_values(),
        "5_coverage": figure_coverage(),
        "6_roiwarp": figure_warp(),
        "7_results": figure_results(),
        "8_interchangeable": figure_claim(),
    }


def write_article(folder: Path) -> list[Path]:
    """Write every figure as SVG and PNG, and the notes; returns the files."""
    paths = []
    for name, canvas in figures().items():
        for suffix in (".svg", ".png"):
            paths.append(folder / f"{name}{suffix}")
            write(canvas, paths[-1])
    paths.append(folder / "README.md")
    write_text(paths[-1], notes())
    return paths


def _readings(*words: str) -> list[Reading]:
    return [Reading(choose(word), steps.SCENE) for word in words]


def figure_coverage() -> Canvas:
    """5: RoIAlign beside RoIPool; above as in the article, below as the ops compute them."""
    return coverage_figure(
        _readings("align_thirds", "pool_floor", "align", "pool"), width=WIDTH, per_row=2
    )


def figure_warp() -> Canvas:
    """6: RoIWarp; on the left as in the article, on the right as in the paper's comparison."""
    return coverage_figure(_readings("warp_floor", "warp"), width=WIDTH)


def figure_results() -> Canvas:
    """7: the Mask R-CNN paper's two tables."""
    items: list[Item] = [
        *heading("What it is worth", f"Mask R-CNN, tables 2c and 2d: {paper.SETTING}, percent")
    ]
    y = _table(items, 106, "C4, stride 16", ("mask",), _rows(16, paper.MASKS))
    both = _rows(32, paper.MASKS, paper.BOXES)
    y = _table(items, y + 34, "C5, stride 32", ("mask", "box"), both)
    return sheet(WIDTH, y + 16, items, "The paper's comparison of the three poolers")


def _rows(stride: int, *tables: dict[tuple[int, str, str], tuple[float, ...]]) -> list[Row]:
    """Pooler, aggregation and figures of the rows that are in all these tables of the paper."""
    return [
        (name, agg, *(figure for table in tables for figure in table[stride, name, agg]))
        for name, agg in paper.ROWS[stride]
        if all((stride, name, agg) in table for table in tables)
    ]


def _table(
    items: list[Item], y: float, title: str, kinds: tuple[str, ...], rows: Sequence[Row]
) -> float:
    """A table with the best of each column in bold; returns where it ends."""
    first, step = 340.0, 84.0
    columns = [f"{kind} {name}" for kind in kinds for name in paper.FIGURES]
    right = first + step * len(columns) - 66
    items.append(Text(MARGIN, y, title, 16, INK, bold=True))
    for k, name in enumerate(columns):
        items.append(Text(first + k * step, y, name, 13, MUTED, "end"))
    items.append(Line(((MARGIN, y + 10), (right, y + 10)), INK, 1.4))
    best = [max(row[k] for row in rows) for k in range(2, len(rows[0]))]
    for row in rows:
        y += 32
        items.append(Text(MARGIN, y, str(row[0]), 15, INK))
        items.append(Text(MARGIN + 110, y, str(row[1]), 15, MUTED))
        for k, value in enumerate(row[2:]):
            x, bold = first + k * step, value == best[k]
            items.append(Text(x, y, f"{value:.1f}", 15, INK, "end", bold))
        items.append(Line(((MARGIN, y + 10), (right, y + 10)), "#e3e8ee", 1))
    return y + 16


def figure_claim() -> Canvas:
    """8: any pooler fits any model."""
    items: list[Item] = [
        *heading(
            "One slot, any pooler", "Every model hands boxes to a pooler and gets maps of one size."
        ),
        Rect(348, 92, 274, 262, fill="#fbf4e2", stroke=BOX, line=2, radius=14, dash=(7, 5)),
    ]
    models = (
        ("Fast R-CNN", "given boxes", "classes, boxes"),
        ("Faster R-CNN", "boxes of its RPN", "classes, boxes"),
        ("Mask R-CNN", "boxes of its RPN", "classes, boxes, masks"),
    )
    for index, (model, source, result) in enumerate(models):
        y = 112.0 + index * 80
        _block(items, MARGIN, y, 144, model, source)
        _block(items, 204, y, 112, "features", "stride 16 or 32")
        items += arrow(174, y + 29, 201, y + 29, MUTED, 1.8)
        items += arrow(318, y + 29, 358, y + 29, MUTED, 1.8)
        for k, (name, colour) in enumerate(
            (("RoIPool", LOST_CUTTING), ("RoIWarp", FOREIGN), ("RoIAlign", READ))
        ):
            x = 362.0 + k * 84
            items.append(Rect(x, y + 10, 78, 38, fill=colour, stroke="#7d8894", radius=8))
            items.append(Text(x + 39, y + 34, name, 13, INK, "middle", bold=True))
        items += arrow(612, y + 29, 643, y + 29, MUTED, 1.8)
        _block(items, 646, y, 156, "heads", result)
    items.append(Text(485, 380, "pooler=pool    pooler=warp    pooler=align", 13, INK, "middle"))
    description = "Fast, Faster and Mask R-CNN each take any of the three poolers"
    return sheet(WIDTH, 404, items, description)


def _block(items: list[Item], x: float, y: float, width: float, text: str, below: str) -> None:
    items.append(Rect(x, y, width, 58, fill="#eef2f7", stroke=EDGE, radius=9))
    items.append(Text(x + width / 2, y + 25, text, 14.5, INK, "middle", bold=True))
    items.append(Text(x + width / 2, y + 44, below, 12, MUTED, "middle"))
