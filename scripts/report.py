"""Compare the runs of a family: tables, intervals, plots, one HTML page.

    python scripts/report.py outputs/demo

reads every run below the folder (config.yaml, metrics.json, matches.npz) and writes
outputs/demo/report/, and the family's board for TensorBoard beside it.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from configuration import command_line
from ops.errors import InputError
from reporting.bootstrap import RESAMPLES
from reporting.formats import markdown
from reporting.study import study_family
from reporting.tables import paper_layout
from reporting.writing import write_report
from running.tracking import write_family_board


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("folder", type=Path, help="folder of the runs, such as outputs/demo")
    parser.add_argument(
        "--resamples", type=int, default=RESAMPLES, help="of the images (default %(default)s)"
    )
    parser.add_argument(
        "--baseline",
        help="what the others are compared with: pool (default), warp, align, 'warp avg' ...",
    )
    given = parser.parse_args()
    command_line(lambda: report(given.folder, given.resamples, given.baseline))


def report(folder: Path, resamples: int = RESAMPLES, baseline: str | None = None) -> str:
    """Write `folder`/report, print its main tables and return it as Markdown.

    Raises:
        InputError: no runs there, or runs that must not be compared.
    """
    if resamples < 100:
        raise InputError(f"--resamples {resamples}: gives no interval of 95 %; take 100 or more")
    study = study_family(folder, resamples=resamples, baseline=baseline)
    text = write_report(study, folder / "report")
    write_family_board(folder, text)
    for group in study.groups:
        table = paper_layout(study, group)
        print(f"{table.title}\n\n{markdown(table)}\n")
    print(f"written to {folder / 'report'}: report.html, .md, .csv, .tex, and the plots")
    return text


if __name__ == "__main__":
    main()
