"""The report as one HTML page that needs no other file: light or dark, narrow or wide."""

import base64
import html
from collections.abc import Sequence

from reporting.document import Plot, Section
from reporting.formats import html_table

STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --text: #1c1e21; --faint: #d4d6da;
  --soft: #5b6068; --band: #f4f5f7; --yes: #00663f; --no: #6b6f76; }
@media (prefers-color-scheme: dark) { :root { --paper: #16181d; --text: #e6e7ea; --faint: #3c4048;
  --soft: #a4a9b2; --band: #1e2127; --yes: #62d6a0; --no: #9aa0a9; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem clamp(0.8rem, 3vw, 2.5rem) 4rem; max-width: 78rem;
  background: var(--paper); color: var(--text); font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 1rem 0; }
h2 { font-size: 1.2rem; margin: 2.6rem 0 0.8rem; border-bottom: 1px solid var(--faint);
  padding-bottom: 0.3rem; }
h3 { font-size: 1rem; margin: 1.6rem 0 0.5rem; }
p, li { max-width: 46rem; }
ul { padding-left: 1.2rem; }
.scroll { overflow-x: auto; border: 1px solid var(--faint); border-radius: 6px; }
table { border-collapse: separate; border-spacing: 0; font-size: 0.88rem; width: 100%; }
th, td { padding: 0.35rem 0.7rem; text-align: left; white-space: nowrap; }
th { background: var(--band); font-weight: 600; }
tbody tr + tr td { border-top: 1px solid var(--faint); }
th:first-child, td:first-child { position: sticky; left: 0; background: var(--paper); }
thead th:first-child { background: var(--band); }
.number { text-align: right; font-variant-numeric: tabular-nums; }
.yes { color: var(--yes); font-weight: 600; }
.no { color: var(--no); }
.note { color: var(--soft); font-size: 0.86rem; margin: 0.5rem 0 0; }
.plots { display: grid; gap: 1.2rem; margin-bottom: 1.2rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); }
.plots img { width: 100%; max-width: 40rem; height: auto; display: block; }
"""


def render_page(title: str, sections: Sequence[Section]) -> str:
    """The page's text; plots are in it, and nothing is loaded from elsewhere."""
    body = "\n".join(map(_section, sections))
    return (
        "<!doctype html>\n"
        f"<html lang=en><head><meta charset=utf-8><title>{html.escape(title)}</title>\n"
        '<meta name=viewport content="width=device-width, initial-scale=1">\n'
        f"<style>{STYLE}</style></head>\n"
        f"<body><main><h1>{html.escape(title)}</h1>\n{body}\n</main></body></html>\n"
    )


def _section(section: Section) -> str:
    parts = [f"<section><h2>{html.escape(section.title)}</h2>"]
    if section.points:
        items = "".join(f"<li>{html.escape(point)}</li>" for point in section.points)
        parts.append(f"<ul>{items}</ul>")
    parts += [f"<p>{html.escape(paragraph)}</p>" for paragraph in section.text]
    if section.plots:
        parts.append(f"<div class=plots>{''.join(map(_picture, section.plots))}</div>")
    for table in section.tables:
        if table.title != section.title:
            parts.append(f"<h3>{html.escape(table.title)}</h3>")
        parts.append(html_table(table))
    return "\n".join([*parts, "</section>"])


def _picture(plot: Plot) -> str:
    light, dark = (
        f"data:image/png;base64,{base64.b64encode(image).decode('ascii')}"
        for image in (plot.light, plot.dark)
    )
    return (
        f'<picture><source srcset="{dark}" media="(prefers-color-scheme: dark)">'
        f'<img src="{light}" alt="{html.escape(plot.title)}"></picture>'
    )
