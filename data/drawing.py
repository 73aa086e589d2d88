"""The pictures of the data set `shapes`, one at a time: outlines, textures, who covers whom."""

import colorsys
from collections.abc import Callable

import cv2
import numpy as np

FINENESS = 4  # outlines are drawn at so many times the resolution, then averaged
LEAST_VISIBLE = 0.35  # an object of which less remains uncovered is taken out of the picture
LEAST_PIXELS = 40  # ... and one with fewer pixels
CONTRAST = 60  # grey levels between an object and the ground, at least, in some channel
HUE_SPREAD = 0.09  # of the circle: a colour hints at the class and does not tell it


def draw_image(
    size: int, objects: tuple[int, int], radii: tuple[float, float], generator: np.random.Generator
) -> tuple[np.ndarray, list[int], list[np.ndarray]]:
    """One picture, later objects over earlier ones.

    Args:
        size: S, the edge of the square picture, pixels.
        objects: fewest and most that are drawn; those hidden too much are taken out again.
        radii: smallest and largest of the circle around an object, pixels.
        generator: all randomness.

    Returns:
        uint8 RGB ``[S, S, 3]``, the labels, and the visible part of each object, bool ``[S, S]``.
    """
    ground = _colour(generator.uniform(), (0.0, 0.3), (0.2, 0.85), generator)  # a pale one
    planned = [
        _plan_object(size, radii, ground, generator)
        for _ in range(generator.integers(objects[0], objects[1] + 1))
    ]
    while True:  # until no object is hidden too much by those drawn after it
        visible = _visible_parts([coverage for _, coverage, _ in planned])
        keep = [
            part.sum() >= max(LEAST_PIXELS, LEAST_VISIBLE * (coverage >= 0.5).sum())
            for part, (_, coverage, _) in zip(visible, planned, strict=True)
        ]
        if all(keep):
            break
        planned = [plan for plan, kept in zip(planned, keep, strict=True) if kept]
    canvas = _texture(size, ground, generator, strength=16)
    for _, coverage, paint in planned:
        canvas += coverage[..., None] * (paint - canvas)
    canvas += generator.normal(0, 4, canvas.shape)
    pixels = np.rint(canvas).clip(0, 255).astype(np.uint8)
    return pixels, [label for label, _, _ in planned], visible


def _visible_parts(coverages: list[np.ndarray]) -> list[np.ndarray]:
    """Of each object, the pixels that it covers by half and no later object does."""
    parts: list[np.ndarray] = []
    for coverage in coverages:
        solid = coverage >= 0.5
        parts = [part & ~solid for part in parts] + [solid]
    return parts


def _plan_object(
    size: int, radii: tuple[float, float], ground: np.ndarray, generator: np.random.Generator
) -> tuple[int, np.ndarray, np.ndarray]:
    """A label, the covered part of each pixel ``[S, S]`` in 0..1, the paint ``[S, S, 3]``."""
    label = int(generator.integers(len(OUTLINES)))
    radius = generator.uniform(*radii)
    margin = min(0.6 * radius, size / 2)
    centre = generator.uniform(margin, size - margin, 2)
    angle = generator.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    outline = list(OUTLINES.values())[label](generator)  # [P, 2], within the unit circle
    points = (outline @ turn * radius + centre) * FINENESS
    fine = np.zeros((size * FINENESS,) * 2, np.uint8)
    cv2.fillPoly(fine, [np.rint(points * 16 - 8).astype(np.int32)], 255, shift=4)
    coverage = cv2.resize(fine, (size, size), interpolation=cv2.INTER_AREA) / np.float32(255)
    return label, coverage, _texture(size, _paint(label, ground, generator), generator, strength=28)


def _paint(label: int, ground: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A vivid colour whose hue leans towards the class, well apart from the ground."""
    while True:
        hue = label / len(OUTLINES) + generator.normal(0, HUE_SPREAD)
        colour = _colour(hue, (0.55, 1.0), (0.5, 1.0), generator)
        if np.abs(colour - ground).max() >= CONTRAST:
            return colour


def _colour(
    hue: float,
    saturation: tuple[float, float],
    value: tuple[float, float],
    generator: np.random.Generator,
) -> np.ndarray:
    """RGB in 0..255, float64 ``[3]``; `hue` in turns, the other two drawn from their ranges."""
    drawn = generator.uniform(*saturation), generator.uniform(*value)
    return 255 * np.array(colorsys.hsv_to_rgb(hue % 1.0, *drawn))


def _texture(
    size: int, colour: np.ndarray, generator: np.random.Generator, *, strength: float
) -> np.ndarray:
    """Paint of one colour with stripes, a gradient or cloudy noise: float32 ``[S, S, 3]``."""
    y, x = np.mgrid[:size, :size].astype(np.float32)
    angle, phase = generator.uniform(0, 2 * np.pi, 2)
    along = x * np.cos(angle) + y * np.sin(angle)
    kind = generator.integers(4)
    if kind == 0:
        pattern = np.sin(along * 2 * np.pi / generator.uniform(5, 14) + phase)
    elif kind == 1:
        pattern = np.sin(along * np.pi / size + phase)
    elif kind == 2:
        cells = generator.uniform(-1, 1, (max(size // 8, 2),) * 2).astype(np.float32)
        pattern = cv2.resize(cells, (size, size), interpolation=cv2.INTER_CUBIC)
    else:
        pattern = np.zeros_like(along)
    tint = strength * generator.uniform(0.4, 1, 3)
    return (colour + pattern[..., None] * tint).astype(np.float32)


def _ellipse(generator: np.random.Generator) -> np.ndarray:
    angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    return np.stack((np.cos(angles), generator.uniform(0.45, 1) * np.sin(angles)), axis=1)


def _bar(generator: np.random.Generator) -> np.ndarray:
    height = generator.uniform(0.22, 0.7)
    corners = np.array([[-1, -height], [1, -height], [1, height], [-1, height]])
    return corners / np.hypot(1, height)


def _triangle(generator: np.random.Generator) -> np.ndarray:
    angles = np.array([0, 1, 2]) * 2 * np.pi / 3 + generator.uniform(-0.35, 0.35, 3)
    return np.stack((np.cos(angles), np.sin(angles)), axis=1)


def _star(generator: np.random.Generator) -> np.ndarray:
    angles = np.arange(10) * np.pi / 5
    radii = np.where(np.arange(10) % 2, generator.uniform(0.4, 0.5), 1.0)
    return np.stack((np.cos(angles), np.sin(angles)), axis=1) * radii[:, None]


def _cross(generator: np.random.Generator) -> np.ndarray:
    w = generator.uniform(0.24, 0.36)  # half the width of an arm
    quarter = np.array([[1, -w], [1, w], [w, w]])
    turn = np.array([[0, 1], [-1, 0]])
    arms = [quarter @ np.linalg.matrix_power(turn, k) for k in range(4)]
    return np.concatenate(arms) / np.hypot(1, w)


def _crescent(generator: np.random.Generator) -> np.ndarray:
    """A disc less another of the same radius, moved to the right by `shift`."""
    shift = generator.uniform(0.65, 0.95)
    half = np.arccos(shift / 2)  # where the two circles meet
    outer = np.linspace(half, 2 * np.pi - half, 40)
    inner = np.linspace(np.pi + half, np.pi - half, 30)[1:-1]
    rim = np.stack((np.cos(outer), np.sin(outer)), axis=1)
    bite = np.stack((np.cos(inner) + shift, np.sin(inner)), axis=1)
    return np.concatenate((rim, bite))


OUTLINES: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "ellipse": _ellipse,
    "bar": _bar,
    "triangle": _triangle,
    "star": _star,
    "cross": _cross,
    "crescent": _crescent,
}
"""Outline ``[P, 2]`` of each class within the unit circle; their order gives the labels."""
