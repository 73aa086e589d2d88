"""A picture as a list of shapes, written as SVG (text stays text) or as PNG.

Units are pixels of the picture, y downwards. Both writers draw the same list, so the two files show
the same thing.
"""

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import cv2
import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyBboxPatch, Polygon, Rectangle

from files.atomic import make_folder, replacing, write_text

FONTS = "Inter, 'Segoe UI', 'Helvetica Neue', Arial, 'DejaVu Sans', sans-serif"
MATPLOTLIB_DPI = 100  # a picture's pixel is one hundredth of an inch


@dataclass(frozen=True)
class Rect:
    x: float
    y: float
    width: float
    height: float
    fill: str = "none"
    stroke: str = "none"
    line: float = 1.0
    radius: float = 0.0
    opacity: float = 1.0
    dash: tuple[float, ...] = ()


@dataclass(frozen=True)
class Line:
    points: tuple[tuple[float, float], ...]
    stroke: str
    line: float = 1.0
    opacity: float = 1.0
    dash: tuple[float, ...] = ()


@dataclass(frozen=True)
class Shape:
    """A filled polygon."""

    points: tuple[tuple[float, float], ...]
    fill: str
    opacity: float = 1.0


@dataclass(frozen=True)
class Dot:
    x: float
    y: float
    radius: float
    fill: str
    stroke: str = "none"
    line: float = 1.0


@dataclass(frozen=True)
class Text:
    """One line; (x, y) is on the baseline, at the start, middle or end."""

    x: float
    y: float
    text: str
    size: float
    fill: str
    anchor: str = "start"
    bold: bool = False


@dataclass(frozen=True)
class Picture:
    """uint8 RGB or RGBA ``[h, w, c]`` stretched over a rectangle; `smooth` interpolates."""

    x: float
    y: float
    width: float
    height: float
    pixels: np.ndarray
    smooth: bool = True


Item = Rect | Line | Shape | Dot | Text | Picture


@dataclass(frozen=True)
class Canvas:
    """A picture; `description` is read aloud by screen readers."""

    width: float
    height: float
    items: tuple[Item, ...]
    description: str = ""

    def texts(self) -> list[str]:
        return [item.text for item in self.items if isinstance(item, Text)]


def write(canvas: Canvas, path: Path) -> None:
    """Write a .svg or .png file, atomically."""
    make_folder(path.parent)
    if path.suffix == ".svg":
        write_text(path, svg(canvas))
    else:
        with replacing(path) as temporary:
            temporary.write_bytes(png(canvas))


def arrow(x1: float, y1: float, x2: float, y2: float, stroke: str, line: float = 2.0) -> list[Item]:
    """A line with a filled head at its second end."""
    reach = float(np.hypot(x2 - x1, y2 - y1))
    ux, uy = (x2 - x1) / reach, (y2 - y1) / reach
    head = 3.2 * line + 2
    bx, by = x2 - ux * head, y2 - uy * head
    wing = head * 0.5
    corners = ((x2, y2), (bx - uy * wing, by + ux * wing), (bx + uy * wing, by - ux * wing))
    return [Line(((x1, y1), (bx, by)), stroke, line), Shape(corners, stroke)]


def svg(canvas: Canvas) -> str:
    """The picture as a self-contained SVG document."""
    size = f"{_n(canvas.width)} {_n(canvas.height)}"
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" width="{_n(canvas.width)}" '
        f'height="{_n(canvas.height)}" font-family="{FONTS}" role="img">',
        f"<title>{escape(canvas.description)}</title>",
        *(_svg_item(item) for item in canvas.items),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _n(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _tag(name: str, text: str | None = None, **attributes: Any) -> str:
    """An element; attributes that are None are left out."""
    written = "".join(
        f' {key.replace("_", "-")}="{value if isinstance(value, str) else _n(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return f"<{name}{written}/>" if text is None else f"<{name}{written}>{escape(text)}</{name}>"


def _stroke(item: Rect | Line | Dot) -> dict[str, Any]:
    if item.stroke == "none":
        return {}
    dash = " ".join(map(_n, getattr(item, "dash", ())))
    return {"stroke": item.stroke, "stroke_width": item.line, "stroke_dasharray": dash or None}


def _opacity(item: Rect | Line | Shape) -> float | None:
    return item.opacity if item.opacity < 1 else None


def _path(points: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{_n(x)},{_n(y)}" for x, y in points)


def _svg_item(item: Item) -> str:
    match item:
        case Rect(x, y, w, h, fill):
            look = {"rx": item.radius or None, "fill": fill, **_stroke(item)}
            return _tag("rect", x=x, y=y, width=w, height=h, **look, opacity=_opacity(item))
        case Line(points):
            look = {"fill": "none", **_stroke(item), "opacity": _opacity(item)}
            return _tag("polyline", points=_path(points), **look)
        case Shape(points, fill):
            return _tag("polygon", points=_path(points), fill=fill, opacity=_opacity(item))
        case Dot(x, y, radius, fill):
            return _tag("circle", cx=x, cy=y, r=radius, fill=fill, **_stroke(item))
        case Text(x, y, text, size, fill, anchor, bold):
            look = {"text_anchor": None if anchor == "start" else anchor}
            look["font_weight"] = "600" if bold else None
            return _tag("text", text, x=x, y=y, font_size=size, fill=fill, **look)
        case Picture(x, y, w, h, pixels, smooth):
            look = {"style": None if smooth else "image-rendering:pixelated"}
            look["href"] = _data_url(pixels, smooth)
            shape = {"x": x, "y": y, "width": w, "height": h, "preserveAspectRatio": "none"}
            return _tag("image", **shape, **look)


def _data_url(pixels: np.ndarray, smooth: bool) -> str:
    """A photograph as JPEG, exact colours and transparency as PNG."""
    photograph = smooth and pixels.shape[2] == 3 and min(pixels.shape[:2]) > 64
    kind, suffix = ("jpeg", ".jpg") if photograph else ("png", ".png")
    swap = cv2.COLOR_RGB2BGR if pixels.shape[2] == 3 else cv2.COLOR_RGBA2BGRA
    _, encoded = cv2.imencode(suffix, cv2.cvtColor(np.ascontiguousarray(pixels), swap))
    return f"data:image/{kind};base64,{base64.b64encode(encoded.tobytes()).decode()}"


def png(canvas: Canvas, scale: float = 2.0) -> bytes:
    """The picture as PNG, `scale` times its size in pixels."""
    with mpl.rc_context({"font.family": "DejaVu Sans"}):  # comes with matplotlib: same everywhere
        inches = canvas.width / MATPLOTLIB_DPI, canvas.height / MATPLOTLIB_DPI
        figure = Figure(figsize=inches, dpi=MATPLOTLIB_DPI * scale)
        figure.patch.set_alpha(0)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, canvas.width), ylim=(canvas.height, 0), aspect="auto")
        axes.axis("off")
        for order, item in enumerate(canvas.items):
            _draw(axes, item, order)
        axes.set(xlim=(0, canvas.width), ylim=(canvas.height, 0))
        agg = FigureCanvasAgg(figure)
        agg.draw()
        pixels = np.asarray(agg.buffer_rgba())
    bgra = cv2.cvtColor(pixels, cv2.COLOR_RGBA2BGRA)
    _, encoded = cv2.imencode(".png", bgra, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    return encoded.tobytes()


def _points(pixels: float) -> float:
    """Pixels as points (1/72 inch), matplotlib's unit of lines and text."""
    return pixels * 72 / MATPLOTLIB_DPI


def _draw(axes: Any, item: Item, order: int) -> None:
    look: dict[str, Any] = {"zorder": order}
    if isinstance(item, Rect | Line | Dot):
        look["linewidth"] = _points(item.line)
    if isinstance(item, Rect | Line | Shape):
        look["alpha"] = item.opacity
    if isinstance(item, Rect | Line) and item.dash:
        look["linestyle"] = (0, tuple(part / item.line for part in item.dash))
    match item:
        case Rect(x, y, w, h, fill, stroke):
            look |= {"facecolor": fill, "edgecolor": stroke}
            if item.radius:
                style = f"round,pad=0,rounding_size={item.radius}"
                axes.add_patch(FancyBboxPatch((x, y), w, h, boxstyle=style, **look))
            else:
                axes.add_patch(Rectangle((x, y), w, h, joinstyle="miter", **look))
        case Line(points, stroke):
            axes.plot(*zip(*points, strict=True), color=stroke, solid_capstyle="butt", **look)
        case Shape(points, fill):
            axes.add_patch(Polygon(points, facecolor=fill, linewidth=0, **look))
        case Dot(x, y, radius, fill, stroke):
            axes.add_patch(Circle((x, y), radius, facecolor=fill, edgecolor=stroke, **look))
        case Text(x, y, text, size, fill, anchor, bold):
            look["ha"] = {"start": "left", "middle": "center", "end": "right"}[anchor]
            look["fontsize"] = _points(size * 0.94)  # DejaVu is wider than the web's fonts
            look["fontweight"] = "bold" if bold else "normal"
            axes.text(x, y, text.replace("$", r"\$"), color=fill, va="baseline", **look)
        case Picture(x, y, w, h, pixels, smooth):
            look["interpolation"] = "bilinear" if smooth else "nearest"
            axes.imshow(pixels, extent=(x, x + w, y + h, y), aspect="auto", **look)
