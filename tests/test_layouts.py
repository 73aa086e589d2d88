"""The layouts that data sets are published in, read image by image."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data import layouts
from data.coco import CocoDataset
from data.layouts import LabelledImage, read_balloon, read_nuclei, read_pennfudan, read_voc
from ops.errors import InputError
from tests import published_layouts as published


def mask_of(outline: Any) -> np.ndarray:
    """The full-size mask of run lengths in an image of the miniatures' size."""
    values = np.arange(len(outline)) % 2 == 1
    return np.repeat(values, outline).reshape(published.SIZE[::-1]).T


def assert_masks(images: list[LabelledImage], expected: dict[str, list[np.ndarray]]) -> None:
    """Each image, by its name, has exactly its masks, in their order."""
    assert sorted(image.name for image in images) == sorted(expected)
    for image in images:
        masks = [mask_of(labelled.outline) for labelled in image.objects]
        assert len(masks) == len(expected[image.name])
        for mask, wanted in zip(masks, expected[image.name], strict=True):
            np.testing.assert_array_equal(mask, wanted)


def test_each_number_of_pennfudans_labels_is_a_person(tmp_path: Path) -> None:
    expected = published.pennfudan(tmp_path)
    images = list(read_pennfudan(tmp_path))
    assert_masks(images, expected)
    assert [image.split for image in images] == ["train", "train", "val"]
    assert {labelled.category for image in images for labelled in image.objects} == {"person"}


def test_each_file_of_the_nuclei_is_one_and_an_empty_file_none(tmp_path: Path) -> None:
    expected = published.nuclei(tmp_path)
    images = list(read_nuclei(tmp_path))
    assert_masks(images, expected)
    assert [image.split for image in images] == ["train", "val"]


# Ids of the published set; the two splits are those that this project's figures are of.
TRAIN_IDS = (
    "00071198d059ba7f5914a526d124d28e6d010c92466da21d4a04cd5413362552",
    "003cee89357d9fe13516167fd67b609a164651b21934585648c740d2c3d86dc1",
)
VAL_IDS = ("00ae65c1c6631ae6f2be1a449902976e6eb8483bf6b0740d00530220832c6d3e",)


@pytest.mark.parametrize(
    ("split", "id_"), [*(("train", i) for i in TRAIN_IDS), *(("val", i) for i in VAL_IDS)]
)
def test_the_splits_of_the_nuclei_are_those_of_the_figures(
    split: str, id_: str, shared: Path
) -> None:
    assert layouts.split_of(id_) == split
    assert (shared / "nuclei" / split / f"{id_[:16]}.png").is_file()


@pytest.mark.parametrize("split", ["train", "val"])
def test_the_nuclei_are_those_of_the_figures(split: str, shared: Path, tmp_path: Path) -> None:
    """The published layout, made of the set that the figures are of, is read back as that set."""
    folder = shared / "nuclei"
    dataset = CocoDataset(
        annotations=folder / f"annotations/instances_{split}.json", images=folder / split
    )
    chosen = range(0, len(dataset), 20)
    for index in chosen:
        entry = dataset.entry(index)
        id_ = dataset.path(index).stem
        root = tmp_path / id_
        (root / "images").mkdir(parents=True)
        (root / "images" / f"{id_}.png").write_bytes(dataset.path(index).read_bytes())
        for number, annotation in enumerate(entry.annotations):
            values = np.arange(len(annotation.outline)) % 2 * 255
            pixels = np.repeat(values, annotation.outline).reshape(entry.width, entry.height).T
            published.write_labels(root / "masks" / f"{number:05d}.png", pixels)
    images = list(read_nuclei(tmp_path))
    assert len(images) == len(chosen)
    for index, image in zip(chosen, images, strict=True):
        entry = dataset.entry(index)
        assert (image.name, image.size) == (entry.file_name, (entry.height, entry.width))
        assert len(image.objects) == len(entry.annotations)
        for labelled, annotation in zip(image.objects, entry.annotations, strict=True):
            np.testing.assert_array_equal(labelled.outline, annotation.outline)


def test_vocs_outlines_take_the_category_of_the_box_they_overlap_most(tmp_path: Path) -> None:
    published.voc(tmp_path)
    train, val = read_voc(tmp_path)
    assert (train.split, train.name, train.nameless) == ("train", "2007_000001.jpg", 1)
    assert (val.split, val.name, val.nameless) == ("val", "2007_000002.jpg", 0)
    assert [(o.category, o.crowd) for o in train.objects] == [("person", True), ("horse", False)]
    assert [(o.category, o.crowd) for o in val.objects] == [
        ("person", False),
        ("horse", False),
        ("cat", False),
    ]


def test_vocs_border_belongs_to_no_object(tmp_path: Path) -> None:
    published.voc(tmp_path)
    rider, horse, _ = (
        mask_of(labelled.outline) for labelled in list(read_voc(tmp_path))[1].objects
    )
    np.testing.assert_array_equal(rider, published.rectangle(4, 2, 12, 9))
    np.testing.assert_array_equal(horse, published.rectangle(2, 11, 20, 22))


def test_of_two_boxes_of_one_category_each_outline_takes_its_own(tmp_path: Path) -> None:
    published.voc(tmp_path)
    path = tmp_path / "VOCdevkit/VOC2012/Annotations/2007_000002.xml"
    wide, narrow = ("horse", (3, 3, 20, 22), 0), ("horse", (3, 11, 20, 22), 1)
    path.write_text(published.voc_xml([wide, narrow]))
    _, val = read_voc(tmp_path)
    # The horse fits the narrow box exactly, which leaves the wide one for its rider.
    assert [o.crowd for o in val.objects] == [False, True]
    assert val.nameless == 1


def test_balloons_are_polygons_through_the_centres_of_pixels(tmp_path: Path) -> None:
    published.balloon(tmp_path)
    images = list(read_balloon(tmp_path))
    assert [(image.split, image.name) for image in images] == [
        ("train", "one.jpg"),  # regions by number
        ("val", "one.jpg"),  # regions in a list
    ]  # two.jpg was never opened in the annotator
    for image in images:
        (triangle,) = image.objects[0].outline
        assert triangle.tolist() == [[2.5, 3.5], [20.5, 3.5], [20.5, 15.5]]
        assert len(image.objects) == 2


def test_a_saved_project_of_the_annotator_is_read_too(tmp_path: Path) -> None:
    published.balloon(tmp_path)
    path = tmp_path / "balloon/train/via_region_data.json"
    images = json.loads(path.read_text())
    path.write_text(json.dumps({"_via_settings": {}, "_via_img_metadata": images}))
    assert len(next(read_balloon(tmp_path)).objects) == 2


def spoil_labels(root: Path) -> None:
    path = next((root / "PennFudanPed/PedMasks").iterdir())
    path.write_bytes(path.read_bytes()[:40])


def widen_labels(root: Path) -> None:
    path = next((root / "PennFudanPed/PedMasks").iterdir())
    published.write_labels(path, np.zeros((24, 40)))


def colour_labels(root: Path) -> None:
    published.write_image(next((root / "PennFudanPed/PedMasks").iterdir()))


def remove_labels(root: Path) -> None:
    next((root / "PennFudanPed/PedMasks").iterdir()).unlink()


def spoil_xml(root: Path) -> None:
    next((root / "VOCdevkit/VOC2012/Annotations").iterdir()).write_text("<annotation>")


def spoil_box(root: Path) -> None:
    path = next((root / "VOCdevkit/VOC2012/Annotations").iterdir())
    path.write_text(path.read_text().replace("<xmin>", "<xmin>left "))


def remove_list(root: Path) -> None:
    (root / "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt").unlink()


def with_entry(change: Callable[[dict], None]) -> Callable[[Path], None]:
    """A change of the first image in the balloons' annotations."""

    def spoil(root: Path) -> None:
        path = root / "balloon/train/via_region_data.json"
        images = json.loads(path.read_text())
        change(images["one.jpg1"])
        path.write_text(json.dumps(images))

    return spoil


def draw_circle(entry: dict) -> None:
    entry["regions"]["0"]["shape_attributes"] = {"name": "circle", "cx": 3, "cy": 4, "r": 2}


def lead_out(entry: dict) -> None:
    entry["filename"] = "../../../secret.jpg"


def drop_regions(entry: dict) -> None:
    del entry["regions"]


def cut_json(root: Path) -> None:
    path = root / "balloon/train/via_region_data.json"
    path.write_text(path.read_text()[:50])


@pytest.mark.parametrize(
    ("name", "spoil", "message"),
    [
        ("pennfudan", spoil_labels, r"_mask\.png: cannot be read \(is no whole image\)"),
        ("pennfudan", widen_labels, r"_mask\.png: holds numbers of the shape \(24, 40\)"),
        ("pennfudan", colour_labels, r"_mask\.png: holds numbers of the shape \(24, 32, 3\)"),
        ("pennfudan", remove_labels, r"_mask\.png: cannot be read \(No such file"),
        ("voc", spoil_xml, r"\.xml: is not an annotation of PASCAL VOC"),
        ("voc", spoil_box, r"\.xml: is not an annotation of PASCAL VOC"),
        ("voc", remove_list, r"Segmentation/val\.txt: cannot be read \(No such file"),
        ("balloon", with_entry(draw_circle), "a region of the shape circle"),
        ("balloon", with_entry(lead_out), r"file name \.\./\.\./\.\./secret\.jpg"),
        ("balloon", with_entry(drop_regions), "KeyError"),
        ("balloon", cut_json, r"via_region_data\.json: broken JSON at line 1"),
    ],
)
def test_damage_inside_a_set_is_one_line(
    name: str, spoil: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    getattr(published, name)(tmp_path)
    spoil(tmp_path)
    with pytest.raises(InputError, match=message) as error:
        list(getattr(layouts, f"read_{name}")(tmp_path))
    assert "\n" not in str(error.value)
