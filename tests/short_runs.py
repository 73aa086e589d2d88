"""Runs of two steps on a few drawn images: enough to go every way that training can go."""

from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
# Depends on the clock, and so on nothing that a run decides.
OF_THE_CLOCK = {"train_seconds", "train/data_seconds", "train/step_seconds"}


def composed(*overrides: str, config: str = "train") -> DictConfig:
    """The configuration of a command line."""
    with initialize_config_dir(version_base="1.3", config_dir=str(CONFIGS)):
        return compose(config, overrides=list(overrides))


def words(folder: Path, drawings: Path, *overrides: str) -> list[str]:
    """The command line of a run of two steps in `folder`, its images in the cache `drawings`."""
    return [
        "schedule=smoke",
        f"data.root={drawings}",
        "data.train_images=4",
        "data.val_images=2",
        f"run.dir={folder}",
        "precision=float32",  # the same numbers on every machine
        "run.progress=false",
        "evaluation.pictures=1",
        "evaluation.loss_images=2",
        *overrides,
    ]


def short_run(folder: Path, drawings: Path, *overrides: str) -> DictConfig:
    """The configuration of `words`."""
    return composed(*words(folder, drawings, *overrides))


def without_clock(values: dict[str, Any]) -> dict[str, Any]:
    """`values` without those that no two runs share."""
    return {key: value for key, value in values.items() if key not in OF_THE_CLOCK}
