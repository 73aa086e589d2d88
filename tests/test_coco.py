"""What reading a data set in COCO's form gives: images, targets, ground truth, shared memory."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_coco
import torch
from pycocotools import mask as coco_mask

from data.annotations import ImageEntry, PackedEntries
from data.coco import (
    CocoDataset,
    Selection,
    check_same_categories,
    coco_data,
)
from ops.errors import InputError
from ops.structures import Bitmap, Category, Polygons

# What comes out


def test_images_and_labels_come_in_ascending_order_of_ids(tmp_path: Path) -> None:
    dataset = small_coco.read(tmp_path)
    assert dataset.image_ids == [2, 5]
    assert dataset.categories == (Category(3, "cat"), Category(7, "cup"))
    assert dataset.aspect_ratios.tolist() == [20 / 30, 30 / 20]
    assert [dataset.read(index).target.labels.tolist() for index in (0, 1)] == [[1], [0]]


def test_a_sample_states_pixels_boxes_and_outline(tmp_path: Path) -> None:
    sample = small_coco.read(tmp_path).read(0)
    assert sample.image.dtype == torch.uint8 and sample.image.shape == (3, 30, 20)
    assert sample.original_size == (30, 20) and sample.image_id == 2
    assert (sample.image == 40).all()
    assert sample.target.boxes.tolist() == [[4, 4, 12, 12]]
    (outline,) = sample.target.masks
    assert isinstance(outline, Polygons)
    assert outline.rings[0].tolist() == [[4, 4], [12, 4], [12, 12], [4, 12]]


@pytest.mark.parametrize("compressed", [True, False])
def test_both_kinds_of_rle_become_a_tight_bitmap(tmp_path: Path, compressed: bool) -> None:
    mask = np.zeros((30, 20), np.uint8)
    mask[5:9, 6:16] = 1
    mask[6, 7] = 0
    official = coco_mask.encode(np.asfortranarray(mask))
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *edges, len(flat)]).tolist()
    content = small_coco.document()
    content["annotations"][0]["segmentation"] = {
        "size": [30, 20],
        "counts": official["counts"].decode() if compressed else counts,
    }
    del content["annotations"][0]["area"]
    dataset = small_coco.read(tmp_path, content)
    (bitmap,) = dataset.read(0).target.masks
    assert isinstance(bitmap, Bitmap)
    assert bitmap.box == (6, 5, 16, 9)
    assert np.array_equal(bitmap.pixels, mask[5:9, 6:16])
    truth = dataset.ground_truth()["annotations"][0]
    assert truth["area"] == 39
    assert truth["segmentation"]["counts"] == official["counts"].decode()


def test_crowd_regions_are_in_the_ground_truth_and_not_in_the_target(tmp_path: Path) -> None:
    content = small_coco.document()
    content["annotations"][0]["iscrowd"] = 1
    dataset = small_coco.read(tmp_path, content)
    assert len(dataset.read(0).target.boxes) == 0
    assert dataset.read(0).target.boxes.shape == (0, 4)
    assert [a["iscrowd"] for a in dataset.ground_truth()["annotations"]] == [1, 0]
    assert dataset.describe() == "instances.json: 2 images, 1 objects, 1 crowd regions"


def test_images_without_objects_are_kept_by_default(tmp_path: Path) -> None:
    content = small_coco.document()
    del content["annotations"][0]
    assert small_coco.read(tmp_path, content).image_ids == [2, 5]
    assert small_coco.read(tmp_path, content, keep_empty=False).image_ids == [5]


def test_boxes_partly_outside_are_clipped_for_training_and_kept_for_scoring(tmp_path: Path) -> None:
    content = small_coco.document()
    content["annotations"][0]["bbox"] = [-3, 4, 30, 8]
    dataset = small_coco.read(tmp_path, content)
    assert dataset.read(0).target.boxes.tolist() == [[0, 4, 20, 12]]
    assert dataset.ground_truth()["annotations"][0]["bbox"] == [-3, 4, 30, 8]
    assert dataset.problems.count() == 0


def test_without_masks_segmentation_is_ignored(tmp_path: Path) -> None:
    content = small_coco.document()
    content["annotations"][0]["segmentation"] = [[1, 2]]
    for annotation in content["annotations"]:
        del annotation["area"]
    del content["annotations"][1]["segmentation"]
    dataset = small_coco.read(tmp_path, content, masks=False)
    assert dataset.read(0).target.masks == ()
    truth = dataset.ground_truth()["annotations"]
    assert [a["area"] for a in truth] == [64, 64] and "segmentation" not in truth[0]


def test_the_annotation_id_zero_is_moved_for_the_evaluator(tmp_path: Path) -> None:
    content = small_coco.document()
    content["annotations"][0]["id"] = 0
    truth = small_coco.read(tmp_path, content).ground_truth()["annotations"]
    assert sorted(a["id"] for a in truth) == [1, 13]


def test_selection_takes_the_first_images_that_fulfil_the_conditions(shared: Path) -> None:
    folder = shared / "coco-mini"
    select = Selection(count=8, min_objects=2, max_objects=8, min_area=32 * 32)
    paths = {
        "annotations": folder / "annotations/instances_train2017.json",
        "images": folder / "train2017",
    }
    dataset = CocoDataset(**paths, select=select)
    assert len(dataset) == 8 and dataset.image_ids == sorted(dataset.image_ids)
    chosen = set(dataset.image_ids)
    everything = CocoDataset(**paths)
    by_image: dict[int, list[dict[str, Any]]] = {id_: [] for id_ in everything.image_ids}
    for annotation in everything.ground_truth()["annotations"]:
        by_image[annotation["image_id"]].append(annotation)
    for id_ in range(max(chosen) + 1):
        fits = 2 <= len(by_image.get(id_, [])) <= 8 and all(
            a["area"] > 1024 and not a["iscrowd"] for a in by_image[id_]
        )
        assert fits == (id_ in chosen)


def test_photographs_and_microscopy_read_whole(shared: Path) -> None:
    mini = coco_data(
        root=shared / "coco-mini",
        train_annotations="annotations/instances_train2017.json",
        train_folder="train2017",
        val_annotations="annotations/instances_val2017.json",
        val_folder="val2017",
        train_transform={"short_edges": [800], "long_edge": 1333},
        eval_transform={"short_edge": 800, "long_edge": 1333},
    )
    assert (len(mini.train), len(mini.val), len(mini.train.categories)) == (258, 126, 80)
    assert mini.train.problems.count() == mini.val.problems.count() == 0
    assert mini.train.categories[-1] == Category(90, "toothbrush")
    sample = mini.train.read(0)
    assert len(sample.target.masks) == len(sample.target.labels) == len(sample.target.boxes) > 0
    nuclei = CocoDataset(
        annotations=shared / "nuclei/annotations/instances_val.json",
        images=shared / "nuclei/val",
    )
    target = nuclei.read(0).target
    for box, mask in zip(target.boxes.tolist(), target.masks, strict=True):
        assert isinstance(mask, Bitmap)
        assert mask.box == tuple(box)


def test_ground_truth_scores_full_marks_against_itself(shared: Path) -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    folder = shared / "coco-mini"
    dataset = CocoDataset(
        annotations=folder / "annotations/instances_val2017.json", images=folder / "val2017"
    )
    truth = COCO()
    truth.dataset = dataset.ground_truth()
    truth.createIndex()
    found = [
        {**a, "score": 1.0, "segmentation": truth.annToRLE(a)}
        for a in truth.dataset["annotations"]
        if not a["iscrowd"]
    ]
    for kind in ("bbox", "segm"):
        scores = COCOeval(truth, truth.loadRes(found), kind)
        scores.evaluate()
        scores.accumulate()
        precision = scores.eval["precision"][:, :, :, 0, 2]
        assert precision[precision >= 0].min() == pytest.approx(1)


# Two data sets; many processes


def _with_categories(folder: Path, *categories: tuple[int, str]) -> CocoDataset:
    content = small_coco.document()
    content["categories"] = [{"id": id_, "name": name} for id_, name in categories]
    return small_coco.read(folder, content)


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (((3, "cat"), (7, "mug")), "category 7 is `mug`, but `cup` in"),
        (((3, "cat"), (7, "cup"), (9, "dog")), "category 9 is `dog`, but missing in"),
    ],
)
def test_data_sets_of_different_categories_are_refused(
    tmp_path: Path, other: tuple[tuple[int, str], ...], expected: str
) -> None:
    train = small_coco.read(tmp_path / "a")
    check_same_categories(train, _with_categories(tmp_path / "b", (7, "cup"), (3, "cat")))
    with pytest.raises(InputError) as caught:
        check_same_categories(train, _with_categories(tmp_path / "c", *other))
    text = str(caught.value)
    assert expected in text and str(tmp_path / "a") in text and str(tmp_path / "c") in text


def _overwrite_first_byte(packed: PackedEntries, value: int) -> None:
    packed.bytes[0] = value


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_worker_processes_share_the_annotations(method: str) -> None:
    packed = PackedEntries([ImageEntry(1, "a.png", 4, 5, ()), ImageEntry(2, "b.png", 6, 7, ())])
    assert len(packed) == 2 and packed[1] == packed[-1] == ImageEntry(2, "b.png", 6, 7, ())
    with pytest.raises(IndexError):
        packed[2]
    before = int(packed.bytes[0])
    process = torch.multiprocessing.get_context(method).Process(
        target=_overwrite_first_byte, args=(packed, before ^ 255)
    )
    process.start()
    process.join()
    assert process.exitcode == 0
    assert int(packed.bytes[0]) == before ^ 255
