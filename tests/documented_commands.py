"""Whether a command of a document can be run: its words are composed or parsed, nothing is done."""

import argparse
import contextlib
import importlib
import io
import re
import shlex
import sys
import warnings
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from documents import PROJECT, read
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf

from build import build_model, with_structure
from configuration import composed
from models.network import LOADED_LATER
from ops.errors import InputError
from scripts import ablation


class _Stop(BaseException):
    """Ends a script once its command line is parsed."""


@cache
def refusal(*command: str) -> str | None:
    """Why a command, its program and words, cannot be run; None for one that can."""
    program, *words = command
    check = PROGRAMS.get(Path(program).name)
    if check is None:
        return f"{program}: no program that the documents should need"
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(PROJECT)
            check(words)
    except (InputError, ValueError, HydraException) as error:
        return str(error)
    return None


def _need(good: bool, why: str) -> None:
    if not good:
        raise ValueError(why)


def _check_python(words: list[str]) -> None:
    file, *words = words
    if file == "-m":
        PROGRAMS[words[0]](words[1:])
        return
    _need(Path(file).is_file(), f"{file}: no such file")
    config = re.search(r'config_name="(\w+)"', read(file))
    if config:
        _check_settings(config[1], file, words)
    elif not file.startswith("tests/"):
        _check_script(file, words)


def _check_script(file: str, words: list[str]) -> None:
    given = _parsed(file, words)
    if file == "scripts/ablation.py":
        _check_ablation(words)
    if file == "scripts/import_weights.py" and given.out.suffix == ".pt":
        _check_settings("train", "train.py", given.overrides)


# Hydra's command lines


def _check_settings(config: str, file: str, words: list[str]) -> None:
    """Compose what the words ask for and build its network; of a sweep, of every value."""
    flags = {word for word in words if word.startswith("-")}
    _need(flags <= {"-m", "--help"}, f"{file}: does not know {', '.join(flags)}")
    words = [word for word in words if word not in flags]
    launcher = next(
        (w.partition("=")[2] for w in words if w.startswith("hydra/launcher=")), "basic"
    )
    if launcher not in ablation.LAUNCHERS:  # a package that the project does without
        words = [word for word in words if not word.startswith("hydra")]
    overrides = OverridesParser.create().parse_overrides(words)
    sweeps = [override for override in overrides if override.is_sweep_override()]
    _need("-m" in flags or not sweeps, f"{file}: takes several values only with -m")
    fixed = [override.input_line for override in overrides if override not in sweeps]
    if sweeps:
        composed(config, fixed)  # which Hydra does first
    values = [[f"{o.key_or_group}={v}" for v in o.sweep_string_iterator()] for o in sweeps]
    for job in range(max(map(len, values), default=1)):  # every value once, not with every other
        _check_job(config, [*fixed, *(each[job % len(each)] for each in values)])


def _check_job(config: str, words: list[str]) -> None:
    cfg = composed(config, words)
    if config == "evaluate":
        given = [cfg.checkpoint, cfg.detections, cfg.weights]
        _need(any(given), "give checkpoint=, detections= or weights=")
    missing = OmegaConf.missing_keys(cfg)
    _need(not missing, f"{', '.join(missing)} is not set")
    if cfg.weights is None and cfg.backbone.weights in (None, "imagenet"):
        cfg = with_structure(cfg)
    OmegaConf.update(cfg, "backbone.weights", LOADED_LATER)
    with torch.device("meta"):
        build_model(cfg, 80)


# Other command lines


def _parsed(file: str, words: list[str]) -> argparse.Namespace:
    """What a script's parser makes of the words; the script goes no further."""
    found: list[argparse.Namespace] = []

    def stopping(parse: Callable[..., argparse.Namespace]) -> Callable[..., None]:
        def stop(*arguments: Any) -> None:
            found.append(parse(*arguments))
            raise _Stop

        return stop

    module = importlib.import_module(file.removesuffix(".py").replace("/", "."))
    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(_Stop):
        patch.setattr(sys, "argv", [file, *words])
        for name in ("parse_args", "parse_intermixed_args"):
            parse = getattr(argparse.ArgumentParser, name)
            patch.setattr(argparse.ArgumentParser, name, stopping(parse))
        _without_exit(module.main)
    _need(bool(found), f"{file}: does not parse its command line")
    return found[0]


def _without_exit(action: Callable[[], Any]) -> None:
    """Run `action`; where a parser ends the program, its last line says why."""
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            action()
    except SystemExit:
        raise ValueError(errors.getvalue().strip().rpartition("\n")[2]) from None


def _check_ablation(words: list[str]) -> None:
    """The ablation's check of its words, and the first command that it stands for."""
    shown, errors = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["scripts/ablation.py", *words, "--show"])
        with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(errors):
            status = ablation.main()
    _need(status == 0, errors.getvalue())
    _check_python(shlex.split(shown.getvalue().splitlines()[0])[1:])


def _check_tensorboard(words: list[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the packages that come with it
        from tensorboard import program

        board = program.TensorBoard()
        _without_exit(lambda: board.configure(argv=["tensorboard", *words]))


def _check_pip(words: list[str]) -> None:
    _need(words[0] == "install", f"pip {words[0]}: not a command to document")
    for option, name in pairwise(words):
        _need(option != "-r" or Path(name).is_file(), f"{name}: no such list of packages")


def _check_pytest(words: list[str]) -> None:
    for option, name in pairwise(words):
        known = option != "-m" or f'"{name}: ' in read("pyproject.toml")
        _need(known, f"pytest -m {name}: no such mark")


def _check_venv(words: list[str]) -> None:
    _need(len(words) == 1, "venv: takes one folder")


PROGRAMS: dict[str, Callable[[list[str]], None]] = {
    "python": _check_python,
    "python3": _check_python,
    "tensorboard": _check_tensorboard,
    "pip": _check_pip,
    "pytest": _check_pytest,
    "venv": _check_venv,
}
