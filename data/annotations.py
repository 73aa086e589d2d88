"""COCO's annotation file: read, checked, and packed so that worker processes share one copy.

A fault that makes the whole file doubtful (an unknown category, a repeated id) raises `InputError`.
An annotation that is bad in itself (a box of no size, a polygon of two points) is left out;
`Problems` counts and lists such annotations.
"""

import hashlib
import pickle
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data.fields import BY_NAME, number
from data.outlines import Outline, Unusable, outline_area, read_outline
from files.atomic import read_json
from ops.errors import InputError
from ops.structures import Category

# Shortest side of a usable box inside the image, in pixels: the network learns the logarithm of the
# sides, which has no bound as a side goes to 0.
LEAST_SIDE = 0.01

Box = tuple[float, float, float, float]
SINGULAR = {"images": "image", "categories": "category", "annotations": "annotation"}


@dataclass(frozen=True)
class Annotation:
    """One object or crowd region, in the image's pixels.

    Attributes:
        id: COCO's id of the annotation.
        label: position of its category in ascending order of category ids.
        box_xywh: as the file has it, not clipped to the image.
        area: square pixels; computed where the file has none.
        crowd: whether the outline covers a group of objects that are not annotated one by one.
        outline: see `Outline`.
    """

    id: int
    label: int
    box_xywh: Box
    area: float
    crowd: bool
    outline: Outline


@dataclass(frozen=True)
class ImageEntry:
    """One image of the file with its annotations.

    `digest`, 8 bytes, is a hash of the image's id, file name, size, and boxes with their
    categories. It leaves outlines out, so it is the same with and without masks.
    """

    id: int
    file_name: str
    height: int
    width: int
    annotations: tuple[Annotation, ...]
    digest: bytes = b""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width), pixels."""
        return self.height, self.width

    @property
    def objects(self) -> tuple[Annotation, ...]:
        """The annotations without the crowd regions."""
        return tuple(a for a in self.annotations if not a.crowd)


@dataclass(frozen=True)
class Problems:
    """The ids of the annotations that were left out or mended while reading, by reason."""

    left_out: dict[str, list[int]] = field(default_factory=dict)
    mended: dict[str, list[int]] = field(default_factory=dict)

    def count(self) -> int:
        """Number of annotations left out."""
        return sum(map(len, self.left_out.values()))

    def describe(self, most: int | None = 5) -> str:
        """One line: the number for each reason, with the first `most` ids (None: all)."""
        parts = []
        if self.left_out:
            parts.append(f"left out {self.count()}: {_list_reasons(self.left_out, most)}")
        if self.mended:
            parts.append(f"mended: {_list_reasons(self.mended, most)}")
        return ", ".join(parts)


def _list_reasons(reasons: Mapping[str, Sequence[int]], most: int | None) -> str:
    texts = []
    for reason, ids in reasons.items():
        shown = ", ".join(map(str, ids[:most])) + (", ..." if len(ids[:most]) < len(ids) else "")
        texts.append(f"{len(ids)} with {reason} ({'id' if len(ids) == 1 else 'ids'} {shown})")
    return ", ".join(texts)


def read_annotations(
    path: Path, *, masks: bool
) -> tuple[tuple[Category, ...], list[ImageEntry], Problems]:
    """Read a COCO annotation file and check it.

    Args:
        path: of the JSON file.
        masks: whether outlines are needed; if not, the field `segmentation` is ignored.

    Returns:
        The categories in ascending order of ids, the images in ascending order of ids with their
        usable annotations in the file's order, and what was left out.

    Raises:
        InputError: the file is missing or is not such a file; ids repeat; an annotation names an
            unknown image or category or lacks a required field; nothing usable is in it.
    """
    document = _load_json(path)
    categories = _read_categories(document, path)
    labels = {category.id: label for label, category in enumerate(categories)}
    images = _entries_by_id(document, "images", path)
    if not images:
        raise InputError(f"{path}: `images` is empty; name a file that lists at least one image")
    sizes = {id_: _image_size(image, id_, path) for id_, image in images.items()}
    kept: dict[int, list[Annotation]] = {id_: [] for id_ in images}
    boxes: dict[int, list[tuple[float, ...]]] = {id_: [] for id_ in images}
    problems = Problems()
    for id_, entry in _entries_by_id(document, "annotations", path).items():
        image_id, category_id = (
            _field(path, "annotations", id_, name, entry.get(name))
            for name in ("image_id", "category_id")
        )
        if image_id not in images:
            raise _unknown_reference(path, id_, "image", "images", image_id)
        if category_id not in labels:
            raise _unknown_reference(path, id_, "category", "categories", category_id)
        crowd = _field(path, "annotations", id_, "iscrowd", entry.get("iscrowd"))
        if masks and entry.get("segmentation") is None:
            raise InputError(
                f"{path}: annotation {id_} has no `segmentation`; export the masks too, or train "
                f"on boxes only (mask=false)"
            )
        try:
            box = _read_box(entry.get("bbox"), sizes[image_id])
            boxes[image_id].append((category_id, *box))
            annotation, mended = _read_annotation(
                entry, id_, labels[category_id], box, sizes[image_id], masks, crowd
            )
        except Unusable as reason:
            problems.left_out.setdefault(str(reason), []).append(id_)
            continue
        kept[image_id].append(annotation)
        if mended:
            problems.mended.setdefault(mended, []).append(id_)
    if not any(kept.values()):
        raise InputError(
            f"{path}: no usable annotation among {len(document['annotations'])}"
            + (f" ({problems.describe()})" if problems.left_out else "")
            + "; correct them or name another file"
            + (", or train on boxes only (mask=false)" if masks and _boxes_usable(problems) else "")
        )
    entries = []
    for id_ in sorted(images):
        name = images[id_]["file_name"]
        digest = _digest((id_, name, *sizes[id_]), boxes[id_])
        entries.append(ImageEntry(id_, name, *sizes[id_], tuple(kept[id_]), digest))
    return categories, entries, problems


def _boxes_usable(problems: Problems) -> bool:
    """Whether everything was left out for its outline, so that its boxes are usable."""
    reasons = problems.left_out
    return bool(reasons) and not any("box" in reason for reason in reasons)


def _digest(image: tuple[object, ...], boxes: list[tuple[float, ...]]) -> bytes:
    content = repr(image).encode() + np.array(sorted(boxes), dtype="<f8").tobytes()
    return hashlib.blake2b(content, digest_size=8).digest()


def _load_json(path: Path) -> dict[str, Any]:
    document = read_json(path, "check data.root and the file's name, or export it again")
    for key in ("images", "annotations", "categories"):
        if not isinstance(document, dict) or not isinstance(document.get(key), list):
            raise InputError(
                f"{path}: has no list `{key}`; name a COCO instance annotation file "
                f"(instances_*.json)"
            )
    return document


def _entries_by_id(document: dict[str, Any], key: str, path: Path) -> dict[int, dict[str, Any]]:
    """The entries of the list `key` by their ids, which must be whole numbers, each used once."""
    entries: dict[int, dict[str, Any]] = {}
    for position, entry in enumerate(document[key]):
        value = entry.get("id") if isinstance(entry, dict) else None
        id_ = _field(path, key, position, "id", value)
        if id_ in entries:
            raise InputError(f"{path}: id {id_} occurs twice in `{key}`; give each its own")
        entries[id_] = entry
    return entries


def _field(path: Path, key: str, where: int, name: str, value: Any) -> Any:
    """The value of a field, read by its rule in `data.fields`.

    Args:
        where: the entry's id; its position in the list while the id itself is read.
    """
    field = BY_NAME[key, name]
    try:
        return field.read(value)
    except ValueError as error:
        which = f"`{key}[{where}]`" if name == "id" else f"{SINGULAR[key]} {where}"
        why = str(error) if str(error).startswith(("is", "does")) else "is no whole number"
        shown = repr(value)[:40]
        what = f"has no `{name}`" if value is None else f"has the {name} {shown}, which {why}"
        raise InputError(f"{path}: {which} {what}; {field.remedy}") from None


def _read_categories(document: dict[str, Any], path: Path) -> tuple[Category, ...]:
    entries = _entries_by_id(document, "categories", path)
    if not entries:
        raise InputError(f"{path}: `categories` is empty; list at least one with `id` and `name`")
    named = {k: _field(path, "categories", k, "name", e.get("name")) for k, e in entries.items()}
    name, times = Counter(named.values()).most_common(1)[0]
    if times > 1:
        raise InputError(f"{path}: {times} categories are called `{name}`; rename or merge them")
    return tuple(Category(id_, named[id_]) for id_ in sorted(named))


def _image_size(image: dict[str, Any], id_: int, path: Path) -> tuple[int, int]:
    """(height, width) of an entry of `images`, whose `file_name` is checked too."""
    _field(path, "images", id_, "file_name", image.get("file_name"))
    height, width = (
        _field(path, "images", id_, name, image.get(name)) for name in ("height", "width")
    )
    return height, width


def _unknown_reference(path: Path, id_: int, kind: str, key: str, value: object) -> InputError:
    return InputError(
        f"{path}: annotation {id_} is of {kind} {value!r}, which is not in `{key}`; add the {kind} "
        f"or remove the annotation"
    )


def _read_annotation(
    entry: dict[str, Any],
    id_: int,
    label: int,
    box: Box,
    size: tuple[int, int],
    masks: bool,
    crowd: bool,
) -> tuple[Annotation, str]:
    """The annotation, and what was mended in it ("" if nothing). Raises `Unusable`."""
    segmentation = entry.pop("segmentation", None)  # frees a long list of numbers early
    outline, mended = read_outline(segmentation, size) if masks else (None, "")
    try:
        area = number(entry["area"])
        if area < 0:
            raise ValueError("is below zero")
    except (KeyError, ValueError):
        area = outline_area(outline, box)
        if entry.get("area") is not None:
            mended = mended or "an area that is no number from 0, computed from its outline"
    return Annotation(id_, label, box, area, crowd, outline), mended


def _read_box(box: Any, size: tuple[int, int]) -> Box:
    if not isinstance(box, list) or len(box) != 4:
        raise Unusable("no box of four numbers")
    try:
        x, y, width, height = map(number, box)
    except ValueError:
        raise Unusable("a box of non-finite numbers") from None
    if min(width, height) < LEAST_SIDE:
        raise Unusable("a box of no size")
    inside_x, inside_y = min(x + width, size[1]) - max(x, 0), min(y + height, size[0]) - max(y, 0)
    if min(inside_x, inside_y) < LEAST_SIDE:
        raise Unusable("a box outside the image")
    return x, y, width, height


class PackedEntries(Sequence[ImageEntry]):
    """Image entries, pickled into one tensor in shared memory and unpickled one at a time.

    A list of Python objects would be copied into every worker process page by page, since reading
    an object changes its reference count. Shared tensors stay one copy, with fork and with spawn.
    """

    def __init__(self, entries: Iterable[ImageEntry]) -> None:
        pieces = [pickle.dumps(entry, protocol=5) for entry in entries]
        ends = np.cumsum([0, *map(len, pieces)])
        self.offsets = torch.from_numpy(ends).share_memory_()  # [N + 1]
        self.bytes = torch.frombuffer(bytearray(b"".join(pieces)), dtype=torch.uint8)
        self.bytes.share_memory_()

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> ImageEntry:  # type: ignore[override]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        start, stop = self.offsets[index % len(self) :][:2].tolist()
        entry: ImageEntry = pickle.loads(self.bytes.numpy()[start:stop].data)
        return entry
