"""Training from the configuration to the finished folder: what is left, skipped and refused."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from short_runs import FIGURES, short_run, without_clock, words
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import train as training
from ops.errors import InputError
from running.checkpoint import load_checkpoint
from running.tracking import read_history
from train import train

PROJECT = Path(__file__).resolve().parent.parent
LOSSES = ("loss", "loss_rpn_cls", "loss_rpn_box", "loss_cls", "loss_box", "loss_mask")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, drawings: Path) -> Path:
    """The folder of a run of two steps."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    train(short_run(folder, drawings))
    return folder


# What a run leaves


def test_a_run_leaves_its_configuration(finished: Path, drawings: Path) -> None:
    saved = OmegaConf.load(finished / "config.yaml")
    assert saved == short_run(finished, drawings)
    assert saved.stride == 16


def test_a_run_leaves_its_figures(finished: Path) -> None:
    metrics = json.loads((finished / "metrics.json").read_text())
    expected = {f"{kind}/{figure}" for kind in ("bbox", "segm") for figure in FIGURES}
    expected |= {f"val/{name}" for name in LOSSES} | {"train_seconds"}
    assert expected <= set(metrics)
    assert all(isinstance(value, int | float) for value in metrics.values())
    assert 0 < metrics["train_seconds"] < 600
    parts = sum(metrics[f"val/{name}"] for name in LOSSES[1:])
    assert metrics["val/loss"] == pytest.approx(parts)
    assert metrics["steps"] == 2


def test_a_run_leaves_its_checkpoints(finished: Path) -> None:
    names = {path.name for path in (finished / "checkpoints").iterdir()}
    assert names == {"last.pt", "best.pt", "step_00000002.pt"}
    checkpoint = load_checkpoint(finished / "checkpoints/last.pt")
    assert checkpoint.step == 2
    assert len(checkpoint.categories) == 6
    assert checkpoint.config_text == (finished / "config.yaml").read_text()


def test_a_run_leaves_its_detections(finished: Path) -> None:
    results = json.loads((finished / "detections.json").read_text())
    assert isinstance(results, list)
    for result in results:
        assert set(result) == {"image_id", "category_id", "bbox", "score", "segmentation"}
        assert result["segmentation"]["size"] == [128, 128]


def test_a_run_leaves_its_curves_and_pictures(finished: Path) -> None:
    (events,) = finished.glob("events.out.tfevents.*")
    record = EventAccumulator(str(events)).Reload()
    scalars = set(record.Tags()["scalars"])
    assert {f"train/{name}" for name in LOSSES} <= scalars
    assert {f"val/{name}" for name in LOSSES} <= scalars
    assert {"train/lr", "train/data_seconds", "bbox/AP", "segm/AP"} <= scalars
    assert [event.step for event in record.Scalars("train/loss")] == [1, 2]
    assert [event.step for event in record.Scalars("segm/AP")] == [2]
    assert record.Tags()["images"] == ["val/0"]


def test_no_temporary_files_remain(finished: Path) -> None:
    assert list(finished.rglob("*.tmp")) == []


# Skipped and refused


def test_a_finished_run_is_known_before_any_data_is_read(
    finished: Path, drawings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "build_data", None)  # nobody may ask for data
    assert train(short_run(finished, drawings)) == json.loads(
        (finished / "metrics.json").read_text()
    )


def test_a_finished_run_is_not_trained_again(
    finished: Path, drawings: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(training, "train_loader", None)  # nobody may ask for a batch
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*.*")}
    metrics = train(short_run(finished, drawings))
    assert metrics == json.loads((finished / "metrics.json").read_text())
    assert "finished before" in capsys.readouterr().out
    after = {path: path.stat().st_mtime_ns for path in finished.rglob("*.*")}
    assert {p.name for p in before if before[p] != after[p]} <= {".lock"}


@pytest.mark.parametrize("override", ["pooler=pool", "seed=1", "schedule.lr=0.5"])
def test_another_configuration_may_not_enter_the_folder(
    finished: Path, drawings: Path, override: str
) -> None:
    with pytest.raises(InputError) as error:
        train(short_run(finished, drawings, override))
    text = str(error.value)
    assert str(finished) in text
    assert "another configuration" in text
    assert "run.overwrite=true" in text
    assert "\n" not in text


def test_overwriting_trains_again(tmp_path: Path, drawings: Path) -> None:
    first = train(short_run(tmp_path / "run", drawings))
    second = train(short_run(tmp_path / "run", drawings, "run.overwrite=true"))
    assert without_clock(first) == without_clock(second)


# Ways to train


def test_accumulated_gradients_are_those_of_the_larger_batch(
    tmp_path: Path, drawings: Path
) -> None:
    # One object an image, every anchor and RoI in the losses, a norm that sees single images: so
    # that a mean over two images is the mean of two means.
    everything = [
        "mask=false",
        "backbone.norm=group",
        "data.objects_min=1",
        "data.objects_max=1",
        "roi.batch_per_image=1000",
        "roi.positive_fraction=1.0",
        "proposals.rpn.batch_per_image=10000",
        "proposals.rpn.positive_fraction=1.0",
        "proposals.rpn.nms_iou=1.0",
        "proposals.rpn.pre_nms=[100, 20]",
        "proposals.rpn.post_nms=[20, 20]",
    ]
    histories = []
    for accumulate in (1, 2):
        folder = tmp_path / str(accumulate)
        train(short_run(folder, drawings, *everything, f"schedule.accumulate={accumulate}"))
        histories.append([r for r in read_history(folder / "metrics.jsonl") if "train/loss" in r])
    for at_once, in_parts in zip(*histories, strict=True):
        for name in (*LOSSES[:-1], "gradient_norm"):
            assert in_parts[f"train/{name}"] == pytest.approx(at_once[f"train/{name}"], rel=1e-4)


def test_without_masks_there_are_boxes_alone(tmp_path: Path, drawings: Path) -> None:
    metrics = train(short_run(tmp_path / "run", drawings, "mask=false"))
    assert "bbox/AP" in metrics
    assert not any("segm" in key or "mask" in key for key in metrics)
    results = json.loads((tmp_path / "run/detections.json").read_text())
    assert all("segmentation" not in result for result in results)


@pytest.mark.parametrize("stride", [16, 32])
def test_bfloat16_trains_with_finite_numbers(tmp_path: Path, drawings: Path, stride: int) -> None:
    folder = tmp_path / "run"
    metrics = train(short_run(folder, drawings, "precision=bfloat16", f"stride={stride}"))
    assert all(math.isfinite(value) for value in metrics.values())
    for record in read_history(folder / "metrics.jsonl"):
        assert all(value is not None for value in record.values())
    weights = load_checkpoint(folder / "checkpoints/last.pt").model
    assert {w.dtype for w in weights.values() if w.is_floating_point()} == {torch.float32}


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path: Path, drawings: Path) -> None:
    with pytest.raises(InputError, match="loss") as error:
        train(
            short_run(
                tmp_path,
                drawings,
                "schedule.lr=1e30",
                "schedule.clip_norm=null",
                "schedule.steps=8",
            )
        )
    assert "\n" not in str(error.value)


def test_a_step_that_does_not_divide_is_refused(tmp_path: Path, drawings: Path) -> None:
    with pytest.raises(InputError, match=r"schedule\.images_per_step=2: .*accumulate=3"):
        train(short_run(tmp_path, drawings, "schedule.accumulate=3"))


def test_a_sweep_leaves_a_folder_for_each_run(tmp_path: Path, drawings: Path) -> None:
    overrides = [
        word for word in words(tmp_path, drawings, "pooler=pool,warp") if "run.dir" not in word
    ]
    command = [sys.executable, str(PROJECT / "train.py"), "-m", *overrides]
    command += [f"run.root={tmp_path / 'outputs'}", f"hydra.sweep.dir={tmp_path / 'sweep'}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    folders = sorted((tmp_path / "outputs").iterdir())
    assert len(folders) == 2
    poolers = set()
    for folder in folders:
        assert (folder / "metrics.json").is_file()
        pooler = OmegaConf.load(folder / "config.yaml").pooler._target_.rpartition(".roi_")[-1]
        assert f"_{pooler}_" in folder.name
        poolers.add(pooler)
    assert poolers == {"pool", "warp"}
