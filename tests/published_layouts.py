"""Miniatures of published data sets, each in the layout that it is published in."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from data.layouts import split_of

SIZE = (24, 32)  # height, width of all images


def id_in(split: str, number: int, pattern: str = "{:05d}") -> str:
    """The `number`-th of the ids of a pattern that fall into a split."""
    ids = (pattern.format(n) for n in range(1000))
    return [id_ for id_ in ids if split_of(id_) == split][number]


def rectangle(x1: int, y1: int, x2: int, y2: int) -> np.ndarray:
    """A mask, bool, of the pixels x1 .. x2 - 1 and y1 .. y2 - 1."""
    mask = np.zeros(SIZE, dtype=bool)
    mask[y1:y2, x1:x2] = True
    return mask


def write_image(path: Path, channels: int = 3, shade: int = 90) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((*SIZE, channels), shade, np.uint8))


def write_labels(path: Path, labels: np.ndarray, *, palette: bool = False) -> None:
    """Numbers of objects; with a palette their colours are other numbers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(labels.astype(np.uint8))
    if palette:
        image.putpalette([(7 * n) % 256 for n in range(768)])
    image.save(path)


def pennfudan(folder: Path) -> dict[str, list[np.ndarray]]:
    """Two images of training, one of validation; returns the masks of each."""
    root = folder / "PennFudanPed"
    left, right = rectangle(2, 3, 10, 20), rectangle(12, 5, 30, 24)
    masks = {
        id_in("train", 0, "FudanPed{:05d}"): [left, right],
        id_in("train", 1, "FudanPed{:05d}"): [right],
        id_in("val", 0, "PennPed{:05d}"): [left],
    }
    for name, people in masks.items():
        write_image(root / "PNGImages" / f"{name}.png")
        labels = sum(number * mask for number, mask in enumerate(people, 1))
        write_labels(root / "PedMasks" / f"{name}_mask.png", np.asarray(labels))
    noise = np.random.default_rng(0).bytes(300_000)  # does not shrink in an archive
    (root / "readme.txt").write_bytes(noise)
    return {f"{name}.png": people for name, people in masks.items()}


def nuclei(folder: Path, masks: dict[str, list[np.ndarray]] | None = None) -> dict[str, Any]:
    """A folder an image and a file a nucleus; returns the masks of each image's prepared name."""
    if masks is None:
        round_, touching = rectangle(4, 4, 9, 9), rectangle(9, 4, 14, 12)
        masks = {
            id_in("train", 0, "1{:063d}"): [round_, touching, rectangle(0, 0, 0, 0)],
            id_in("val", 0, "2{:063d}"): [touching],
        }
    for id_, nuclei_ in masks.items():
        root = folder / "stage1_train" / id_
        write_image(root / "images" / f"{id_}.png", channels=4)
        (root / "masks").mkdir()
        for number, mask in enumerate(nuclei_):
            write_labels(root / "masks" / f"{number:05d}.png", mask * np.uint8(255))
    return {f"{id_[:16]}.png": [m for m in found if m.any()] for id_, found in masks.items()}


def voc_xml(objects: list[tuple[str, tuple[int, int, int, int], int]]) -> str:
    """An annotation: name, box (pixels counted from 1, the last included), difficult."""
    entries = [
        f"<object><name>{name}</name><difficult>{difficult}</difficult>"
        f"<bndbox><xmax>{box[2]}</xmax><xmin>{box[0]}</xmin><ymax>{box[3]}</ymax>"
        f"<ymin>{box[1]}</ymin></bndbox><part><name>head</name><bndbox><xmin>1</xmin></bndbox>"
        "</part></object>"
        for name, box, difficult in objects
    ]
    return f"<annotation>{''.join(entries)}</annotation>"


def voc(folder: Path) -> None:
    """One image a split; the order of the XML file is not that of the numbers."""
    root = folder / "VOCdevkit/VOC2012"
    rider, horse = rectangle(4, 2, 12, 10), rectangle(2, 10, 20, 22)
    labels = 1 * rider + 2 * horse + 3 * rectangle(26, 2, 30, 6)
    labels[9:11, 2:20] = 255  # the border between the two
    objects = {
        "2007_000001": [("horse", (3, 11, 20, 22), 0), ("person", (5, 3, 12, 10), 1)],
        "2007_000002": [("person", (5, 3, 12, 10), 0), ("horse", (3, 11, 20, 22), 0)],
    }
    objects["2007_000002"].append(("cat", (27, 3, 30, 6), 0))
    for (name, found), split in zip(objects.items(), ("train", "val"), strict=True):
        write_image(root / "JPEGImages" / f"{name}.jpg")
        write_labels(root / "SegmentationObject" / f"{name}.png", labels, palette=True)
        for place, text in (
            (f"Annotations/{name}.xml", voc_xml(found)),
            (f"ImageSets/Segmentation/{split}.txt", f"{name}\n"),
        ):
            (root / place).parent.mkdir(parents=True, exist_ok=True)
            (root / place).write_text(text)


def via_entry(name: str, polygons: list[list[tuple[int, int]]], *, listed: bool) -> dict[str, Any]:
    """An image as the VGG Image Annotator saves it; older versions number the regions."""
    regions = [
        {
            "region_attributes": {},
            "shape_attributes": {
                "name": "polygon",
                "all_points_x": [x for x, _ in polygon],
                "all_points_y": [y for _, y in polygon],
            },
        }
        for polygon in polygons
    ]
    numbered = {str(number): region for number, region in enumerate(regions)}
    return {"filename": name, "size": 1, "regions": regions if listed else numbered}


TRIANGLE = [(2, 3), (20, 3), (20, 15)]


def balloon(folder: Path) -> None:
    """Numbered regions for training, listed ones for validation, an image that was never opened."""
    for split, listed in (("train", False), ("val", True)):
        images = {
            "one.jpg1": via_entry("one.jpg", [TRIANGLE, [(0, 0), (5, 0), (5, 5)]], listed=listed),
            "two.jpg1": via_entry("two.jpg", [], listed=listed),
        }
        root = folder / "balloon" / split
        write_image(root / "one.jpg")
        write_image(root / "two.jpg")
        (root / "via_region_data.json").write_text(json.dumps(images))


def coco(folder: Path) -> None:
    """COCO 2017's folders with one image a split."""
    (folder / "annotations").mkdir()
    for number, split in enumerate(("train2017", "val2017"), 1):
        name = f"{number:012d}.jpg"
        write_image(folder / split / name)
        annotation = {"id": 1, "image_id": number, "category_id": 3, "bbox": [1, 1, 8, 8]}
        content = {
            "images": [{"id": number, "file_name": name, "height": SIZE[0], "width": SIZE[1]}],
            "annotations": [
                {**annotation, "iscrowd": 0, "segmentation": [[1, 1, 9, 1, 9, 9, 1, 9]]}
            ],
            "categories": [{"id": 3, "name": "car"}],
        }
        path = folder / f"annotations/instances_{split}.json"
        path.write_text(json.dumps(content))
