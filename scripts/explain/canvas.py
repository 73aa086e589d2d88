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
    """`description` is what a screen reader says."""

    width: float
    height: float
    items: tuple[Item, ...]
    description: str = ""

    def texts(self) -> list[str]:
        return [item.text for item in self.items if isinstance(item, Text)]


def write(canvas: Canvas, path: Path) -> None:
    """Write a .svg or .png, as the name says, atomically."""
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


def _svg_line(stroke: str, line: float, dash: Iterable[float], opacity: float) -> str:
    text = f' stroke="{stroke}" stroke-width="{_n(line)}"' if stroke != "none" else ""
    pattern = " ".join(_n(part) for part in dash)
    text += f' stroke-dasharray="{pattern}"' if pattern else ""
    return text + (f' opacity="{_n(opacity)}"' if opacity < 1 else "")


def _svg_item(item: Item) -> str:
    match item:
        case Rect(x, y, w, h, fill, stroke, line, radius, opacity, dash):
            corner = f' rx="{_n(radius)}"' if radius else ""
            return (
                f'<rect x="{_n(x)}" y="{_n(y)}" width="{_n(w)}" height="{_n(h)}"{corner} '
                f'fill="{fill}"{_svg_line(stroke, line, dash, opacity)}/>'
            )
        case Line(points, stroke, line, opacity, dash):
            path = " ".join(f"{_n(x)},{_n(y)}" for x, y in points)
            return (
                f'<polyline points="{path}" fill="none"{_svg_line(stroke, line, dash, opacity)}/>'
            )
        case Shape(points, fill, opacity):
            path = " ".join(f"{_n(x)},{_n(y)}" for x, y in points)
            return f'<polygon points="{path}" fill="{fill}"{_svg_line("none", 0, (), opacity)}/>'
        case Dot(x, y, radius, fill, stroke, line):
            return (
                f'<circle cx="{_n(x)}" cy="{_n(y)}" r="{_n(radius)}" fill="{fill}"'
                f"{_svg_line(stroke, line, (), 1)}/>"
            )
        case Text(x, y, text, size, fill, anchor, bold):
            weight = ' font-weight="600"' if bold else ""
            side = "" if anchor == "start" else f' text-anchor="{anchor}"'
            return (
                f'<text x="{_n(x)}" y="{_n(y)}" font-size="{_n(size)}" fill="{fill}"{side}{weight}>'
                f"{escape(text)}</text>"
            )
        case Picture(x, y, w, h, pixels, smooth):
            style = "" if smooth else ' style="image-rendering:pixelated"'
            return (
                f'<image x="{_n(x)}" y="{_n(y)}" width="{_n(w)}" height="{_n(h)}" '
                f'preserveAspectRatio="none"{style} href="{_data_url(pixels, smooth)}"/>'
            )


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
    """Pixels as the typographer's points, matplotlib's unit of line and text."""
    return pixels * 72 / MATPLOTLIB_DPI


def _dashes(dash: tuple[float, ...], line: float) -> object:
    return (0, tuple(part / line for part in dash)) if dash else "-"


def _draw(axes, item: Item, order: int) -> None:  # type: ignore[no-untyped-def]
    match item:
        case Rect(x, y, w, h, fill, stroke, line, radius, opacity, dash):
            look: dict[str, Any] = {
                "facecolor": fill,
                "edgecolor": stroke,
                "linewidth": _points(line),
                "alpha": opacity,
                "linestyle": _dashes(dash, line),
                "zorder": order,
            }
            if radius:
                style = f"round,pad=0,rounding_size={radius}"
                axes.add_patch(FancyBboxPatch((x, y), w, h, boxstyle=style, **look))
            else:
                axes.add_patch(Rectangle((x, y), w, h, joinstyle="miter", **look))
        case Line(points, stroke, line, opacity, dash):
            xs, ys = zip(*points, strict=True)
            axes.plot(
                xs,
                ys,
                color=stroke,
                linewidth=_points(line),
                alpha=opacity,
                linestyle=_dashes(dash, line),
                solid_capstyle="butt",
                zorder=order,
            )
        case Shape(points, fill, opacity):
            axes.add_patch(
                Polygon(points, facecolor=fill, alpha=opacity, linewidth=0, zorder=order)
            )
        case Dot(x, y, radius, fill, stroke, line):
            circle = {"facecolor": fill, "edgecolor": stroke, "linewidth": _points(line)}
            axes.add_patch(Circle((x, y), radius, zorder=order, **circle))
        case Text(x, y, text, size, fill, anchor, bold):
            side = {"start": "left", "middle": "center", "end": "right"}[anchor]
            axes.text(
                x,
                y,
                text.replace("$", r"\$"),
                fontsize=_points(size * 0.94),  # DejaVu is wider and taller than the web's fonts
                color=fill,
                ha=side,
                va="baseline",
                fontweight="bold" if bold else "normal",
                zorder=order,
            )
        case Picture(x, y, w, h, pixels, smooth):
            axes.imshow(
                pixels,
                extent=(x, x + w, y + h, y),
                interpolation="bilinear" if smooth else "nearest",
                aspect="auto",
                zorder=order,
            )
