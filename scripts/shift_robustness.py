"""How much trained networks and their poolers mind where an object lies on the feature grid.

    python scripts/shift_robustness.py outputs/demo
    python scripts/shift_robustness.py outputs/demo/pool_s16/seed0 outputs/demo/align_avg_s16/seed0
    python scripts/shift_robustness.py outputs/demo --images 0 --shifts 0 4 8 12

moves validation images by 0 to stride pixels, without training anything, and writes `shift.csv`,
`shift.md` (which says how to read it) and `shift.png` into FOLDER/shift. A family's folder stands
for all its finished runs with a second stage; runs of a variant that differ in their seed alone
become one row.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import yaml
from tqdm import tqdm

from configuration import command_line
from ops.errors import InputError
from ops.poolers import place
from scripts.shift.measuring import ShiftedRun, measure
from scripts.shift.writing import ShiftedVariant, write_all

IMAGES = 100


def probe(
    given: Sequence[Path],
    *,
    output: Path | None = None,
    images: int = IMAGES,
    shifts: Sequence[int] | None = None,
    progress: bool = True,
) -> list[Path]:
    """Measure the runs that `given` stands for and write the results; returns their files.

    Args:
        given: runs, or folders of runs.
        output: where to write; None for `shift` in the folder that holds all that was given.
        images: how many validation images; 0 takes all.
        shifts: in pixels; None for every eighth of the stride.

    Raises:
        InputError: no finished run, runs on other data than the first, a shift or number of images
            without sense, a run that cannot be loaded.
    """
    if images < 0:
        raise InputError(f"--images {images}: give 0 (all) or more")
    folders = list(dict.fromkeys(folder for path in given for folder in finished_runs(path)))
    _check_same_data(folders)
    strides = [int(_settings(folder)["stride"]) for folder in folders]
    for shift in shifts or ():
        if not 0 <= shift <= max(strides):
            raise InputError(f"--shifts {shift}: give pixels from 0 to the stride, {max(strides)}")
    bar = tqdm(folders, "shifting", disable=not progress, unit="run")
    runs = [measure(folder, images=images, shifts=shifts, progress=progress) for folder in bar]
    base = Path(os.path.commonpath([path.resolve() for path in given]))
    return write_all(output or base / "shift", variants_of(runs, base), runs[0].images)


def finished_runs(path: Path) -> list[Path]:
    """The run that lies at `path`, or those below it, without networks that only propose.

    Raises:
        InputError: there is none that has finished.
    """
    below = [path] if (path / "config.yaml").is_file() else []
    below = below or sorted(file.parent for file in path.glob("**/config.yaml"))
    finished = [folder for folder in below if (folder / "metrics.json").is_file()]
    runs = [folder for folder in finished if not _settings(folder).get("proposals_only")]
    if not runs:
        raise InputError(f"{path}: holds no finished run of a detector; train one first")
    return runs


def variants_of(runs: Sequence[ShiftedRun], base: Path) -> list[ShiftedVariant]:
    """The runs by variant: those that share their folder's name and all settings but the seed.

    Args:
        base: the folder that the variants' names are relative to.
    """
    variants: dict[tuple[str, ...], list[ShiftedRun]] = {}
    for run in runs:
        folder = run.folder.resolve()
        variant = folder.parent if folder.name.startswith("seed") else folder
        name = variant.relative_to(base).as_posix() if base in variant.parents else variant.name
        settings = [f"{k}={v}" for k, v in run.settings.items() if k != "seed"]
        variants.setdefault((name, *settings), []).append(run)
    found = [ShiftedVariant(key[0], tuple(members)) for key, members in variants.items()]
    return sorted(found, key=_place_in_table)


def _place_in_table(variant: ShiftedVariant) -> tuple[int, int, bool]:
    """By stride, then in the order of the poolers' table; maximum before average."""
    settings = variant.runs[0].settings
    return variant.stride, place(str(settings["pooler"])), settings["agg"] != "max"


def _check_same_data(folders: Sequence[Path]) -> None:
    first = _settings(folders[0])["data"]
    for folder in folders:
        if _settings(folder)["data"] != first:
            raise InputError(
                f"{folder}: its `data` is not that of {folders[0]}, so their figures do not "
                "compare; give runs on the same data set"
            )


def _settings(folder: Path) -> dict:
    return yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Move images, and see what a pooler makes of it.")
    parser.add_argument("runs", nargs="+", type=Path, help="a family's folder, or runs")
    parser.add_argument("--images", type=int, default=IMAGES, help="how many; 0 = all (100)")
    parser.add_argument("--shifts", type=int, nargs="+", help="pixels (every eighth of the stride)")
    parser.add_argument("--output", type=Path, help="folder of the results (shift, in the folder)")
    words = parser.parse_args(arguments)

    def action() -> None:
        paths = probe(words.runs, output=words.output, images=words.images, shifts=words.shifts)
        print(paths[1].read_text(encoding="utf-8"))
        print("written: " + ", ".join(map(str, paths)))

    command_line(action)


if __name__ == "__main__":
    main()
