"""Pickles of arrays are read in every spelling; whatever else they ask for is refused, unrun."""

import os
import pickle
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.weight_files import read_weight_file
from models.weights import structure_of
from ops.errors import InputError


class Calls:
    """Pickles as a call of `function`."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as error:
        read_weight_file(path)
    text = str(error.value)
    assert text.startswith(str(path))
    assert "\n" not in text
    return text


def written(path: Path, content: Any, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_come_back_from_every_protocol(tmp_path: Path, protocol: int) -> None:
    arrays = OrderedDict(
        a=np.arange(12, dtype=np.float32).reshape(3, 4),
        columns_first=np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        empty=np.zeros((0, 4), dtype=np.float16),
        count=np.array(7, dtype=np.int64),
        scalar=np.float32(2.5),
    )
    read = read_weight_file(written(tmp_path / "a.pkl", {"model": arrays}, protocol))["model"]
    assert list(read) == list(arrays)
    for name, array in arrays.items():
        assert read[name].dtype == array.dtype
        assert np.array_equal(read[name], array)


def test_both_spellings_of_numpys_core_are_read(tmp_path: Path) -> None:
    content = pickle.dumps({"a": np.arange(3)}, protocol=2)
    spellings = {content.replace(b"numpy._core", b"numpy.core")}
    spellings.add(next(iter(spellings)).replace(b"numpy.core", b"numpy._core"))
    assert len(spellings) == 2
    for spelling in spellings:
        (tmp_path / "a.pkl").write_bytes(spelling)
        assert read_weight_file(tmp_path / "a.pkl")["a"].tolist() == [0, 1, 2]


def test_strings_of_python_2_are_latin_1(tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(b"\x80\x02}U\x05conv1U\x01\xe9s.")
    assert read_weight_file(tmp_path / "a.pkl") == {"conv1": "\xe9"}


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda mark: Calls(os.mkdir, str(mark)), "mkdir"),
        (lambda mark: Calls(eval, f"open({str(mark)!r}, 'w')"), "eval"),
        (lambda mark: Calls(exec, f"open({str(mark)!r}, 'w')"), "exec"),
        (lambda mark: Calls(np.load, str(mark)), "numpy.*load"),
        (lambda mark: Calls(np.fromfile, str(mark)), "fromfile"),
        (lambda mark: Path(mark), "Path"),
        (lambda mark: np.array([Path(mark)], dtype=object), "object"),
        (lambda mark: np.zeros(2, dtype=[("x", "f4")]), "array of .V4"),
    ],
)
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pickle_that_asks_for_more_is_refused_by_name(
    tmp_path: Path, make: Any, name: str, protocol: int
) -> None:
    mark = tmp_path / "ran"
    arrays = {"conv1.weight": np.zeros(3, dtype=np.float32), "evil": make(mark)}
    text = refusal(written(tmp_path / "evil.pkl", {"model": arrays}, protocol))
    assert "refused" in text
    assert re.search(name, text)
    assert not mark.exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pytorch_file_that_asks_for_more_is_refused_by_name(tmp_path: Path, zipped: bool) -> None:
    mark = tmp_path / "ran"
    evil = {"model": {"a": torch.zeros(2)}, "evil": Calls(eval, f"open({str(mark)!r}, 'w')")}
    torch.save(evil, tmp_path / "evil.pth", _use_new_zipfile_serialization=zipped)
    text = refusal(tmp_path / "evil.pth")
    assert "refused" in text
    assert "eval" in text
    assert not mark.exists()


@pytest.mark.parametrize("kind", ["zip", "old", "pickle"])
def test_a_file_that_was_cut_short_is_named(tmp_path: Path, kind: str) -> None:
    whole, path = tmp_path / "whole", tmp_path / "cut.pth"
    state = {"conv1.weight": torch.arange(5000.0)}
    if kind == "pickle":
        written(whole, {"model": {name: t.numpy() for name, t in state.items()}})
    else:
        torch.save(state, whole, _use_new_zipfile_serialization=kind == "zip")
    content = whole.read_bytes()
    assert "conv1.weight" in str(read_weight_file(whole).keys()) or kind == "pickle"
    for length in (1, 10, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        assert "no file of weights, or is damaged" in refusal(path)


def test_empty_files_folders_and_other_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty.pkl").touch()
    (tmp_path / "text.pkl").write_text("model: resnet\n")
    assert "is empty" in refusal(tmp_path / "empty.pkl")
    assert "is damaged" in refusal(tmp_path / "text.pkl")
    assert "is a folder" in refusal(tmp_path)
    assert "no such file" in refusal(tmp_path / "none.pkl")
    assert "holds a list" in refusal(written(tmp_path / "list.pkl", [1]))


def test_a_file_of_no_known_kind_shows_its_first_names(tmp_path: Path) -> None:
    path = written(tmp_path / "other.pkl", {"model": {"blocks.0.qkv": np.zeros(3)}})
    with pytest.raises(InputError, match=r"of no known kind \(it begins with blocks\.0\.qkv\)"):
        structure_of(str(path))
