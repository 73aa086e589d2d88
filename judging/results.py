"""Detections in COCO's result format: in memory as columns, and in files."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from files.atomic import read_json, writing_list
from ops.errors import InputError
from ops.masks import encode_masks
from ops.rle import decompress_all
from ops.structures import Detections

CHECKED_TOGETHER = 1000  # masks whose run lengths are looked at together
LARGEST = 1e300  # of a score or a coordinate; no NaN compares as less
WRITTEN_TOGETHER = 1000  # detections that are written at a time, to save memory
REMEDY = "give a detections.json written by evaluation, in COCO's result format"


@dataclass(frozen=True)
class Results:
    """Detections of any number of images, in the pixels of their files.

    Attributes:
        image_ids: int64 [D].
        category_ids: int64 [D].
        boxes_xywh: float64 [D, 4], x, y, width, height.
        scores: float64 [D].
        masks: D compressed RLEs (None for a detection without mask); None if there are no masks.
    """

    image_ids: NDArray[np.int64]
    category_ids: NDArray[np.int64]
    boxes_xywh: NDArray[np.float64]
    scores: NDArray[np.float64]
    masks: list[Any] | None = None

    @property
    def columns(self) -> tuple[NDArray[Any], ...]:
        """All but the masks, in the order of the attributes."""
        return self.image_ids, self.category_ids, self.boxes_xywh, self.scores

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, rows: slice) -> "Results":
        image_ids, category_ids, boxes, scores = (column[rows] for column in self.columns)
        masks = None if self.masks is None else self.masks[rows]
        return Results(image_ids, category_ids, boxes, scores, masks)

    def entries(self) -> Iterator[dict[str, Any]]:
        """The detections in COCO's format: image_id, category_id, bbox, score and, if there is a
        mask, segmentation."""
        masks = [None] * len(self) if self.masks is None else self.masks
        rows = zip(*(column.tolist() for column in self.columns), masks, strict=True)
        for image_id, category_id, box, score, mask in rows:
            entry = {"image_id": image_id, "category_id": category_id, "bbox": box, "score": score}
            yield entry if mask is None else {**entry, "segmentation": mask}

    @staticmethod
    def joined(parts: Sequence["Results"]) -> "Results":
        """The detections of all `parts`, in their order."""
        columns = zip(*(part.columns for part in (NOTHING, *parts)), strict=True)
        image_ids, category_ids, boxes, scores = map(np.concatenate, columns)
        masks = None
        if any(part.masks is not None for part in parts):
            masks = [mask for part in parts for mask in part.masks or [None] * len(part)]
        return Results(image_ids, category_ids, boxes, scores, masks)

    @staticmethod
    def from_entries(entries: Sequence[Any]) -> "Results":
        """Detections from COCO's result format.

        Raises:
            InputError: an entry that is no detection; names its index.
        """
        for index, entry in enumerate(entries):
            problem = _problem(entry)
            if problem:
                raise InputError(f"entry {index} {problem}")
        masks = [entry.get("segmentation") for entry in entries]
        return Results(
            np.array([entry["image_id"] for entry in entries], np.int64),
            np.array([entry["category_id"] for entry in entries], np.int64),
            np.array([entry["bbox"] for entry in entries], np.float64).reshape(-1, 4),
            np.array([entry["score"] for entry in entries], np.float64),
            masks if any(mask is not None for mask in masks) else None,
        )


NOTHING = Results(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 4)), np.zeros(0))


def coco_results(
    detections: Detections,
    *,
    image_id: int,
    original_size: tuple[int, int],
    category_ids: Sequence[int],
) -> Results:
    """One image's detections; boxes to a thousandth of a pixel.

    Args:
        detections: boxes in the pixels of the original image.
        original_size: its (height, width).
        category_ids: COCO's id of each label, ``0 .. num_classes - 1``.
    """
    detections = detections.cpu()
    corners = detections.boxes.double()
    boxes_xywh = torch.cat([corners[:, :2], corners[:, 2:] - corners[:, :2]], dim=1)
    masks = None
    if detections.masks is not None:
        masks = encode_masks(detections.masks, detections.boxes, original_size)
    return Results(
        np.full(len(detections), image_id, np.int64),
        np.array(category_ids, np.int64)[detections.labels.numpy()],
        boxes_xywh.numpy().round(3),
        detections.scores.double().numpy(),
        masks,
    )


def write_results(path: Path, results: Results) -> None:
    """Write a detections.json, atomically and a part at a time."""
    with writing_list(path) as add:
        for start in range(0, len(results), WRITTEN_TOGETHER):
            add(list(results[start : start + WRITTEN_TOGETHER].entries()))


def read_results(path: Path) -> Results:
    """Saved detections, to be scored again without a network.

    Raises:
        InputError: no such file, not JSON, or an entry that is no detection; names its index.
    """
    entries = read_json(path, REMEDY)
    if not isinstance(entries, list):
        raise InputError(f"{path}: holds a {type(entries).__name__}, not a list; {REMEDY}")
    try:
        return Results.from_entries(entries)
    except InputError as error:
        raise InputError(f"{path}: {error}; {REMEDY}") from None


def check_masks(results: Results, ground_truth: Mapping[str, Any]) -> None:
    """Refuse masks that COCO's evaluation must not meet.

    It reads beyond the end of a damaged text, and a mask of another size overlaps with nothing.

    Args:
        results: of the images of `ground_truth`; those of other images are passed over here.
        ground_truth: a COCO annotation file's content.

    Raises:
        InputError: a mask of another size than its image, or whose run lengths are damaged or do
            not fill it; names the detection.
    """
    sizes = {image["id"]: [image["height"], image["width"]] for image in ground_truth["images"]}
    masks = results.masks or []
    image_ids = results.image_ids.tolist()
    given = [i for i, mask in enumerate(masks) if mask is not None and image_ids[i] in sizes]
    for start in range(0, len(given), CHECKED_TOGETHER):
        chunk = given[start : start + CHECKED_TOGETHER]
        runs, begins, problems = decompress_all([masks[i]["counts"] for i in chunk])
        sums = np.diff(np.concatenate(([0], np.cumsum(runs)))[begins]).tolist()
        for place, index in enumerate(chunk):
            stated, size = masks[index]["size"], sizes[image_ids[index]]
            problem = problems.get(place)
            if stated != size:
                problem = f"the size {stated} and not its image's (height, width), {size}"
            elif problem is None and sums[place] != size[0] * size[1]:
                problem = f"{sums[place]} pixels in its run lengths and not its image's {size}"
            if problem:
                raise InputError(
                    f"detection {index} of image {image_ids[index]}: its mask has {problem}; write "
                    "masks at the size of their images, or score boxes only by mask=false"
                )


def _problem(entry: Any) -> str | None:
    """What is wrong with one entry, or None."""
    if not isinstance(entry, dict):
        return f"is a {type(entry).__name__}, not an object"
    for name in ("image_id", "category_id"):
        number = entry.get(name)
        if type(number) is not int:
            return f"has no whole number as {name}"
        if not -(1 << 63) <= number < 1 << 63:
            return f"has {name} {number}, which is beyond 64 bits"
    if not _is_number(entry.get("score")):
        return "has no number as score"
    box = entry.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
        return "has no bbox of four numbers (x, y, width, height)"
    if box[2] < 0 or box[3] < 0:
        return "has a bbox of negative width or height (it is x, y, width, height)"
    rle = entry.get("segmentation")
    if rle is not None and not (
        isinstance(rle, dict) and isinstance(rle.get("counts"), str) and "size" in rle
    ):
        return "has a segmentation that is no compressed RLE"
    return None


def _is_number(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and -LARGEST < value < LARGEST
