"""The worked example step by step: figures 1 to 4, from the image to one output number."""

from torch import Tensor

from scripts.explain.canvas import Canvas, Item, Line, Rect, Text, arrow
from scripts.explain.drawing import (
    BOX,
    EDGE,
    GRID,
    INK,
    MARGIN,
    MUTED,
    PAPER,
    POINT,
    Frame,
    cell_numbers,
    grid_lines,
    heading,
    number,
    on,
    outlines,
    output_cells,
    points,
    shade,
    sheet,
    window,
)
from scripts.explain.figure import merged, point_zoom
from scripts.explain.geometry import Reading, Scene, bump
from scripts.explain.poolers import choose

WIDTH = 830.0
SCENE = Scene((296, 192, 496, 337), (512, 512), 32, (3, 3))
CHANNELS = 512
CORNERS = ("top left", "top right", "bottom left", "bottom right")


def example() -> Reading:
    """RoIAlign with the points at the thirds of each bin, as the worked example has it."""
    return Reading(choose("align_thirds"), SCENE)


def features() -> Tensor:
    return bump(SCENE.map_size, example().box)


def figure_map() -> Canvas:
    """1: the image, the network, and the box on the map."""
    side, cell, top = 232.0, 16.0, 96.0
    height, width = SCENE.image_size
    x1, y1, x2, y2 = SCENE.box
    scale = side / width
    frame = Frame(MARGIN + side + 128, top, cell, (0, 0, 16, 16))
    items: list[Item] = [
        *heading("The box on the map", "The network makes each 32 × 32 pixels one cell."),
        Rect(MARGIN, top, side, side, fill="#e9edf3", stroke=EDGE),
        Rect(MARGIN + x1 * scale, top + y1 * scale, (x2 - x1) * scale, (y2 - y1) * scale,
             fill="#fbe3d6", stroke=BOX, line=2.6),
        Text(MARGIN + (x1 + x2) / 2 * scale, top + (y1 + y2) / 2 * scale + 5,
             f"{x2 - x1:g} × {y2 - y1:g}", 13, INK, "middle", bold=True),
        Text(MARGIN + x1 * scale - 4, top + y1 * scale - 8, f"({x1:g}, {y1:g})", 12, INK),
        Text(MARGIN, top + side + 22, f"image {width} × {height} × 3", 14, INK),
        *arrow(MARGIN + side + 18, top + 116, MARGIN + side + 100, top + 116, INK),
        Text(MARGIN + side + 58, top + 98, "VGG16", 14, INK, "middle", bold=True),
        Text(MARGIN + side + 58, top + 140, "stride 32", 13, MUTED, "middle"),
    ]  # fmt: skip
    for back in (12, 8, 4):
        items.append(Rect(frame.x + back, top - back, frame.width, frame.height, PAPER, GRID))
    box = example().box
    items += [*grid_lines(frame), frame.rect(box, stroke=BOX, line=2.6)]
    rows, columns = SCENE.map_size
    below = f"map {columns} × {rows} × {CHANNELS}"
    items.append(Text(frame.x, top + frame.height + 22, below, 14, INK))
    x, y = frame.x + frame.width + 30, top + 50
    for name, pixels, cells in (
        ("x", x1, box[0]),
        ("y", y1, box[1]),
        ("width", x2 - x1, box[2] - box[0]),
        ("height", y2 - y1, box[3] - box[1]),
    ):
        items.append(Text(x, y, f"{name}: {pixels:g} / {SCENE.stride}", 13, MUTED))
        items.append(Text(x, y + 22, number(cells), 20, INK, bold=True))
        y += 56
    return sheet(
        WIDTH, top + side + 62, items, "A box of an image and where it lies on the feature map"
    )


def figure_bins() -> Canvas:
    """2: nine bins, and four points in each."""
    reading = example()
    shown = window([reading])
    width, height = reading.bin_size
    x1, y1, x2, y2 = reading.box
    items = heading(
        "Bins and points",
        f"{x2 - x1:.2f} / 3 = {width:.2f} and {y2 - y1:.2f} / 3 = {height:.2f}: no bin is rounded.",
    )
    cell = (WIDTH - 2 * MARGIN - 14 - 48) / 2 / (shown[2] - shown[0])
    bottom = 0.0
    for index in range(2):
        frame = Frame(MARGIN + 14 + index * (cell * (shown[2] - shown[0]) + 48), 112, cell, shown)
        items += [*grid_lines(frame), *outlines(frame, reading), *cell_numbers(frame)]
        bottom = 112 + frame.height
        if index == 0:
            for i, row in enumerate(reading.bins):
                for j, (a, b, c, d) in enumerate(row):
                    px, py = frame.at((a + c) / 2, (b + d) / 2)
                    text = f"{c - a:.2f} × {d - b:.2f}" if (i, j) == (0, 0) else ""
                    items.append(Text(px, py + 5, text or f"({i}, {j})", 14 if text else 12,
                                      INK if text else MUTED, "middle", bool(text)))  # fmt: skip
        else:
            items += points(frame, reading)
    half = MARGIN + 14 + (bottom and cell * (shown[2] - shown[0]) + 48)
    items.append(Text(MARGIN + 14, bottom + 26, "nine bins of equal size", 14, INK))
    count = len(reading.all_points)
    below = f"{count} points, at one third and two thirds of a bin"
    items.append(Text(half, bottom + 26, below, 14, INK))
    return sheet(
        WIDTH, bottom + 50, items, "The box cut into nine bins with four sampling points each"
    )


def figure_points() -> Canvas:
    """3: each point of the first bin with its four cells, their weights, and its value."""
    reading, values = example(), features()
    items = heading(
        "One point, four cells",
        "Each point of the first bin takes the four nearest cells; nearer ones weigh more.",
    )
    gap = 22.0
    side = (WIDTH - 2 * MARGIN - 3 * gap) / 4
    for k, point in enumerate(reading.points(0, 0)):
        x = MARGIN + k * (side + gap)
        items.append(Text(x, 104, f"{k + 1}  {CORNERS[k]}", 15, POINT, bold=True))
        items.append(Text(x, 123, f"({point.x:.2f}, {point.y:.2f})", 13, INK))
        items += point_zoom(x, 136, side, point, values)
        y = 136 + side + 24
        for (cx, cy), weight in merged(point).items():
            value = float(values[cy, cx])
            items.append(Text(x, y, f"({cx + 0.5:.2f}, {cy + 0.5:.2f})", 12, MUTED))
            items.append(Text(x + side, y, f"{value:.2f} × {weight:.3f}", 12, INK, "end"))
            y += 18
        items.append(Line(((x, y - 11), (x + side, y - 11)), MUTED, 1))
        items.append(Text(x, y + 9, "value", 14, INK, bold=True))
        items.append(Text(x + side, y + 9, f"{point.value(values):.2f}", 14, INK, "end", bold=True))
    height = 136 + side + 24 + 4 * 18 + 36
    return sheet(WIDTH, height, items, "Bilinear weights of the first bin's points")


def figure_values() -> Canvas:
    """4: four values become one number, nine bins one map, 512 channels the output."""
    reading, values = example(), features()
    found = [point.value(values) for point in reading.points(0, 0)]
    largest = Reading(choose("align_thirds", agg="max"), SCENE).values(values)
    mean = reading.values(values)
    items = heading(
        "Four values, one number",
        "The largest or the mean of a bin's four values; the same for nine bins and every channel.",
    )
    top, side, apart = 106.0, 62.0, 202.0
    middle = top + (apart + 138) / 2
    for k, value in enumerate(found):
        x, y = MARGIN + k % 2 * side, middle - side + k // 2 * side
        items.append(Rect(x, y, side, side, fill=shade(value), stroke="#ffffff", line=2))
        items.append(Text(x + side / 2, y + side / 2 + 6, f"{value:.2f}", 17, on(value), "middle"))
    items.append(Text(MARGIN, middle - side - 14, "first bin", 14, INK, bold=True))
    start = MARGIN + 2 * side + 14
    for k, (name, output) in enumerate((("max", largest), ("average", mean))):
        y = top + k * apart
        grid_x = 340.0
        items += arrow(start, middle + (k * 2 - 1) * 12, grid_x - 78, y + 69, MUTED)
        items.append(Text(grid_x - 66, y + 64, name, 13, MUTED))
        items.append(Text(grid_x - 66, y + 86, f"{float(output[0, 0]):.2f}", 20, INK, bold=True))
        items += output_cells(grid_x, y, 46, output)
        items.append(Rect(grid_x, y, 46, 46, stroke=POINT, line=3))
        items.append(Text(grid_x, y + 138 + 20, "3 × 3, one channel", 12.5, MUTED))
        items += arrow(grid_x + 152, y + 69, grid_x + 214, y + 69, MUTED)
        for back in range(6, -1, -1):
            x = grid_x + 232 + back * 7
            items.append(Rect(x, y + 30 - back * 5, 108, 108, fill=PAPER, stroke="#9aa5b1"))
        items += output_cells(grid_x + 232, y + 30, 36, output)
        items.append(Text(grid_x + 232, y + 158, f"3 × 3 × {CHANNELS}", 14, INK, bold=True))
    return sheet(WIDTH, top + apart + 184, items, "Four sampled values become one output number")
