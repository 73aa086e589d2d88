"""An interrupted run ends as if it had never been interrupted, bit for bit."""

from pathlib import Path

import pytest
import torch
from short_runs import short_run, without_clock

import train as training
from running.checkpoint import load_checkpoint
from running.tracking import read_history
from train import train

BACKBONES = {
    "tiny": ["backbone=tiny"],
    # Its dropout draws from the random stream that has to be put back.
    "vgg16": ["backbone=vgg16", "backbone.width=8", "backbone.fc_dim=16", "backbone.weights=null"],
}


@pytest.mark.parametrize(("backbone", "interrupted_at"), [("tiny", 3), ("vgg16", 1)])
def test_an_interrupted_run_ends_as_if_it_had_not_been(
    tmp_path: Path,
    drawings: Path,
    monkeypatch: pytest.MonkeyPatch,
    backbone: str,
    interrupted_at: int,
) -> None:
    longer = [
        "roi.batch_per_image=8",
        "head={fc_dim: 16, mask_dim: 8}",
        *BACKBONES[backbone],
        "schedule.steps=4",
        "schedule.eval_every=2",
        "schedule.checkpoint_every=1",
        "schedule.accumulate=2",
    ]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    expected = train(short_run(whole, drawings, *longer))

    def interrupt(terms: object, step: int) -> None:
        if step == interrupted_at:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training, "check_finite", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(short_run(broken, drawings, *longer))
    assert load_checkpoint(broken / "checkpoints/last.pt").step == interrupted_at
    assert not (broken / "metrics.json").exists()
    resumed = train(short_run(broken, drawings, *longer))

    assert without_clock(resumed) == without_clock(expected)
    one, other = (load_checkpoint(f / "checkpoints/last.pt") for f in (whole, broken))
    assert all(torch.equal(one.model[name], other.model[name]) for name in one.model)
    assert one.optimizer is not None
    assert other.optimizer is not None
    for key, state in one.optimizer["state"].items():
        assert all(torch.equal(state[k], other.optimizer["state"][key][k]) for k in state)
    histories = [
        [without_clock(record) for record in read_history(f / "metrics.jsonl")]
        for f in (whole, broken)
    ]
    assert histories[0] == histories[1]
    assert (whole / "detections.json").read_text() == (broken / "detections.json").read_text()


def test_a_run_interrupted_before_any_checkpoint_begins_again(
    tmp_path: Path, drawings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training, "check_finite", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(short_run(tmp_path / "run", drawings))
    assert train(short_run(tmp_path / "run", drawings))["steps"] == 2
