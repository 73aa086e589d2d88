"""Outlines cut to an image's frame, for crops."""

import numpy as np

from ops.structures import Bitmap, Polygons, Segmentation

Box = tuple[float, float, float, float]


def cut_mask(mask: Segmentation, size: tuple[int, int]) -> tuple[Segmentation, Box] | None:
    """The part of a mask inside an image of `size` (height, width), and its tight box.

    None where nothing of it is inside.
    """
    if isinstance(mask, Polygons):
        return _cut_polygons(mask, size)
    return _cut_bitmap(mask, size)


def _cut_polygons(mask: Polygons, size: tuple[int, int]) -> tuple[Polygons, Box] | None:
    """Clip each ring by the image's four edges, one after the other (Sutherland and Hodgman)."""
    rings = []
    for ring in mask.rings:
        for axis, limit in ((0, size[1]), (1, size[0])):
            ring = _clip_ring(ring, ring[:, axis])
            ring = _clip_ring(ring, limit - ring[:, axis])
        if len(ring) >= 3 and np.ptp(ring, axis=0).min() > 0:
            rings.append(ring.clip(0, size[::-1]))  # the crossings are rounded
    if not rings:
        return None
    points = np.concatenate(rings)
    (x1, y1), (x2, y2) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    return Polygons(tuple(rings)), (x1, y1, x2, y2)


def _clip_ring(ring: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """The part of ring ``[P, 2]`` on one side of a line, `depth` ``[P]`` behind it, in order.

    A ring that the line cuts into pieces stays one ring whose pieces are joined along the line;
    the joints enclose no area.
    """
    if len(ring) == 0 or depth.min() >= 0:
        return ring
    following, next_depth = np.roll(ring, -1, axis=0), np.roll(depth, -1)
    inside = depth >= 0
    crosses = inside != (next_depth >= 0)
    share = depth / np.where(crosses, depth - next_depth, 1)
    crossing = ring + share[:, None] * (following - ring)
    corners = np.stack((ring, crossing), axis=1)  # [P, 2 candidates, 2]
    return corners[np.stack((inside, crosses), axis=1)]


def _cut_bitmap(mask: Bitmap, size: tuple[int, int]) -> tuple[Bitmap, Box] | None:
    """The pixels whose centres lie inside the image."""
    x1, y1, x2, y2 = mask.box
    height, width = mask.pixels.shape
    pixel_w, pixel_h = (x2 - x1) / width, (y2 - y1) / height
    rows = y1 + (np.arange(height) + 0.5) * pixel_h
    columns = x1 + (np.arange(width) + 0.5) * pixel_w
    inside = mask.pixels.astype(bool)
    inside &= ((rows > 0) & (rows < size[0]))[:, None] & ((columns > 0) & (columns < size[1]))
    y, x = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    if not len(y):
        return None
    top, bottom, left, right = int(y[0]), int(y[-1]) + 1, int(x[0]), int(x[-1]) + 1
    box = (x1 + left * pixel_w, y1 + top * pixel_h, x1 + right * pixel_w, y1 + bottom * pixel_h)
    return Bitmap(mask.pixels[top:bottom, left:right], box), box
