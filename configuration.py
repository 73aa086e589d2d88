"""Configurations: composed from words, restored from a run, merged; and errors in one line.

Hydra takes `key=value` words and refuses those it does not know; here its answer of several lines
becomes one of ours, which names the word and the nearest that exists.
"""

import difflib
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from ops.errors import InputError

CONFIGS = Path(__file__).resolve().parent / "configs"
HOW_NEAR = 0.75  # of difflib's ratio: below, a guess would rather mislead
# What a configuration saved by an earlier version does not state.
UNSTATED = {"proposals": {"files": None}, "proposals_only": False}


def run_command(main: Callable[[], Any], config: str) -> None:
    """Run a function of `hydra.main`; a word it does not know is one line and exit status 2.

    Args:
        main: the decorated function.
        config: the name of its configuration.
    """
    wanted = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises its errors instead of printing them
    try:
        main()
    except HydraException as error:
        if wanted:
            raise
        print(f"error: {explain(error, config, sys.argv[1:])}", file=sys.stderr)
        sys.exit(2)
    except InputError:  # of a sweep's job, which has told it
        sys.exit(2)


def composed(config: str, words: Sequence[str]) -> DictConfig:
    """The configuration that `words` make of `config`, for programs that are not Hydra's.

    Raises:
        InputError: a word that does not exist.
    """
    GlobalHydra.instance().clear()
    with initialize_config_dir(version_base="1.3", config_dir=str(CONFIGS)):
        try:
            return compose(config, overrides=list(words))
        except HydraException as error:
            told = error
    raise InputError(explain(told, config, words)) from told


def explain(error: HydraException, config: str, words: Sequence[str]) -> str:
    """Hydra's `error` about the command line `words` in one line, with a remedy."""
    text = str(error)
    if found := re.search(r"Could not override '([^']+)'", text):
        key = found[1]
        return f"{key}: no such setting{_near(key, _known(config, key, words))}"
    if found := re.search(r"Could not find '([^']+)'\s+Available options in '([^']+)'", text):
        group, name = found[2], found[1].removeprefix(f"{found[2]}/")
        return f"{group}={name}: no such choice{_near(name, _choices(group, text))}"
    return " ".join(re.sub(r"See https?://\S+ for details", "", text).split())


def _near(word: str, known: list[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1, cutoff=HOW_NEAR)
    if near:
        return f"; did you mean {near[0]}?"
    if len(known) <= 12:
        return f"; choose one of {', '.join(known)}"
    return "; --help lists what there is"


def _choices(group: str, told: str) -> list[str]:
    """The files of a group, those in its folders too, which Hydra's list leaves out."""
    files = sorted((CONFIGS / group).rglob("*.yaml"))
    names = [file.relative_to(CONFIGS / group).with_suffix("").as_posix() for file in files]
    return names or re.findall(r"^\t(\S+)$", told, re.MULTILINE)


def _known(config: str, unknown: str, words: Sequence[str]) -> list[str]:
    """Every setting that exists under the other `words`, or else without any."""
    others = [word for word in words if "=" in word and word.partition("=")[0] != unknown]
    for attempt in (others, []):
        GlobalHydra.instance().clear()
        with initialize_config_dir(version_base="1.3", config_dir=str(CONFIGS)):
            try:
                cfg = compose(config, overrides=attempt)
            except HydraException:  # a sweep's lists of values, or another word that is wrong
                continue
        groups = [folder.name for folder in CONFIGS.iterdir() if folder.is_dir()]
        return [*_keys(OmegaConf.to_container(cfg)), *groups]
    return []


def _keys(tree: Any, prefix: str = "") -> Iterator[str]:
    """Dotted names of every node of a tree, inner ones too."""
    for key, value in tree.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _keys(value, f"{prefix}{key}.")


def command_line(action: Callable[[], Any]) -> Any:
    """Run `action`; a user's mistake becomes one line and exit status 2, not a traceback.

    In a sweep it is raised instead, so that Hydra marks the job and goes on with the others.
    """
    try:
        return action()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        if _in_a_sweep():
            raise
        sys.exit(2)
    except Exception as error:
        if not _in_a_sweep():
            raise
        # Told here, because Hydra tells of the first failure alone, at the end; and raised as plain
        # text, because not every error survives the way back from a launcher's process.
        traceback.print_exc()
        raise RuntimeError(f"{type(error).__name__}: {error}") from None


def _in_a_sweep() -> bool:
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def saved_config(text: str) -> DictConfig:
    """The configuration that a checkpoint or a run's config.yaml holds."""
    return OmegaConf.merge(UNSTATED, OmegaConf.create(text))  # type: ignore[return-value]


# Groups that set more than the node of their name: of a trained network only part could act.
OF_TRAINING = ("backbone", "experiment", "recipe", "schedule")


def with_overrides(saved: DictConfig, fresh: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """`saved`, with every setting or group that `overrides` names taken from `fresh`.

    Raises:
        InputError: a group that says how a network is trained, which it already is.
    """
    merged = OmegaConf.create(OmegaConf.to_yaml(saved))
    OmegaConf.set_struct(merged, False)
    absent = object()  # null is a value like any other
    for key in ("checkpoint", "detections", "output"):
        OmegaConf.update(merged, key, fresh.get(key))
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        key = override.key_or_group.replace("/", ".")
        if key in OF_TRAINING:
            raise InputError(
                f"{key}={override.get_value_element_as_str()}: says how a network is trained, and "
                "this one is; leave it out, and set what evaluation uses by itself, such as "
                "roi.nms_iou=0.3"
            )
        value = OmegaConf.select(fresh, key, default=absent)
        if value is not absent and not key.startswith("hydra"):
            OmegaConf.update(merged, key, value, merge=False)
    return merged  # type: ignore[return-value]


def plain(node: DictConfig) -> dict[str, Any]:
    """A configuration node as a plain dict, references resolved."""
    return OmegaConf.to_container(node, resolve=True)  # type: ignore[return-value]
