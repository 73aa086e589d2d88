"""Checkpoints: tensors and plain Python values only, so that loading one never runs its code."""

import contextlib
import hashlib
import math
import os
import pickle
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from files.atomic import replacing
from ops.errors import InputError

FORMAT = "roi-poolers checkpoint"
VERSION = 1
FIELDS: dict[str, type | tuple[type, ...]] = {
    "model": dict,
    "optimizer": (dict, type(None)),
    "step": int,
    "best": (float, type(None)),
    "config_text": str,
    "categories": list,
    "rng": (dict, type(None)),
    "extra": dict,
}


@dataclass(frozen=True)
class Checkpoint:
    """A training's state after `step` steps; tensors on the CPU.

    Attributes:
        model: the network's state dict.
        optimizer: the optimiser's state dict, or None.
        step: optimiser steps done.
        best: the best score so far, None before the first evaluation.
        config_text: the run's configuration, YAML.
        categories: ``{"id": ..., "name": ...}`` in the order of the labels.
        rng: what `running.runtime.rng_state` gave, or None.
        extra: further plain values.
    """

    model: dict[str, Tensor]
    optimizer: dict[str, Any] | None
    step: int
    best: float | None
    config_text: str
    categories: list[dict[str, Any]]
    rng: dict[str, Any] | None = None
    extra: dict[str, Any] = field(default_factory=dict)


def save_checkpoint(
    path: Path,
    *,
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None = None,
    step: int,
    best: float | None = None,
    config_text: str,
    categories: Sequence[Mapping[str, Any]],
    rng: Mapping[str, Any] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write a file that `load_checkpoint` (and ``torch.load(weights_only=True)``) reads.

    Atomic: an interruption leaves the old file. For the arguments see `Checkpoint`.

    Raises:
        TypeError: a value that is neither a tensor nor plain Python; names it.
    """
    content = {
        "format": FORMAT,
        "version": VERSION,
        "model": dict(model.state_dict()),
        "optimizer": None if optimizer is None else optimizer.state_dict(),
        "step": step,
        "best": best,
        "config_text": config_text,
        "categories": [dict(category) for category in categories],
        "rng": None if rng is None else dict(rng),
        "extra": dict(extra or {}),
    }
    _check_plain(content, "checkpoint")
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        torch.save(content, temporary)


def _check_plain(value: Any, name: str) -> None:
    # Exact types: a subclass (a NumPy float, a configuration node) would need its class to load.
    if type(value) is dict:
        for key, item in value.items():
            _check_plain(key, f"a key of {name}")
            _check_plain(item, f"{name}[{key!r}]")
    elif type(value) in (list, tuple):
        for index, item in enumerate(value):
            _check_plain(item, f"{name}[{index}]")
    elif type(value) not in (bool, int, float, str, type(None), Tensor, nn.Parameter):
        raise TypeError(f"{name} is a {type(value).__name__}: a checkpoint holds plain values only")


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint without running any code that it may carry.

    Raises:
        InputError: no such file, damaged, not a checkpoint of this project, or unsafe.
    """
    content = _load_safely(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(
            f"{path}: is not a checkpoint of this project; give a .pt file of a run's checkpoints/"
        )
    if content.get("version") != VERSION:
        raise InputError(
            f"{path}: is of checkpoint version {content.get('version')} and this program reads "
            f"{VERSION}; use the release that wrote it"
        )
    for name, kind in FIELDS.items():
        if name not in content or not isinstance(content[name], kind):
            raise InputError(f"{path}: field {name} is missing or wrong; train again to replace it")
    return Checkpoint(**{name: content[name] for name in FIELDS})


def _load_safely(path: Path) -> Any:
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "no such file"
        raise InputError(f"{path}: {what}; give a checkpoint, as in <run>/checkpoints/last.pt")
    if not zipfile.is_zipfile(path):
        raise InputError(
            f"{path}: is no checkpoint, or one that was cut short; copy it again or use another "
            "checkpoint of the run"
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path}: holds something other than tensors and plain values; refused, since loading "
            "it could run code; give a checkpoint written by this project"
        ) from error
    except Exception as error:  # a damaged file fails in any of the readers below torch.load
        raise InputError(
            f"{path}: is damaged ({type(error).__name__}); copy it again or use another checkpoint "
            "of the run"
        ) from error


def load_weights_into(model: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Load `state` into `model`, all names and all shapes equal.

    Args:
        path: the file that `state` is from, for the message.

    Raises:
        InputError: the architecture differs; names the first tensors that do, with their shapes.
    """
    ours = model.state_dict()
    missing = [name for name in ours if name not in state]
    unexpected = [name for name in state if name not in ours]
    misshaped = [n for n in ours if n in state and ours[n].shape != state[n].shape]
    differences = []
    if missing:
        differences.append(
            f"{len(missing)} missing (first {missing[0]} {_shape(ours[missing[0]])})"
        )
    if unexpected:
        first = unexpected[0]
        differences.append(f"{len(unexpected)} unexpected (first {first} {_shape(state[first])})")
    if misshaped:
        first = misshaped[0]
        differences.append(
            f"{len(misshaped)} of another shape (first {first}: {_shape(state[first])} in the "
            f"file, {_shape(ours[first])} in the model)"
        )
    if differences:
        raise InputError(
            f"{path}: holds the weights of another architecture: "
            f"{'; '.join(differences)}; build the model with the backbone, stride, "
            "head and classes of the run that wrote it"
        )
    model.load_state_dict(dict(state))


def weights_digest(state: Mapping[str, Tensor]) -> str:
    """Sixteen hexadecimal digits that stand for these weights: names, shapes, types and values."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"


@dataclass
class CheckpointKeeper:
    """Which checkpoints of a run stay on disk.

    ``last.pt`` (to resume), ``best.pt`` (the highest score so far) and the newest `keep` numbered
    ``step_00001000.pt``. They share their bytes on disk where the file system has hard links.

    Attributes:
        folder: where they are.
        keep: how many numbered ones stay; 0 for none.
        best: the best score so far; give the loaded checkpoint's when resuming.
    """

    folder: Path
    keep: int = 0
    best: float | None = None

    def save(self, *, step: int, score: float | None = None, **content: Any) -> bool:
        """Write the state after `step` steps; True where it is the new best.

        Args:
            score: higher is better; None (not evaluated) and NaN are never the best.
            content: the other arguments of `save_checkpoint`.
        """
        is_best = (
            score is not None and not math.isnan(score) and (self.best is None or score > self.best)
        )
        if is_best:
            self.best = score
        numbered = self.folder / f"step_{step:08d}.pt"
        save_checkpoint(numbered, step=step, best=self.best, **content)
        # last.pt comes last: a run killed in between resumes from before this save and repeats it.
        if is_best:
            _same_file(numbered, self.folder / "best.pt")
        _same_file(numbered, self.folder / "last.pt")
        for old in self._numbered()[: -self.keep or None]:
            old.unlink()
        return is_best

    def _numbered(self) -> list[Path]:
        return sorted(self.folder.glob("step_*.pt"))


def _same_file(source: Path, path: Path) -> None:
    """Make `path` the content of `source`, atomically: a hard link, or a copy where none can be."""
    with replacing(path) as temporary:
        temporary.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            os.link(source, temporary)
            return
        shutil.copyfile(source, temporary)
