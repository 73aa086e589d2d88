"""One self-contained page of a data set's images, with filters and statistics."""

import base64
import html
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
from matplotlib.figure import Figure

from scripts.gallery.plots import rendered
from scripts.gallery.views import View

FOLDER = Path(__file__).resolve().parent
LONGEST = 900  # a picture's longer side on the page, pixels
QUALITY = 82  # of JPEG


def page(
    title: str,
    summary: str,
    explanation: str,
    views: Iterable[View],
    plots: Iterable[tuple[str, Figure, Figure]],
) -> str:
    """The page's HTML; it refers to nothing outside.

    Args:
        title, summary, explanation: plain text above the images.
        views: the images; each may be forgotten once it is asked for the next.
        plots: (what it shows, the plot for a light page, the same for a dark one).
    """
    shown: Counter[str] = Counter()
    cards = []
    for view in views:
        shown.update(set(view.objects))
        cards.append(_card(view))
    options = "".join(
        f'<option value="{html.escape(name)}">{html.escape(name)} ({count})</option>'
        for name, count in sorted(shown.items())
    )
    parts = {
        "title": html.escape(title),
        "summary": html.escape(summary),
        "explanation": html.escape(explanation),
        "style": (FOLDER / "page.css").read_text(encoding="utf-8"),
        "script": (FOLDER / "page.js").read_text(encoding="utf-8"),
        "plots": "\n".join(_plot(*plot) for plot in plots),
        "categories": options,
        "cards": "\n".join(cards),
    }
    text = (FOLDER / "page.html").read_text(encoding="utf-8")
    before, *pieces = text.split("{{")
    filled = [before]
    for piece in pieces:  # one pass: what is filled in is not looked at again
        name, _, after = piece.partition("}}")
        filled += [parts[name], after]
    return "".join(filled)


def _card(view: View) -> str:
    kinds = Counter(view.objects)
    contents = ", ".join(f"{count} {name}" for name, count in kinds.most_common()) or "no objects"
    if view.crowds:
        contents += f", {view.crowds} crowd region{'s' * (view.crowds > 1)}"
    (file_height, file_width), (height, width) = view.file_size, view.size
    frame = f"{file_width} × {file_height} → {width} × {height}"
    data = {
        "categories": json.dumps(sorted(kinds)),
        "objects": str(len(view.objects)),
        "sizes": " ".join(sorted(view.sizes)),
        "crowds": str(view.crowds),
    }
    attributes = " ".join(f'data-{key}="{html.escape(value)}"' for key, value in data.items())
    name = html.escape(f"{view.file_name}: {contents}")
    return (
        f'<figure {attributes}><button type="button" aria-label="Enlarge {name}">'
        f'<img loading="lazy" alt="{name}" src="{_jpeg(view.picture)}"></button>'
        f"<figcaption><b>{html.escape(view.file_name)}</b> "
        f"<span>id {view.image_id} · {frame}</span><br>{html.escape(contents)}</figcaption>"
        "</figure>"
    )


def _jpeg(picture: np.ndarray) -> str:
    scale = min(1.0, LONGEST / max(picture.shape[:2]))
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    bgr = cv2.cvtColor(small, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return _inline(data.tobytes(), "image/jpeg")


def _plot(shows: str, light: Figure, dark: Figure) -> str:
    sources = [_inline(rendered(figure, "svg"), "image/svg+xml") for figure in (light, dark)]
    return (
        f'<picture><source media="(prefers-color-scheme: dark)" srcset="{sources[1]}">'
        f'<img alt="{html.escape(shows)}" src="{sources[0]}"></picture>'
    )


def _inline(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
