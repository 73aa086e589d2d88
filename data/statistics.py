"""Number, size and category of a data set's objects."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from data.splits import DetectionDataset

# COCO's limits between small, medium and large objects, in square pixels of the file.
SMALL_BELOW = 32**2
LARGE_FROM = 96**2
SIZES = ("small", "medium", "large")


@dataclass(frozen=True)
class Statistics:
    """N images with G objects; crowd regions are counted separately.

    Attributes:
        names: of the categories.
        objects_per_image: int64 ``[N]``.
        areas: of the objects, square pixels of their files, float64 ``[G]``.
        labels: of the objects, int64 ``[G]``.
        crowds: number of crowd regions.
    """

    names: tuple[str, ...]
    objects_per_image: np.ndarray
    areas: np.ndarray
    labels: np.ndarray
    crowds: int

    @property
    def by_category(self) -> list[tuple[str, int]]:
        """Name and number of objects of each category, most frequent first."""
        counts = np.bincount(self.labels, minlength=len(self.names)).tolist()
        return sorted(zip(self.names, counts, strict=True), key=lambda pair: -pair[1])

    def summary(self) -> dict[str, Any]:
        """The figures as values that JSON can hold."""
        sizes = [size_of(area) for area in self.areas.tolist()]
        return {
            "images": len(self.objects_per_image),
            "images_without_objects": int((self.objects_per_image == 0).sum()),
            "objects": len(self.areas),
            "crowd_regions": self.crowds,
            "objects_per_image": {
                "mean": float(self.objects_per_image.mean()),
                "median": float(np.median(self.objects_per_image)),
                "most": int(self.objects_per_image.max()),
            },
            "sizes": {name: sizes.count(name) for name in SIZES},
            "categories": dict(self.by_category),
        }


def size_of(area: float) -> str:
    """ "small", "medium" or "large"; the limits, which COCO counts on both sides, are medium."""
    if area < SMALL_BELOW:
        return "small"
    return "medium" if area <= LARGE_FROM else "large"


def gather_statistics(dataset: DetectionDataset) -> Statistics:
    """Count the objects in the annotations of all images; opens no image."""
    counts, areas, labels, crowds = [], [], [], 0
    for index in tqdm(range(len(dataset)), "counting", leave=False, unit="image", disable=None):
        entry = dataset.entry(index)
        objects = entry.objects
        counts.append(len(objects))
        areas += [a.area for a in objects]
        labels += [a.label for a in objects]
        crowds += len(entry.annotations) - len(objects)
    return Statistics(
        names=tuple(category.name for category in dataset.categories),
        objects_per_image=np.array(counts, dtype=np.int64),
        areas=np.array(areas, dtype=np.float64),
        labels=np.array(labels, dtype=np.int64),
        crowds=crowds,
    )
