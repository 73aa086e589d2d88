"""A COCO data set of four images: polygons, RLE of both kinds, a crowd, and nothing."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from short_runs import composed

from ops import rle
from scripts.browse import browse

SIZE = (400, 360)  # height, width: too large to be enlarged when it is drawn
NAMES = ["cat", 'a<b> & "c"']


def outlined(box: tuple[int, int, int, int], kind: str) -> Any:
    """A box (x1, y1, x2, y2) as COCO writes an outline of that kind."""
    x1, y1, x2, y2 = box
    mask = np.zeros(SIZE, np.uint8)
    mask[y1:y2, x1:x2] = 1
    runs = rle.encode(mask)
    return {
        "polygons": [[x1, y1, x2, y1, x2, y2, x1, y2]],
        "compressed": {"size": list(SIZE), "counts": rle.compress(runs)},
        "counts": {"size": list(SIZE), "counts": [int(run) for run in runs]},
    }[kind]


def annotation(id_: int, image: int, box: tuple[int, int, int, int], kind: str, **more: int) -> Any:
    x1, y1, x2, y2 = box
    return {
        "id": id_,
        "image_id": image,
        "category_id": 1,
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": (x2 - x1) * (y2 - y1),
        "iscrowd": 0,
        "segmentation": outlined(box, kind),
        **more,
    }


def write(folder: Path) -> None:
    """Write `all.json` and `images/`."""
    (folder / "images").mkdir()
    random = np.random.default_rng(0)
    for image in range(1, 5):
        pixels = random.integers(90, 110, (*SIZE, 3), np.uint8)
        cv2.imwrite(str(folder / f"images/{image}.png"), pixels)
    annotations = [
        annotation(1, 1, (20, 30, 40, 50), "polygons"),
        annotation(2, 1, (100, 100, 300, 250), "polygons", category_id=2),
        annotation(3, 2, (60, 60, 160, 120), "compressed"),
        annotation(4, 3, (10, 40, 130, 200), "counts", iscrowd=1),
        annotation(5, 3, (200, 220, 260, 300), "counts"),
    ]
    document = {
        "images": [
            {"id": image, "file_name": f"{image}.png", "height": SIZE[0], "width": SIZE[1]}
            for image in range(1, 5)
        ],
        "categories": [{"id": id_, "name": name} for id_, name in enumerate(NAMES, 1)],
        "annotations": annotations,
    }
    (folder / "all.json").write_text(json.dumps(document))


def words(root: Path, *more: str) -> list[str]:
    """A command line that browses the images as they are."""
    names = {"train_annotations": "all.json", "train_folder": "images"}
    names |= {name.replace("train", "val"): value for name, value in names.items()}
    return [
        "data=coco",
        f"data.root={root}",
        *(f"data.{name}={value}" for name, value in names.items()),
        "data.eval_transform.short_edge=360",
        *more,
    ]


def browsed(root: Path, *more: str) -> Path:
    return browse(composed(*words(root, *more), config="browse"))
