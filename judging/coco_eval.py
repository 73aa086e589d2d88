"""COCO's figures: AP and AR of results against the annotations."""

import contextlib
import io
import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from judging.results import Results
from ops.errors import InputError

log = logging.getLogger(__name__)

# COCO's twelve figures, in the order of its summary.
AP_FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl")
FIGURES = (*AP_FIGURES, "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
NO_OBJECTS = -1.0  # COCO's value of a figure without objects, e.g. APs of a set without small ones
BACKENDS = ("hotcoco", "pycocotools")  # equal to the last bit; the first takes a tenth of the time
FORMER_BACKENDS = {"faster_coco_eval": "hotcoco"}  # in the configurations of earlier runs
COUNTED = 100  # detections of one class in one image that COCO counts


@dataclass(frozen=True)
class CocoEvaluation:
    """The figures of an evaluation and the curves behind them.

    Attributes:
        metrics: see `coco_evaluation`.
        precision: by kind ("bbox", "segm"), float64 [10 IoU thresholds from .50 to .95, 101
            recalls, K classes by id], of objects of all sizes and 100 detections an image; -1 for
            classes without objects.
    """

    metrics: dict[str, float]
    precision: dict[str, NDArray[np.float64]]


def coco_metrics(
    ground_truth: Mapping[str, Any], results: Results, **settings: Any
) -> dict[str, float]:
    """The metrics of `coco_evaluation`, which takes the same arguments."""
    return coco_evaluation(ground_truth, results, **settings).metrics


def coco_evaluation(
    ground_truth: Mapping[str, Any],
    results: Results,
    *,
    iou_types: Sequence[str] = ("bbox", "segm"),
    per_category: bool = False,
    backend: str = "hotcoco",
) -> CocoEvaluation:
    """COCO's evaluation of `results` against `ground_truth`; neither is changed.

    The size of a detected mask (for APs, APm, APl, ARs, ARm, ARl) is its own area, as in
    Detectron, detectron2 and torchvision; pycocotools would take its box's area where a result
    holds both.

    Args:
        ground_truth: a COCO annotation file's content. All its images count.
        results: with masks if `iou_types` has "segm".
        per_category: also ``bbox/AP/<category name>``.
        backend: one of `BACKENDS`, or the name of a former one. If hotcoco is missing or fails,
            pycocotools is used instead, with a warning.

    Returns:
        Its metrics are ``bbox/AP`` ... ``segm/ARl`` in percent, 0 to 100; -1, as in COCO, where
        the ground truth has no object of that size or category.

    Raises:
        InputError: no images, a result of an unknown image or category, a result without a mask,
            an unknown backend.
    """
    truth = _checked_truth(ground_truth)
    _check_results(truth, results, iou_types)
    if not len(results):
        log.warning("no detections at all: every AP and AR is 0; train longer or lower schedule.lr")
    _say_what_cannot_count(truth, results)
    metrics: dict[str, float] = {}
    precision = {}
    for kind, evaluation in _evaluations(truth, results, iou_types, backend).items():
        # [IoU, recall, category, object size, detections]: all sizes, 100 detections
        precision[kind] = evaluation.eval["precision"][..., 0, -1].copy()
        values = [float(value) for value in evaluation.stats[: len(FIGURES)]]
        metrics |= {f"{kind}/{k}": _percent(v) for k, v in zip(FIGURES, values, strict=True)}
        if per_category:
            metrics |= _per_category(precision[kind], truth, kind)
    return CocoEvaluation(metrics, precision)


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


def _check_results(truth: Mapping[str, Any], results: Results, kinds: Sequence[str]) -> None:
    for name, ids, entries in (
        ("image", results.image_ids, truth["images"]),
        ("category", results.category_ids, truth["categories"]),
    ):
        for index in np.flatnonzero(~np.isin(ids, [entry["id"] for entry in entries])).tolist():
            _refuse(index, f"is of {name} {ids[index]}, which the annotations do not have")
    if "segm" in kinds and len(results):
        masks = results.masks or [None]
        if None in masks:
            _refuse(masks.index(None), "has no mask, but masks are scored")


def _refuse(index: int, problem: str) -> NoReturn:
    raise InputError(
        f"detection {index}: {problem}; score the detections of this data set, or boxes only "
        "(mask=false)"
    )


def _say_what_cannot_count(truth: Mapping[str, Any], results: Results) -> None:
    """Warn where an image has more objects or detections of a class than COCO counts."""
    objects = Counter(
        (a["image_id"], a["category_id"]) for a in truth["annotations"] if not a["iscrowd"]
    )
    detections = Counter(
        zip(results.image_ids.tolist(), results.category_ids.tolist(), strict=True)
    )
    for what, counts, consequence in (
        ("detections", detections, "the lowest scores are left out"),
        ("objects", objects, "not all of them can be found"),
    ):
        beyond = sum(count - COUNTED for count in counts.values() if count > COUNTED)
        if beyond:
            log.warning(
                "COCO counts at most %d detections of a class in an image: there are %d %s more, "
                "and %s",
                *(COUNTED, beyond, what, consequence),
            )


def _evaluations(
    truth: Mapping[str, Any], results: Results, kinds: Sequence[str], backend: str
) -> dict[str, Any]:
    """The finished COCOeval of each kind; `stats` and `eval` hold the figures and the curves."""
    check_backend(backend)
    if FORMER_BACKENDS.get(backend, backend) == "hotcoco":
        try:
            return {kind: _by_hotcoco(truth, results, kind) for kind in kinds}
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a panic in Rust is not an Exception
            log.warning(
                "hotcoco fails (%s): pycocotools is used instead, which is slower; `pip install "
                "hotcoco`, or choose evaluation.backend=pycocotools",
                " ".join(str(error).split()),
            )
    return {kind: _by_pycocotools(truth, results, kind) for kind in kinds}


def check_backend(name: str) -> None:
    """Raise InputError unless `name` is one of `BACKENDS`."""
    if name not in (*BACKENDS, *FORMER_BACKENDS):
        raise InputError(f"evaluation.backend={name}: unknown; choose {' or '.join(BACKENDS)}")


def _by_hotcoco(truth: Mapping[str, Any], results: Results, kind: str) -> Any:
    import hotcoco

    # hotcoco takes ids as float64, which not every id fits into: it is given 0, 1, 2 ... instead.
    image_ids, category_ids = (
        np.unique([entry["id"] for entry in truth[key]]) for key in ("images", "categories")
    )
    image, category = (
        {id_: place for place, id_ in enumerate(ids.tolist())} for ids in (image_ids, category_ids)
    )
    annotations = [
        {**a, "image_id": image[a["image_id"]], "category_id": category[a["category_id"]]}
        for a in truth["annotations"]
    ]
    reference = hotcoco.COCO(
        {
            **truth,
            "images": [{**entry, "id": image[entry["id"]]} for entry in truth["images"]],
            "categories": [{**entry, "id": category[entry["id"]]} for entry in truth["categories"]],
            "annotations": annotations,
        }
    )
    numbers = np.column_stack(
        [
            np.searchsorted(image_ids, results.image_ids),
            results.boxes_xywh,
            results.scores,
            np.searchsorted(category_ids, results.category_ids),
        ]
    )
    if kind == "segm" and results.masks:
        detected = reference.load_res(numbers, segmentation=results.masks)
        areas = np.asarray(hotcoco.mask.area(results.masks), np.float64)
        detected.update_anns(ids=np.arange(1, len(results) + 1), area=areas)
    else:
        detected = reference.load_res(numbers)
    return _finished(hotcoco.COCOeval(reference, detected, kind))


def _by_pycocotools(truth: Mapping[str, Any], results: Results, kind: str) -> Any:
    # pycocotools writes into annotations and results: each kind gets a copy.
    annotations = [dict(annotation) for annotation in truth["annotations"]]
    entries = list(results.entries())
    if kind == "segm":
        for entry in entries:
            del entry["bbox"]
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        reference = _indexed({**truth, "annotations": annotations})
        detected = reference.loadRes(entries) if entries else _indexed({**truth, "annotations": []})
    return _finished(COCOeval(reference, detected, kind))


def _indexed(dataset: dict[str, Any]) -> COCO:
    coco = COCO()
    coco.dataset = dataset
    coco.createIndex()
    return coco


def _finished(evaluation: Any) -> Any:
    with contextlib.redirect_stdout(io.StringIO()):  # both print their progress
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def _per_category(
    precision: NDArray[np.float64], truth: Mapping[str, Any], kind: str
) -> dict[str, float]:
    """AP of each category by name (with its id where two share a name)."""
    names = {category["id"]: category["name"] for category in truth["categories"]}
    shared = {name for name, count in Counter(names.values()).items() if count > 1}
    metrics = {}
    for index, category_id in enumerate(sorted(names)):
        values = precision[:, :, index]
        values = values[values > -1]
        name = names[category_id]
        label = f"{name} ({category_id})" if name in shared else name
        mean = float(values.mean()) if values.size else NO_OBJECTS
        metrics[f"{kind}/AP/{label}"] = _percent(mean)
    return metrics


def results_table(metrics: Mapping[str, float]) -> str:
    """Boxes and masks as rows, AP AP50 AP75 APs APm APl as columns; a dash where COCO has -1.

    The average recalls of the proposals, if the network has no second stage.
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
    metrics: Mapping[str, float], *, images: int, steps: int, expected: Mapping[str, Any]
) -> str:
    """One line that compares the figures with published or earlier ones.

    Args:
        metrics: over `images` images, of a network trained for `steps` steps.
        expected: `metrics` to compare with and their `tolerance` in points, or the least figures,
            `at_least`; and the number of `images` and `steps` that they are for. With other numbers
            nothing is compared, nor are figures that the run does not have.
    """
    for what, wanted, actual in (
        ("images", expected["images"], images),
        ("training steps", expected.get("steps", steps), steps),
    ):
        if wanted != actual:
            return f"the expected figures are of {wanted} {what}, not {actual}: not compared"
    compared = []
    for name, value in expected.get("metrics", {}).items():
        near = abs(metrics.get(name, math.nan) - value) <= expected["tolerance"]
        compared.append((name, near, f"{value:g} ± {expected['tolerance']:g}"))
    for name, value in expected.get("at_least", {}).items():
        compared.append((name, metrics.get(name, math.nan) >= value, f"at least {value:g}"))
    texts = [
        f"{name} {metrics[name]:.2f} {'' if good else 'NOT '}as expected ({wanted})"
        for name, good, wanted in compared
        if name in metrics
    ]
    return "; ".join(texts) or "none of the expected figures is measured by this run"
