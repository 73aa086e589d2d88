"""Tables as Markdown, LaTeX and HTML; the rows and the costs as CSV."""

import csv
import html
import io
import math
from collections.abc import Iterable

from reporting.scores import FIGURES, KINDS
from reporting.study import Study
from reporting.tables import Table

LATEX = {
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "−": "$-$",
    "–": "--",
    "²": r"\textsuperscript{2}",
}
KEYS = ("pooler", "agg", "backbone", "stride", "seeds")
BOUNDS = {"delta": "value", "low": "low", "high": "high"}  # heading: attribute of an Interval


def markdown(table: Table) -> str:
    """A pipe table, its columns aligned, with its note."""
    rows = [[_escaped(cell) for cell in row] for row in (table.columns, *table.rows)]
    widths = [max(3, *map(len, column)) for column in zip(*rows, strict=True)]
    rule = [
        "-" * width if k < table.words else "-" * (width - 1) + ":"
        for k, width in enumerate(widths)
    ]
    lines = [_line(row, widths, table.words) for row in (rows[0], rule, *rows[1:])]
    return "\n".join(lines) + (f"\n\n{table.note}" if table.note else "")


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")


def _line(row: list[str], widths: list[int], words: int) -> str:
    cells = [
        text.ljust(width) if k < words else text.rjust(width)
        for k, (text, width) in enumerate(zip(row, widths, strict=True))
    ]
    return f"| {' | '.join(cells)} |"


def latex(table: Table) -> str:
    """A table environment of the booktabs package."""
    columns = "l" * table.words + "r" * (len(table.columns) - table.words)
    body = [_latex_row(row) for row in table.rows]
    return "\n".join(
        [
            r"\begin{table}",
            r"  \centering",
            rf"  \caption{{{_latex(table.title)}. {_latex(table.note)}}}",
            rf"  \begin{{tabular}}{{{columns}}}",
            r"    \toprule",
            _latex_row(table.columns),
            r"    \midrule",
            *body,
            r"    \bottomrule",
            r"  \end{tabular}",
            r"\end{table}",
        ]
    )


def _latex_row(row: Iterable[str]) -> str:
    return f"    {' & '.join(map(_latex, row))} \\\\"


def _latex(text: str) -> str:
    return "".join(LATEX.get(character, character) for character in text)


def html_table(table: Table) -> str:
    """A table in a box of its own that scrolls where the page is narrow."""
    head = "".join(_html_cell("th", c, k >= table.words) for k, c in enumerate(table.columns))
    body = "\n".join(
        "<tr>" + "".join(_html_cell("td", c, k >= table.words) for k, c in enumerate(row)) + "</tr>"
        for row in table.rows
    )
    note = f"<p class=note>{html.escape(table.note)}</p>" if table.note else ""
    return (
        f'<div class=scroll tabindex=0 role=region aria-label="{html.escape(table.title)}">'
        f"<table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>{note}"
    )


def _html_cell(tag: str, text: str, numeric: bool) -> str:
    # "distinguishable" and its opposite are what a reader looks for.
    classes = [
        *(["number"] if numeric else []),
        *(["yes"] if text.startswith("distinguishable") else []),
        *(["no"] if text.startswith(("not ", "failed")) else []),
    ]
    marks = f' class="{" ".join(classes)}"' if classes else ""
    return f"<{tag}{marks}>{html.escape(text)}</{tag}>"


def rows_csv(study: Study) -> str:
    """One row a variant: mean over its seeds, difference to the baseline and bounds, in points.

    The baseline differs from itself by 0; what is not measured is empty.
    """
    figures = [f"{kind}/{name}" for kind in KINDS for name in FIGURES]
    headings = [part for f in figures for part in (f, *(f"{f}/{bound}" for bound in BOUNDS))]
    lines = [[*KEYS, *headings, "variant"]]
    for one in study.scored:
        variant = one.variant
        line = [
            variant.pooler,
            variant.agg,
            variant.backbone,
            str(variant.stride),
            str(len(variant.seeds)),
        ]
        for figure in figures:
            values = one.values(figure)
            line.append(_exact(float(values.mean())) if len(values) else "")
            found = study.to_baseline.get((variant.name, figure))
            interval = found.interval if found else None
            line += (
                [_exact(getattr(interval, name)) for name in BOUNDS.values()]
                if interval
                else [""] * 3
            )
        lines.append([*line, variant.name])
    return _csv(lines)


def _exact(value: float) -> str:
    return "" if math.isnan(value) else f"{round(value, 4) + 0.0:.4f}"  # never -0.0000


def costs_csv(study: Study) -> str:
    """Seconds and steps of every finished run, the RPN's among them."""
    lines = [["variant", "seed", "train_seconds", "steps"]]
    for run in study.runs:
        seconds = run.metrics.get("train_seconds")
        if seconds is not None:
            lines.append([run.variant, str(run.seed), f"{seconds:.1f}", str(run.metrics["steps"])])
    return _csv(lines)


def _csv(lines: list[list[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()
