"""The figures of one box: several poolers side by side, each from the map to its output."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from scripts.explain.canvas import Canvas, Dot, Item, Line, Text
from scripts.explain.drawing import (
    INK,
    MARGIN,
    MUTED,
    POINT,
    Frame,
    Window,
    facts,
    legend,
    map_panel,
    on,
    output_cells,
    shade,
    sheet,
    value_cells,
    window,
)
from scripts.explain.geometry import Cell, Point, Reading

LEFT = MARGIN + 14  # room for the row numbers
GAP = 34.0
ZOOM = 144.0
LIST = 130.0  # width of the list of a bin's points


@dataclass(frozen=True)
class Chosen:
    """The bin (row, column) that a figure enlarges, and which of its samples."""

    row: int = 0
    column: int = 0
    sample: int = 0


def side_by_side(
    readings: Sequence[Reading], column: float, top: float = 0.0, shown: Window | None = None
) -> tuple[list[Frame], list[Item]]:
    """Room for the map of each reading, in columns of this width, and the titles above."""
    shown = shown or window(readings)
    cell = min(column / (shown[2] - shown[0]), 420 / (shown[3] - shown[1]))
    frames, titles = [], []
    for k, reading in enumerate(readings):
        x, pooler = LEFT + k * (column + GAP), reading.pooler
        frames.append(Frame(x, top + 96, cell, shown))
        titles.append(Text(x, top + 42, pooler.title, 20, INK, bold=True))
        titles.append(Text(x, top + 62, f"{pooler.subtitle}, {pooler.agg}", 13, MUTED))
    return frames, titles


def coverage_figure(
    readings: Sequence[Reading], *, width: float = 830, per_row: int | None = None
) -> Canvas:
    """Several poolers on the same box: what each reads and loses."""
    per_row = per_row or len(readings)
    column = (width - LEFT - MARGIN - (per_row - 1) * GAP) / per_row
    items, y = _maps(readings, column, per_row)
    return finished(items, y, readings, width)


def explain_figure(
    readings: Sequence[Reading], features: Tensor, chosen: Chosen, *, column: float = 290
) -> Canvas:
    """Each pooler's map, a bin and a point of it with weights and values, and the whole output.

    Args:
        features: ``[H, W]``, values between 0 and 1.
    """
    width = max(LEFT + MARGIN + len(readings) * (column + GAP) - GAP, 380.0)
    items, top = _maps(readings, column, len(readings))
    rows, columns = readings[0].scene.output_size
    side = min(column / columns, 46.0)
    bottom = top
    for index, reading in enumerate(readings):
        x = LEFT + index * (column + GAP)
        items.append(Line(((x, top), (x + column, top)), "#e3e8ee", 1))
        closely, y = look_closely(x, top + 26, reading, features, chosen)
        items += [*closely, Text(x, y + 30, f"output {rows} × {columns}", 14, INK, bold=True)]
        items += output_cells(x, y + 42, side, reading.values(features))
        bottom = max(bottom, y + 42 + rows * side)
    return finished(items, bottom + 14, readings, width)


def _maps(readings: Sequence[Reading], column: float, per_row: int) -> tuple[list[Item], float]:
    """Title, map and facts of each; returns where they end."""
    items: list[Item] = []
    shown, bottom = window(readings), 0.0
    for first in range(0, len(readings), per_row):
        row = readings[first : first + per_row]
        frames, titles = side_by_side(row, column, bottom, shown)
        items += titles
        for frame, reading in zip(frames, row, strict=True):
            items += map_panel(frame, reading)
            y = frame.bottom + 26
            for text in facts(reading):
                items.append(Text(frame.x, y, text, 12.5, INK))
                y += 19
            bottom = max(bottom, y)
    return items, bottom


def finished(items: list[Item], y: float, readings: Sequence[Reading], width: float) -> Canvas:
    """The items on a card, with the legend below."""
    keys, tall = legend(LEFT, y + 14, readings, width - LEFT - MARGIN)
    height = y + 14 + tall + 8
    names = ", ".join(reading.pooler.title for reading in readings)
    return sheet(width, height, [*items, *keys], f"{names} on one box")


def look_closely(
    x: float, y: float, reading: Reading, features: Tensor, chosen: Chosen
) -> tuple[list[Item], float]:
    """The chosen bin: its points and their values, one of them with its cells and weights."""
    found = reading.points(chosen.row, chosen.column)
    heading = f"bin ({chosen.row}, {chosen.column})"
    if not found:
        return [Text(x, y, f"{heading} reads nothing: 0", 14, INK, bold=True)], y + 16
    if not reading.pooler.sampled:
        return _whole_cells(x, y, heading, reading, features, chosen)
    sample = min(chosen.sample, len(found) - 1)
    items: list[Item] = [Text(x, y, f"{heading}, point {sample + 1}", 14, INK, bold=True)]
    items += point_zoom(x, y + 14, ZOOM, found[sample], features)
    px, py = x + ZOOM + 14, y + 28
    most = 8
    for k, point in enumerate(found[:most]):
        colour = POINT if k == sample else MUTED
        text = f"({point.x:.2f}, {point.y:.2f})"
        items.append(Text(px, py, text, 12, colour, bold=k == sample))
        items.append(
            Text(px + LIST, py, f"{point.value(features):.2f}", 12, colour, "end", k == sample)
        )
        py += 16
    if len(found) > most:
        items.append(Text(px, py, f"and {len(found) - most} more", 12, MUTED))
        py += 16
    total = float(reading.values(features)[chosen.row, chosen.column])
    items.append(Line(((px, py - 8), (px + LIST, py - 8)), MUTED, 1))
    items.append(Text(px, py + 8, reading.pooler.agg, 13, INK, bold=True))
    items.append(Text(px + LIST, py + 8, f"{total:.2f}", 13, INK, "end", bold=True))
    return items, y + 14 + max(ZOOM, py + 12 - y - 14)


def point_zoom(x: float, y: float, side: float, point: Point, features: Tensor) -> list[Item]:
    """The four cells around a point: value and weight in each, lines to their centres."""
    weights = merged(point)
    columns, rows = sorted({cx for cx, _ in weights}), sorted({cy for _, cy in weights})
    frame = Frame(x, y, side / 2, (columns[0], rows[0], columns[0] + 2, rows[0] + 2))
    dot = frame.at(point.x, point.y)
    items: list[Item] = []
    for cell in weights:
        items.append(frame.cell_rect(cell, fill=shade(_at(features, cell)), stroke="#ffffff"))
    for cx, cy in weights:
        ink = on(_at(features, (cx, cy)))
        items.append(Line((dot, frame.at(cx + 0.5, cy + 0.5)), ink, 1, 0.7, (3, 3)))
    for (cx, cy), weight in weights.items():
        value = _at(features, (cx, cy))
        items.append(Dot(*frame.at(cx + 0.5, cy + 0.5), 2.2, on(value)))
        right = len(columns) > 1 and cx == columns[-1]
        low = len(rows) > 1 and cy == rows[-1]
        tx = frame.at(cx + 1, 0)[0] - 5 if right else frame.at(cx, 0)[0] + 5
        ty = frame.at(0, cy + 1)[1] - 20 if low else frame.at(0, cy)[1] + 15
        side_of = "end" if right else "start"
        items.append(Text(tx, ty, f"{value:.2f}", 12, on(value), side_of))
        items.append(Text(tx, ty + 13, f"× {weight:.3f}", 11, on(value), side_of, bold=True))
    return [*items, Dot(*dot, 4.5, POINT, "#ffffff", 1.4)]


def merged(point: Point) -> dict[Cell, float]:
    """A point's weight of each cell; at the map's border a point names the same cell twice."""
    weights: dict[Cell, float] = {}
    for cell, weight in zip(point.cells, point.weights, strict=True):
        weights[cell] = weights.get(cell, 0.0) + weight
    return weights


def _at(features: Tensor, cell: Cell) -> float:
    return float(features[cell[1], cell[0]])


def _whole_cells(
    x: float, y: float, heading: str, reading: Reading, features: Tensor, chosen: Chosen
) -> tuple[list[Item], float]:
    """A bin that is read without points: its cells, with a ring around the largest if it counts."""
    read: dict[Cell, float] = {}
    for point in reading.points(chosen.row, chosen.column):
        for cell, weight in merged(point).items():
            read[cell] = read.get(cell, 0.0) + weight
    read = {cell: weight for cell, weight in read.items() if weight}
    xs, ys = [cx for cx, _ in read], [cy for _, cy in read]
    shown = min(xs), min(ys), max(xs) + 1, max(ys) + 1
    size = min(ZOOM / max(shown[2] - shown[0], shown[3] - shown[1]), 62.0)
    frame = Frame(x, y + 14, size, shown)
    items: list[Item] = [Text(x, y, f"{heading}, {len(read)} cells", 14, INK, bold=True)]
    items += value_cells(frame, features, sorted(read))
    px, total = x + ZOOM + 14, float(reading.values(features)[chosen.row, chosen.column])
    if reading.pooler.agg == "max":
        largest = max(read, key=lambda cell: _at(features, cell))
        items.append(frame.cell_rect(largest, stroke=POINT, line=3))
        items.append(Text(px, y + 28, f"largest: cell {largest}", 12, POINT))
    else:
        items.append(Text(px, y + 28, "weighted by the area", 12, MUTED))
    items.append(Text(px, y + 50, reading.pooler.agg, 13, INK, bold=True))
    items.append(Text(px + LIST, y + 50, f"{total:.2f}", 13, INK, "end", bold=True))
    return items, y + 14 + ZOOM
