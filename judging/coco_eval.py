"""COCO's evaluation: detections into COCO's result format, results into AP and AR."""

import contextlib
import io
import logging
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor

from files.atomic import read_json
from judging.matches import Matches, match_detections
from ops.errors import InputError
from ops.masks import paste_masks
from ops.structures import Detections

log = logging.getLogger(__name__)

# COCO's twelve figures, in the order of its summary.
AP_FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl")
FIGURES = (*AP_FIGURES, "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
PASTE_CHUNK = 16  # full-size masks in memory at a time
NO_OBJECTS = -1.0  # COCO's value of a figure without objects, e.g. APs of a set without small ones


def coco_results(
    detections: Detections,
    *,
    image_id: int,
    original_size: tuple[int, int],
    category_ids: Sequence[int],
) -> list[dict[str, Any]]:
    """One image's detections as entries of COCO's result format.

    Args:
        detections: boxes in the pixels of the original image.
        original_size: its (height, width).
        category_ids: COCO's id of each label, ``0 .. num_classes - 1``.

    Returns:
        D dicts: image_id, category_id, bbox (x, y, width, height; to a thousandth of a pixel),
        score, and, where there are masks, segmentation (compressed RLE, counts as text).
    """
    detections = detections.cpu()
    corners = detections.boxes.double()
    boxes_xywh = torch.cat([corners[:, :2], corners[:, 2:] - corners[:, :2]], dim=1)
    results: list[dict[str, Any]] = [
        {
            "image_id": image_id,
            "category_id": category_ids[label],
            "bbox": [round(x, 3) for x in box],
            "score": score,
        }
        for box, label, score in zip(
            boxes_xywh.tolist(), detections.labels.tolist(), detections.scores.tolist(), strict=True
        )
    ]
    if detections.masks is not None:
        rles = _encode(detections.masks, detections.boxes, original_size)
        for result, rle in zip(results, rles, strict=True):
            result["segmentation"] = rle
    return results


def _encode(masks: Tensor, boxes: Tensor, size: tuple[int, int]) -> Iterable[dict[str, Any]]:
    """The RLE of each mask ``[D, m, m]``, pasted into its box in an image of `size`."""
    for chunk in zip(masks.split(PASTE_CHUNK), boxes.split(PASTE_CHUNK), strict=True):
        pasted = paste_masks(*chunk, size)  # [d, H, W]
        # RLE runs down the columns: [d, W, H] in memory is [H, W, d] in Fortran's order.
        columns = pasted.transpose(1, 2).contiguous().numpy().view(np.uint8).T
        for rle in coco_mask.encode(columns):
            yield {"size": list(size), "counts": rle["counts"].decode("ascii")}


def read_results(path: Path) -> list[dict[str, Any]]:
    """Saved detections, to be scored again without a model.

    Raises:
        InputError: no such file, not JSON, or an entry that is no result; names its position.
    """
    remedy = "give a detections.json written by evaluation, in COCO's result format"
    results = read_json(path, remedy)
    if not isinstance(results, list):
        raise InputError(f"{path}: holds a {type(results).__name__}, not a list; {remedy}")
    for index, result in enumerate(results):
        problem = _problem(result)
        if problem:
            raise InputError(f"{path}: entry {index} {problem}; {remedy}")
    return results


def _problem(result: Any) -> str | None:
    """What is wrong with one result, or None."""
    if not isinstance(result, dict):
        return f"is a {type(result).__name__}, not an object"
    for name in ("image_id", "category_id"):
        if type(result.get(name)) is not int:
            return f"has no whole number as {name}"
    if not _is_number(result.get("score")):
        return "has no number as score"
    box = result.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
        return "has no bbox of four numbers (x, y, width, height)"
    rle = result.get("segmentation")
    if rle is not None and not (
        isinstance(rle, dict) and isinstance(rle.get("counts"), str) and "size" in rle
    ):
        return "has a segmentation that is no compressed RLE"
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and np.isfinite(value)


@dataclass(frozen=True)
class CocoEvaluation:
    """The figures of an evaluation and the arrays behind them, by kind ("bbox", "segm").

    Attributes:
        metrics: see `coco_evaluation`.
        precision: float64 [10 IoU thresholds from .50 to .95, 101 recalls, K classes by id], of
            objects of all sizes and 100 detections an image; -1 for classes without objects.
        matches: which detections are right, wrong or ignored.
    """

    metrics: dict[str, float]
    precision: dict[str, NDArray[np.float64]]
    matches: dict[str, Matches]


def coco_metrics(
    ground_truth: Mapping[str, Any], results: Sequence[Mapping[str, Any]], **settings: Any
) -> dict[str, float]:
    """The metrics of `coco_evaluation`, which takes the same arguments."""
    return coco_evaluation(ground_truth, results, **settings).metrics


def coco_evaluation(
    ground_truth: Mapping[str, Any],
    results: Sequence[Mapping[str, Any]],
    *,
    iou_types: Sequence[str] = ("bbox", "segm"),
    per_category: bool = False,
    backend: str = "pycocotools",
) -> CocoEvaluation:
    """COCO's evaluation of `results` against `ground_truth`; neither is changed.

    The size of a detected mask (for APs, APm, APl, ARs, ARm, ARl) is its own area, as in
    Detectron, detectron2 and torchvision; pycocotools would take its box's area where a result
    holds both.

    Args:
        ground_truth: a COCO annotation file's content. All its images count.
        results: COCO's result format, with segmentations where "segm" is asked for.
        per_category: also ``bbox/AP/<category name>``.
        backend: "pycocotools", or "faster_coco_eval" (the same figures, several times faster).

    Returns:
        Its metrics are ``bbox/AP`` ... ``segm/ARl`` in percent, 0 to 100; -1, as in COCO, where
        the ground truth has no object of that size or category.

    Raises:
        InputError: no images, a result of an unknown image or category, a result without a mask,
            a backend that is unknown or not installed.
    """
    truth = _checked_truth(ground_truth)
    _check_results(truth, results, iou_types)
    if not results:
        log.warning("no detections at all: every AP and AR is 0; train longer or lower schedule.lr")
    metrics: dict[str, float] = {}
    precision, matches = {}, {}
    for iou_type in iou_types:
        evaluation = _evaluate(truth, results, iou_type, backend)
        # [IoU, recall, category, object size, detections]: all sizes, 100 detections
        precision[iou_type] = evaluation.eval["precision"][..., 0, -1].copy()
        matches[iou_type] = match_detections(
            evaluation.cocoGt.dataset["annotations"],
            evaluation.cocoDt.dataset["annotations"],
            evaluation.ious,
            image_ids=evaluation.params.imgIds,
            category_ids=evaluation.params.catIds,
        )
        values = [float(value) for value in evaluation.stats[: len(FIGURES)]]
        metrics |= {f"{iou_type}/{k}": _percent(v) for k, v in zip(FIGURES, values, strict=True)}
        if per_category:
            metrics |= _per_category(evaluation, truth, iou_type)
    return CocoEvaluation(metrics, precision, matches)


def _percent(value: float) -> float:
    return NO_OBJECTS if value < 0 else 100 * value


def _checked_truth(ground_truth: Mapping[str, Any]) -> dict[str, Any]:
    """A copy with every field that the evaluation needs."""
    if not ground_truth.get("images"):
        raise InputError("validation set: holds no images; give a set with at least one image")
    # COCO's evaluation takes the id 0 for "not matched": annotations are numbered anew, from 1.
    annotations = [
        {"iscrowd": 0, "area": a["bbox"][2] * a["bbox"][3], **a, "id": number}
        for number, a in enumerate(ground_truth.get("annotations", []), start=1)
    ]
    return {
        "info": ground_truth.get("info", {}),
        "images": list(ground_truth["images"]),
        "categories": list(ground_truth["categories"]),
        "annotations": annotations,
    }


def _check_results(
    truth: Mapping[str, Any], results: Sequence[Mapping[str, Any]], iou_types: Sequence[str]
) -> None:
    images = {image["id"] for image in truth["images"]}
    categories = {category["id"] for category in truth["categories"]}
    for index, result in enumerate(results):
        if result["image_id"] not in images:
            problem = f"is of image {result['image_id']}, which the annotations do not have"
        elif result["category_id"] not in categories:
            problem = f"is of category {result['category_id']}, which the annotations do not have"
        elif "segm" in iou_types and "segmentation" not in result:
            problem = "has no mask, but masks are scored"
        else:
            continue
        raise InputError(
            f"detection {index}: {problem}; score the detections of this data set, or boxes only"
        )


def _evaluate(
    truth: Mapping[str, Any], results: Sequence[Mapping[str, Any]], iou_type: str, backend: str
) -> Any:
    """The finished COCOeval of one kind; its `eval` holds the precision and recall arrays."""
    coco_class, eval_class = _backend(backend)
    # The evaluation writes into annotations and results: each kind gets a copy.
    copies = [dict(result) for result in results]
    if iou_type == "segm":
        for copy in copies:
            copy.pop("bbox", None)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        reference = _indexed(
            coco_class, {**truth, "annotations": [dict(a) for a in truth["annotations"]]}
        )
        if copies:
            detected = reference.loadRes(copies)
        else:
            detected = _indexed(coco_class, {**truth, "annotations": []})
        evaluation = eval_class(reference, detected, iou_type)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def _indexed(coco_class: Any, dataset: dict[str, Any]) -> Any:
    coco = coco_class()
    coco.dataset = dataset
    coco.createIndex()
    return coco


def _backend(name: str) -> tuple[Any, Any]:
    if name == "pycocotools":
        return COCO, COCOeval
    if name != "faster_coco_eval":
        raise InputError(
            f"evaluation.backend={name}: unknown; choose pycocotools or faster_coco_eval"
        )
    try:
        import faster_coco_eval
    except ImportError as error:
        raise InputError(
            "evaluation.backend=faster_coco_eval: is not installed; `pip install faster-coco-eval` "
            "or choose pycocotools"
        ) from error
    return faster_coco_eval.COCO, faster_coco_eval.COCOeval_faster


def _per_category(evaluation: Any, truth: Mapping[str, Any], iou_type: str) -> dict[str, float]:
    """AP of each category by name (with its id where two share a name)."""
    names = {category["id"]: category["name"] for category in truth["categories"]}
    shared = {name for name, count in Counter(names.values()).items() if count > 1}
    metrics = {}
    for index, category_id in enumerate(evaluation.params.catIds):
        values = evaluation.eval["precision"][:, :, index, 0, -1]
        values = values[values > -1]
        name = names[category_id]
        label = f"{name} ({category_id})" if name in shared else name
        mean = float(values.mean()) if values.size else NO_OBJECTS
        metrics[f"{iou_type}/AP/{label}"] = _percent(mean)
    return metrics


def results_table(metrics: Mapping[str, float]) -> str:
    """Boxes and masks as rows, AP AP50 AP75 APs APm APl as columns; a dash where COCO has -1.

    The average recalls of the proposals, where the network has no second stage.
    """
    lines = [f"{'':<5}" + "".join(f"{figure:>7}" for figure in AP_FIGURES)]
    for kind, title in (("bbox", "box"), ("segm", "mask")):
        if f"{kind}/AP" in metrics:
            values = (metrics[f"{kind}/{figure}"] for figure in AP_FIGURES)
            texts = ("-" if value < 0 else f"{value:.1f}" for value in values)
            lines.append(f"{title:<5}" + "".join(f"{text:>7}" for text in texts))
    if len(lines) == 1:
        lines = [f"{k}  {v:.1f}" for k, v in metrics.items() if k.startswith("proposals/")]
    return "\n".join(lines)


def compare_with_expected(
    metrics: Mapping[str, float], *, images: int, expected: Mapping[str, Any]
) -> str:
    """One line that compares the figures with published or earlier ones.

    Args:
        metrics: of an evaluation over `images` images.
        expected: `metrics` to compare with, the `tolerance` in points, and the number of `images`
            they were computed over; with another number nothing is compared.
    """
    if images != expected["images"]:
        return f"the expected figures are over {expected['images']} images, not {images}"
    compared = []
    for name, value in expected["metrics"].items():
        actual = metrics.get(name, math.nan)
        near = abs(actual - value) <= expected["tolerance"]
        compared.append(f"{name} {actual:.2f} {'' if near else 'NOT '}as expected ({value:g})")
    return f"{'; '.join(compared)}; tolerance {expected['tolerance']:g}"
