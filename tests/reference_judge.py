"""Slow references for the scores: pycocotools itself, and matching one group at a time."""

import contextlib
import copy
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from judging.matches import AREAS, IOU_THRESHOLDS, MOST_PER_IMAGE, Matches
from ops import rle


def by_pycocotools(truth: dict[str, Any], entries: list[dict[str, Any]], kind: str) -> COCOeval:
    """pycocotools' evaluation, by its documented steps; a mask's size is the mask's area."""
    left_out = "bbox" if kind == "segm" else "segmentation"
    entries = [{k: copy.copy(v) for k, v in e.items() if k != left_out} for e in entries]
    # pycocotools takes the id 0 for "unmatched".
    annotations = [{**a, "id": k} for k, a in enumerate(truth["annotations"], start=1)]
    with contextlib.redirect_stdout(io.StringIO()):
        coco, found = COCO(), COCO()
        for index, listed in ((coco, annotations), (found, [])):
            index.dataset = {**truth, "annotations": copy.deepcopy(listed)}
            index.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(entries) if entries else found, kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def match_one_by_one(evaluation: COCOeval) -> Matches:
    """The matches of a finished evaluation from its IoUs, one image and class at a time."""
    image_ids, category_ids = sorted(evaluation.params.imgIds), sorted(evaluation.params.catIds)
    objects = np.zeros((len(AREAS), len(image_ids), len(category_ids)), np.int32)
    nothing = np.zeros((len(AREAS), len(IOU_THRESHOLDS), 0), bool)
    scores, images, classes, tps, ignoreds = [np.zeros(0)], [], [], [nothing], [nothing]
    for k, category in enumerate(category_ids):
        for n, image in enumerate(image_ids):
            there, here = evaluation._gts[image, category], evaluation._dts[image, category]
            crowd = np.array([bool(a["iscrowd"]) for a in there], bool)
            skipped = crowd | _outside(there)
            objects[:, n, k] = (~skipped).sum(axis=1)
            if not here:
                continue
            here = sorted(here, key=lambda entry: -entry["score"])[:MOST_PER_IMAGE]
            ious = np.asarray(evaluation.ious[image, category]).reshape(len(here), len(there))
            tp, ignored = _match(ious, crowd, skipped)
            scores.append(np.array([entry["score"] for entry in here]))
            images += [n] * len(here)
            classes += [k] * len(here)
            tps.append(tp)
            ignoreds.append(ignored | (~tp & _outside(here)[:, None]))
    order = np.lexsort((-np.concatenate(scores), np.array(classes)))
    return Matches(
        image_ids=np.array(image_ids, np.int64),
        category_ids=np.array(category_ids, np.int64),
        scores=np.concatenate(scores)[order],
        images=np.array(images, np.int32)[order],
        classes=np.array(classes, np.int32)[order],
        tp=np.concatenate(tps, axis=2)[..., order],
        ignored=np.concatenate(ignoreds, axis=2)[..., order],
        objects=objects,
    )


def _outside(entries: list[Mapping[str, Any]]) -> np.ndarray:
    """Which entries lie outside each area range, [A, n]."""
    areas = np.array([float(entry["area"]) for entry in entries])
    return np.stack([(areas < low) | (areas > high) for low, high in AREAS.values()])


def _match(
    ious: np.ndarray, crowd: np.ndarray, skipped: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Right and ignored detections [A, T, D] of one image and class, from ious [D, G], crowd [G]
    and skipped [A, G]: in the order of their scores each takes the free object that it overlaps
    most, one that is skipped only if no other is left."""
    number, there = ious.shape
    shape = (len(AREAS), len(IOU_THRESHOLDS))
    tp, ignored = np.zeros((2, *shape, number), bool)
    free = np.ones((*shape, there), bool)
    for d in range(number):
        enough = ious[d] >= np.minimum(IOU_THRESHOLDS, 1 - 1e-10)[:, None]  # [T, G]
        fits = enough & (free | crowd)  # [A, T, G]
        counting = fits & ~skipped[:, None]
        tp[..., d] = counting.any(axis=2)
        candidates = np.where(tp[..., d, None], counting, fits)
        hit = candidates.any(axis=2)
        ignored[..., d] = hit & ~tp[..., d]
        if there:
            overlap = np.where(candidates, ious[d], -1.0)
            taken = there - 1 - overlap[..., ::-1].argmax(axis=2)  # [A, T]; of equals the last
            free &= ~(hit[..., None] & (np.arange(there) == taken[..., None]))
    return tp, ignored


@st.composite
def small_cases(draw: st.DrawFn) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Annotations and results of up to three images: few places and few scores, so that overlaps
    and scores are often equal; crowds; images and categories without anything."""
    scale = draw(st.sampled_from([1, 8]))  # objects of all three sizes
    edge = 16 * scale
    number = st.integers(0, 8)

    def region() -> dict[str, Any]:
        x, y, w, h = (scale * draw(number) for _ in range(4))
        mask = np.zeros((edge, edge), bool)
        mask[y : y + h, x : x + w] = True
        if draw(st.booleans()):  # a hole: the box's overlap is not the mask's
            mask[y + h // 3 : y + h // 2] = False
        runs = rle.encode(mask)
        counts: Any = rle.compress(runs)
        return {
            "image_id": draw(st.integers(1, 3)),
            "category_id": draw(st.sampled_from([2, 7])),
            "bbox": [float(x), float(y), float(w), float(h)],
            "segmentation": {"size": [edge, edge], "counts": counts},
        }

    def annotation() -> dict[str, Any]:
        about = region()
        crowd = draw(st.integers(0, 4)) == 0
        x, y, w, h = about["bbox"]
        if draw(st.booleans()):
            about["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
        elif crowd:
            runs = rle.decompress(about["segmentation"]["counts"])
            about["segmentation"]["counts"] = runs.tolist()
        return {**about, "area": w * h, "iscrowd": int(crowd)}

    annotations = [annotation() for _ in range(draw(number))]
    found = [
        {**region(), "score": draw(st.sampled_from([0.25, 0.5, 0.75]))} for _ in range(draw(number))
    ]
    for source in annotations:  # some are found exactly
        if (
            isinstance(source["segmentation"], dict)
            and not source["iscrowd"]
            and draw(st.booleans())
        ):
            names = ("image_id", "category_id", "bbox", "segmentation")
            found.append({**{name: source[name] for name in names}, "score": 0.5})
    truth = {
        "images": [{"id": k, "height": edge, "width": edge} for k in (1, 2, 3)],
        "categories": [{"id": k, "name": str(k)} for k in (2, 7, 9)],
        "annotations": annotations,
    }
    return truth, draw(st.permutations(found))
