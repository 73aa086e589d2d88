"""Which detections COCO's matching finds right, as arrays that a run saves.

AP over any multiset of the images follows from them without matching again, which a bootstrap over
images needs.

Letters: N images, K classes, D detections, G objects, A area ranges, T IoU thresholds, B multisets.
"""

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from files.atomic import replacing
from ops.errors import InputError

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
# COCO's area ranges, in square pixels of the image, both ends included.
AREAS: dict[str, tuple[float, float]] = {
    "all": (0, 1e10),
    "small": (0, 32**2),
    "medium": (32**2, 96**2),
    "large": (96**2, 1e10),
}
MOST_PER_IMAGE = 100  # detections of a class that count in one image
CHUNK = 500  # multisets computed together: their arrays take a few megabytes
FIELDS = ("image_ids", "category_ids", "scores", "images", "classes", "objects")
PACKED = ("tp", "ignored")  # fields of booleans, saved as one bit each
REMEDY = "remove metrics.json beside it and give the run's command again: it evaluates anew"


@dataclass(frozen=True)
class Matches:
    """The match result of every detection, as boxes or as masks, by class, then falling score.

    Attributes:
        image_ids: int64 [N], ascending: all images of the set, with and without objects.
        category_ids: int64 [K], ascending.
        scores: float64 [D].
        images: int32 [D], indices into `image_ids`.
        classes: int32 [D], indices into `category_ids`.
        tp: bool [A, T, D], true positive: matched to an object that counts.
        ignored: bool [A, T, D], neither right nor wrong: matched to a crowd region or to an object
            outside the area range, or unmatched and itself outside that range.
        objects: int32 [A, N, K], number of objects that count.
    """

    image_ids: NDArray[np.int64]
    category_ids: NDArray[np.int64]
    scores: NDArray[np.float64]
    images: NDArray[np.int32]
    classes: NDArray[np.int32]
    tp: NDArray[np.bool_]
    ignored: NDArray[np.bool_]
    objects: NDArray[np.int32]


def average_precision(
    matches: Matches, counts: NDArray[np.integer] | None = None, *, area: str = "all"
) -> NDArray[np.float64]:
    """COCO's interpolated AP for each multiset of the images.

    The interpolated precision at a recall is the largest precision at that recall or above. It is
    attained at a right detection, so only these are computed. Equal to COCO's evaluation of the
    images repeated as the multiset says, unless an image has right and wrong detections of the same
    class and score, whose order among the copies is arbitrary.

    Args:
        counts: [B, N], how often each image is taken; None for each once.
        area: "all", "small", "medium" or "large".

    Returns:
        [B, T, K], 0 to 1; NaN where the multiset has no object of the class.
    """
    times = np.ones((1, len(matches.image_ids))) if counts is None else np.asarray(counts)
    chunks = [
        _average_precision(matches, times[start : start + CHUNK].T, list(AREAS).index(area))
        for start in range(0, len(times), CHUNK)
    ]
    return np.concatenate(chunks).astype(np.float64)


def _average_precision(matches: Matches, times: NDArray[Any], area: int) -> NDArray[np.float64]:
    """`average_precision` of multisets whose counts are the columns of `times` [N, B]."""
    thresholds, classes = matches.tp.shape[1], len(matches.category_ids)
    result = np.full((times.shape[1], thresholds, classes), np.nan)
    starts = np.searchsorted(matches.classes, np.arange(classes + 1))
    for k in range(classes):
        of_class = slice(starts[k], starts[k + 1])
        objects = matches.objects[area, :, k].astype(np.float64) @ times  # [B]
        if not objects.any():
            continue
        weights = times[matches.images[of_class]].astype(np.float64)  # [d, B]
        ranks: dict[bytes, NDArray[np.float64]] = {}  # thresholds often ignore the same detections
        for t in range(thresholds):
            counted = ~matches.ignored[area, t, of_class]
            key = counted.tobytes()
            if key not in ranks:
                ranks[key] = _running_sum(weights * counted[:, None])
            right = np.flatnonzero(matches.tp[area, t, of_class])
            result[:, t, k] = _interpolated(
                _running_sum(weights[right]), ranks[key][right], np.maximum(objects, 1)
            )
        result[objects == 0, :, k] = np.nan
    return result


def _interpolated(
    right: NDArray[np.float64], ranks: NDArray[np.float64], objects: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Mean over 101 recalls of the interpolated precision.

    Args:
        right: [R, B], number of right detections up to and including each right one.
        ranks: [R, B], number of all detections that count up to the same one.
        objects: [B], number of objects.
    """
    if not len(right):
        return np.zeros(len(objects))
    precision = right / (ranks + np.spacing(1))
    for row in range(len(precision) - 2, -1, -1):
        np.maximum(precision[row], precision[row + 1], out=precision[row])
    recall = right / objects
    # The number of the 101 recalls that are reached, by COCO's own comparison with the nearest.
    nearest = np.rint(recall * 100).astype(np.intp)
    reached = nearest + (recall >= RECALLS[nearest])
    precision[0] *= reached[0]
    precision[1:] *= np.diff(reached, axis=0)
    return precision.sum(axis=0) / len(RECALLS)


def _running_sum(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cumulative sum over the first axis, in place; row by row is faster than np.cumsum."""
    for row in range(1, len(rows)):
        rows[row] += rows[row - 1]
    return rows


def save_matches(path: Path, matches: Mapping[str, Matches]) -> None:
    """Write the matches of both kinds ("bbox", "segm") into one .npz, atomically."""
    arrays: dict[str, NDArray[Any]] = {}
    for kind, of_kind in matches.items():
        arrays |= {f"{kind}/{name}": getattr(of_kind, name) for name in FIELDS}
        arrays |= {f"{kind}/{name}": np.packbits(getattr(of_kind, name), axis=2) for name in PACKED}
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def load_matches(path: Path) -> dict[str, Matches]:
    """Read what `save_matches` wrote.

    Raises:
        InputError: no such file, or another content.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            kinds = sorted({name.split("/")[0] for name in file.files})
            return {kind: _loaded(file, kind) for kind in kinds}
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; {REMEDY}") from error
    except (OSError, ValueError, KeyError, IndexError, EOFError, zipfile.BadZipFile) as error:
        what = " ".join(str(error).split())
        raise InputError(f"{path}: holds no match results ({what}); {REMEDY}") from error


def _loaded(file: Mapping[str, NDArray[Any]], kind: str) -> Matches:
    fields = {name: file[f"{kind}/{name}"] for name in FIELDS}
    number = len(fields["scores"])
    for name in PACKED:
        bits = np.unpackbits(file[f"{kind}/{name}"], axis=2, count=number)
        fields[name] = bits.astype(bool)
    shape = (len(AREAS), len(fields["image_ids"]), len(fields["category_ids"]))
    if fields["objects"].shape != shape:
        raise ValueError(f"objects are {fields['objects'].shape}, not {shape}")
    return Matches(**fields)
