"""Files of weights as they lie on disk: zipped and older PyTorch files, and pickles."""

import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ops.errors import InputError
from ops.restricted_pickle import Refused, load_pickle

# What PyTorch before 1.6 begins a file with: a pickled number of its own.
OLD_TORCH = bytes.fromhex("8a0a6cfc9c46f920")


def read_weight_file(path: Path) -> Mapping[str, Any]:
    """The mapping that the file holds; runs nothing that the file may carry.

    Raises:
        InputError: no such file, empty, cut short, or holding more than arrays and containers.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "no such file"
        raise InputError(f"{path}: {what}; give a path to a file of weights")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: is empty, not a state dict; download it again")
    try:
        content = _load(path)
    except Refused as refused:
        raise _unsafe(path, str(refused)) from refused
    except Exception as error:  # a damaged file fails in any of the readers
        name = re.search(r"GLOBAL (\S+)", str(error))
        if isinstance(error, pickle.UnpicklingError) and name:
            raise _unsafe(path, name[1]) from error
        raise InputError(
            f"{path}: is no file of weights, or is damaged ({type(error).__name__}); download it "
            "again, or give a state dict in a .pth, .pt or .pkl file"
        ) from error
    if not isinstance(content, Mapping):
        raise InputError(
            f"{path}: holds a {type(content).__name__}, not weights by name; give a state dict"
        )
    return content


def _load(path: Path) -> Any:
    if zipfile.is_zipfile(path):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    with path.open("rb") as file:
        start = file.read(16)
    if OLD_TORCH in start:
        return torch.load(path, map_location="cpu", weights_only=True)
    return load_pickle(path)


def _unsafe(path: Path, name: str) -> InputError:
    return InputError(
        f"{path}: asks for {name}, which weights do not need; refused, since loading it could run "
        "code; give a file of arrays alone"
    )
