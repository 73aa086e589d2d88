"""Published data sets in the layouts that they are published in, read image by image.

`scripts/prepare_data.py` writes them in COCO's form. Each reader is given a folder with the
unpacked set anywhere in it, and raises InputError where that does not hold the layout.
"""

import hashlib
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from data.images import header_size
from data.outlines import outline_box
from files.atomic import read_json
from ops import rle
from ops.boxes import iou
from ops.errors import InputError

SPLITS = ("train", "val")
VOC_CATEGORIES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)
VOC_VOID = 255  # the border around each object, which belongs to none


@dataclass(frozen=True)
class LabelledObject:
    """One object.

    Attributes:
        category: its name.
        outline: see `data.outlines.Outline`.
        crowd: whether it is neither to be learned from nor to be counted as missed.
    """

    category: str
    outline: tuple[np.ndarray, ...] | rle.RunLengths
    crowd: bool = False


@dataclass(frozen=True)
class LabelledImage:
    """One image with its objects.

    Attributes:
        split: `train` or `val`.
        file: where it lies.
        name: its file's name in the prepared set.
        size: (height, width).
        objects: in a fixed order.
        nameless: how many further objects have an outline but no category.
    """

    split: str
    file: Path
    name: str
    size: tuple[int, int]
    objects: list[LabelledObject]
    nameless: int = 0


Reader = Callable[[Path], Iterator[LabelledImage]]


def split_of(id_: str) -> str:
    """The split of an image in a set that is published without any: `val` for one id in five.

    The SHA-1 of the id decides, so that an image's split depends on no other image, on no order and
    on no random generator.
    """
    return "val" if int(hashlib.sha1(id_.encode()).hexdigest(), 16) % 5 == 0 else "train"


def read_pennfudan(folder: Path) -> Iterator[LabelledImage]:
    """Penn-Fudan pedestrians: each person has a number of its own in the image of labels."""
    root = _root_of(folder, "PedMasks", "PNGImages/NAME.png with PedMasks/NAME_mask.png")
    for file in sorted((root / "PNGImages").glob("*.png")):
        size = header_size(file)
        labels = _read_labels(root / "PedMasks" / f"{file.stem}_mask.png", size)
        people = [
            LabelledObject("person", rle.encode(labels == number))
            for number in np.unique(labels[labels > 0])
        ]
        yield LabelledImage(split_of(file.stem), file, file.name, size, people)


def read_nuclei(folder: Path) -> Iterator[LabelledImage]:
    """Data Science Bowl 2018, stage1_train: a folder an image, in it a mask a nucleus.

    The first 16 of an id's 64 digits tell all images apart and name the file.
    """
    layout = "stage1_train/ID/images/ID.png with stage1_train/ID/masks/*.png"
    root = _root_of(folder, "*/masks", layout)
    for masks in sorted(root.glob("*/masks")):
        id_ = masks.parent.name
        file = masks.parent / "images" / f"{id_}.png"
        size = header_size(file)
        outlines = [rle.encode(_read_labels(path, size)) for path in sorted(masks.glob("*.png"))]
        nuclei = [LabelledObject("nucleus", outline) for outline in outlines if rle.area(outline)]
        yield LabelledImage(split_of(id_), file, f"{id_[:16]}.png", size, nuclei)


def read_voc(folder: Path) -> Iterator[LabelledImage]:
    """PASCAL VOC's images with segmented objects, in the splits of its segmentation task.

    Outlines are SegmentationObject's, which does not name them: each takes the category of the box
    in Annotations that it overlaps most. What is marked difficult becomes a crowd region, because
    VOC counts it neither as found nor as missed.
    """
    layout = "VOC2012/ with JPEGImages, Annotations, SegmentationObject, ImageSets/Segmentation"
    root = _root_of(folder, "SegmentationObject", layout)
    for split in SPLITS:
        for name in _read_text(root / f"ImageSets/Segmentation/{split}.txt").split():
            file = root / "JPEGImages" / f"{name}.jpg"
            size = header_size(file)
            labels = _read_labels(root / "SegmentationObject" / f"{name}.png", size)
            numbers = [n for n in np.unique(labels) if n not in (0, VOC_VOID)]
            outlines = [rle.encode(labels == number) for number in numbers]
            described = _read_voc_objects(root / "Annotations" / f"{name}.xml")
            pairs = _pairs_of_most_overlap(
                [_corners(*outline_box(outline, size[0])) for outline in outlines],
                [box for _, box, _ in described],
            )
            objects = [
                LabelledObject(described[pairs[n]][0], outline, crowd=described[pairs[n]][2])
                for n, outline in enumerate(outlines)
                if n in pairs
            ]
            nameless = len(outlines) - len(objects)
            yield LabelledImage(split, file, file.name, size, objects, nameless)


def read_balloon(folder: Path) -> Iterator[LabelledImage]:
    """The balloon set: a folder a split, with polygons as the VGG Image Annotator saves them.

    Images without any outline are left out, since the annotator lists what was never opened too.
    """
    root = _root_of(
        folder, "train/via_region_data.json", "train/ and val/ with via_region_data.json and images"
    )
    for split in SPLITS:
        for name, rings in sorted(_read_via(root / split / "via_region_data.json").items()):
            file = root / split / name
            balloons = [LabelledObject("balloon", (ring,)) for ring in rings]
            if balloons:
                yield LabelledImage(split, file, name, header_size(file), balloons)


def _root_of(folder: Path, marker: str, layout: str) -> Path:
    """The folder below `folder`, or itself, that holds the pattern `marker`."""
    found = next(folder.glob(f"**/{marker}"), None)
    if found is None:
        raise InputError(f"{folder}: has no {marker} in it; it must hold {layout}")
    return found.parents[marker.count("/")]


def _read_labels(path: Path, size: tuple[int, int]) -> np.ndarray:
    """An image whose values are numbers of objects, ``[H, W]``, of `size` (height, width)."""
    try:
        with Image.open(path) as image:
            labels = np.asarray(image)  # of a palette, its indices
    except OSError as error:
        why = error.strerror or "is no whole image"
        raise InputError(f"{path}: cannot be read ({why}); unpack the set again") from None
    if labels.shape != size:
        raise InputError(
            f"{path}: holds numbers of the shape {labels.shape}, not one for each pixel of an "
            f"image of (height, width) {size}; unpack the set again"
        )
    return labels


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "is no text"
        raise InputError(f"{path}: cannot be read ({why}); unpack the set again") from None


def _read_voc_objects(path: Path) -> list[tuple[str, list[float], bool]]:
    """Category, box (x1, y1, x2, y2) and whether it is difficult, of each object in an XML file.

    VOC counts pixels from 1 and its boxes include the last one.
    """
    objects = []
    try:
        for entry in ET.fromstring(_read_text(path)).iter("object"):
            x1, y1, x2, y2 = (
                float(entry.findtext(f"bndbox/{side}", ""))
                for side in ("xmin", "ymin", "xmax", "ymax")
            )
            difficult = entry.findtext("difficult", "0").strip() == "1"
            objects.append((entry.findtext("name", ""), [x1 - 1, y1 - 1, x2, y2], difficult))
    except (ET.ParseError, ValueError) as error:
        raise InputError(
            f"{path}: is not an annotation of PASCAL VOC ({error}); unpack the set again"
        ) from None
    return objects


def _as_tensor(boxes: list[list[float]]) -> torch.Tensor:
    return torch.tensor(boxes, dtype=torch.float64).view(-1, 4)


def _corners(x: float, y: float, width: float, height: float) -> list[float]:
    return [x, y, x + width, y + height]


def _pairs_of_most_overlap(boxes: list[list[float]], others: list[list[float]]) -> dict[int, int]:
    """Positions in `boxes` with their partners in `others`: highest IoU first, each box once."""
    overlaps = iou(_as_tensor(boxes), _as_tensor(others))  # [boxes, others]
    pairs = {}
    while overlaps.numel() and overlaps.max() > 0:
        one, other = divmod(int(overlaps.argmax()), len(others))
        pairs[one] = other
        overlaps[one], overlaps[:, other] = 0, 0
    return pairs


def _read_via(path: Path) -> dict[str, list[np.ndarray]]:
    """The polygons ``[P, 2]`` of each image in a file of the VGG Image Annotator.

    Regions are a list, or in older files a dictionary; a saved project has the images one level
    further in.
    """
    document = read_json(path, "unpack the set again")
    try:
        images = document.get("_via_img_metadata", document).values()
        found = {}
        for entry in images:
            regions = entry["regions"]
            shapes = [
                region["shape_attributes"]
                for region in (regions.values() if isinstance(regions, dict) else regions)
            ]
            found[_plain_name(entry["filename"])] = [_read_polygon(shape) for shape in shapes]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: is not as the VGG Image Annotator saves polygons ({error!r}); export them as "
            "JSON again"
        ) from None
    return found


def _plain_name(name: str) -> str:
    if Path(name).name != name:
        raise ValueError(f"file name {name}")
    return name


def _read_polygon(shape: dict[str, Any]) -> np.ndarray:
    """Its corners. The annotator gives whole pixels, which stand for their centres."""
    if shape["name"] not in ("polygon", "polyline"):
        raise ValueError(f"a region of the shape {shape['name']}")
    points = np.array([shape["all_points_x"], shape["all_points_y"]], dtype=np.float64)
    return points.T + 0.5
