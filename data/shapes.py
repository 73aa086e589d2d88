"""The synthetic data set `shapes`: drawn once, written in COCO's form, read like any other.

Six classes of rotated, textured, overlapping objects on a textured background. Texture does not
depend on the class and colour only hints at it, so the class has to be seen from the outline. Thin
and concave outlines make masks that are off by a pixel or two cost as much as on photographs.
"""

import colorsys
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from data.coco import CocoDataset
from data.coco_document import CocoDocument
from data.splits import DataSplits, from_settings
from ops import rle
from ops.errors import InputError

GENERATOR_VERSION = 2  # part of the cache's name: raise it with any change of the drawings


@dataclass(frozen=True)
class ShapesSettings:
    """The settings that determine every byte of the data set.

    Attributes:
        train_images, val_images: number of images of each split.
        image_size: edge of the square images, pixels.
        objects_min, objects_max: number of objects drawn in an image; hidden ones are removed.
        radius_min, radius_max: of the circle around an object, pixels.
        seed: of all randomness.
    """

    train_images: int
    val_images: int
    image_size: int
    objects_min: int
    objects_max: int
    radius_min: float
    radius_max: float
    seed: int

    def __post_init__(self) -> None:
        for name in ("train_images", "val_images", "objects_min"):
            if getattr(self, name) < 1:
                raise InputError(f"data.{name}={getattr(self, name)}: give at least 1")
        if self.image_size < 16:
            raise InputError(f"data.image_size={self.image_size}: give at least 16 pixels")
        if self.objects_max < self.objects_min:
            raise InputError(
                f"data.objects_max={self.objects_max} is below data.objects_min="
                f"{self.objects_min}; exchange them"
            )
        if not 4 <= self.radius_min <= self.radius_max <= self.image_size:
            raise InputError(
                f"data.radius_min={self.radius_min}, data.radius_max={self.radius_max}: give "
                f"4 <= radius_min <= radius_max <= image_size ({self.image_size})"
            )


def shapes_data(
    *,
    root: str | Path | None,
    train_transform: Mapping[str, Any],
    eval_transform: Mapping[str, Any],
    masks: bool = True,
    **settings: Any,
) -> DataSplits:
    """Build both splits of `shapes`, drawing them first if the cache does not have them.

    Args:
        root: folder of the cache; None for `default_root`.
        train_transform, eval_transform: fields of `TrainTransform` and `EvalTransform`.
        masks: read outlines; False for boxes only.
        settings: fields of `ShapesSettings`.
    """
    folder = prepare_shapes(None if root is None else Path(root), **settings)
    train, val = (
        CocoDataset(
            annotations=folder / f"annotations/instances_{split}.json",
            images=folder / split,
            masks=masks,
        )
        for split in ("train", "val")
    )
    return DataSplits.of(train, val, train_transform, eval_transform)


def default_root() -> Path:
    """`$XDG_CACHE_HOME/roi-poolers`, or `~/.cache/roi-poolers`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "roi-poolers"


def prepare_shapes(root: Path | None, **settings: Any) -> Path:
    """The folder of the data set with these settings, drawn now unless it exists.

    It is drawn in a temporary folder and then renamed, so it is complete whenever it exists; of two
    processes that draw the same one, the first to finish wins. The same settings give the same
    bytes with the same OpenCV; between versions 4 and 5, single pixels at edges differ.

    Args:
        root: of the cache; None for `default_root`.
        settings: fields of `ShapesSettings`.

    Returns:
        A folder with `train/`, `val/` and `annotations/instances_{train,val}.json`.
    """
    chosen = from_settings(ShapesSettings, "data", settings)
    identity = json.dumps({**asdict(chosen), "version": GENERATOR_VERSION}, sort_keys=True)
    root = default_root() if root is None else root.expanduser()
    folder = root / f"shapes-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"
    if folder.is_dir():
        return folder
    try:
        root.mkdir(parents=True, exist_ok=True)
        drawing = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=root))
    except OSError as error:
        raise InputError(
            f"{root}: cannot write the data set there ({error.strerror}); set data.root to a "
            f"folder that you may write to"
        ) from None
    try:
        (drawing / "annotations").mkdir()
        (drawing / "settings.json").write_text(identity)
        for stream, (split, count) in enumerate(
            (("train", chosen.train_images), ("val", chosen.val_images))
        ):
            _write_split(drawing, split, count, stream, chosen)
        drawing.chmod(0o755)
        drawing.rename(folder)
    except OSError:
        if not folder.is_dir():  # otherwise another process was faster
            raise
    finally:
        shutil.rmtree(drawing, ignore_errors=True)
    return folder


def _write_split(
    folder: Path, split: str, count: int, stream: int, settings: ShapesSettings
) -> None:
    (folder / split).mkdir()
    document = CocoDocument(OUTLINES)
    size = settings.image_size
    for number in tqdm(
        range(count), f"drawing shapes/{split}", leave=False, unit="image", disable=None
    ):
        generator = np.random.default_rng((settings.seed, stream, number))
        pixels, labels, masks = draw_image(
            size,
            (settings.objects_min, settings.objects_max),
            (settings.radius_min, settings.radius_max),
            generator,
        )
        name = f"{number + 1:06d}.png"
        _, png = cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
        (folder / split / name).write_bytes(png.tobytes())
        document.add_image(name, (size, size))
        for label, mask in zip(labels, masks, strict=True):
            document.add_object(label, rle.encode(mask))
    document.write(folder / f"annotations/instances_{split}.json")


SUPERSAMPLING = 4  # outlines are drawn at this many times the resolution, then averaged
MIN_VISIBLE = 0.35  # objects of which a smaller part is visible are removed
MIN_PIXELS = 40  # so are objects with fewer visible pixels
CONTRAST = 60  # least difference between an object and the background in some channel, grey levels
HUE_SPREAD = 0.09  # standard deviation around the class's hue, in turns; the classes overlap


def draw_image(
    size: int, objects: tuple[int, int], radii: tuple[float, float], generator: np.random.Generator
) -> tuple[np.ndarray, list[int], list[np.ndarray]]:
    """One image, later objects over earlier ones.

    Args:
        size: S, the edge of the square image, pixels.
        objects: smallest and largest number of objects; those hidden too much are removed.
        radii: smallest and largest radius of the circle around an object, pixels.
        generator: of all randomness.

    Returns:
        uint8 RGB ``[S, S, 3]``, the labels, and the visible part of each object, bool ``[S, S]``.
    """
    background = _colour(generator.uniform(), (0.0, 0.3), (0.2, 0.85), generator)  # a pale one
    planned = [
        _plan_object(size, radii, background, generator)
        for _ in range(generator.integers(objects[0], objects[1] + 1))
    ]
    while True:  # until no object is hidden too much by those drawn after it
        visible = _visible_parts([coverage for _, coverage, _ in planned])
        keep = [
            part.sum() >= max(MIN_PIXELS, MIN_VISIBLE * (coverage >= 0.5).sum())
            for part, (_, coverage, _) in zip(visible, planned, strict=True)
        ]
        if all(keep):
            break
        planned = [plan for plan, kept in zip(planned, keep, strict=True) if kept]
    canvas = _texture(size, background, generator, strength=16)
    for _, coverage, texture in planned:
        canvas += coverage[..., None] * (texture - canvas)
    canvas += generator.normal(0, 4, canvas.shape)
    pixels = np.rint(canvas).clip(0, 255).astype(np.uint8)
    return pixels, [label for label, _, _ in planned], visible


def _visible_parts(coverages: list[np.ndarray]) -> list[np.ndarray]:
    """For each object, the pixels of which it covers half and no later object does."""
    parts: list[np.ndarray] = []
    for coverage in coverages:
        solid = coverage >= 0.5
        parts = [part & ~solid for part in parts] + [solid]
    return parts


def _plan_object(
    size: int, radii: tuple[float, float], background: np.ndarray, generator: np.random.Generator
) -> tuple[int, np.ndarray, np.ndarray]:
    """Label, covered fraction of each pixel ``[S, S]`` in 0..1, and texture ``[S, S, 3]``."""
    label = int(generator.integers(len(OUTLINES)))
    radius = generator.uniform(*radii)
    margin = min(0.6 * radius, size / 2)
    centre = generator.uniform(margin, size - margin, 2)
    angle = generator.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    outline = list(OUTLINES.values())[label](generator)  # [P, 2], within the unit circle
    points = (outline @ turn * radius + centre) * SUPERSAMPLING
    fine = np.zeros((size * SUPERSAMPLING,) * 2, np.uint8)
    cv2.fillPoly(fine, [np.rint(points * 16 - 8).astype(np.int32)], 255, shift=4)
    coverage = cv2.resize(fine, (size, size), interpolation=cv2.INTER_AREA) / np.float32(255)
    colour = _object_colour(label, background, generator)
    return label, coverage, _texture(size, colour, generator, strength=28)


def _object_colour(
    label: int, background: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """A vivid colour with a hue near that of the class, different from the background."""
    while True:
        hue = label / len(OUTLINES) + generator.normal(0, HUE_SPREAD)
        colour = _colour(hue, (0.55, 1.0), (0.5, 1.0), generator)
        if np.abs(colour - background).max() >= CONTRAST:
            return colour


def _colour(
    hue: float,
    saturation: tuple[float, float],
    value: tuple[float, float],
    generator: np.random.Generator,
) -> np.ndarray:
    """RGB in 0..255, float64 ``[3]``; `hue` is in turns, the others are drawn from their ranges."""
    drawn = generator.uniform(*saturation), generator.uniform(*value)
    return 255 * np.array(colorsys.hsv_to_rgb(hue % 1.0, *drawn))


def _texture(
    size: int, colour: np.ndarray, generator: np.random.Generator, *, strength: float
) -> np.ndarray:
    """One colour with stripes, a gradient, cloudy noise or nothing: float32 ``[S, S, 3]``."""
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
    """A disc minus another of the same radius, moved to the right by `shift`."""
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
"""Draws the outline ``[P, 2]`` of each class inside the unit circle; the order gives the labels."""
