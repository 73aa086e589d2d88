"""The runs of a family as they lie on disk: `<family>/<variant>/seed<k>/`, or side by side."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from files.atomic import read_json
from judging.matches import Matches, load_matches
from ops.errors import InputError

SEED_IN_NAME = re.compile(r"(^|[_-])seed\d+$")


@dataclass(frozen=True)
class Run:
    """One training run.

    Attributes:
        folder: where it lies.
        variant: name of what it has in common with the runs of other seeds.
        seed: of its random numbers.
        config: its whole configuration.
        state: "finished", "failed" or "unfinished" (being trained, or interrupted).
        reason: why it failed, in one line; empty for the others.
        metrics: its figures; empty unless finished.
        matches: what came of each detection, by kind; empty unless finished, and for an RPN alone.
    """

    folder: Path
    variant: str
    seed: int
    config: dict[str, Any]
    state: Literal["finished", "failed", "unfinished"]
    reason: str
    metrics: dict[str, Any]
    matches: dict[str, Matches]

    @property
    def proposals_only(self) -> bool:
        """Whether it trains an RPN alone, and so is no row of a table."""
        return bool(self.config.get("proposals_only"))


def read_runs(family: Path) -> list[Run]:
    """All runs below `family`, in the order of their paths.

    Raises:
        InputError: no such folder, no run in it, a run whose files cannot be read.
    """
    if not family.is_dir():
        raise InputError(
            f"{family}: no such folder; give the folder that holds the runs to compare"
        )
    if (family / "config.yaml").exists():
        raise InputError(f"{family}: is one run's folder; give the folder of the runs to compare")
    runs = [_read(folder, family) for folder in _run_folders(family)]
    if not runs:
        raise InputError(
            f"{family}: holds no runs (no config.yaml one or two folders down); train some first"
        )
    return runs


def _run_folders(family: Path) -> Iterator[Path]:
    found = {file.parent for depth in ("*", "*/*") for file in family.glob(f"{depth}/config.yaml")}
    yield from sorted(found)


def _read(folder: Path, family: Path) -> Run:
    config = _read_config(folder / "config.yaml")
    state = _state(folder)
    metrics, matches = {}, {}
    if state == "finished":
        remedy = "remove it and give the run's command again"
        metrics = read_json(folder / "metrics.json", remedy)
        if not config.get("proposals_only"):
            matches = load_matches(folder / "matches.npz")
    return Run(
        folder=folder,
        variant=_variant(folder, family),
        seed=int(config["seed"]),
        config=config,
        state=state,
        reason=_reason(folder) if state == "failed" else "",
        metrics=metrics,
        matches=matches,
    )


def _state(folder: Path) -> Literal["finished", "failed", "unfinished"]:
    if (folder / "metrics.json").exists():
        return "finished"
    return "failed" if (folder / "FAILED").exists() else "unfinished"


def _reason(folder: Path) -> str:
    return " ".join((folder / "FAILED").read_text(encoding="utf-8", errors="replace").split())


def _read_config(path: Path) -> dict[str, Any]:
    remedy = "move the folder away, or train the run again"
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: is not readable YAML; {remedy}") from error
    if not isinstance(config, dict):
        raise InputError(f"{path}: is no run's configuration; {remedy}")
    for key in ("seed", "stride", "backbone", "pooler"):
        if key not in config:
            raise InputError(f"{path}: has no {key}; {remedy}")
    return config


def _variant(folder: Path, family: Path) -> str:
    """demo/pool_s16/seed0 -> pool_s16; demo/shapes_tiny_s16_pool_seed0 -> shapes_tiny_s16_pool."""
    name = folder.relative_to(family).as_posix()
    parent, _, last = name.rpartition("/")
    stem = SEED_IN_NAME.sub("", last)
    return "/".join(part for part in (parent, stem) if part) or name
