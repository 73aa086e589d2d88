"""The embedded data set `shapes`: drawn once, kept in COCO's form, read back as any other.

Six classes of rotated, textured, overlapping objects on a textured ground. Colour and texture are
drawn without regard to the class, so the outline alone tells them apart, and thin or concave
outlines make a mask that is off by a pixel or two cost what it does on photographs.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from data import rle
from data.coco import CocoDataset, DataSplits
from data.drawing import OUTLINES, draw_image
from data.settings import from_settings
from data.transforms import EvalTransform, TrainTransform
from ops.errors import InputError

GENERATOR_VERSION = 2  # raise it with any change of what is drawn: caches are named by it


@dataclass(frozen=True)
class ShapesSettings:
    """What decides every byte of the data set.

    Attributes:
        train_images, val_images: number of images of each split.
        image_size: edge of the square images, pixels.
        objects_min, objects_max: objects drawn in an image; covered ones are taken out again.
        radius_min, radius_max: of the circle around an object, pixels.
        seed: another one draws another data set.
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
    """Build both splits of `shapes`, drawing them first where the cache has none.

    Args:
        root: folder of the cache; None for the user's own (`default_root`).
        train_transform, eval_transform: fields of `TrainTransform` and `EvalTransform`.
        masks: read outlines (false: boxes alone).
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
    return DataSplits(
        train,
        val,
        from_settings(TrainTransform, "data.train_transform", train_transform),
        from_settings(EvalTransform, "data.eval_transform", eval_transform),
    )


def default_root() -> Path:
    """`$XDG_CACHE_HOME/roi-poolers`, or `~/.cache/roi-poolers`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "roi-poolers"


def prepare_shapes(root: Path | None, **settings: Any) -> Path:
    """The folder of the data set with these settings, drawn now unless it is there already.

    It is drawn in a temporary folder and then renamed, so it is whole whenever it exists; of two
    processes that draw the same one, the first to finish wins. The same settings give the same
    bytes with the same OpenCV; between its versions 4 and 5 single pixels of the edges differ.

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
            f"folder of yours"
        ) from None
    try:
        (drawing / "annotations").mkdir()
        (drawing / "settings.json").write_text(identity)
        for split, count, stream in (
            ("train", chosen.train_images, 0),
            ("val", chosen.val_images, 1),
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
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
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
        images.append({"id": number + 1, "file_name": name, "height": size, "width": size})
        for label, mask in zip(labels, masks, strict=True):
            runs = rle.encode(mask)
            _, (x1, y1, x2, y2) = rle.crop(runs, size)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number + 1,
                    "category_id": label + 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": rle.area(runs),
                    "iscrowd": 0,
                    "segmentation": {"size": [size, size], "counts": rle.compress(runs)},
                }
            )
    categories = [{"id": label + 1, "name": name} for label, name in enumerate(OUTLINES)]
    document = {"images": images, "annotations": annotations, "categories": categories}
    (folder / f"annotations/instances_{split}.json").write_text(json.dumps(document))
