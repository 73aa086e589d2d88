"""The record of a run, in TensorBoard's files and in JSON lines, also across an interruption."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from running.tracking import Tracker, read_history


def _events(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0, "tensors": 0})
    events.Reload()
    return events


def _scalars(folder: Path, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in _events(folder).Scalars(tag)]


def test_scalars_are_in_both_records_at_their_step(tmp_path: Path) -> None:
    with Tracker(tmp_path) as tracker:
        tracker.scalars({"train/loss": 0.1, "train/lr": 0.02}, 1)
        tracker.scalars({"bbox/AP": 12.3456789}, 100)
    assert list(read_history(tmp_path / "metrics.jsonl")) == [
        {"step": 1, "train/loss": 0.1, "train/lr": 0.02},
        {"step": 100, "bbox/AP": 12.3456789},
    ]
    assert _scalars(tmp_path, "bbox/AP") == [(100, pytest.approx(12.3456789))]
    assert _scalars(tmp_path, "train/loss") == [(1, pytest.approx(0.1))]


def test_pictures_of_any_size_and_texts_are_kept(tmp_path: Path) -> None:
    with Tracker(tmp_path) as tracker:
        pictures = [np.full((8, 12, 3), (200, 100, 0), np.uint8), np.zeros((5, 4, 3), np.uint8)]
        tracker.images("val/pictures", pictures, 30)
        tracker.text("config", "seed: 0")
    events = _events(tmp_path)
    first, second = (events.Images(f"val/pictures/{k}")[0] for k in (0, 1))
    assert (first.step, first.width, first.height) == (30, 12, 8)
    assert (second.width, second.height) == (4, 5)
    decoded = cv2.imdecode(np.frombuffer(first.encoded_image_string, np.uint8), cv2.IMREAD_COLOR)
    assert np.abs(decoded[:, :, ::-1].astype(int) - (200, 100, 0)).max() <= 3
    text = events.Tensors("config/text_summary")[0]
    assert text.tensor_proto.string_val[0] == b"seed: 0"


def test_a_number_that_is_not_finite_is_null_in_json(tmp_path: Path) -> None:
    with Tracker(tmp_path) as tracker:
        tracker.scalars({"val/loss": float("nan")}, 1)
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1, "val/loss": null}\n'


def test_a_resumed_run_leaves_one_clean_record(tmp_path: Path) -> None:
    """Killed after step 5 while writing, resumed from the checkpoint after step 3."""
    with Tracker(tmp_path) as tracker:
        for step in range(1, 6):
            tracker.scalars({"train/loss": float(step)}, step)
    with (tmp_path / "metrics.jsonl").open("a") as history:
        history.write('{"step": 6, "tra')
    with Tracker(tmp_path, start_step=3) as tracker:
        for step in range(4, 7):
            tracker.scalars({"train/loss": 10.0 * step}, step)
    expected = [(1, 1.0), (2, 2.0), (3, 3.0), (4, 40.0), (5, 50.0), (6, 60.0)]
    history = list(read_history(tmp_path / "metrics.jsonl"))
    assert [(r["step"], r["train/loss"]) for r in history] == expected
    assert _scalars(tmp_path, "train/loss") == expected


def test_a_run_begun_again_forgets_the_first_attempt(tmp_path: Path) -> None:
    for loss in (1.0, 2.0):
        with Tracker(tmp_path) as tracker:
            tracker.scalars({"train/loss": loss}, 0)
            tracker.scalars({"train/loss": loss}, 1)
    assert _scalars(tmp_path, "train/loss") == [(0, 2.0), (1, 2.0)]
    assert [r["train/loss"] for r in read_history(tmp_path / "metrics.jsonl")] == [2.0, 2.0]


def test_ranks_but_the_first_write_nothing(tmp_path: Path) -> None:
    with Tracker(tmp_path / "run", active=False) as tracker:
        tracker.scalars({"train/loss": 1.0}, 1)
        tracker.images("val", [np.zeros((2, 2, 3), np.uint8)], 1)
        tracker.text("config", "")
    assert list(tmp_path.iterdir()) == []
