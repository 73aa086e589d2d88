"""A bad annotation is left out and listed; a doubtful file is refused in one line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import small_coco

from data.coco import CocoDataset, Selection, coco_data
from ops.errors import InputError


def refusal(folder: Path, content: dict[str, Any] | str | None = None, **options: Any) -> str:
    """The one line with which the data set is refused."""
    with pytest.raises(InputError) as caught:
        small_coco.read(folder, content, **options)
    text = str(caught.value)
    assert "\n" not in text
    return text


# What is left out


def _box(*box: float) -> Callable[[dict[str, Any]], None]:
    return lambda annotation: annotation.update(bbox=list(box))


def _outline(segmentation: object) -> Callable[[dict[str, Any]], None]:
    return lambda annotation: annotation.update(segmentation=segmentation)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_box(4, 4, 0, 8), "a box of no size"),
        (_box(4, 4, 8, -1), "a box of no size"),
        (_box(4, 4, 1e-9, 8), "a box of no size"),
        (_box(19.9999999, 4, 8, 8), "a box outside the image"),
        (_box(20, 4, 8, 8), "a box outside the image"),
        (_box(-9, 4, 8, 8), "a box outside the image"),
        (_box(4, float("nan"), 8, 8), "a box of non-finite numbers"),
        (_box(4, 4, float("inf"), 8), "a box of non-finite numbers"),
        (_box(4, 4, 8), "no box of four numbers"),
        (lambda annotation: annotation.pop("bbox"), "no box of four numbers"),
        (_outline([[1, 1, 5, 5]]), "a polygon of fewer than three points"),
        (_outline([[1, 1, 5, 5, 9]]), "a polygon of an odd count of numbers"),
        (_outline([[1, 1, 5, 5, 9, 9]]), "a polygon of no area"),
        (_outline([[1, 1, 5, float("nan"), 9, 7]]), "a polygon of non-finite numbers"),
        (_outline([["a"] * 6]), "a polygon that is not a list of numbers"),
        (_outline([]), "an empty segmentation"),
        (_outline("text"), "a segmentation that is neither polygons nor RLE"),
        (_outline({"size": [30, 20], "counts": [600]}), "an empty RLE"),
        (_outline({"size": [30, 20], "counts": [599, 2]}), "does not add up to its image"),
        (_outline({"size": [20, 30], "counts": [300, 300]}), "an RLE of another size"),
        (_outline({"size": [30, 20], "counts": "zz\u00e9"}), "a damaged RLE"),
        (_outline({"counts": [300, 300]}), "an RLE of another size"),
    ],
)
def test_one_bad_annotation_is_left_out_counted_and_listed(
    tmp_path: Path, spoil: Callable[[dict[str, Any]], None], reason: str
) -> None:
    content = small_coco.document()
    spoil(content["annotations"][0])
    dataset = small_coco.read(tmp_path, content)
    assert dataset.problems.count() == 1
    line = dataset.describe()
    assert line.startswith("instances.json: 2 images, 1 objects, left out 1: 1 with ")
    assert reason in line and line.endswith("(id 11)") and "\n" not in line
    assert [a["id"] for a in dataset.ground_truth()["annotations"]] == [12]
    assert len(dataset.read(0).target.masks) == 0


def test_only_the_short_ring_among_good_ones_is_dropped(tmp_path: Path) -> None:
    content = small_coco.document()
    content["annotations"][0]["segmentation"].append([1, 1, 2, 2])
    dataset = small_coco.read(tmp_path, content)
    assert dataset.problems.count() == 0
    assert "mended: 1 with a ring of fewer than three points" in dataset.describe()
    assert dataset.ground_truth()["annotations"][0]["segmentation"] == [small_coco.SQUARE]


def test_many_ids_are_cut_in_the_summary_and_whole_on_request(tmp_path: Path) -> None:
    content = small_coco.document()
    bad = {**content["annotations"][0], "bbox": [0, 0, 0, 0]}
    content["annotations"] += [{**bad, "id": id_} for id_ in range(100, 120)]
    dataset = small_coco.read(tmp_path, content)
    assert "20 with a box of no size (ids 100, 101, 102, 103, 104, ...)" in dataset.describe()
    assert "118, 119)" in dataset.describe(most=None)


# What is refused: annotations


def _change(key: str, value: object, position: int = 0) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        content["annotations"][position][key] = value

    return change


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (_change("image_id", 99), ("annotation 11", "image 99", "remove the annotation")),
        (_change("image_id", [1]), ("annotation 11", "image_id [1]", "is no whole number")),
        (_change("category_id", 90), ("annotation 11", "category 90", "add the category")),
        (_change("segmentation", None), ("annotation 11", "segmentation", "mask=false")),
        (_change("id", 12), ("id 12 occurs twice", "`annotations`")),
        (_change("id", "x"), ("annotations[0]", "'x'", "number them")),
        (lambda c: c["images"][0].update(id=2), ("id 2 occurs twice", "`images`")),
        (lambda c: c["images"][0].update(height="nine"), ("image 5", "'nine'", "whole pixels")),
        (lambda c: c["images"][0].pop("file_name"), ("image 5", "file_name")),
        (lambda c: c["categories"][0].update(id=3), ("id 3 occurs twice", "`categories`")),
        (lambda c: c["categories"][0].update(name="cat"), ("2 categories", "`cat`", "rename")),
        (lambda c: c["categories"][0].pop("name"), ("category 7", "`name`")),
        (lambda c: c["categories"].clear(), ("`categories` is empty",)),
        (lambda c: c["images"].clear(), ("`images` is empty",)),
        (lambda c: c["annotations"].clear(), ("no usable annotation", "name another file")),
        (lambda c: c.pop("annotations"), ("no list `annotations`", "instances_*.json")),
    ],
)
def test_an_inconsistent_file_is_refused(
    tmp_path: Path, spoil: Callable[[dict[str, Any]], None], expected: tuple[str, ...]
) -> None:
    content = small_coco.document()
    spoil(content)
    text = refusal(tmp_path, content)
    for part in ("instances.json", *expected):
        assert part in text


def test_broken_json_is_refused_with_its_place(tmp_path: Path) -> None:
    text = refusal(tmp_path, '{"images": [],\n "annotations": [}')
    assert "instances.json: broken JSON at line 2, column 18" in text and "again" in text


def test_other_json_is_refused(tmp_path: Path) -> None:
    assert "no list `images`" in refusal(tmp_path, "[1, 2]")


def test_a_file_whose_annotations_are_all_bad_is_refused_with_the_reasons(tmp_path: Path) -> None:
    content = small_coco.document()
    for annotation in content["annotations"]:
        annotation["bbox"] = [0, 0, 0, 0]
    text = refusal(tmp_path, content)
    assert "no usable annotation among 2" in text and "2 with a box of no size (ids 11, 12)" in text


def test_a_missing_annotation_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.json: no such file; check data\.root"):
        CocoDataset(annotations=tmp_path / "none.json", images=tmp_path)


def test_a_selection_that_leaves_nothing_is_refused(tmp_path: Path) -> None:
    text = refusal(tmp_path, select=Selection(min_objects=50))
    assert "instances.json" in text and "widen data.select" in text


# What is refused: files


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    path = small_coco.write(tmp_path, small_coco.document())
    with pytest.raises(InputError, match=r"pictures: no such folder .*data\.root"):
        CocoDataset(annotations=path, images=tmp_path / "pictures")
    with pytest.raises(InputError, match=r"nowhere: no such folder; set data\.root"):
        coco_data(
            root=tmp_path / "nowhere",
            train_annotations="a",
            train_folder="b",
            val_annotations="c",
            val_folder="d",
            train_transform={},
            eval_transform={},
        )


def test_missing_images_are_counted_and_the_first_named(tmp_path: Path) -> None:
    content = small_coco.document()
    content["images"][0]["file_name"] = "sub/five.png"
    text = refusal(tmp_path, content)
    assert "1 of 2 image files" in text and "sub/five.png (image 5)" in text and "restore" in text


def test_images_in_sub_folders_are_found(tmp_path: Path) -> None:
    content = small_coco.document()
    content["images"][0]["file_name"] = "sub/ünï.png"
    small_coco.write(tmp_path, content)
    (tmp_path / "images/sub").mkdir()
    (tmp_path / "images/five.png").rename(tmp_path / "images/sub/ünï.png")
    dataset = CocoDataset(annotations=tmp_path / "instances.json", images=tmp_path / "images")
    assert dataset.read(1).image.shape == (3, 20, 30)
