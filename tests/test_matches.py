"""Match results are those of pycocotools, and so is AP over any multiset of the images."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from pycocotools.cocoeval import COCOeval
from reference_judge import by_pycocotools, match_one_by_one, small_cases

from judging.matches import AREAS, Matches, average_precision, load_matches, save_matches
from judging.matching import match_results
from judging.results import Results
from ops.errors import InputError

CATEGORIES = [{"id": k, "name": str(k)} for k in (2, 5, 9)]  # nothing is of the last one


def _made_up(seed: int = 0, images: int = 12) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Boxes of all sizes, some crowds, and detections shifted, doubled, missing and invented."""
    generator = np.random.default_rng(seed)
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for image in range(1, images + 1):
        for _ in range(generator.integers(0, 6)):
            side = generator.choice([15, 40, 70, 150, 200], 2) * generator.uniform(0.7, 1.3, 2)
            box = [*generator.uniform(0, 300, 2), *side]
            about = {"image_id": image, "category_id": int(generator.choice([2, 5]))}
            annotations.append(
                {
                    "id": len(annotations),
                    **about,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": int(generator.random() < 0.15),
                }
            )
            for _ in range(generator.integers(0, 4)):
                moved = np.array(box) + generator.normal(0, 0.08, 4) * [*side, *side]
                score = float(generator.random())
                results.append({**about, "bbox": moved.clip(1).tolist(), "score": score})
        for _ in range(generator.integers(0, 5)):
            about = {"image_id": image, "category_id": int(generator.choice([2, 5, 9]))}
            box = [*generator.uniform(0, 300, 2), *generator.uniform(5, 200, 2)]
            results.append({**about, "bbox": box, "score": float(generator.random())})
    truth = {
        "images": [{"id": k, "height": 600, "width": 600} for k in range(1, images + 1)],
        "categories": CATEGORIES,
        "annotations": annotations,
    }
    return truth, results


def _precision(evaluation: COCOeval, area: int) -> np.ndarray:
    """AP [T, K] with NaN where pycocotools has -1."""
    precision = evaluation.eval["precision"][..., area, -1]
    return np.where(precision[:, 0] < 0, np.nan, precision.mean(axis=1))


def _matched(truth: dict[str, Any], entries: list[dict[str, Any]], kind: str = "bbox") -> Matches:
    return match_results(truth, Results.from_entries(entries), kind)


def _assert_equal(a: Matches, b: Matches) -> None:
    for field in dataclasses.fields(Matches):
        one, other = getattr(a, field.name), getattr(b, field.name)
        assert np.array_equal(one, other) and one.dtype == other.dtype, field.name


def _written_out(
    truth: dict[str, Any], results: list[dict[str, Any]], counts: np.ndarray
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The multiset as a data set: every copy of an image is another image."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for image, count in zip(truth["images"], counts, strict=True):
        for _ in range(count):
            number = len(images) + 1
            images.append({**image, "id": number})
            for source, copies in ((truth["annotations"], annotations), (results, found)):
                own = [e for e in source if e["image_id"] == image["id"]]
                copies += [{**e, "image_id": number} for e in own]
    return {**truth, "images": images, "annotations": annotations}, found


@given(small_cases())
@settings(max_examples=60, deadline=None)
def test_all_at_once_matches_as_one_by_one(case: tuple[dict, list]) -> None:
    for kind in ("bbox", "segm"):
        expected = match_one_by_one(by_pycocotools(*case, kind))
        _assert_equal(_matched(*case, kind), expected)


@pytest.mark.parametrize("seed", range(4))
def test_each_detection_is_matched_as_by_pycocotools(seed: int) -> None:
    case = _made_up(seed)
    matches = _matched(*case)
    evaluation = by_pycocotools(*case, "bbox")
    _assert_equal(matches, match_one_by_one(evaluation))
    seen = 0
    for entry in evaluation.evalImgs:
        if entry is None:
            continue
        area = [list(r) for r in AREAS.values()].index(list(entry["aRng"]))
        n = int(np.searchsorted(matches.image_ids, entry["image_id"]))
        k = int(np.searchsorted(matches.category_ids, entry["category_id"]))
        own = (matches.images == n) & (matches.classes == k)
        ignored = entry["dtIgnore"].astype(bool)
        assert matches.scores[own].tolist() == entry["dtScores"]
        assert (matches.ignored[area][:, own] == ignored).all()
        assert (matches.tp[area][:, own] == ((entry["dtMatches"] > 0) & ~ignored)).all()
        assert matches.objects[area, n, k] == np.count_nonzero(entry["gtIgnore"] == 0)
        seen += len(entry["dtScores"])
    assert seen == 4 * len(matches.scores) > 100
    assert matches.tp[0, 0].any() and matches.ignored[0, 0].any()


def test_a_hundred_of_three_hundred_detections_count_and_the_highest_score_is_matched_first() -> (
    None
):
    truth, _ = _made_up(images=1)
    box = [0.0, 0.0, 20.0, 20.0]
    about = {"image_id": 1, "category_id": 2, "bbox": box}
    truth["annotations"] = [{**about, "area": 400.0, "iscrowd": 0} for _ in range(3)]
    generator = np.random.default_rng(0)
    entries = [{**about, "score": float(score)} for score in generator.random(300)]
    matches = _matched(truth, entries)
    _assert_equal(matches, match_one_by_one(by_pycocotools(truth, entries, "bbox")))
    assert len(matches.scores) == 100
    assert matches.tp[0, 0].tolist() == [True] * 3 + [False] * 97


def test_pairs_of_equal_overlap_leave_the_earlier_object_to_the_next() -> None:
    """Two objects lie equally far from the first detection, and the second reaches only one."""
    truth, _ = _made_up(images=1)
    about = {"image_id": 1, "category_id": 2}
    boxes = [[0.0, 0.0, 10.0, 10.0], [4.0, 0.0, 10.0, 10.0]]
    truth["annotations"] = [{**about, "bbox": b, "area": 100.0, "iscrowd": 0} for b in boxes]
    between = {**about, "bbox": [2.0, 0.0, 10.0, 10.0], "score": 0.9}
    for place, second in enumerate(boxes):
        matches = _matched(truth, [between, {**about, "bbox": second, "score": 0.8}])
        assert matches.tp[0, 0].tolist() == [True, place == 0]


@pytest.mark.parametrize("area", AREAS)
@pytest.mark.parametrize("seed", range(3))
def test_all_images_once_give_cocos_ap(seed: int, area: str) -> None:
    ap = average_precision(_matched(*_made_up(seed)), area=area)[0]
    expected = _precision(by_pycocotools(*_made_up(seed), "bbox"), list(AREAS).index(area))
    np.testing.assert_allclose(ap, expected, rtol=0, atol=1e-9)
    assert np.isfinite(expected).any()


@pytest.mark.parametrize("objects", [7, 14, 25, 28, 50, 58, 100])
def test_recalls_that_are_met_exactly_count_as_in_pycocotools(objects: int) -> None:
    # With 100 objects a recall of 0.29 is just reached or just missed by the last bit.
    boxes = [[40.0 * k, 0.0, 20.0, 20.0] for k in range(objects)]
    about = {"image_id": 1, "category_id": 2}
    truth = {
        "images": [{"id": 1, "height": 20, "width": 4000}],
        "categories": CATEGORIES[:1],
        "annotations": [{**about, "id": k, "bbox": b, "area": 400.0} for k, b in enumerate(boxes)],
    }
    truth["annotations"] = [{**a, "iscrowd": 0} for a in truth["annotations"]]
    results = []
    for k, box in enumerate(boxes):  # every right detection is followed by a wrong one
        results.append({**about, "bbox": box, "score": 1 - k / 1000})
        results.append({**about, "bbox": [box[0], 400.0, 5.0, 5.0], "score": 1 - k / 1000 - 1e-4})
    matches = _matched(truth, results)
    expected = _precision(by_pycocotools(truth, results, "bbox"), 0)
    np.testing.assert_allclose(average_precision(matches)[0], expected, rtol=0, atol=1e-9)


def test_counted_images_score_as_the_same_images_written_out() -> None:
    truth, results = _made_up(seed=5)
    counts = np.random.default_rng(1).integers(0, 4, (5, len(truth["images"])))
    got = average_precision(_matched(truth, results), counts)
    for row, some in zip(got, counts, strict=True):
        expected = _precision(by_pycocotools(*_written_out(truth, results, some), "bbox"), 0)
        np.testing.assert_allclose(row, expected, rtol=0, atol=1e-9)


def test_many_multisets_score_as_each_one_separately() -> None:
    matches = _matched(*_made_up(2))
    counts = np.random.default_rng(2).multinomial(12, np.full(12, 1 / 12), 1203)
    together = average_precision(matches, counts)
    for b in (0, 499, 500, 1202):
        alone = average_precision(matches, counts[b : b + 1])[0]
        np.testing.assert_allclose(together[b], alone, rtol=0, atol=1e-12)


def test_a_class_is_absent_where_no_chosen_image_has_it() -> None:
    matches = _matched(*_made_up(images=6))
    with_class = matches.objects[0, :, 0] > 0
    counts = np.stack([~with_class, with_class]).astype(int)
    ap = average_precision(matches, counts)
    assert np.isnan(ap[0, :, 0]).all() and np.isfinite(ap[1, :, 0]).all()


def test_no_detections_score_zero() -> None:
    matches = _matched(_made_up()[0], [])
    assert matches.tp.shape == (4, 10, 0)
    ap = average_precision(matches)[0]
    assert (ap[:, :2] == 0).all() and np.isnan(ap[:, 2]).all()


def test_saved_matches_come_back_and_save_to_the_same_bytes(tmp_path: Path) -> None:
    matches = {"bbox": _matched(*_made_up(1)), "segm": _matched(*_made_up(2))}
    save_matches(tmp_path / "matches.npz", matches)
    save_matches(tmp_path / "again.npz", matches)
    back = load_matches(tmp_path / "matches.npz")
    assert back.keys() == matches.keys()
    for kind in matches:
        _assert_equal(back[kind], matches[kind])
    assert (tmp_path / "matches.npz").read_bytes() == (tmp_path / "again.npz").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again.npz", "matches.npz"]


@pytest.mark.parametrize("content", [b"", b"no archive", None], ids=["empty", "text", "foreign"])
def test_a_file_that_is_no_match_results_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "matches.npz"
    if content is None:
        np.savez(path, **{"bbox/scores": np.zeros(3)})
    else:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"matches\.npz: .*metrics\.json"):
        load_matches(path)


def test_missing_match_results_are_named_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"matches\.npz: no such file; remove metrics\.json"):
        load_matches(tmp_path / "matches.npz")
