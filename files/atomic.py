"""Files that are whole or absent: written beside their place, then moved there."""

import contextlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ops.errors import InputError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends without an error.

    A reader sees the old file or the new one, never a part. The temporary name is fixed, so what a
    killed process left behind is overwritten by the next write.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """Make `folder`, to be called before work whose results go there.

    Raises:
        InputError: a file is in the way, or nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        reason = "" if os.access(folder, os.W_OK) else "nothing can be written there"
    except OSError as error:
        reason = error.strerror or str(error)
    if reason:
        raise InputError(f"{folder}: cannot be used as a folder ({reason}); choose another place")


def write_text(path: Path, text: str) -> None:
    """Write `text` in UTF-8, atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON, atomically: indented where it is a mapping, else on one line."""
    write_text(path, dump_json(value, indent=2 if isinstance(value, Mapping) else None) + "\n")


@contextlib.contextmanager
def writing_list(path: Path) -> Iterator[Callable[[Sequence[Any]], None]]:
    """A function that appends entries to a JSON list; the file is there once the block ends."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        separator = ""

        def add(entries: Sequence[Any]) -> None:
            nonlocal separator
            if entries:
                file.write(separator + dump_json(entries)[1:-1])
                separator = ",\n"

        file.write("[")
        yield add
        file.write("]\n")


def dump_json(value: Any, indent: int | None = None) -> str:
    """Strict JSON: NaN and the infinities, which it cannot say, become null."""
    try:
        return json.dumps(value, indent=indent, allow_nan=False)
    except (TypeError, ValueError):  # a NaN, or a mapping that is no dict
        return json.dumps(_without_nan(value), indent=indent, allow_nan=False)


def _without_nan(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return value


def read_json(path: Path, remedy: str) -> Any:
    """The content of a JSON file, with or without a byte order mark.

    Raises:
        InputError: no such file, not JSON, nested beyond all use, numbers of thousands of digits;
            says what the file is instead where that can be seen, and ends with a remedy.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; {remedy}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); {remedy}") from None
    try:
        return json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        problem = f"not UTF-8 at byte {error.start}; save it as UTF-8"
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        problem = f"broken JSON at {where} ({error.msg}); {remedy}"
    except RecursionError:
        problem = f"JSON nested more deeply than any program reads; {remedy}"
    except ValueError as error:  # a number of thousands of digits
        problem = f"JSON with a number that cannot be read ({error}); {remedy}"
    from files.content import known_content  # a sound file needs no explanation

    if known := known_content(path):
        problem = f"is {known[0]}; {known[1]}"
    elif not data:
        problem = f"is empty; {remedy}"
    raise InputError(f"{path}: {problem}") from None
