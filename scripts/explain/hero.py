"""The README's pictures: three poolers on one box, and the idea in four steps."""

from collections.abc import Callable

from scripts.explain.article_steps import SCENE as ARTICLE_SCENE
from scripts.explain.article_steps import WIDTH
from scripts.explain.canvas import Canvas, Item, Text
from scripts.explain.drawing import (
    INK,
    MARGIN,
    MUTED,
    Frame,
    card,
    coverage_cells,
    grid_lines,
    legend,
    map_panel,
    number,
    outlines,
    points,
    window,
)
from scripts.explain.figure import GAP, LEFT, title
from scripts.explain.geometry import Reading, Scene
from scripts.explain.poolers import choose

SCENE = Scene((308, 200, 490, 337), (512, 512), 32, (3, 3))


def hero() -> Canvas:
    """RoIPool, RoIWarp and RoIAlign on one box: what is lost, what is read from outside."""
    readings = [Reading(choose(word), SCENE) for word in ("pool", "warp", "align")]
    column = (WIDTH - LEFT - MARGIN - 2 * GAP) / 3
    shown = window(readings)
    items: list[Item] = []
    y = 0.0
    for index, reading in enumerate(readings):
        x = LEFT + index * (column + GAP)
        frame = Frame(x, 96, column / (shown[2] - shown[0]), shown)
        items += [*title(x, 42, reading), *map_panel(frame, reading)]
        y = 96 + frame.height
        lost = len(reading.coverage.lost_mapping | reading.coverage.lost_cutting)
        items.append(Text(x, y + 30, f"{lost} cells lost", 17, INK, bold=True))
        items.append(Text(x, y + 51, _from_outside(reading), 13, MUTED))
    keys, tall = legend(LEFT, y + 84, readings, WIDTH - LEFT - MARGIN)
    height = y + 84 + tall + 6
    says = "RoIPool, RoIWarp and RoIAlign read the cells under one box"
    return Canvas(WIDTH, height, (card(WIDTH, height), *items, *keys), says)


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
    pool_lost = len(pool.coverage.lost_mapping | pool.coverage.lost_cutting)
    warp_lost = len(warp.coverage.lost_mapping | warp.coverage.lost_cutting)
    steps: list[tuple[Callable[[Frame], list[Item]], str, str, str]] = [
        (lambda frame: _bare(frame, align), "1  Off the grid", "A box of 200 × 145 pixels",
         f"is {size} cells."),
        (lambda frame: _read(frame, pool), "2  Cut down", "RoIPool keeps whole cells:",
         f"{pool_lost} of {inside} are never read."),
        (lambda frame: _read(frame, warp), "3  Bins kept", "RoIWarp cuts the box alone:",
         f"{warp_lost} of {inside} are never read."),
        (lambda frame: _read(frame, align), "4  Nothing rounded", "RoIAlign interpolates at",
         "four points in each bin."),
    ]  # fmt: skip
    items: list[Item] = []
    y = 0.0
    for index, (draw, heading, first, second) in enumerate(steps):
        x = MARGIN + index * (column + gap)
        frame = Frame(x, 56, column / (shown[2] - shown[0]), shown)
        y = 56 + frame.height
        items += [Text(x, 38, heading, 16, INK, bold=True), *draw(frame)]
        items += [Text(x, y + 24, first, 13, INK), Text(x, y + 42, second, 13, INK)]
    keys, tall = legend(MARGIN, y + 74, [pool, warp, align], WIDTH - 2 * MARGIN)
    height = y + 74 + tall + 6
    says = "Why RoIAlign: a box off the grid, cut down by RoIPool and RoIWarp, kept by RoIAlign"
    return Canvas(WIDTH, height, (card(WIDTH, height), *items, *keys), says)


def _bare(frame: Frame, reading: Reading) -> list[Item]:
    return [*grid_lines(frame), *outlines(frame, reading, bins=False)[-1:]]


def _read(frame: Frame, reading: Reading) -> list[Item]:
    items = [*grid_lines(frame), *coverage_cells(frame, reading), *outlines(frame, reading)]
    return items + (points(frame, reading) if reading.pooler.sampled else [])
