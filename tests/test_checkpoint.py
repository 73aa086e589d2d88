"""Checkpoints: exact, safe to load, never half written, and clear about what is wrong."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ops.errors import InputError
from running import checkpoint as module
from running.checkpoint import (
    CheckpointKeeper,
    load_checkpoint,
    load_weights_into,
    save_checkpoint,
)
from running.runtime import rng_state

CONTENT: dict[str, Any] = {
    "config_text": "seed: 0\n",
    "categories": [{"id": 7, "name": "train"}, {"id": 90, "name": "toothbrush"}],
}


def _network(width: int = 3) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, width, 1), nn.BatchNorm2d(width))


def _trained() -> tuple[nn.Sequential, torch.optim.Optimizer]:
    network = _network()
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)
    network(torch.rand(2, 3, 4, 4)).sum().backward()
    optimizer.step()
    return network, optimizer


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    network, optimizer = _trained()
    path = tmp_path / "checkpoints" / "last.pt"
    save_checkpoint(
        path,
        model=network,
        optimizer=optimizer,
        step=12,
        best=31.5,
        rng=rng_state(),
        extra={"epoch": 3, "sampler": torch.arange(4)},
        **CONTENT,
    )
    loaded = load_checkpoint(path)
    assert (loaded.step, loaded.best, loaded.config_text) == (12, 31.5, "seed: 0\n")
    assert loaded.categories == CONTENT["categories"]
    assert loaded.extra["epoch"] == 3 and loaded.extra["sampler"].tolist() == [0, 1, 2, 3]
    assert loaded.rng is not None and torch.equal(loaded.rng["torch"], torch.get_rng_state())
    fresh = _network()
    load_weights_into(fresh, loaded.model, path)
    for name, value in network.state_dict().items():
        assert torch.equal(fresh.state_dict()[name], value), name
    resumed = torch.optim.AdamW(fresh.parameters(), lr=1.0)
    assert loaded.optimizer is not None
    resumed.load_state_dict(loaded.optimizer)
    assert resumed.param_groups[0]["lr"] == 0.1
    for ours, theirs in zip(fresh.parameters(), network.parameters(), strict=True):
        assert torch.equal(resumed.state[ours]["exp_avg"], optimizer.state[theirs]["exp_avg"])


def test_only_the_network_is_needed(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.pt", model=_network(), step=0, **CONTENT)
    loaded = load_checkpoint(tmp_path / "a.pt")
    assert loaded.optimizer is None and loaded.best is None and loaded.rng is None


@pytest.mark.parametrize(
    ("extra", "name"),
    [
        ({"score": np.float64(1)}, r"checkpoint\['extra'\]\['score'\] is a float64"),
        ({"paths": [Path("a")]}, r"\['paths'\]\[0\] is a PosixPath"),
    ],
)
def test_a_value_that_could_not_be_loaded_safely_is_not_saved(
    tmp_path: Path, extra: dict, name: str
) -> None:
    with pytest.raises(TypeError, match=name):
        save_checkpoint(tmp_path / "a.pt", model=_network(), step=0, extra=extra, **CONTENT)
    assert not (tmp_path / "a.pt").exists()


class _Trap:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("trapped"),))


def _write_trap(path: Path) -> None:
    torch.save({"format": _Trap()}, path)


def _write_pickle_trap(path: Path) -> None:
    path.write_bytes(pickle.dumps(_Trap()))


def _write_damaged(path: Path) -> None:
    save_checkpoint(path, model=_network(), step=0, **CONTENT)
    content = bytearray(path.read_bytes())
    start = content.index(b"roi-poolers") - 60  # inside the pickled structure
    content[start : start + 20] = b"\xff" * 20
    path.write_bytes(content)


def _write_half(path: Path) -> None:
    save_checkpoint(path, model=_network(64), step=0, **CONTENT)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _write_foreign(path: Path) -> None:
    torch.save(_network().state_dict(), path)


def _write_version(path: Path) -> None:
    torch.save({"format": module.FORMAT, "version": 99}, path)


def _write_without_step(path: Path) -> None:
    torch.save({"format": module.FORMAT, "version": module.VERSION, "model": {}}, path)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (_write_trap, "refused, since loading it could run code"),
        (_write_pickle_trap, "is no checkpoint, or one that was cut short"),
        (_write_half, "is no checkpoint, or one that was cut short"),
        (_write_damaged, "is damaged|refused"),
        (lambda path: path.write_bytes(b""), "is no checkpoint, or one that was cut short"),
        (lambda path: path.write_text("hello"), "is no checkpoint"),
        (_write_foreign, "is not a checkpoint of this project"),
        (_write_version, "is of checkpoint version 99 and this program reads 1"),
        (_write_without_step, "field optimizer is missing or wrong"),
        (lambda path: path.mkdir(), "is a folder"),
        (lambda path: None, "no such file"),
    ],
)
def test_a_bad_file_is_named_in_one_line_and_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Any, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "bad.pt"
    write(path)
    with pytest.raises(InputError, match=message) as caught:
        load_checkpoint(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
    assert not Path("trapped").exists()


def test_another_architecture_is_refused_with_names_and_shapes() -> None:
    state = _network(5).state_dict()
    state["2.weight"] = state.pop("0.bias")
    network = _network()
    before = network[0].weight.clone()
    with pytest.raises(InputError) as caught:
        load_weights_into(network, state, Path("last.pt"))
    assert str(caught.value) == (
        "last.pt: holds the weights of another architecture: 1 missing (first 0.bias 3); "
        "1 unexpected (first 2.weight 5); 5 of another shape (first 0.weight: 5x3x1x1 in the file, "
        "3x3x1x1 in the model); build the model with the backbone, stride, head and classes of the "
        "run that wrote it"
    )
    assert torch.equal(network[0].weight, before)


def test_last_best_and_the_newest_stay(tmp_path: Path) -> None:
    keeper = CheckpointKeeper(tmp_path, keep=2)
    scores = {1: None, 2: 10.0, 3: 30.0, 4: float("nan"), 5: 20.0}
    bests = [
        keeper.save(step=step, score=score, model=_network(), **CONTENT)
        for step, score in scores.items()
    ]
    assert bests == [False, True, True, False, False]
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "best.pt",
        "last.pt",
        "step_00000004.pt",
        "step_00000005.pt",
    ]
    last, best = load_checkpoint(tmp_path / "last.pt"), load_checkpoint(tmp_path / "best.pt")
    assert (last.step, last.best) == (5, 30.0)
    assert (best.step, best.best) == (3, 30.0)


def test_without_numbered_files_last_and_best_remain(tmp_path: Path) -> None:
    keeper = CheckpointKeeper(tmp_path)
    for step in (1, 2):
        keeper.save(step=step, score=0.0, model=_network(), **CONTENT)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best.pt", "last.pt"]
    assert load_checkpoint(tmp_path / "best.pt").step == 1


def test_a_resumed_run_remembers_its_best(tmp_path: Path) -> None:
    keeper = CheckpointKeeper(tmp_path, best=40.0)
    assert not keeper.save(step=9, score=39.0, model=_network(), **CONTENT)
    assert load_checkpoint(tmp_path / "last.pt").best == 40.0


def test_a_file_system_without_hard_links_gets_copies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(module.os, "link", refuse)
    CheckpointKeeper(tmp_path, keep=1).save(step=1, score=1.0, model=_network(), **CONTENT)
    assert load_checkpoint(tmp_path / "last.pt").step == 1
    assert load_checkpoint(tmp_path / "best.pt").step == 1


def test_an_interrupted_save_leaves_the_last_checkpoint_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = CheckpointKeeper(tmp_path)
    keeper.save(step=1, score=None, model=_network(), **CONTENT)

    def half(content: object, path: Path) -> None:
        path.write_bytes(b"PK")
        raise KeyboardInterrupt

    monkeypatch.setattr(module.torch, "save", half)
    with pytest.raises(KeyboardInterrupt):
        keeper.save(step=2, score=None, model=_network(), **CONTENT)
    assert load_checkpoint(tmp_path / "last.pt").step == 1
    assert [p.name for p in tmp_path.iterdir()] == ["last.pt"]
