"""Check a data set in COCO's form: read its annotations and decode every image.

    python scripts/validate_data.py DATA/annotations/instances_train2017.json DATA/train2017

Prints what it holds and what training would leave out, by reason with ids. The exit status is 1 if
training would refuse the data set, else 0.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data.coco import CocoDataset
from data.outlines import outline_box
from data.splits import broken_images
from ops.boxes import iou
from ops.errors import InputError


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Check a data set in COCO's form.")
    parser.add_argument("annotations", type=Path, help="an instances_*.json")
    parser.add_argument("images", type=Path, help="the folder of its images")
    parser.add_argument("--boxes", action="store_true", help="boxes only: ignore `segmentation`")
    parser.add_argument("--headers", action="store_true", help="do not decode the pixels")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="threads")
    chosen = parser.parse_args(arguments)
    try:
        dataset = CocoDataset(
            annotations=chosen.annotations, images=chosen.images, masks=not chosen.boxes
        )
    except InputError as error:
        print(error, file=sys.stderr)
        return 1
    return 1 if validate(dataset, workers=chosen.workers, decode=not chosen.headers) else 0


def boxes_unlike_outlines(dataset: CocoDataset) -> list[int]:
    """Ids of the annotations whose box overlaps its outline's tight box by an IoU below 0.5."""
    unlike = []
    for index in range(len(dataset)):
        entry = dataset.entry(index)
        objects = [a for a in entry.objects if a.outline is not None]
        boxes = [(*a.box_xywh, *outline_box(a.outline, entry.height)) for a in objects]
        stated, tight = torch.tensor(boxes).reshape(-1, 2, 4).unbind(1)
        overlaps = iou(_corners(stated), _corners(tight)).diagonal().tolist()
        unlike += [a.id for a, overlap in zip(objects, overlaps, strict=True) if overlap < 0.5]
    return unlike


def _corners(boxes_xywh: torch.Tensor) -> torch.Tensor:
    return torch.cat((boxes_xywh[:, :2], boxes_xywh[:, :2] + boxes_xywh[:, 2:]), 1)


def validate(dataset: CocoDataset, *, workers: int, decode: bool) -> int:
    """Print what is in a data set and what is wrong with it; returns how many images are broken."""
    print(dataset.describe(most=None))
    counts = dataset.objects_by_label.tolist()
    for category, count in zip(dataset.categories, counts, strict=True):
        print(f"{category.id:>6} {category.name:<24} {count:>9} objects")
    unlike = boxes_unlike_outlines(dataset)
    if unlike:
        some = ", ".join(map(str, unlike[:5])) + (", ..." if len(unlike) > 5 else "")
        print(
            f"warning: {len(unlike)} boxes differ from their outlines (annotations {some}): is "
            "every bbox x, y, width, height, in pixels?",
            file=sys.stderr,
        )
    broken = 0
    for error in broken_images(dataset, workers=workers, decode=decode):
        print(error, file=sys.stderr)
        broken += 1
    print(f"{broken} of {len(dataset)} images broken" if broken else "every image is sound")
    return broken


if __name__ == "__main__":
    sys.exit(main())
