"""Configurations: composed from words, restored from a run, merged; and errors in one line.

Hydra takes `key=value` words and refuses those it does not know; here its answer of several lines
becomes one of ours, which names the word and the nearest that exists.
"""

import difflib
import errno
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
    sys.argv[1:] = [quoted(word, sweep="-m" in sys.argv) for word in sys.argv[1:]]
    wanted = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises its errors instead of printing them
    try:
        main()
    except HydraException as error:
        if wanted:
            raise
        print(f"error: {explain(error, config, sys.argv[1:])}", file=sys.stderr)
        sys.exit(2)
    except InputError:  # of a sweep's job, which has printed it
        sys.exit(2)


def composed(config: str, words: Sequence[str]) -> DictConfig:
    """The configuration that `words` make of `config`, for programs that are not Hydra's.

    Raises:
        InputError: a word that does not exist.
    """
    GlobalHydra.instance().clear()
    with initialize_config_dir(version_base="1.3", config_dir=str(CONFIGS)):
        try:
            return compose(config, overrides=[quoted(word) for word in words])
        except HydraException as error:
            refusal = error
    raise InputError(explain(refusal, config, words)) from refusal


# Settings that are texts whatever they look like: names, files and folders.
TEXTS = re.compile(
    r"run\.(name|dir|root)|data\.(root|\w+_annotations|\w+_folder)|proposals\.files\.\w+|"
    r"(backbone\.)?weights|checkpoint|detections|output|html"
)
SAID_OTHERWISE = ("null", "imagenet")  # values of such settings that are no texts


def quoted(word: str, sweep: bool = False) -> str:
    """A word of the command line as Hydra's grammar has to have it.

    Paths hold `=`, `,`, `(`, spaces and letters of any language, and a name such as 2024_01_05 is
    no number. What the user has quoted already, and a list of values in a sweep, stays as it is.

    Args:
        sweep: whether commas separate values that are swept over.
    """
    key, equals, value = word.partition("=")
    if not equals or word.startswith("-") or value[:1] in ("'", '"') or not value:
        return word
    home = str(Path(value).expanduser()) if value.startswith("~") else value
    is_text = TEXTS.fullmatch(key.lstrip("+")) and home not in SAID_OTHERWISE
    listed = sweep and "," in home and not Path(home).exists()
    if listed or re.match(r"(choice|range|glob|interval|shuffle|sort)\(", home):
        return word
    if not (is_text or (Path(home).exists() and "/" in home) or not _parses(f"{key}={home}")):
        return word
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", home)
    escaped += "\\" * (len(escaped) - len(escaped.rstrip("\\")))  # before the closing quote
    return f"{key}='{escaped}'"


def _parses(word: str) -> bool:
    try:
        OverridesParser.create().parse_override(word)
    except HydraException:
        return False
    return True


# What numbers may be: least, most (None: no limit), whole, and the settings. null passes.
RANGES: tuple[tuple[float, float | None, bool, tuple[str, ...]], ...] = (
    (0, None, True, ("seed", "workers", "run.keep", "schedule.warmup_steps")),
    (0, None, True, ("evaluation.loss_images", "evaluation.pictures")),
    (1, None, True, ("threads", "evaluation.batch_size", "head.fc_dim", "head.mask_dim")),
    (1, None, True, ("backbone.width", "roi.batch_per_image", "roi.detections_per_image")),
    (1, None, True, ("schedule.images_per_step", "schedule.accumulate", "schedule.steps")),
    (1, None, True, ("schedule.eval_every", "schedule.checkpoint_every", "schedule.log_every")),
    (1, None, True, ("proposals.rpn.batch_per_image",)),
    (1, None, True, ("proposals.rpn.pre_nms", "proposals.rpn.post_nms")),
    (0, None, False, ("schedule.lr", "schedule.gamma", "schedule.clip_norm")),
    (0, None, False, ("schedule.weight_decay", "schedule.bias_decay", "schedule.norm_decay")),
    (0, None, False, ("proposals.anchors.sizes", "proposals.anchors.aspect_ratios")),
    (0, 1, False, ("schedule.warmup_factor", "backbone.dropout")),
    (0, 1, False, ("roi.positive_fraction", "roi.positive_from")),
    (0, 1, False, ("roi.score_threshold", "roi.nms_iou")),
    (0, 1, False, ("proposals.rpn.positive_fraction", "proposals.rpn.nms_iou")),
    (0, 1, False, ("proposals.rpn.negative_below", "proposals.rpn.positive_from")),
)


def check_settings(cfg: DictConfig) -> None:
    """Numbers without sense are refused before anything is opened.

    Raises:
        InputError: the first setting outside its range, with the range.
    """
    for least, most, whole, keys in RANGES:
        kind = f"{'a whole number' if whole else 'a number'} from {least}"
        kind += "" if most is None else f" to {most}"
        for key in keys:
            value = OmegaConf.select(cfg, key, throw_on_missing=False)
            for number in value if OmegaConf.is_list(value) else [value]:
                if number is not None and not _fits(number, least, most, whole):
                    raise InputError(f"{key}={value}: give {kind}")


def _fits(value: Any, least: float, most: float | None, whole: bool) -> bool:
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
        return False
    return least <= value and (most is None or value <= most)


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
    except BrokenPipeError:  # as of `| head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        if _in_a_sweep():
            raise
        where = error.filename or "reading or writing"
        print(f"error: {where}: {error.strerror or error}; {_mend(error)}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if not _in_a_sweep():
            raise
        # Told here, because Hydra tells of the first failure alone, at the end; and raised as plain
        # text, because not every error survives the way back from a launcher's process.
        traceback.print_exc()
        raise RuntimeError(f"{type(error).__name__}: {error}") from None


def _mend(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "make room, then give the same command again"
    return "check the path and its permissions, then give the same command again"


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
