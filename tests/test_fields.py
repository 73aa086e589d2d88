"""What tools of many origins write into annotation files: understood where clear, or refused."""

import contextlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_coco
from hypothesis import given
from hypothesis import strategies as st

from data.coco import CocoDataset
from data.fields import FIELDS, as_markdown, flag, number, text, whole_number
from ops.errors import InputError

PROJECT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(
    ("value", "expected"),
    [(7, 7), (7.0, 7), ("7", 7), (" 7 ", 7), (-3, -3), (2**63 - 1, 2**63 - 1), (True, None)]
    + [(x, None) for x in (7.5, "7.5", "seven", "", None, [], 2**63, 10**400, 1e300, math.nan)],
)
def test_whole_numbers(value: Any, expected: int | None) -> None:
    if expected is not None:
        assert whole_number(value) == expected
        return
    with pytest.raises(ValueError, match=r"^(is|does|invalid)"):
        whole_number(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, False), (1, True), (0.0, False), ("0", False), ("1", True), ("false", False)]
    + [("True", True), ("no", False), (None, False), (False, False), (True, True), ("", False)]
    + [(x, None) for x in (2, -1, "maybe", "2", [], {}, 0.5)],
)
def test_flags_are_not_true_for_any_text(value: Any, expected: bool | None) -> None:
    if expected is not None:
        assert flag(value) is expected
        return
    with pytest.raises(ValueError, match="neither 0 nor 1"):
        flag(value)


def test_texts_and_numbers() -> None:
    assert (text("cup"), text(7), number("1.5"), number(2)) == ("cup", "7", 1.5, 2.0)
    for wrong in (None, True, "", "  ", []):
        with pytest.raises(ValueError, match="is no text"):
            text(wrong)
    for wrong in (None, True, "x", [], math.inf, 10**400):
        with pytest.raises(ValueError):  # noqa: PT011 - the messages are those of float()
            number(wrong)


@given(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.none()))
)
def test_every_field_reads_a_value_or_says_what_is_wrong(value: Any) -> None:
    for field in FIELDS:
        if field.name != "segmentation":
            with contextlib.suppress(ValueError):  # any other error fails
                field.read(value)


def _changed(**changes: Any) -> dict[str, Any]:
    content = small_coco.document()
    content["annotations"][0].update(changes)
    return content


def test_ids_and_numbers_as_text_mean_the_same(tmp_path: Path) -> None:
    content = small_coco.document()
    for entry in (*content["images"], *content["annotations"], *content["categories"]):
        entry.update({k: str(v) for k, v in entry.items() if isinstance(v, int)})
        entry.update({k: [str(x) for x in v] for k, v in entry.items() if k == "bbox"})
    plain = small_coco.read(tmp_path / "plain", small_coco.document())
    assert small_coco.read(tmp_path / "texts", content).ground_truth() == plain.ground_truth()


@pytest.mark.parametrize("iscrowd", ["0", "false", 0.0, None])
def test_no_text_makes_a_crowd(tmp_path: Path, iscrowd: Any) -> None:
    assert len(small_coco.read(tmp_path, _changed(iscrowd=iscrowd)).read(0).target.boxes) == 1


def test_an_unclear_flag_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"annotation 11 has the iscrowd 'maybe', which is neither"
    ):
        small_coco.read(tmp_path, _changed(iscrowd="maybe"))


@pytest.mark.parametrize("area", [-5, "large", math.nan, [1]])
def test_an_area_of_no_use_is_computed_and_listed(tmp_path: Path, area: Any) -> None:
    dataset = small_coco.read(tmp_path, _changed(area=area))
    assert dataset.ground_truth()["annotations"][0]["area"] == 64
    assert (
        "an area that is no number from 0, computed from its outline (id 11)" in dataset.describe()
    )


@pytest.mark.parametrize("far", [2e8, -1e12, 1e300])
def test_a_point_far_outside_is_cut_to_the_surroundings(tmp_path: Path, far: float) -> None:
    ring = [4.0, 4.0, far, 8.0, 4.0, 12.0]
    dataset = small_coco.read(tmp_path, _changed(segmentation=[ring]))
    assert "a ring that reaches far outside its image, cut" in dataset.describe()
    (kept,) = dataset.read(0).target.masks[0].rings
    assert np.abs(kept).max() <= 60  # the image is 20 x 30: itself and as much again on each side


def test_an_annotation_far_outside_the_image_is_left_out(tmp_path: Path) -> None:
    ring = [1e6, 1e6, 1e6 + 9, 1e6, 1e6, 1e6 + 9]
    dataset = small_coco.read(tmp_path, _changed(segmentation=[ring]))
    assert dataset.problems.count() == 1


@pytest.mark.parametrize("name", ["../two.png", "/etc/passwd", "a/../../two.png"])
def test_names_that_lead_out_of_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    content = small_coco.document()
    content["images"][1]["file_name"] = name
    with pytest.raises(InputError, match=r"image 2 .* leads out of .*data\.allow_outside=true"):
        small_coco.read(tmp_path, content)


def test_links_that_lead_out_of_the_folder_are_refused_by_default(tmp_path: Path) -> None:
    path = small_coco.write(tmp_path / "set", small_coco.document())
    image = path.parent / "images/two.png"
    image.rename(tmp_path / "elsewhere.png")
    image.symlink_to(tmp_path / "elsewhere.png")
    with pytest.raises(InputError, match=r"two\.png: is a link that leads out"):
        small_coco.read(path.parent)
    assert len(small_coco.read(path.parent, allow_outside=True)) == 2


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"PK\x03\x04xxxx", "is a ZIP archive; unpack it"),
        (b"\x1f\x8b\x08xx", "compressed by gzip; unpack it"),
        (b"<!DOCTYPE html><html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"", "is empty"),
        (b"[" * 100_000, "nested more deeply"),
        (b'{"images": ' + b"9" * 5000 + b"}", "a number that cannot be read"),
        (b"\xff\xfe[\x00", "not UTF-8 at byte 0"),
    ],
)
def test_files_that_are_something_else_are_named(
    tmp_path: Path, data: bytes, expected: str
) -> None:
    path = small_coco.write(tmp_path, "[]")
    path.write_bytes(data)
    with pytest.raises(InputError) as error:
        CocoDataset(annotations=path, images=tmp_path / "images")
    assert expected in str(error.value) and "\n" not in str(error.value)


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    path = small_coco.write(tmp_path, small_coco.document())
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"}, ", b"},\r\n"))
    assert len(CocoDataset(annotations=path, images=tmp_path / "images")) == 2


def test_the_document_shows_the_table_that_the_reader_uses() -> None:
    assert as_markdown() in (PROJECT / "docs/data.md").read_text(encoding="utf-8")
