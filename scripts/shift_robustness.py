"""How the results of trained networks and their poolers change when the image is shifted.

    python scripts/shift_robustness.py outputs/demo
    python scripts/shift_robustness.py outputs/demo/pool_s16/seed0 outputs/demo/align_avg_s16/seed0
    python scripts/shift_robustness.py outputs/demo --images 0 --shifts 0 4 8 12

shifts validation images by 0 to stride pixels, trains nothing, and writes `shift.csv`, `shift.md`
(with an explanation) and `shift.png` into FOLDER/shift. Of a family's folder, all finished runs
with a second stage are measured; runs that differ only in their seed become one row.
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
    """Measure runs and write the results; returns the files.

    Args:
        given: runs, or folders of runs.
        output: folder of the results; None for `shift` in the common folder of `given`.
        images: number of validation images; 0 for all.
        shifts: in pixels; None for every eighth of the stride.

    Raises:
        InputError: no finished run, runs on different data, an impossible shift or number of
            images, a run that cannot be loaded.
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
    """The finished run in `path`, or those below it, without networks that only propose.

    Raises:
        InputError: there is none.
    """
    below = [path] if (path / "config.yaml").is_file() else []
    below = below or sorted(file.parent for file in path.glob("**/config.yaml"))
    finished = [folder for folder in below if (folder / "metrics.json").is_file()]
    runs = [folder for folder in finished if not _settings(folder).get("proposals_only")]
    if not runs:
        raise InputError(f"{path}: holds no finished run of a detector; train one first")
    return runs


def variants_of(runs: Sequence[ShiftedRun], base: Path) -> list[ShiftedVariant]:
    """The runs by variant: those with the same folder and the same settings except the seed.

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
    grouped = [ShiftedVariant(key[0], tuple(members)) for key, members in variants.items()]
    return sorted(grouped, key=_place_in_table)


def _place_in_table(variant: ShiftedVariant) -> tuple[int, int, bool]:
    """By stride, then in the order of the poolers' table; maximum before average."""
    settings = variant.runs[0].settings
    return variant.stride, place(str(settings["pooler"])), settings["agg"] != "max"


def _check_same_data(folders: Sequence[Path]) -> None:
    first = _settings(folders[0])["data"]
    for folder in folders:
        if _settings(folder)["data"] != first:
            raise InputError(
                f"{folder}: its `data` is not that of {folders[0]}, so their figures cannot be "
                "compared; give runs on the same data set"
            )


def _settings(folder: Path) -> dict:
    return yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Shift images and compare the results.")
    parser.add_argument("runs", nargs="+", type=Path, help="a family's folder, or runs")
    parser.add_argument("--images", type=int, default=IMAGES, help="number; 0 = all; default: 100")
    parser.add_argument("--shifts", type=int, nargs="+", help="pixels; default: stride / 8 apart")
    parser.add_argument("--output", type=Path, help="folder; default: shift, beside the runs")
    options = parser.parse_args(arguments)

    def action() -> None:
        paths = probe(
            options.runs, output=options.output, images=options.images, shifts=options.shifts
        )
        print(paths[1].read_text(encoding="utf-8"))
        print("written: " + ", ".join(map(str, paths)))

    command_line(action)


if __name__ == "__main__":
    main()
