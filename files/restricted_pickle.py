"""Pickles, read without running anything they carry.

A pickle is a program. This reader gives it numeric NumPy arrays and plain containers to build, and
nothing else: whatever other name it asks for is refused before it is looked up.
"""

import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

NUMERIC_KINDS = "biuf"


class Refused(pickle.UnpicklingError):
    """The pickle asks for more than arrays and containers; the text names it."""


def load_pickle(path: Path) -> Any:
    """The content of the pickle at `path`; strings of Python 2 are read as Latin-1.

    Raises:
        Refused: a name outside the few that arrays need, or an array of Python objects.
        Exception: any other, for a file that is damaged or no pickle at all.
    """
    with path.open("rb") as file:
        return _Reader(file, encoding="latin1").load()


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        # NumPy 2 moved numpy.core to numpy._core; files carry the spelling of their writer.
        admitted = ADMITTED.get((module.replace("numpy._core", "numpy.core"), name))
        if admitted is None:
            raise Refused(f"{module}.{name}")
        return admitted


def _dtype(*arguments: Any) -> np.dtype:
    dtype = np.dtype(*arguments)
    if dtype.kind not in NUMERIC_KINDS:
        raise Refused(f"an array of {dtype}")
    return dtype


def _reconstruct(kind: Any, shape: tuple[int, ...], typecode: Any) -> np.ndarray:
    """An empty array, whose content the pickle then states."""
    if kind is not np.ndarray:
        raise Refused(f"an array of the type {kind}")
    return np.empty(0, dtype=np.uint8)


def _from_buffer(
    buffer: Any, dtype: np.dtype, shape: tuple[int, ...], order: Any = "C"
) -> np.ndarray:
    return np.frombuffer(buffer, dtype=dtype).reshape(shape, order=order)


def _scalar(dtype: np.dtype, content: Any) -> Any:
    raw = content.encode("latin1") if isinstance(content, str) else content
    return np.frombuffer(raw, dtype=dtype)[0]


def _encode(text: str, encoding: str) -> bytes:
    """How Python 3 writes bytes for readers of Python 2."""
    if encoding not in ("latin1", "latin-1"):
        raise Refused(f"_codecs.encode to {encoding}")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    """How Python 3 writes empty bytes for readers of Python 2."""
    return b""


ADMITTED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): _dtype,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): _no_bytes,
    ("collections", "OrderedDict"): OrderedDict,
}
