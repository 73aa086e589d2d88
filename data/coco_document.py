"""An annotation file in COCO's form, written: `data.annotations` reads it back."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from data.outlines import as_coco, outline_area, outline_box
from ops.rle import RunLengths


class CocoDocument:
    """Images and their objects, numbered from 1 in the order in which they are added."""

    def __init__(self, categories: Iterable[str]) -> None:
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []
        self.categories = [{"id": id_, "name": name} for id_, name in enumerate(categories, 1)]

    def add_image(self, file_name: str, size: tuple[int, int]) -> None:
        """Add an image of `size` (height, width), which the next objects belong to."""
        entry = {"id": len(self.images) + 1, "file_name": file_name}
        self.images.append({**entry, "height": size[0], "width": size[1]})

    def add_object(self, label: int, outline: tuple[Any, ...] | RunLengths, crowd: int = 0) -> None:
        """Add an object of the image added last.

        Args:
            label: the position of its category.
            outline: see `data.outlines.Outline`; not empty.
            crowd: 1 where it is neither to be learned from nor to be counted as missed.
        """
        size = (self.images[-1]["height"], self.images[-1]["width"])
        box = outline_box(outline, size[0])
        self.annotations.append(
            {
                "id": len(self.annotations) + 1,
                "image_id": len(self.images),
                "category_id": label + 1,
                "bbox": box,
                "area": outline_area(outline, box),
                "iscrowd": crowd,
                "segmentation": as_coco(outline, size),
            }
        )

    def write(self, path: Path) -> None:
        """Write the file, in a folder that takes its place as a whole later."""
        document = {
            "images": self.images,
            "annotations": self.annotations,
            "categories": self.categories,
        }
        path.write_text(json.dumps(document), encoding="utf-8")
