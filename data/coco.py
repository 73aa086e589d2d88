"""Data sets in COCO's form: an annotation file and a folder of images."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data.annotations import Annotation, ImageEntry, PackedEntries, read_annotations
from data.images import read_image
from data.outlines import as_coco, as_segmentation
from data.splits import DataSplits, from_settings
from ops.errors import InputError
from ops.structures import Sample, Target


@dataclass(frozen=True)
class Selection:
    """A fixed part of a data set, for example a few images to overfit.

    The first `count` images (None: all) in ascending order of ids that have `min_objects` to
    `max_objects` objects, each with an area over `min_area` square pixels, and no crowd region.
    """

    count: int | None = None
    min_objects: int = 1
    max_objects: int | None = None
    min_area: float = 0.0

    def admits(self, entry: ImageEntry) -> bool:
        """Whether the image fulfils the conditions."""
        objects = entry.objects
        most = float("inf") if self.max_objects is None else self.max_objects
        return (
            len(objects) == len(entry.annotations)
            and self.min_objects <= len(objects) <= most
            and all(a.area > self.min_area for a in objects)
        )


class CocoDataset:
    """Images with their objects: a `data.splits.DetectionDataset`, with two attributes more.

    Attributes:
        objects_by_label: the number of objects of each category, int64 ``[categories]``.
        problems: the annotations that were left out or mended.
    """

    def __init__(
        self,
        *,
        annotations: Path,
        images: Path,
        keep_empty: bool = True,
        select: Selection | None = None,
        masks: bool = True,
        allow_outside: bool = False,
    ) -> None:
        """Read and check the annotations; images are decoded later, one at a time.

        Args:
            annotations: an `instances_*.json`.
            images: the folder that its file names are relative to.
            keep_empty: whether to keep images without a usable object.
            select: keep only these images.
            masks: whether to read outlines.
            allow_outside: whether file names and links may lead out of the folder.

        Raises:
            InputError: the annotations are unusable (`data.annotations`), the folder or an image
                file is missing, or no image remains.
        """
        self.annotations_file = Path(annotations)
        self.folder = Path(images)
        self.categories, entries, self.problems = read_annotations(
            self.annotations_file, masks=masks
        )
        _check_files(entries, self.folder, self.annotations_file, allow_outside)
        if all(a.crowd for entry in entries for a in entry.annotations):
            raise InputError(
                f"{self.annotations_file}: every annotation is a crowd region (iscrowd=1), which "
                "nothing is learned from; export single objects, or set `iscrowd` to 0"
            )
        if not keep_empty:
            entries = [entry for entry in entries if entry.objects]
        if select is not None:
            entries = [entry for entry in entries if select.admits(entry)][: select.count]
        if not entries:
            raise InputError(
                f"{self.annotations_file}: no image remains of those listed; widen data.select or "
                f"set data.keep_empty=true"
            )
        self.masks = masks
        self.image_ids = [entry.id for entry in entries]
        self.aspect_ratios = np.array([entry.width / entry.height for entry in entries])
        labels = [a.label for entry in entries for a in entry.objects]
        self.objects_by_label = np.bincount(
            np.array(labels, dtype=np.int64), minlength=len(self.categories)
        )
        self._crowds = sum(len(entry.annotations) for entry in entries) - len(labels)
        self._entries = PackedEntries(entries)

    def __len__(self) -> int:
        return len(self._entries)

    def read(self, index: int) -> Sample:
        """The image at its own size with its objects, whose boxes are clipped to it.

        Raises:
            InputError: as `data.images.read_image`.
        """
        entry = self._entries[index]
        image = read_image(self.folder / entry.file_name, entry.size)  # [3, H, W]
        return Sample(image, _target(entry.objects, entry.size, self.masks), entry.id, entry.size)

    def crowds(self, index: int) -> Target:
        """The image's crowd regions."""
        entry = self._entries[index]
        return _target([a for a in entry.annotations if a.crowd], entry.size, self.masks)

    def entry(self, index: int) -> ImageEntry:
        """The image's annotations."""
        return self._entries[index]

    def path(self, index: int) -> Path:
        """The image's file."""
        return self.folder / self._entries[index].file_name

    def ground_truth(self) -> dict[str, list[dict[str, Any]]]:
        """Images and usable annotations as a COCO document.

        Boxes are not clipped, so that scores agree with those of other evaluators.
        """
        entries = list(self._entries)
        # COCO's evaluation takes the id 0 for "not matched": where a file uses it, all ids grow.
        shift = int(any(a.id == 0 for entry in entries for a in entry.annotations))
        return {
            "images": [
                {"id": e.id, "file_name": e.file_name, "height": e.height, "width": e.width}
                for e in entries
            ],
            "annotations": [
                self._coco_annotation(a, entry, a.id + shift)
                for entry in entries
                for a in entry.annotations
            ],
            "categories": [{"id": c.id, "name": c.name} for c in self.categories],
        }

    def _coco_annotation(self, annotation: Annotation, entry: ImageEntry, id_: int) -> dict:
        coco: dict[str, Any] = {
            "id": id_,
            "image_id": entry.id,
            "category_id": self.categories[annotation.label].id,
            "bbox": list(annotation.box_xywh),
            "area": annotation.area,
            "iscrowd": int(annotation.crowd),
        }
        if annotation.outline is not None:
            coco["segmentation"] = as_coco(annotation.outline, entry.size)
        return coco

    def describe(self, most: int | None = 5) -> str:
        """One line: what it holds and what was left out, with `most` ids a reason (None: all)."""
        parts = [
            f"{len(self)} images",
            f"{self.objects_by_label.sum()} objects",
            f"{self._crowds} crowd regions" if self._crowds else "",
            self.problems.describe(most),
        ]
        return f"{self.annotations_file.name}: {', '.join(filter(None, parts))}"


def _target(annotations: Sequence[Annotation], size: tuple[int, int], masks: bool) -> Target:
    """Annotations of an image of `size` (height, width) as a target, boxes clipped to it."""
    boxes = np.array([a.box_xywh for a in annotations], dtype=np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    boxes = boxes.clip(0, [size[1], size[0]] * 2)
    return Target(
        boxes=torch.from_numpy(boxes.astype(np.float32)),
        labels=torch.tensor([a.label for a in annotations], dtype=torch.int64),
        masks=tuple(as_segmentation(a.outline, size[0]) for a in annotations) if masks else (),
    )


def _check_files(entries: list[ImageEntry], folder: Path, annotations: Path, outside: bool) -> None:
    """Raise InputError unless every image file exists; lists each folder once, opens no file."""
    if not folder.is_dir():
        raise InputError(
            f"{folder}: no such folder of images; check data.root and the folder's name"
        )
    listed: dict[Path, set[str]] = {}
    missing = []
    for entry in entries:
        name = Path(entry.file_name)
        path = folder / name
        if not outside and (name.is_absolute() or ".." in name.parts):
            raise InputError(
                f"{annotations}: image {entry.id} has the file_name {entry.file_name!r}, which "
                f"leads out of {folder}; correct it, or set data.allow_outside=true if you trust "
                "the file"
            )
        if path.parent not in listed:
            files = list(os.scandir(path.parent)) if path.parent.is_dir() else []
            listed[path.parent] = {file.name for file in files}
            inside = folder.resolve()
            for file in () if outside else files:
                if file.is_symlink() and inside not in Path(file.path).resolve().parents:
                    raise InputError(
                        f"{file.path}: is a link that leads out of {folder}; copy the file, or set "
                        "data.allow_outside=true if you trust it"
                    )
        if path.name not in listed[path.parent]:
            missing.append(entry)
    if missing:
        first = missing[0]
        raise InputError(
            f"{folder}: {len(missing)} of {len(entries)} image files named in {annotations} are "
            f"missing, the first is {first.file_name} (image {first.id}); restore them or correct "
            f"data.root"
        )


def check_same_categories(train: CocoDataset, val: CocoDataset) -> None:
    """Raise InputError unless both data sets have the same categories, by id and by name."""
    in_train, in_val = ({c.id: f"`{c.name}`" for c in data.categories} for data in (train, val))
    for id_ in sorted(in_train.keys() | in_val.keys()):
        if in_train.get(id_) != in_val.get(id_):
            raise InputError(
                f"{val.annotations_file}: category {id_} is {in_val.get(id_, 'missing')}, but "
                f"{in_train.get(id_, 'missing')} in {train.annotations_file}; give both files the "
                f"same categories"
            )


def coco_data(
    *,
    root: str | Path,
    train_annotations: str,
    train_folder: str,
    val_annotations: str,
    val_folder: str,
    train_transform: Mapping[str, Any],
    eval_transform: Mapping[str, Any],
    masks: bool = True,
    keep_empty: bool = True,
    select: Mapping[str, Any] | None = None,
    val_on_train: bool = False,
    allow_outside: bool = False,
) -> DataSplits:
    """Build both splits of a data set in COCO's folder layout, as `configs/data/coco.yaml` asks.

    Args:
        root: folder that the four names are relative to.
        train_annotations, train_folder: annotation file and image folder of the training split.
        val_annotations, val_folder: those of the validation split.
        train_transform, eval_transform: fields of `TrainTransform` and `EvalTransform`.
        masks: read outlines; False for boxes only.
        keep_empty: keep training images without objects.
        select: fields of `Selection`, for the training split; None keeps all.
        val_on_train: validate on the training images.
        allow_outside: let file names and links lead out of the image folders.

    Raises:
        InputError: as `CocoDataset`, and where the splits' categories differ.
    """
    base = Path(root).expanduser()
    if not base.is_dir():
        raise InputError(f"{base}: no such folder; set data.root to the data set's folder")
    train = CocoDataset(
        annotations=base / train_annotations,
        images=base / train_folder,
        keep_empty=keep_empty,
        select=None if select is None else from_settings(Selection, "data.select", select),
        masks=masks,
        allow_outside=allow_outside,
    )
    val = train
    if not val_on_train:
        val = CocoDataset(
            annotations=base / val_annotations,
            images=base / val_folder,
            masks=masks,
            allow_outside=allow_outside,
        )
        check_same_categories(train, val)
    return DataSplits.of(train, val, train_transform, eval_transform)
