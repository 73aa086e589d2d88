"""The README's pictures: three poolers on one box, and the idea in four steps."""

from collections.abc import Callable, Sequence

from scripts.explain.article_steps import SCENE as ARTICLE_SCENE
from scripts.explain.article_steps import WIDTH
from scripts.explain.canvas import Canvas, Item, Text
from scripts.explain.drawing import (
    INK,
    MARGIN,
    MUTED,
    Frame,
    coverage_cells,
    grid_lines,
    legend,
    map_panel,
    number,
    outlines,
    points,
    sheet,
    window,
)
from scripts.explain.figure import GAP, LEFT, side_by_side
from scripts.explain.geometry import Reading, Scene
from scripts.explain.poolers import choose

SCENE = Scene((308, 200, 490, 337), (512, 512), 32, (3, 3))


def hero() -> Canvas:
    """RoIPool, RoIWarp and RoIAlign on one box: what is lost, what is read from outside."""
    readings = [Reading(choose(word), SCENE) for word in ("pool", "warp", "align")]
    frames, items = side_by_side(readings, (WIDTH - LEFT - MARGIN - 2 * GAP) / 3)
    y = frames[0].bottom
    for frame, reading in zip(frames, readings, strict=True):
        items += map_panel(frame, reading)
        items.append(Text(frame.x, y + 30, f"{_lost(reading)} cells lost", 17, INK, bold=True))
        items.append(Text(frame.x, y + 51, _from_outside(reading), 13, MUTED))
    description = "RoIPool, RoIWarp and RoIAlign read the cells under one box"
    return _finished(items, LEFT, y + 84, readings, description)


def _lost(reading: Reading) -> int:
    return len(reading.coverage.lost_mapping | reading.coverage.lost_cutting)


def _finished(
    items: list[Item], x: float, y: float, readings: Sequence[Reading], description: str
) -> Canvas:
    """The items on a card, with the legend from (x, y) on."""
    keys, tall = legend(x, y, readings, WIDTH - x - MARGIN)
    height = y + tall + 6
    return sheet(WIDTH, height, [*items, *keys], description)


def _from_outside(reading: Reading) -> str:
    count = len(reading.coverage.foreign)
    if not count or not reading.pooler.sampled:
        return f"{count} read from outside the box"
    return f"{count} touched outside: {100 * reading.foreign_share():.0f} % of the weight"


def strip() -> Canvas:
    """Four steps: the box off the grid, cut down, its bins kept, nothing rounded."""
    pool, warp, align = (
        Reading(choose(word), ARTICLE_SCENE)
        for word in ("pool_floor", "warp_floor", "align_thirds")
    )
    x1, y1, x2, y2 = pool.box
    size = f"{number(x2 - x1)} × {number(y2 - y1)}"
    gap, count = 26.0, 4
    column = (WIDTH - 2 * MARGIN - (count - 1) * gap) / count
    shown = window([pool, warp, align])
    inside = len(pool.coverage.inside)
    steps: list[tuple[Callable[[Frame], list[Item]], str, str, str]] = [
        (lambda frame: _bare(frame, align), "1  Off the grid", "A box of 200 × 145 pixels",
         f"is {size} cells."),
        (lambda frame: _read(frame, pool), "2  Cut down", "RoIPool keeps whole cells:",
         f"{_lost(pool)} of {inside} are never read."),
        (lambda frame: _read(frame, warp), "3  Bins kept", "RoIWarp cuts only the box:",
         f"{_lost(warp)} of {inside} are never read."),
        (lambda frame: _read(frame, align), "4  Nothing rounded", "RoIAlign interpolates at",
         "four points in each bin."),
    ]  # fmt: skip
    items: list[Item] = []
    for index, (draw, heading, first, second) in enumerate(steps):
        x = MARGIN + index * (column + gap)
        frame = Frame(x, 56, column / (shown[2] - shown[0]), shown)
        y = frame.bottom
        items += [Text(x, 38, heading, 16, INK, bold=True), *draw(frame)]
        items += [Text(x, y + 24, first, 13, INK), Text(x, y + 42, second, 13, INK)]
    description = (
        "Why RoIAlign: a box off the grid, cut down by RoIPool and RoIWarp, kept by RoIAlign"
    )
    return _finished(items, MARGIN, y + 74, [pool, warp, align], description)


def _bare(frame: Frame, reading: Reading) -> list[Item]:
    return [*grid_lines(frame), *outlines(frame, reading, bins=False)[-1:]]


def _read(frame: Frame, reading: Reading) -> list[Item]:
    items = [*grid_lines(frame), *coverage_cells(frame, reading), *outlines(frame, reading)]
    return items + (points(frame, reading) if reading.pooler.sampled else [])
