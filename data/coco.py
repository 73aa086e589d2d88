"""Data sets in COCO's form: an annotation file and a folder of images."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from data.annotations import Annotation, ImageEntry, PackedEntries, read_annotations
from data.images import read_image
from data.outlines import as_segmentation
from data.splits import DataSplits, from_settings
from data.transforms import EvalTransform, TrainTransform
from ops import rle
from ops.errors import InputError
from ops.structures import Sample, Target


@dataclass(frozen=True)
class Selection:
    """A small, fixed part of a data set, for example to be overfitted.

    The first `count` images (None: all) in ascending order of ids that have `min_objects` to
    `max_objects` objects, each of an area over `min_area` square pixels, and no crowd region.
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


class CocoDataset(Dataset[Sample]):
    """Images with their objects, in ascending order of image ids.

    Attributes:
        categories: in ascending order of COCO's ids; a label is the position in it.
        image_ids: COCO's ids of the images.
        aspect_ratios: width / height, float64 ``[N]``.
        annotations_file: where it was read from.
        objects_by_label: how many each category has, crowd regions apart, int64 ``[categories]``.
        problems: the annotations that were left out, by reason.
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
            keep_empty: whether images without a usable object stay.
            select: keep only these images.
            masks: whether outlines are read.
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

    def __getitem__(self, index: int) -> Sample:
        return self.read(index)

    def read(self, index: int) -> Sample:
        """The image at its own size with its objects; crowd regions are no part of the target.

        Boxes are clipped to the image. Raises InputError as `data.images.read_image`.
        """
        entry = self._entries[index]
        size = (entry.height, entry.width)
        image = read_image(self.folder / entry.file_name, size)  # [3, H, W]
        target = _target(entry.objects, size, self.masks)
        return Sample(image, target, entry.id, size)

    def digest(self, index: int) -> bytes:
        """8 bytes that stand for the image; see `ImageEntry`."""
        return self._entries[index].digest

    def fingerprint(self) -> str:
        """Hexadecimal digits that stand for all images."""
        digests = b"".join(entry.digest for entry in self._entries)
        return hashlib.blake2b(digests, digest_size=8).hexdigest()

    def crowds(self, index: int) -> Target:
        """An image's crowd regions, which no sample's target holds, in the pixels of its file."""
        entry = self._entries[index]
        regions = [a for a in entry.annotations if a.crowd]
        return _target(regions, (entry.height, entry.width), self.masks)

    def entry(self, index: int) -> ImageEntry:
        """What the annotations say of an image."""
        return self._entries[index]

    def path(self, index: int) -> Path:
        """The image's file."""
        return self.folder / self._entries[index].file_name

    def size(self, index: int) -> tuple[int, int]:
        """(height, width) that the annotations state."""
        entry = self._entries[index]
        return entry.height, entry.width

    def ground_truth(self) -> dict[str, list[dict[str, Any]]]:
        """This data set's images and usable annotations, crowd included, as a COCO document.

        Boxes are the file's own, not clipped, so that scores agree with those of other evaluators.
        """
        entries = list(self._entries)
        # COCO's evaluator takes the id 0 for "no match": move all ids where a file uses it.
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
        if isinstance(annotation.outline, tuple):
            coco["segmentation"] = [ring.ravel().tolist() for ring in annotation.outline]
        elif annotation.outline is not None:
            counts = rle.compress(annotation.outline)
            coco["segmentation"] = {"size": [entry.height, entry.width], "counts": counts}
        return coco

    def describe(self, most: int | None = 5) -> str:
        """One line: what is in it and what was left out, with `most` ids a reason (None: all)."""
        parts = [
            f"{len(self)} images",
            f"{self.objects_by_label.sum()} objects",
            f"{self._crowds} crowd regions" if self._crowds else "",
            self.problems.describe(most),
        ]
        return f"{self.annotations_file.name}: {', '.join(filter(None, parts))}"


def _target(annotations: Sequence[Annotation], size: tuple[int, int], masks: bool) -> Target:
    """Annotations of an image of `size` (height, width), their boxes clipped to it."""
    boxes = np.array([a.box_xywh for a in annotations], dtype=np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    boxes = boxes.clip(0, [size[1], size[0]] * 2)
    return Target(
        boxes=torch.from_numpy(boxes.astype(np.float32)),
        labels=torch.tensor([a.label for a in annotations], dtype=torch.int64),
        masks=tuple(as_segmentation(a.outline, size[0]) for a in annotations) if masks else (),
    )


def _check_files(entries: list[ImageEntry], folder: Path, annotations: Path, outside: bool) -> None:
    """InputError unless every image file is there; lists each folder once, opens nothing."""
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
            there = path.parent.is_dir()
            files = list(os.scandir(path.parent)) if there else []
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
    """InputError unless both data sets have the same categories, by id and by name."""
    ours = {c.id: c.name for c in train.categories}
    theirs = {c.id: c.name for c in val.categories}
    for id_ in sorted(ours.keys() | theirs.keys()):
        if ours.get(id_) != theirs.get(id_):
            raise InputError(
                f"{val.annotations_file}: category {id_} is {_name_of(theirs, id_)}, but "
                f"{_name_of(ours, id_)} in {train.annotations_file}; give both files the same "
                f"categories"
            )


def _name_of(names: dict[int, str], id_: int) -> str:
    return f"`{names[id_]}`" if id_ in names else "missing"


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
    """Build both splits of a data set in COCO's folder layout; the settings of `configs/data`.

    Args:
        root: folder that the four names are relative to.
        train_annotations, train_folder: annotation file and image folder to learn from.
        val_annotations, val_folder: the same, to be judged by.
        train_transform, eval_transform: fields of `TrainTransform` and `EvalTransform`.
        masks: read outlines (false: boxes alone).
        keep_empty: learn from images without objects too.
        select: fields of `Selection`, for the training split; None keeps all.
        val_on_train: judge by the very images that were learned from.
        allow_outside: let file names and links lead out of the image folders.

    Raises:
        InputError: as `CocoDataset`, and where the splits' categories differ.
    """
    base = Path(root).expanduser()
    if not base.is_dir():
        raise InputError(f"{base}: no such folder; set data.root to where the data set lies")
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
    return DataSplits(
        train,
        val,
        from_settings(TrainTransform, "data.train_transform", train_transform),
        from_settings(EvalTransform, "data.eval_transform", eval_transform),
    )
