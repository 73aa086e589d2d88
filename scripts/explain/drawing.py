"""The parts of a figure: the map with its coverage, bins and points, the output, the legend."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from scripts.explain.canvas import Canvas, Dot, Item, Line, Rect, Text
from scripts.explain.geometry import Box, Cell, Reading, overlapped

INK, MUTED, GRID, PAPER, EDGE = "#1b2330", "#566273", "#cfd6df", "#ffffff", "#d5dbe3"
BOX = "#d9480f"  # the true box
MAPPED = "#1b2330"  # the box as the pooler maps it
READ = "#ffe08a"
LOST_MAPPING, LOST_CUTTING, FOREIGN = "#1f4e9c", "#8fbdf2", "#63be6b"
POINT = "#b02a5b"
MARGIN = 28.0
Window = tuple[int, int, int, int]  # x1, y1, x2, y2 in whole cells


@dataclass(frozen=True)
class Frame:
    """Where a part of the map is drawn on the canvas.

    Attributes:
        x, y: its top left corner on the canvas.
        cell: pixels per feature cell.
        window: the part of the map, x1 y1 x2 y2 in cells.
    """

    x: float
    y: float
    cell: float
    window: Window

    @property
    def width(self) -> float:
        return (self.window[2] - self.window[0]) * self.cell

    @property
    def height(self) -> float:
        return (self.window[3] - self.window[1]) * self.cell

    @property
    def bottom(self) -> float:
        return self.y + self.height

    def at(self, x: float, y: float) -> tuple[float, float]:
        return self.x + (x - self.window[0]) * self.cell, self.y + (y - self.window[1]) * self.cell

    def rect(self, box: Box, **look: object) -> Rect:
        (x1, y1), (x2, y2) = self.at(*box[:2]), self.at(*box[2:])
        return Rect(x1, y1, x2 - x1, y2 - y1, **look)  # type: ignore[arg-type]

    def cell_rect(self, cell: Cell, **look: object) -> Rect:
        x, y = cell
        return self.rect((x, y, x + 1, y + 1), **look)


def window(readings: Sequence[Reading], margin: int = 1) -> Window:
    """The part of the map with all cells that the readings or their boxes touch, and a margin."""
    touched: set[Cell] = set()
    for reading in readings:
        touched |= reading.coverage.read | reading.coverage.inside | overlapped(reading.mapped)
    rows, columns = readings[0].scene.map_size
    if not touched:
        return 0, 0, columns, rows
    xs, ys = [x for x, _ in touched], [y for _, y in touched]
    return (
        max(min(xs) - margin, 0),
        max(min(ys) - margin, 0),
        max(min(max(xs) + 1 + margin, columns), 1),
        max(min(max(ys) + 1 + margin, rows), 1),
    )


def grid_lines(frame: Frame) -> list[Item]:
    """The map's cells, empty."""
    return [frame.rect(frame.window, fill="#f6f8fa"), *_lattice(frame)]


def _lattice(frame: Frame) -> list[Item]:
    """The lines between cells."""
    x1, y1, x2, y2 = frame.window
    ends = [((x, y1), (x, y2)) for x in range(x1, x2 + 1)]
    ends += [((x1, y), (x2, y)) for y in range(y1, y2 + 1)]
    return [Line((frame.at(*a), frame.at(*b)), GRID, 1) for a, b in ends]


def cell_numbers(frame: Frame, size: float = 11) -> list[Item]:
    """Column numbers above the window and row numbers left of it."""
    x1, y1, x2, y2 = frame.window
    every = max(1, round(18 / frame.cell + 0.49))
    numbers: list[Item] = []
    for x in range(x1, x2, every):
        px, py = frame.at(x + 0.5, y1)
        numbers.append(Text(px, py - 5, str(x), size, MUTED, "middle"))
    for y in range(y1, y2, every):
        px, py = frame.at(x1, y + 0.5)
        numbers.append(Text(px - 6, py + size * 0.36, str(y), size, MUTED, "end"))
    return numbers


def coverage_cells(frame: Frame, reading: Reading, strength: float = 1.0) -> list[Item]:
    """The cells coloured as read, lost or foreign; those of little weight are paler.

    `strength` below 1 makes all of them translucent.
    """
    covered, share = reading.coverage, reading.weights()
    most = max(share.values(), default=1.0)
    items: list[Item] = [
        frame.cell_rect(cell, fill=colour, opacity=strength)
        for cells, colour in (
            (covered.lost_mapping, LOST_MAPPING),
            (covered.lost_cutting, LOST_CUTTING),
        )
        for cell in sorted(cells)
    ]
    for cell in sorted(covered.read):
        colour = FOREIGN if cell in covered.foreign else READ
        opacity = strength * (0.3 + 0.7 * share[cell] / most)
        items.append(frame.cell_rect(cell, fill=colour, opacity=opacity))
    return items + _lattice(frame)


def value_cells(frame: Frame, values: Tensor, cells: Iterable[Cell]) -> list[Item]:
    """Some values of a map as shades of violet, with their numbers if cells are large enough."""
    items: list[Item] = []
    size = min(14.0, frame.cell * 0.32)
    for x, y in cells:
        value = float(values[y, x])
        items.append(frame.cell_rect((x, y), fill=shade(value), stroke="#ffffff", line=1.5))
        if frame.cell >= 24:
            px, py = frame.at(x + 0.5, y + 0.5)
            items.append(Text(px, py + size * 0.36, f"{value:.2f}", size, on(value), "middle"))
    return items


def shade(value: float) -> str:
    """A colour for a value between 0 (nearly white) and 1 (deep violet)."""
    share = min(max(value, 0.0), 1.0)
    low, high = (245, 243, 250), (75, 46, 131)
    mixed = [round(a + (b - a) * share) for a, b in zip(low, high, strict=True)]
    return "#{:02x}{:02x}{:02x}".format(*mixed)


def on(value: float) -> str:
    """The colour of text on `shade(value)`."""
    return INK if value < 0.5 else "#ffffff"


def outlines(frame: Frame, reading: Reading, *, bins: bool = True) -> list[Item]:
    """The bins, the box as mapped (dashed) and the true box."""
    items: list[Item] = []
    if bins:
        for row in reading.bins:
            items += [frame.rect(box, stroke=MAPPED, line=1.1, opacity=0.75) for box in row]
    items.append(frame.rect(reading.mapped, stroke=MAPPED, line=2, dash=(6, 4)))
    items.append(frame.rect(reading.box, stroke=BOX, line=2.6))
    return items


def points(frame: Frame, reading: Reading) -> list[Item]:
    """The sampling points, as dots that do not touch each other."""
    shown = reading.all_points
    xs, ys = ({point.x for point in shown}, {point.y for point in shown})
    gap = min((_closest(places) for places in (xs, ys)), default=1.0) * frame.cell
    radius = max(min(frame.cell * 0.09, gap * 0.3, 4.5), 0.8)
    ring = min(0.8, radius / 3)
    return [Dot(*frame.at(p.x, p.y), radius, POINT, "#ffffff", ring) for p in shown]


def _closest(places: set[float]) -> float:
    """The smallest distance between two places along an axis; one cell if there is one place."""
    ordered = sorted(places)
    return min((b - a for a, b in pairwise(ordered)), default=1.0)


def map_panel(frame: Frame, reading: Reading, *, bins: bool = True) -> list[Item]:
    """Coverage, bins, points and boxes of one pooler on the map."""
    items = [*grid_lines(frame), *coverage_cells(frame, reading)]
    items += outlines(frame, reading, bins=bins)
    if reading.pooler.sampled:
        items += points(frame, reading)
    return items + cell_numbers(frame)


def facts(reading: Reading) -> list[str]:
    """Sizes in cells, and how many cells are lost or foreign, as lines of text."""
    x1, y1, x2, y2 = reading.box
    a1, b1, a2, b2 = reading.mapped
    width, height = reading.bin_size
    covered = reading.coverage
    lines = [
        f"box {number(x2 - x1)} × {number(y2 - y1)} cells at ({number(x1)}, {number(y1)})",
        f"mapped to {number(a2 - a1)} × {number(b2 - b1)} at ({number(a1)}, {number(b1)})",
        f"first bin {number(width)} × {number(height)}",
        f"lost {len(covered.lost_mapping)} by mapping, {len(covered.lost_cutting)} by cutting",
        f"read from outside: {len(covered.foreign)}",
    ]
    if reading.pooler.sampled:
        lines.append(f"cells of the box without a point: {len(reading.cells_without_point())}")
    return lines


def number(value: float) -> str:
    """A number with at most two decimals, without trailing zeros."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def legend(x: float, y: float, shown: Sequence[Reading], width: float) -> tuple[list[Item], float]:
    """The colours that occur, in rows of at most `width`; returns the items and their height."""
    entries = [(BOX, "the true box", "line"), (MAPPED, "the box as mapped", "dash")]
    if any(reading.pooler.sampled for reading in shown):
        entries.append((POINT, "sampling point", "dot"))
    entries.append((READ, "read (paler: less weight)", "fill"))
    for name, colour, text in (
        ("lost_mapping", LOST_MAPPING, "lost by mapping the box"),
        ("lost_cutting", LOST_CUTTING, "lost by cutting the bins"),
        ("foreign", FOREIGN, "read from outside the box"),
    ):
        if any(getattr(reading.coverage, name) for reading in shown):
            entries.append((colour, text, "fill"))
    items: list[Item] = []
    px, py = x, y
    for colour, text, kind in entries:
        wide = 24 + len(text) * 7.0 + 22
        if px + wide > x + width + 20 and px > x:
            px, py = x, py + 24
        items += [*_swatch(px, py, colour, kind), Text(px + 24, py + 4.5, text, 13, INK)]
        px += wide
    return items, py - y + 24


def _swatch(x: float, y: float, colour: str, kind: str) -> list[Item]:
    if kind == "fill":
        return [Rect(x, y - 7, 16, 14, fill=colour, stroke="#9aa5b1", line=0.6)]
    if kind == "dot":
        return [Dot(x + 8, y, 4, colour, "#ffffff", 0.8)]
    dash = (6.0, 4.0) if kind == "dash" else ()
    return [Rect(x + 0.5, y - 6.5, 15, 13, stroke=colour, line=2, dash=dash)]


def output_cells(x: float, y: float, side: float, values: Tensor) -> list[Item]:
    """A pooler's output ``[rows, columns]`` as shades and numbers."""
    rows, columns = values.shape
    cells = [(j, i) for i in range(rows) for j in range(columns)]
    return value_cells(Frame(x, y, side, (0, 0, columns, rows)), values, cells)


def heading(text: str, below: str) -> list[Item]:
    """The first two lines of a figure."""
    return [Text(MARGIN, 44, text, 22, INK, bold=True), Text(MARGIN, 68, below, 14, MUTED)]


def sheet(width: float, height: float, items: list[Item], description: str) -> Canvas:
    """The items on a white card, so that they look the same on light and dark pages."""
    card = Rect(0.5, 0.5, width - 1, height - 1, fill=PAPER, stroke=EDGE, radius=14)
    return Canvas(width, height, (card, *items), description)
