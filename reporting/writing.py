"""The report's files: Markdown, CSV, LaTeX, PNG and one HTML page."""

from collections.abc import Sequence
from pathlib import Path

from files.atomic import make_folder, replacing, write_text
from reporting.document import Section, compose
from reporting.formats import costs_csv, latex, markdown, rows_csv
from reporting.page import render_page
from reporting.study import Study
from reporting.tables import differences, paper_layout


def write_report(study: Study, folder: Path) -> str:
    """Write the report into `folder` and return its Markdown.

    Leaves report.md, report.csv, report.tex, report.html, costs.csv and the plots as PNG. All but
    costs.csv and the section "Cost" of report.md and report.html follow from the runs' metrics and
    matches alone, byte for byte.
    """
    make_folder(folder)
    title = f"RoI poolers compared: {study.name}"
    sections = compose(study)
    for section in sections:
        for plot in section.plots:
            with replacing(folder / f"{plot.name}.png") as temporary:
                temporary.write_bytes(plot.light)
    text = _markdown(title, sections)
    write_text(folder / "report.md", text)
    write_text(folder / "report.csv", rows_csv(study))
    write_text(folder / "costs.csv", costs_csv(study))
    write_text(folder / "report.tex", _latex(study))
    write_text(folder / "report.html", render_page(title, sections))
    return text


def _markdown(title: str, sections: Sequence[Section]) -> str:
    parts = [f"# {title}"]
    for section in sections:
        parts.append(f"## {section.title}")
        if section.points:
            parts.append("\n".join(f"- {point}" for point in section.points))
        parts += section.text
        parts += [f"![{plot.title}]({plot.name}.png)" for plot in section.plots]
        for table in section.tables:
            if table.title != section.title:
                parts.append(f"### {table.title}")
            parts.append(markdown(table))
    return "\n\n".join(parts) + "\n"


def _latex(study: Study) -> str:
    tables = [
        table
        for group in study.groups
        for table in (paper_layout(study, group), differences(study, group))
    ]
    return "% Needs \\usepackage{booktabs}\n\n" + "\n\n".join(map(latex, tables)) + "\n"
