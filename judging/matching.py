"""COCO's matching of detections to objects, for all images and classes at once.

In the order of scores, each detection of an image and class takes the free object of the same image
and class that it overlaps most. Groups (an image and a class) do not affect each other, so the best
detections of all groups are matched together, then all second ones, and so on.

Letters as in `judging.matches`, and P pairs of a detection and an object of its group.
"""

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from judging.matches import AREAS, IOU_THRESHOLDS, MOST_PER_IMAGE, Matches
from judging.results import Results

MOST_AREAS = 255  # most RLEs whose areas pycocotools computes in one call with NumPy 2
Indices = NDArray[np.int64]
Groups = Callable[[Any, Any], Indices]  # from image and category ids


class _Regions(NamedTuple):
    """All detections or all objects, ordered by group.

    Attributes:
        group: int64 [n], a number for each image and class.
        shapes: boxes (x, y, width, height) [n, 4], or n RLEs.
        areas: float64 [n], square pixels.
        crowd: bool [n], false for detections.
    """

    group: Indices
    shapes: Any
    areas: NDArray[np.float64]
    crowd: NDArray[np.bool_]

    def skipped(self) -> NDArray[np.bool_]:
        """Which do not count in each area range, as crowds or for their area: bool [n, A]."""
        low, high = np.array(list(AREAS.values())).T
        areas = self.areas[:, None]
        return self.crowd[:, None] | (areas < low) | (areas > high)


def match_results(ground_truth: Mapping[str, Any], results: Results, kind: str) -> Matches:
    """The match result of each detection in COCO's evaluation, at all thresholds and area ranges.

    Args:
        ground_truth: a COCO annotation file's content. All its images count.
        results: of its images and categories, with masks where `kind` is "segm".
        kind: "bbox" or "segm".
    """
    image_ids = np.unique([image["id"] for image in ground_truth["images"]]).astype(np.int64)
    category_ids = np.unique([c["id"] for c in ground_truth["categories"]]).astype(np.int64)

    def groups(images: Any, categories: Any) -> Indices:
        index = np.searchsorted(image_ids, images) * len(category_ids)
        return index + np.searchsorted(category_ids, categories)

    objects = _objects(ground_truth, groups, kind)
    chosen, detected = _detections(results, groups, kind)
    tp, taken = _match(detected, objects)
    ignored = ~tp & (taken | detected.skipped()[:, :, None])

    images, classes = np.divmod(detected.group, len(category_ids))
    scores = results.scores[chosen]
    order = np.lexsort((-scores, classes))  # stable: equal scores stay in the images' order
    counts = np.zeros((len(image_ids) * len(category_ids), len(AREAS)), np.int32)
    np.add.at(counts, objects.group, ~objects.skipped())
    return Matches(
        image_ids=image_ids,
        category_ids=category_ids,
        scores=scores[order],
        images=images[order].astype(np.int32),
        classes=classes[order].astype(np.int32),
        tp=np.ascontiguousarray(tp[order].transpose(1, 2, 0)),
        ignored=np.ascontiguousarray(ignored[order].transpose(1, 2, 0)),
        objects=np.ascontiguousarray(counts.T).reshape(-1, len(image_ids), len(category_ids)),
    )


def _objects(ground_truth: Mapping[str, Any], groups: Groups, kind: str) -> _Regions:
    annotations = ground_truth["annotations"]
    group = groups(*([a[name] for a in annotations] for name in ("image_id", "category_id")))
    order = np.argsort(group, kind="stable")
    annotations = [annotations[index] for index in order]
    boxes = np.array([a["bbox"] for a in annotations], np.float64).reshape(-1, 4)
    areas = [a.get("area", box[2] * box[3]) for a, box in zip(annotations, boxes, strict=True)]
    crowd = np.array([bool(a.get("iscrowd", 0)) for a in annotations], bool)
    shapes: Any = boxes
    if kind == "segm":
        sizes = {image["id"]: (image["height"], image["width"]) for image in ground_truth["images"]}
        shapes = [_as_rle(a["segmentation"], sizes[a["image_id"]]) for a in annotations]
    return _Regions(group[order], shapes, np.array(areas, np.float64), crowd)


def _as_rle(segmentation: Any, size: tuple[int, int]) -> dict[str, Any]:
    """Polygons or an RLE of either kind as a compressed RLE."""
    if isinstance(segmentation, list):
        return coco_mask.merge(coco_mask.frPyObjects(segmentation, *size))
    if isinstance(segmentation["counts"], list):
        return coco_mask.frPyObjects(segmentation, *size)
    return segmentation


def _detections(results: Results, groups: Groups, kind: str) -> tuple[Indices, _Regions]:
    """The indices in `results` of the detections that count, and these, best first in a group."""
    group = groups(results.image_ids, results.category_ids)
    order = np.lexsort((-results.scores, group))
    chosen = order[_ranks_in_group(group[order]) < MOST_PER_IMAGE]
    no_crowd = np.zeros(len(chosen), bool)
    if kind == "bbox":
        boxes = results.boxes_xywh[chosen]
        return chosen, _Regions(group[chosen], boxes, boxes[:, 2] * boxes[:, 3], no_crowd)
    masks = [results.masks[index] for index in chosen] if results.masks else []
    parts = [coco_mask.area(masks[i : i + MOST_AREAS]) for i in range(0, len(masks), MOST_AREAS)]
    return chosen, _Regions(group[chosen], masks, np.concatenate([np.zeros(0), *parts]), no_crowd)


def _ranks_in_group(group: Indices) -> Indices:
    """0, 1, 2 ... within each group; `group` is ascending."""
    return np.arange(len(group)) - np.searchsorted(group, group)


def _pairs(detected: _Regions, objects: _Regions) -> tuple[Indices, Indices, NDArray[np.float64]]:
    """Detection, object and IoU [P] of all pairs that reach the lowest threshold."""
    shared = np.intersect1d(detected.group, objects.group)
    first_d, end_d = (np.searchsorted(detected.group, shared, side) for side in ("left", "right"))
    first_g, end_g = (np.searchsorted(objects.group, shared, side) for side in ("left", "right"))
    blocks = [
        coco_mask.iou(detected.shapes[d], objects.shapes[g], objects.crowd[g]).ravel()
        for d, g in zip(map(slice, first_d, end_d), map(slice, first_g, end_g), strict=True)
    ]
    iou = np.concatenate([np.zeros(0), *blocks])
    widths = end_g - first_g
    sizes = (end_d - first_d) * widths
    of_block = np.repeat(np.arange(len(shared)), sizes)
    row, column = np.divmod(_ranks_in_group(of_block), widths[of_block])
    enough = iou >= IOU_THRESHOLDS[0]
    detection, object_ = first_d[of_block] + row, first_g[of_block] + column
    return detection[enough], object_[enough], iou[enough]


def _match(detected: _Regions, objects: _Regions) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which detections take an object that counts, and which take any, both [D, A, T].

    An object that does not count is taken only if no other is left. A crowd region can be taken any
    number of times. Of equal overlaps the later object wins, as in COCO's loop.
    """
    detection, object_, iou = _pairs(detected, objects)
    choosers = np.unique(detection)
    turn = _ranks_in_group(detected.group[choosers])[np.searchsorted(choosers, detection)]  # [P]
    order = np.lexsort((object_, iou, detection, turn))
    detection, object_, turn = detection[order], object_[order], turn[order]
    enough = iou[order, None] >= np.minimum(IOU_THRESHOLDS, 1 - 1e-10)  # [P, T]
    skipped = objects.skipped()

    tp, taken = np.zeros((2, len(detected.group), len(AREAS), len(IOU_THRESHOLDS)), bool)
    free = np.ones((len(objects.group), len(AREAS), len(IOU_THRESHOLDS)), bool)
    for start, stop in pairwise(np.flatnonzero(np.diff(turn, prepend=-1, append=-1))):
        d, g = detection[start:stop], object_[start:stop]
        fits = enough[start:stop, None] & (free[g] | objects.crowd[g, None, None])  # [p, A, T]
        counting = fits & ~skipped[g, :, None]
        # The pairs of a detection follow each other, the one with the largest overlap last.
        first = np.flatnonzero(np.diff(d, prepend=-1))
        place = np.arange(len(g))[:, None, None]
        best, best_of_any = (
            np.maximum.reduceat(np.where(pairs, place, -1), first) for pairs in (counting, fits)
        )
        tp[d[first]] = best >= 0
        best = np.where(best >= 0, best, best_of_any)
        taken[d[first]] = best >= 0
        _, area, threshold = np.nonzero(best >= 0)
        free[g[best[best >= 0]], area, threshold] = False
    return tp, taken
