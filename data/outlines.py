"""The field `segmentation` of COCO's annotations: polygons, or run lengths of either kind."""

from typing import Any

import numpy as np

from data.transforms import clip_ring
from ops import rle
from ops.structures import Bitmap, Polygons, Segmentation

Outline = tuple[np.ndarray, ...] | np.ndarray | None
"""Polygons, each float64 ``[P, 2]``; or the run lengths of a mask, uint32 ``[R]``; or None."""


class Unusable(ValueError):
    """Why one annotation is left out."""


def read_outline(segmentation: Any, size: tuple[int, int]) -> tuple[Outline, str]:
    """Read a `segmentation` field for an image of `size` (height, width).

    Returns:
        The outline, and what was mended in it ("" if nothing).

    Raises:
        Unusable: no part of it can be used; says why.
    """
    if isinstance(segmentation, dict):
        return _read_run_lengths(segmentation, size), ""
    if not isinstance(segmentation, list):
        raise Unusable("a segmentation that is neither polygons nor RLE")
    if not segmentation:
        raise Unusable("an empty segmentation")
    rings = [_read_ring(ring) for ring in segmentation]
    outline = tuple(ring for ring in rings if ring is not None)
    if not outline:
        raise Unusable("a polygon of fewer than three points")
    mended = ""
    if len(outline) < len(rings):
        mended = "a ring of fewer than three points, dropped from its polygons"
    if any(_is_far_out(ring, size) for ring in outline):
        cut = (_cut_to_surroundings(ring, size) for ring in outline)
        outline = tuple(ring for ring in cut if len(ring) >= 3)
        mended = "a ring that reaches far outside its image, cut to the image's surroundings"
    if not any(map(_ring_area, outline)):
        raise Unusable("a polygon of no area")
    return outline, mended


def _is_far_out(ring: np.ndarray, size: tuple[int, int]) -> bool:
    """Whether a ring leaves the image by more than the image's size.

    COCO's rasteriser visits every pixel along an edge: a point at 2e8 would take all memory.
    """
    limit = np.array(size[::-1])
    return bool((ring < -limit).any() or (ring > 2 * limit).any())


def _cut_to_surroundings(ring: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A ring clipped to the image extended by its size on every side."""
    width, height = size[1], size[0]
    shift = np.array([width, height], dtype=np.float64)
    return clip_ring(ring + shift, (3 * width, 3 * height)) - shift


def _read_ring(ring: Any) -> np.ndarray | None:
    """``[P, 2]``, or None where it has fewer than three points."""
    try:
        numbers = np.array(ring)
    except (ValueError, OverflowError):  # lists of lists of unequal lengths
        numbers = np.array(None)
    if numbers.ndim != 1 or numbers.dtype.kind not in "iuf":
        raise Unusable("a polygon that is not a list of numbers")
    if len(numbers) % 2:
        raise Unusable("a polygon of an odd count of numbers")
    points = numbers.astype(np.float64).reshape(-1, 2)
    if not np.isfinite(points).all():
        raise Unusable("a polygon of non-finite numbers")
    return points if len(points) >= 3 else None


def _read_run_lengths(segmentation: dict[str, Any], size: tuple[int, int]) -> rle.RunLengths:
    counts, stated = segmentation.get("counts"), segmentation.get("size")
    if not isinstance(stated, list) or tuple(stated) != size:
        raise Unusable("an RLE of another size than its image")
    try:
        runs = rle.decompress(counts) if isinstance(counts, str) else rle.from_list(counts)
    except ValueError:
        raise Unusable("a damaged RLE") from None
    if int(runs.sum(dtype=np.int64)) != size[0] * size[1]:
        raise Unusable("an RLE that does not add up to its image")
    if not rle.area(runs):
        raise Unusable("an empty RLE")
    return runs


def _ring_area(ring: np.ndarray) -> float:
    """Area inside a closed ring ``[P, 2]`` (the shoelace formula)."""
    x, y = (ring - ring[0]).T  # the first point at 0, so the closing edge adds nothing
    return abs(float(x[:-1] @ y[1:] - x[1:] @ y[:-1])) / 2


def outline_area(outline: Outline, box: tuple[float, float, float, float]) -> float:
    """Square pixels inside an outline, or inside the box (x, y, width, height) if it is None."""
    if outline is None:
        return box[2] * box[3]
    return float(sum(map(_ring_area, outline)) if isinstance(outline, tuple) else rle.area(outline))


def outline_box(
    outline: tuple[np.ndarray, ...] | rle.RunLengths, height: int
) -> tuple[float, float, float, float]:
    """The tight box (x, y, width, height) of an outline in an image of `height`, in pixels."""
    if isinstance(outline, tuple):
        points = np.concatenate(outline)
        (x1, y1), (x2, y2) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    else:
        _, (x1, y1, x2, y2) = rle.crop(outline, height)
    return x1, y1, x2 - x1, y2 - y1


def as_coco(outline: tuple[np.ndarray, ...] | rle.RunLengths, size: tuple[int, int]) -> Any:
    """The `segmentation` field of an outline in an image of `size` (height, width)."""
    if isinstance(outline, tuple):
        return [ring.ravel().tolist() for ring in outline]
    return {"size": list(size), "counts": rle.compress(outline)}


def as_segmentation(outline: Outline, height: int) -> Segmentation:
    """The outline, which is not None, of an object in an image of `height` pixels."""
    if isinstance(outline, tuple):
        return Polygons(outline)
    assert outline is not None
    pixels, (x1, y1, x2, y2) = rle.crop(outline, height)
    return Bitmap(pixels, (float(x1), float(y1), float(x2), float(y2)))
