"""Runs that a report must not compare, each refused in one line that names it."""

import json
import shutil
from pathlib import Path

import pytest
from made_up_runs import DEMO, edit_config, write_family, write_run

from ops.errors import InputError
from reporting.study import Study, study_family

LONGER = {"steps": 900, "lr": 0.001, "images_per_step": 16}
PAIR = {name: DEMO[name] for name in ("pool_s16", "align_avg_s16")}


def _studied(family: Path, baseline: str | None = None) -> Study:
    return study_family(family, resamples=100, baseline=baseline, progress=False)


@pytest.mark.parametrize(
    ("baseline", "told"),
    [
        ("warp", r"RoIWarp max and RoIWarp avg .*'warp avg'"),
        ("prroi", r"none of the variants .*RoIPool"),
    ],
)
def test_a_baseline_that_is_none_or_several_is_refused(
    tmp_path: Path, baseline: str, told: str
) -> None:
    with pytest.raises(InputError, match=told):
        _studied(write_family(tmp_path / "demo", seeds=(0,)), baseline)


def _other_images(family: Path) -> None:
    shutil.rmtree(family / "align_avg_s16" / "seed1")
    write_run(family / "align_avg_s16" / "seed1", DEMO["align_avg_s16"], 1, images=29)


def _other_objects(family: Path) -> None:
    shutil.rmtree(family / "align_avg_s16" / "seed1")
    write_run(family / "align_avg_s16" / "seed1", DEMO["align_avg_s16"], 1, set_seed=5)


def _mixed_seeds(family: Path) -> None:
    config = family / "pool_s16" / "seed1" / "config.yaml"
    edit_config(config, pooler={"_target_": "ops.roi_align.roi_align"})


def _other_schedule(family: Path) -> None:
    for seed in (0, 1):
        edit_config(family / f"align_avg_s16/seed{seed}/config.yaml", schedule=LONGER)


def _same_seed(family: Path) -> None:
    edit_config(family / "pool_s16" / "seed1" / "config.yaml", seed=0)


def _stale_matches(family: Path) -> None:
    metrics = family / "pool_s16" / "seed1" / "metrics.json"
    metrics.write_text(json.dumps({**json.loads(metrics.read_text()), "segm/AP": 12.5}))


def _no_matches(family: Path) -> None:
    (family / "pool_s16" / "seed1" / "matches.npz").unlink()


def _broken_config(family: Path) -> None:
    (family / "pool_s16" / "seed1" / "config.yaml").write_text("a: [")


REFUSED = {
    _other_images: r"align_avg_s16/seed1: is judged by .* 29 images .*align_avg_s16/seed0 by .* 30",
    _other_objects: r"seed1: is judged by .*same validation set",
    _mixed_seeds: r"pool_s16/seed1: has pooler\._target_: ops\.roi_align\.roi_align, where .*seed0",
    _other_schedule: r"pool_s16/seed0: has schedule\.steps: 600, where .*align_avg_s16.* has 900",
    _same_seed: r"pool_s16/seed1: has the seed 0 of .*pool_s16/seed0",
    _stale_matches: r"matches\.npz: gives AP .*, metrics\.json 12\.5; remove metrics\.json",
    _no_matches: r"pool_s16/seed1/matches\.npz: no such file; remove metrics\.json",
    _broken_config: r"pool_s16/seed1/config\.yaml: is not readable YAML; move",
}


@pytest.mark.parametrize("spoil", REFUSED, ids=lambda spoil: spoil.__name__.strip("_"))
def test_runs_that_must_not_be_compared_are_refused_by_name(spoil: object, tmp_path: Path) -> None:
    family = write_family(tmp_path / "demo", PAIR, seeds=(0, 1))
    spoil(family)  # type: ignore[operator]
    with pytest.raises(InputError, match=REFUSED[spoil]):  # type: ignore[index]
        _studied(family)


def test_folders_without_runs_are_refused_with_a_remedy(tmp_path: Path) -> None:
    family = write_family(tmp_path / "runs" / "demo", PAIR, seeds=(0,))
    for folder, told in (
        (tmp_path / "none", "no such folder"),
        (tmp_path, "holds no runs"),
        (family / "pool_s16" / "seed0", "is one run's folder"),
    ):
        with pytest.raises(InputError, match=told):
            _studied(folder)
