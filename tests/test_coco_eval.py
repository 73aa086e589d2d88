"""COCO's figures: perfect detections, shifted ones, crowds, both backends, bad input."""

import copy
import json
import math
import random
import re
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from pycocotools import mask as coco_mask
from reference_judge import by_pycocotools, small_cases

from judging import coco_eval
from judging.coco_eval import BACKENDS, FIGURES, _checked_truth, _evaluations, results_table
from judging.results import Results, check_masks, coco_results, read_results, write_results
from ops.errors import InputError
from ops.structures import Detections

SIZE = (120, 160)
CATEGORIES = [{"id": 3, "name": "disc"}, {"id": 8, "name": "bar"}, {"id": 90, "name": "none"}]


def _rectangle(x: float, y: float, w: float, h: float) -> list[list[float]]:
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


def _truth() -> dict[str, Any]:
    """Three images of rectangles, small, medium and large, of two of three categories."""
    boxes = [
        [(5, 5, 20, 10), (40, 30, 60, 50)],
        [(10, 8, 120, 100), (100, 20, 12, 30), (60, 60, 40, 40)],
        [],
    ]
    annotations = [
        {
            "id": 10 * image + k,
            "image_id": image,
            "category_id": (3, 8)[k % 2],
            "bbox": list(map(float, box)),
            "area": float(box[2] * box[3]),
            "iscrowd": 0,
            "segmentation": _rectangle(*box),
        }
        for image, there in enumerate(boxes, start=1)
        for k, box in enumerate(there)
    ]
    images = [{"id": k, "height": SIZE[0], "width": SIZE[1], "file_name": ""} for k in (1, 2, 3)]
    return {"images": images, "categories": CATEGORIES, "annotations": annotations}


def _found(truth: dict[str, Any], shift: float = 0.0) -> list[dict[str, Any]]:
    """A detection for every annotation, moved to the right by `shift` pixels."""
    sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    results = []
    for order, annotation in enumerate(truth["annotations"]):
        height, width = sizes[annotation["image_id"]]
        x, y, w, h = annotation["bbox"]
        outline = annotation["segmentation"]
        if isinstance(outline, dict):
            continue
        moved = [[v + shift * (i % 2 == 0) for i, v in enumerate(ring)] for ring in outline]
        rle = coco_mask.merge(coco_mask.frPyObjects(moved, height, width))
        results.append(
            {
                "image_id": annotation["image_id"],
                "category_id": annotation["category_id"],
                "bbox": [x + shift, y, w, h],
                "score": 1 - order / 1000,
                "segmentation": {"size": [height, width], "counts": rle["counts"].decode()},
            }
        )
    return results


def coco_metrics(
    truth: dict[str, Any], entries: list[dict[str, Any]], **settings: Any
) -> dict[str, float]:
    return coco_eval.coco_metrics(truth, Results.from_entries(entries), **settings)


def _reference(truth: dict[str, Any], results: list[dict[str, Any]], kind: str) -> list[float]:
    """pycocotools' figures in percent."""
    stats = by_pycocotools(truth, results, kind).stats.tolist()
    return [100 * value if value >= 0 else -1 for value in stats]


@pytest.mark.parametrize("backend", BACKENDS)
def test_perfect_detections_score_100(backend: str) -> None:
    truth = _truth()
    metrics = coco_metrics(truth, _found(truth), backend=backend)
    for kind in ("bbox", "segm"):
        for figure in ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR100"):
            assert metrics[f"{kind}/{figure}"] == pytest.approx(100), (kind, figure)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shift", [1.0, 4.0, 9.0])
def test_shifted_detections_score_what_pycocotools_says(shift: float, backend: str) -> None:
    truth = _truth()
    results = _found(truth, shift)
    metrics = coco_metrics(truth, results, backend=backend)
    for kind in ("bbox", "segm"):
        assert [metrics[f"{kind}/{f}"] for f in FIGURES] == _reference(truth, results, kind), kind
        assert 0 < metrics[f"{kind}/AP"] < 100


def assert_scores_of_pycocotools(truth: dict[str, Any], entries: list[dict[str, Any]]) -> None:
    """Both backends give pycocotools' figures and curves to the last bit."""
    results = Results.from_entries(entries)
    kinds = ("bbox", "segm")
    expected = {kind: by_pycocotools(truth, entries, kind) for kind in kinds}
    for backend in BACKENDS:
        judged = _evaluations(_checked_truth(truth), results, kinds, backend)
        for kind in kinds:
            assert list(judged[kind].stats[:12]) == list(expected[kind].stats), (backend, kind)
            for curve in ("precision", "recall"):
                found = judged[kind].eval[curve]
                assert np.array_equal(found, expected[kind].eval[curve]), (backend, kind, curve)


@given(small_cases())
@settings(max_examples=60, deadline=None)
def test_any_small_case_scores_as_with_pycocotools(case: tuple[dict, list]) -> None:
    assert_scores_of_pycocotools(*case)


def test_photographs_score_as_with_pycocotools(shared: Path) -> None:
    path = shared / "coco-mini" / "annotations" / "instances_val2017.json"
    truth = json.loads(path.read_text())
    generator = random.Random(0)
    results = [
        {**r, "score": generator.choice([0.5, generator.random()])}
        for shift in (3.0, 8.0)
        for r in _found(truth, shift)
        if generator.random() < 0.8
    ]
    assert_scores_of_pycocotools(truth, results)
    assert any(a["iscrowd"] for a in truth["annotations"])
    metrics = coco_metrics(truth, results)
    assert 20 < metrics["bbox/AP"] < 90 and 20 < metrics["segm/AP"] < 90


def test_of_more_than_a_hundred_detections_of_an_image_the_best_hundred_count() -> None:
    truth = _truth()
    right = _found(truth)
    wrong = [{**right[0], "image_id": 3, "score": 0.5}] * 130  # of an image without objects
    crowded = [
        {**right[2], "bbox": [0.0, 0.0, 3.0, 3.0], "score": 1 + k / 1000} for k in range(101)
    ]
    assert_scores_of_pycocotools(truth, [*right, *wrong])
    assert_scores_of_pycocotools(truth, [*right, *crowded])
    alone, beside = (coco_metrics(truth, right + more) for more in ([], crowded))
    assert beside["bbox/AR100"] < alone["bbox/AR100"]


def test_nothing_that_is_given_is_changed() -> None:
    truth = _truth()
    results = _found(truth)
    before = copy.deepcopy((truth, results))
    coco_metrics(truth, results)
    assert (truth, results) == before


@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_is_printed(backend: str, capfd: pytest.CaptureFixture[str]) -> None:
    truth = _truth()
    coco_metrics(truth, _found(truth), backend=backend)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_detection_in_a_crowd_region_is_neither_right_nor_wrong(backend: str) -> None:
    truth = _truth()
    crowd = {"x": 0, "y": 60, "w": 50, "h": 50}
    rle = coco_mask.merge(coco_mask.frPyObjects(_rectangle(**crowd), *SIZE))
    results = _found(truth)
    results += [
        {
            "image_id": 1,
            "category_id": 3,
            "bbox": [10.0, 70.0, 20.0, 20.0],
            "score": 1.0,
            "segmentation": _mask(_rectangle(10, 70, 20, 20)),
        }
    ]
    wrong = coco_metrics(truth, results, backend=backend)
    truth["annotations"].append(
        {
            "id": 99,
            "image_id": 1,
            "category_id": 3,
            "bbox": [0.0, 60.0, 50.0, 50.0],
            "area": 2500.0,
            "iscrowd": 1,
            "segmentation": {"size": list(SIZE), "counts": rle["counts"].decode()},
        }
    )
    ignored = coco_metrics(truth, results, backend=backend)
    for kind in ("bbox", "segm"):
        assert wrong[f"{kind}/AP"] < 99
        assert ignored[f"{kind}/AP"] == pytest.approx(100)


def _mask(outline: list[list[float]]) -> dict[str, Any]:
    rle = coco_mask.merge(coco_mask.frPyObjects(outline, *SIZE))
    return {"size": list(SIZE), "counts": rle["counts"].decode()}


def test_the_size_of_a_mask_is_its_area_not_that_of_its_box() -> None:
    """A missed small object: a thin wrong mask in a medium box counts against small ones."""
    truth = _truth()
    results = _found(truth)
    thin = _mask(_rectangle(100, 100, 50, 4))
    results += [
        {**results[0], "score": 1.5, "bbox": [100.0, 60.0, 50.0, 50.0], "segmentation": thin}
    ]
    metrics = coco_metrics(truth, results)
    assert metrics["bbox/APs"] == pytest.approx(100)
    assert metrics["segm/APs"] < 99


def test_each_category_has_its_ap_and_one_without_objects_has_none() -> None:
    truth = _truth()
    results = [r for r in _found(truth) if r["category_id"] == 3]
    metrics = coco_metrics(truth, results, per_category=True)
    assert metrics["bbox/AP/disc"] == pytest.approx(100)
    assert metrics["segm/AP/bar"] == 0
    assert metrics["bbox/AP/none"] == -1
    assert metrics["bbox/AP"] == pytest.approx(50)


def test_categories_of_the_same_name_are_listed_with_their_ids() -> None:
    truth = _truth()
    truth["categories"] = [{"id": 3, "name": "a"}, {"id": 8, "name": "a"}]
    metrics = coco_metrics(truth, _found(truth), iou_types=("bbox",), per_category=True)
    assert {key for key in metrics if key.startswith("bbox/AP/")} == {
        "bbox/AP/a (3)",
        "bbox/AP/a (8)",
    }


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_detections_at_all_score_zero_with_a_warning(
    backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = coco_metrics(_truth(), [], backend=backend, per_category=True)
    assert all(metrics[f"{kind}/{f}"] == 0 for kind in ("bbox", "segm") for f in FIGURES)
    assert metrics["bbox/AP/disc"] == 0
    assert "no detections at all" in caplog.text


def test_scoring_boxes_only_needs_no_masks() -> None:
    truth = _truth()
    results = [{k: v for k, v in r.items() if k != "segmentation"} for r in _found(truth)]
    metrics = coco_metrics(truth, results, iou_types=("bbox",))
    assert metrics["bbox/AP"] == pytest.approx(100)
    assert not any(key.startswith("segm") for key in metrics)
    with pytest.raises(InputError, match="detection 0: has no mask, but masks are scored"):
        coco_metrics(truth, results)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 77}, "detection 0: is of image 77, which the annotations do not have"),
        ({"category_id": 1}, "detection 0: is of category 1, which the annotations do not have"),
    ],
)
def test_detections_of_other_data_are_refused(change: dict, message: str) -> None:
    truth = _truth()
    results = _found(truth)
    results[0] |= change
    with pytest.raises(InputError, match=message):
        coco_metrics(truth, results)


def test_an_empty_validation_set_is_refused() -> None:
    with pytest.raises(InputError, match="validation set: holds no images"):
        coco_metrics({**_truth(), "images": []}, [])


def test_an_unknown_backend_is_named() -> None:
    truth = _truth()
    message = r"evaluation\.backend=fast: unknown; choose hotcoco or pycocotools"
    with pytest.raises(InputError, match=message):
        coco_metrics(truth, _found(truth), backend="fast")


class _Panic(BaseException):
    """What a panic in Rust becomes is no Exception either."""


class _Broken:
    def __getattr__(self, name: str) -> Any:
        raise _Panic("index out of\nbounds")


@pytest.mark.parametrize(
    ("module", "reason"),
    [(None, "import of hotcoco halted"), (_Broken(), "index out of bounds")],
    ids=["missing", "broken"],
)
def test_without_hotcoco_pycocotools_is_used_with_a_warning(
    module: Any, reason: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    truth = _truth()
    expected = coco_metrics(truth, _found(truth, 4.0))
    monkeypatch.setitem(sys.modules, "hotcoco", module)
    assert coco_metrics(truth, _found(truth, 4.0)) == expected
    (record,) = caplog.records
    assert reason in record.message and "pycocotools is used instead" in record.message
    assert "\n" not in record.message


def _detections(count: int, with_masks: bool = True) -> Detections:
    corners = torch.arange(count, dtype=torch.float32)[:, None] + torch.tensor([2.0, 3.0])
    boxes = torch.cat([corners, corners + torch.tensor([40.0, 24.0])], dim=1)
    masks = torch.ones(count, 4, 4) if with_masks else None
    scores = torch.linspace(0.9, 0.1, count)
    return Detections(boxes, scores, torch.arange(count) % 2, masks)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools'
def test_results_hold_original_pixels_category_ids_and_masks_like_the_pasted_ones() -> None:
    found = coco_results(_detections(20), image_id=5, original_size=SIZE, category_ids=[3, 8])
    results = list(found.entries())
    assert len(found) == len(results) == 20
    assert results[1]["image_id"] == 5 and results[1]["category_id"] == 8
    assert results[1]["bbox"] == [3.0, 4.0, 40.0, 24.0]
    assert results[0]["score"] == pytest.approx(0.9)
    for k, result in enumerate(results):
        decoded = coco_mask.decode(result["segmentation"])
        assert decoded.shape == SIZE
        left, top, width, height = map(int, result["bbox"])
        inside = decoded[top + 3 : top + height - 3, left + 5 : left + width - 5]
        assert inside.all(), k
        outside = decoded.sum() - decoded[top : top + height, left : left + width].sum()
        assert outside == 0, k
    assert json.loads(json.dumps(results)) == results


def test_faster_rcnn_has_no_masks_and_no_detections_no_results() -> None:
    where: dict[str, Any] = {"image_id": 1, "original_size": SIZE, "category_ids": [3, 8]}
    results = coco_results(_detections(3, False), **where)
    assert all("segmentation" not in entry for entry in results.entries())
    assert list(coco_results(_detections(0), **where).entries()) == []


def test_saved_detections_are_read_back_and_score_as_before(tmp_path: Path) -> None:
    truth = _truth()
    results = Results.from_entries(_found(truth, shift=4.0))
    with patch("judging.results.WRITTEN_TOGETHER", 2):  # five, in three pieces
        write_results(tmp_path / "detections.json", results)
    assert json.loads((tmp_path / "detections.json").read_text()) == list(results.entries())
    read = read_results(tmp_path / "detections.json")
    assert coco_eval.coco_metrics(truth, read) == coco_eval.coco_metrics(truth, results)


def test_joined_results_keep_their_order_and_their_masks() -> None:
    entries = _found(_truth())
    del entries[1]["segmentation"]
    parts = [Results.from_entries(some) for some in ([], entries[:1], entries[1:2], entries[2:])]
    assert [part.masks is None for part in parts] == [True, False, True, False]
    assert list(Results.joined(parts).entries()) == entries
    assert list(Results.joined([]).entries()) == []


GOOD = {"image_id": 1, "category_id": 3, "bbox": [0, 0, 1, 1], "score": 0.5}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"annotations": []}, "holds a dict, not a list"),
        ([GOOD, 3], "entry 1 is a int, not an object"),
        ([{**GOOD, "image_id": "1"}], "entry 0 has no whole number as image_id"),
        ([{**GOOD, "score": None}], "entry 0 has no number as score"),
        ([{**GOOD, "bbox": [0, 0, 1]}], "entry 0 has no bbox of four numbers"),
        ([{**GOOD, "segmentation": [[0, 0]]}], "segmentation that is no compressed RLE"),
        (
            [GOOD, {**GOOD, "category_id": 1 << 63}],
            "entry 1 has category_id 9223372036854775808, which is beyond",
        ),
        ([{**GOOD, "image_id": -(1 << 70)}], r"entry 0 has image_id -\d+, which is beyond 64 bits"),
        ([{**GOOD, "score": "0.5"}], "entry 0 has no number as score"),
        ([{**GOOD, "score": True}], "entry 0 has no number as score"),
        ([{**GOOD, "score": 10**400}], "entry 0 has no number as score"),
        ([{**GOOD, "bbox": [0, 0, math.nan, 1]}], "entry 0 has no bbox of four numbers"),
        ([{**GOOD, "bbox": [0, 0, 5, -1]}], "entry 0 has a bbox of negative width or height"),
        ([{**GOOD, "segmentation": {"size": [1, 1]}}], "segmentation that is no compressed RLE"),
    ],
)
def test_other_files_are_refused_as_detections(tmp_path: Path, content: Any, message: str) -> None:
    path = tmp_path / "detections.json"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=message) as caught:
        read_results(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": [SIZE[1], SIZE[0]]}, r"the size \[160, 120\] and not its image's .*\[120, 160\]"),
        ({"size": [240, 320]}, "the size"),
        ({"size": None}, "the size None"),
        ({"counts": ""}, "0 pixels in its run lengths"),
        ({"counts": "0"}, "0 pixels in its run lengths"),
        ({"counts": "PPYo"}, "run lengths cut short"),
        ({"counts": "b'PPY1'"}, "a foreign character"),
        ({"counts": "行人"}, "a foreign character"),
        ({"counts": "ooooooooooooo0"}, "beyond 32 bits"),
    ],
)
@pytest.mark.parametrize("at", [0, 3])
def test_damaged_masks_are_refused_by_name(at: int, change: dict[str, Any], message: str) -> None:
    truth = _truth()
    entries = _found(truth)
    entries[at]["segmentation"] = {**entries[at]["segmentation"], **change}
    results = Results.from_entries(entries)
    with patch("judging.results.CHECKED_TOGETHER", 2), pytest.raises(InputError) as error:
        check_masks(results, truth)
    assert re.search(message, str(error.value)) and "mask=false" in str(error.value)
    assert str(error.value).startswith(f"detection {at} of image {entries[at]['image_id']}: ")


def test_sound_masks_and_detections_without_mask_are_let_through() -> None:
    truth = _truth()
    entries = _found(truth, 3.0)
    del entries[1]["segmentation"]
    check_masks(Results.from_entries(entries), truth)
    check_masks(Results.from_entries([GOOD]), truth)


@pytest.mark.parametrize("backend", BACKENDS)
def test_ids_of_64_bits_score_as_small_ones(backend: str) -> None:
    truth = _truth()
    large = {1: 2**62 + 1, 2: 2**62 + 2, 3: -(2**63)}
    for image in truth["images"]:
        image["id"] = large[image["id"]]
    for annotation in truth["annotations"]:
        annotation["image_id"] = large[annotation["image_id"]]
    metrics = coco_metrics(truth, _found(truth, 4.0), backend=backend)
    assert metrics == coco_metrics(_truth(), _found(_truth(), 4.0))


def test_a_warning_names_what_coco_does_not_count(caplog: pytest.LogCaptureFixture) -> None:
    truth = _truth()
    first = truth["annotations"][0]
    truth["annotations"] = [{**first, "id": k} for k in range(1, 104)]
    coco_metrics(truth, _found(truth) + _found(truth)[:2])
    detections, objects = caplog.messages
    assert (
        "at most 100 detections of a class in an image: there are 5 detections more" in detections
    )
    assert "there are 3 objects more, and not all of them can be found" in objects
    caplog.clear()
    coco_metrics(_truth(), _found(_truth()))
    assert caplog.messages == []


def test_the_name_of_a_former_backend_is_understood() -> None:
    assert coco_metrics(_truth(), _found(_truth()), backend="faster_coco_eval")["bbox/AP"] == 100


def test_the_table_has_boxes_and_masks_and_a_dash_for_what_is_absent() -> None:
    truth = _truth()
    metrics = coco_metrics(truth, _found(truth)) | {"segm/APs": -1.0, "bbox/AP": 35.14}
    assert results_table(metrics).splitlines() == [
        "          AP   AP50   AP75    APs    APm    APl",
        "box     35.1  100.0  100.0  100.0  100.0  100.0",
        "mask   100.0  100.0  100.0      -  100.0  100.0",
    ]
