"""A COCO data set of two small images, which tests damage in one way at a time."""

import copy
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from data.coco import CocoDataset

SQUARE = [4.0, 4.0, 12.0, 4.0, 12.0, 12.0, 4.0, 12.0]

DOCUMENT: dict[str, Any] = {
    "images": [
        {"id": 5, "file_name": "five.png", "height": 20, "width": 30},
        {"id": 2, "file_name": "two.png", "height": 30, "width": 20},
    ],
    "annotations": [
        {
            "id": 11,
            "image_id": 2,
            "category_id": 7,
            "bbox": [4, 4, 8, 8],
            "area": 64,
            "iscrowd": 0,
            "segmentation": [SQUARE],
        },
        {
            "id": 12,
            "image_id": 5,
            "category_id": 3,
            "bbox": [4, 4, 8, 8],
            "area": 64,
            "iscrowd": 0,
            "segmentation": [SQUARE],
        },
    ],
    "categories": [{"id": 7, "name": "cup"}, {"id": 3, "name": "cat"}],
}


def document() -> dict[str, Any]:
    """A fresh copy of the sound document."""
    return copy.deepcopy(DOCUMENT)


def write(folder: Path, content: dict[str, Any] | str) -> Path:
    """Write the annotations and, where absent, the images in `folder / images`; the JSON's path."""
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    for image in DOCUMENT["images"]:
        path = images / image["file_name"]
        if not path.exists():
            pixels = np.full((image["height"], image["width"], 3), image["id"] * 20, np.uint8)
            cv2.imwrite(str(path), pixels)
    path = folder / "instances.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def read(folder: Path, content: dict[str, Any] | str | None = None, **options: Any) -> CocoDataset:
    """Write `content` (None: the sound document) and read it back."""
    path = write(folder, document() if content is None else content)
    return CocoDataset(annotations=path, images=folder / "images", **options)
