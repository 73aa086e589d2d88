"""A run's folder on disk: what is in it, whether it is new, unfinished or finished.

A folder never mixes two runs: the configuration it was made with is in it, and another is refused.
"""

import fcntl
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import yaml

from files.atomic import make_folder, read_json, write_json, write_text
from ops.errors import InputError

# What a run writes beside config.yaml, and so what overwriting it may remove.
OWN_FILES = (
    "metrics.json",
    "FAILED",
    "metrics.jsonl",
    "detections.json",
    "matches.npz",
    "events.out.tfevents.*",
    "checkpoints/*.pt",
    "checkpoints/.*.tmp",
    ".*.tmp",
)
# What may lie in a new run's folder: the lock, and Hydra's record of the command.
NEUTRAL_FILES = (".lock", ".hydra", "*.log", ".*.tmp")


@dataclass(frozen=True)
class RunFolder:
    """The one folder of a run, held by this process until `close` or the process's end.

    Attributes:
        path: the folder.
        state: "new" (nothing but config.yaml), "unfinished" (resume from `last_checkpoint`, where
            there is one) or "finished" (`read_metrics` has its result).
    """

    path: Path
    state: Literal["new", "unfinished", "finished"]
    _lock: IO[str]

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        """The final figures; written last of all, so that its presence means "finished"."""
        return self.path / "metrics.json"

    @property
    def failed(self) -> Path:
        """Why the last attempt ended, in one line; there only until the run is started again."""
        return self.path / "FAILED"

    @property
    def detections(self) -> Path:
        return self.path / "detections.json"

    @property
    def matches(self) -> Path:
        """What came of each detection: see `judging.matches`."""
        return self.path / "matches.npz"

    @property
    def history(self) -> Path:
        """Every scalar of the training, one JSON object a line."""
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def last_checkpoint(self) -> Path:
        return self.checkpoints / "last.pt"

    @property
    def best_checkpoint(self) -> Path:
        return self.checkpoints / "best.pt"

    @staticmethod
    def open(
        path: Path,
        config_text: str,
        *,
        overwrite: bool = False,
        wait: bool = False,
        ignore: Sequence[str] = ("run.overwrite",),
        ignore_finished: Sequence[str] = (),
    ) -> "RunFolder":
        """Create the folder, or find out how far the run in it came. One process at a time.

        Args:
            config_text: the run's whole configuration as YAML.
            overwrite: remove the files of an earlier run first.
            wait: where another process writes this run, wait until it ends.
            ignore: settings that do not make another run, by dotted name or group of names.
            ignore_finished: further ones that do not where the run has finished.

        Raises:
            InputError: the folder is another process's, holds a run of another configuration, or
                holds files that are no run's.
        """
        make_folder(path)
        lock = _take_lock(path, wait)
        try:
            state = _examine(path, config_text, overwrite, ignore, ignore_finished)
        except BaseException:
            lock.close()
            raise
        folder = RunFolder(path, state, lock)
        folder.failed.unlink(missing_ok=True)
        return folder

    def read_metrics(self) -> dict[str, Any]:
        """The finished run's figures."""
        return read_json(self.metrics, "remove it to evaluate again")

    def write_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Mark the run finished: to be called after everything else is written."""
        write_json(self.metrics, metrics)

    def close(self) -> None:
        """Let other processes have the folder."""
        self._lock.close()

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        """Let the folder go; an error that ended the run is left in it. Ctrl-C is no failure."""
        if isinstance(error, Exception) and not self.metrics.exists():
            kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
            write_text(self.failed, kind + " ".join(str(error).split()) + "\n")
        self.close()


def _take_lock(path: Path, wait: bool) -> IO[str]:
    # A record lock, not flock: data workers forked from a killed run must not keep its lock.
    handle = (path / ".lock").open("a+")
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        handle.seek(0)
        owner = handle.read().strip() or "unknown"
        if not wait:
            handle.close()
            raise InputError(
                f"{path}: another process (pid {owner}) is writing this run; wait for it (also "
                "with run.wait=true) or choose another run.name"
            ) from error
        print(f"{path}: waits for process {owner}, which is writing this run", flush=True)
        fcntl.lockf(handle, fcntl.LOCK_EX)
    handle.truncate(0)
    handle.write(str(os.getpid()))
    handle.flush()
    return handle


def _examine(
    path: Path,
    config_text: str,
    overwrite: bool,
    ignore: Sequence[str],
    ignore_finished: Sequence[str],
) -> Literal["new", "unfinished", "finished"]:
    config = path / "config.yaml"
    if not config.exists():
        foreign = sorted(p.name for p in path.iterdir() if not _matches(p, NEUTRAL_FILES))
        if foreign:
            raise InputError(
                f"{path}: is not empty and no run's folder (no config.yaml, but {foreign[0]}); "
                "choose another run.name or empty it yourself"
            )
    elif overwrite:
        _remove_run(path)
    else:
        finished = (path / "metrics.json").exists()
        _check_same(path, config, config_text, (*ignore, *(ignore_finished if finished else ())))
        return "finished" if finished else "unfinished"
    write_text(config, config_text)
    return "new"


def _matches(path: Path, patterns: Sequence[str]) -> bool:
    return any(path.match(pattern) for pattern in patterns)


def _remove_run(path: Path) -> None:
    """Remove what a run writes and nothing else, first of all what says that it is finished."""
    for pattern in OWN_FILES:
        for file in path.glob(pattern):
            file.unlink()


def _check_same(path: Path, config: Path, config_text: str, ignore: Sequence[str]) -> None:
    try:
        there = flatten(yaml.safe_load(config.read_text()))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(
            f"{config}: is not readable YAML; choose another run.name or set run.overwrite=true"
        ) from error
    here = flatten(yaml.safe_load(config_text))
    absent = "(not set)"
    different = {
        key: f"{key}: {there.get(key, absent)} there, {here.get(key, absent)} now"
        for key in {**there, **here}
        if there.get(key, absent) != here.get(key, absent)
        and not any(key == name or key.startswith(f"{name}.") for name in ignore)
    }
    if different:
        more = f" and {len(different) - 3} more" if len(different) > 3 else ""
        texts = "; ".join(list(different.values())[:3])
        words = " ".join(f"{key}={_word(there[key])}" for key in different if key in there)
        go_on = f"give {words} to go on with it, " if len(different) <= 3 and words else ""
        raise InputError(
            f"{path}: holds a run of another configuration ({texts}{more}); {go_on}"
            "choose another run.name or set run.overwrite=true"
        )


def _word(value: Any) -> str:
    """A setting's value as one types it."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, keys joined by dots; lists stay values."""
    if not isinstance(tree, Mapping) or not tree:
        return {prefix: tree}
    items: dict[str, Any] = {}
    for key, value in tree.items():
        items |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return items
