"""Draw what a pooler does with a box, from the plan that the op itself computes with.

    python scripts/explain_pooling.py                     RoIPool, RoIWarp, RoIAlign on one box
    python scripts/explain_pooling.py --box 40 60 300 210 --stride 16 --pooler align --samples 0
    python scripts/explain_pooling.py --article           eight figures of one worked example
    python scripts/explain_pooling.py --hero              the README's pictures
    python scripts/explain_pooling.py --html pooling.html an interactive page, one file
    python scripts/explain_pooling.py --image PHOTO --box 40 60 300 210 --checkpoint outputs/RUN

Each figure is written as SVG and as PNG.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from configuration import command_line
from ops.errors import InputError
from ops.poolers import POOLERS
from scripts.explain.canvas import Canvas, write
from scripts.explain.figure import Chosen, explain_figure
from scripts.explain.geometry import Reading, Scene, bump
from scripts.explain.page import write_page
from scripts.explain.poolers import FORMS, WORDS, DrawnPooler, choose

EXAMPLE = (296.0, 192.0, 496.0, 337.0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw what the command line asks for; returns the exit status."""
    chosen = parser().parse_args(arguments)
    command_line(lambda: draw(chosen))
    return 0


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--pooler", nargs="+", default=["pool", "warp", "align"], choices=WORDS, metavar="POOLER",
        help=f"one or several side by side: {', '.join(WORDS)}")  # fmt: skip
    add("--box", nargs=4, type=float, metavar=("X1", "Y1", "X2", "Y2"), help="in image pixels")
    add("--size", nargs=2, type=int, default=(512, 512), metavar=("WIDTH", "HEIGHT"))
    add("--stride", type=int, default=32, help="image pixels per feature cell (default 32)")
    add(
        "--output-size", nargs="+", type=int, default=[3], metavar="N", help="bins, or ROWS COLUMNS"
    )
    add("--samples", type=int, default=2, help="per bin and axis; 0 adapts to the box (default 2)")
    add("--agg", choices=("avg", "max"), help="default: each pooler's own")
    add("--unaligned", action="store_true", help="the older RoIAlign, half a cell off")
    add("--point", nargs=3, type=int, default=(0, 0, 0), metavar=("ROW", "COLUMN", "SAMPLE"),
        help="the bin and its sample to look at closely")  # fmt: skip
    add("--output", type=Path, help="a folder, or a .svg or .png (default: outputs/explain)")
    add("--article", action="store_true", help="the worked example in eight figures, docs/article")
    add("--hero", action="store_true", help="the README's pictures, docs/images")
    add("--html", type=Path, help="write the interactive page: one file, no network needed")
    add("--image", type=Path, help="a photograph to lay grid, box and coverage over")
    add("--checkpoint", type=Path, help="with --image: a run, for its features and its mask")
    return parser


def draw(chosen: argparse.Namespace) -> None:
    """Make the figures and write them."""
    if chosen.article:
        from scripts.explain.article import write_article

        report(write_article(chosen.output or Path("docs/article")))
    elif chosen.hero:
        from scripts.explain.hero import hero, strip

        folder = chosen.output or Path("docs/images")
        for name, canvas in (("hero", hero()), ("strip", strip())):
            report(save(canvas, folder, name))
    elif chosen.html:
        write_page(chosen.html)
        report([chosen.html])
    elif chosen.image:
        from scripts.explain.photo import photo_figure

        poolers = [pooler(chosen, word) for word in chosen.pooler]
        if chosen.box is None:
            raise InputError("--box: give x1 y1 x2 y2 in the photograph's pixels")
        canvas = photo_figure(
            chosen.image,
            tuple(chosen.box),
            poolers,
            stride=chosen.stride,
            output_size=bins(chosen),
            checkpoint=chosen.checkpoint,
        )
        report(save(canvas, chosen.output or Path("outputs/explain"), chosen.image.stem))
    else:
        canvas = figure(chosen)
        report(save(canvas, chosen.output or Path("outputs/explain"), "_".join(chosen.pooler)))


def figure(chosen: argparse.Namespace) -> Canvas:
    """The figure of one box on a made-up map."""
    width, height = chosen.size
    box = tuple(chosen.box or EXAMPLE)
    scene = Scene(box, (height, width), chosen.stride, bins(chosen))
    readings = [Reading(pooler(chosen, word), scene) for word in chosen.pooler]
    features = bump(scene.map_size, readings[0].box)
    row, column, sample = chosen.point
    if not (0 <= row < scene.output_size[0] and 0 <= column < scene.output_size[1]) or sample < 0:
        raise InputError(f"--point: there is no bin ({row}, {column}); count from 0")
    return explain_figure(readings, features, Chosen(row, column, sample))


def pooler(chosen: argparse.Namespace, word: str) -> DrawnPooler:
    agg = None if POOLERS[FORMS[word].pooler].agg else chosen.agg
    return choose(word, sampling_ratio=chosen.samples, aligned=not chosen.unaligned, agg=agg)


def bins(chosen: argparse.Namespace) -> tuple[int, int]:
    """(rows, columns) of the output."""
    given = chosen.output_size
    if len(given) > 2:
        raise InputError(f"--output-size: {len(given)} numbers; give one, or rows and columns")
    return given[0], given[-1]


def save(canvas: Canvas, output: Path, name: str) -> list[Path]:
    """Write one file where `output` names one, else SVG and PNG into the folder."""
    if output.suffix in (".svg", ".png"):
        paths = [output]
    else:
        paths = [output / f"{name}.svg", output / f"{name}.png"]
    for path in paths:
        write(canvas, path)
    return paths


def report(paths: Sequence[Path]) -> None:
    for path in paths:
        print(path)


if __name__ == "__main__":
    sys.exit(main())
