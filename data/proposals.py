"""Proposals kept in files: made once by an RPN trained apart, read by networks that are given them.

A file is safetensors, one a split, so that it is mapped into memory and never read whole:

====================  =====================  =========================================
``image_ids``         int64 ``[N]``          COCO's ids, in any order
``offsets``           int64 ``[N + 1]``      where each image's rows begin and end
``boxes``             float32 ``[T, 4]``     pixels of the image's file, best first
``scores``            float32 ``[T]``        objectness, in the same order
``digests``           uint8 ``[N, 8]``       `ImageEntry.digest`: the images it was made of
====================  =====================  =========================================

Its metadata: ``format``; ``detector``, a hash of the weights that made it; ``data``, a hash of the
split; ``per_image``, the most boxes of an image.
"""

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from data.splits import DetectionDataset
from files.restricted_pickle import Refused, load_pickle
from ops.boxes import clip, is_nonempty
from ops.errors import InputError
from ops.structures import Sample

FORMAT = "roi-poolers proposals 1"
ARRAYS = ("image_ids", "offsets", "boxes", "scores", "digests")
DUMP_AGAIN = "dump the proposals again (scripts/dump_proposals.py)"


@dataclass(frozen=True)
class Record:
    """The proposals of one image.

    Attributes:
        image_id: COCO's id.
        boxes: float32 ``[P, 4]`` in the pixels of the image's file.
        scores: float32 ``[P]``, higher is better.
    """

    image_id: int
    boxes: np.ndarray
    scores: np.ndarray

    def best_first(self) -> "Record":
        """The same, in descending order of scores."""
        order = np.argsort(-self.scores, kind="stable")
        return Record(self.image_id, self.boxes[order], self.scores[order])


def write_proposals(
    path: Path, dataset: DetectionDataset, records: Iterable[Record], *, detector: str
) -> None:
    """Write the proposals of `dataset`, whole or not at all; boxes go to the disk as they come.

    Args:
        path: of the file, `*.safetensors`.
        records: one for each image, in any order.
        detector: hash of the weights that made them.

    Raises:
        ValueError: an image without its record, or with two.
    """
    index = {image_id: i for i, image_id in enumerate(dataset.image_ids)}
    image_ids, counts = [], []
    with ExitStack() as stack:
        boxes, scores = (stack.enter_context(_spool(path, name)) for name in ("boxes", "scores"))
        for record in map(Record.best_first, records):
            boxes.write(record.boxes.astype("<f4").tobytes())
            scores.write(record.scores.astype("<f4").tobytes())
            image_ids.append(record.image_id)
            counts.append(len(record.scores))
        if sorted(image_ids) != sorted(index):
            raise ValueError("give the proposals of every image of the data set, each once")
        digests = b"".join(dataset.digest(index[image_id]) for image_id in image_ids)
        arrays = {
            "image_ids": np.array(image_ids, dtype=np.int64),
            "offsets": np.cumsum([0, *counts], dtype=np.int64),
            "boxes": _spooled(boxes).reshape(-1, 4),
            "scores": _spooled(scores),
            "digests": np.frombuffer(digests, np.uint8).reshape(-1, 8),
        }
        metadata = {
            "format": FORMAT,
            "detector": detector,
            "data": dataset.fingerprint(),
            "per_image": str(max(counts)),
        }
        whole = _temporary(path, "whole")
        stack.callback(whole.unlink, missing_ok=True)
        save_file(arrays, whole, metadata)
        shutil.copymode(boxes.name, whole)  # safetensors leaves it readable to its owner alone
        with whole.open("rb") as written:
            os.fsync(written.fileno())
        whole.replace(path)


def _temporary(path: Path, name: str) -> Path:
    """A fixed name beside `path`: what a killed process left there is overwritten by the next."""
    return path.with_name(f".{path.name}.{name}.tmp")


@contextmanager
def _spool(path: Path, name: str) -> Iterator[IO[bytes]]:
    temporary = _temporary(path, name)
    try:
        with temporary.open("wb+") as file:
            yield file
    finally:
        temporary.unlink(missing_ok=True)


def _spooled(file: IO[bytes]) -> np.ndarray:
    file.flush()
    empty = file.tell() == 0  # which cannot be mapped
    return np.zeros(0, np.float32) if empty else np.memmap(file, dtype=np.float32, mode="r")


def damaged(path: Path, why: object) -> InputError:
    """The mistake of naming a file that cannot be read as proposals."""
    return InputError(f"{path}: is no file of proposals, or is damaged ({why}); {DUMP_AGAIN}")


# How far, in pixels, a box of another program's file may reach over its image's edge.
TOLERANCE = 1.0


class MappedBoxes:
    """The array `boxes` of a file, read slice by slice; each process maps the file for itself.

    Raises:
        InputError: while reading, where another file has taken its place since.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamp = self._identify()
        self._slices: Any = None

    def __getitem__(self, rows: slice) -> np.ndarray:
        if rows.start >= rows.stop:  # safetensors cannot cut nothing out
            return np.zeros((0, 4), np.float32)
        if self._slices is None:
            if self._identify() != self._stamp:
                raise InputError(f"{self.path}: was replaced while in use; start the run again")
            self._slices = safe_open(self.path, "numpy").get_slice("boxes")
        return self._slices[rows]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_slices": None}

    def _identify(self) -> tuple[int, ...]:
        stat = self.path.stat()
        return stat.st_ino, stat.st_size, stat.st_mtime_ns


@dataclass(frozen=True, eq=False)
class ProposalFile:
    """The proposals of a split, looked up by image; goes to worker processes as it is.

    Attributes:
        path: of the file.
        image_ids: int64 ``[N]``, ascending.
        rows: int64 ``[N, 2]``, the first row of each image in `boxes` and the one after its last.
        boxes: float32 ``[T, 4]``, best first within an image.
        digests: uint8 ``[N, 8]``; None for a file of another program.
        metadata: see above; empty for a file of another program.
    """

    path: Path
    image_ids: np.ndarray
    rows: np.ndarray
    boxes: MappedBoxes | Tensor
    digests: np.ndarray | None
    metadata: dict[str, str]

    @staticmethod
    def index(
        path: Path,
        image_ids: np.ndarray,
        offsets: np.ndarray,
        boxes: MappedBoxes | Tensor,
        digests: np.ndarray | None = None,
        metadata: dict[str, str] | None = None,
    ) -> "ProposalFile":
        """Put the images in order. Raises InputError for an image that occurs twice."""
        order = np.argsort(image_ids, kind="stable")
        ordered = image_ids[order]
        twice = ordered[1:][ordered[1:] == ordered[:-1]]
        if len(twice):
            raise InputError(f"{path}: image {twice[0]} occurs twice; {DUMP_AGAIN}")
        rows = np.stack((offsets[:-1], offsets[1:]), axis=1)[order]
        digests = None if digests is None else digests[order]
        return ProposalFile(path, ordered, rows, boxes, digests, metadata or {})

    def for_image(self, image_id: int, digest: bytes | None, per_image: int) -> Tensor:
        """The `per_image` best boxes of an image: float32 ``[P, 4]`` in the pixels of its file.

        Args:
            digest: of the image as it is now; None leaves unchecked whether it has changed.

        Raises:
            InputError: the file has none of this image, or was made when it was another.
        """
        at = int(np.searchsorted(self.image_ids, image_id))
        if at == len(self.image_ids) or self.image_ids[at] != image_id:
            raise InputError(f"{self.path}: has no proposals of image {image_id}; {DUMP_AGAIN}")
        known = None if self.digests is None else self.digests[at].tobytes()
        if known is not None and digest is not None and known != digest:
            raise InputError(
                f"{self.path}: image {image_id} was another when its proposals were made (name, "
                f"size, boxes or classes have changed since); {DUMP_AGAIN}"
            )
        start, stop = self.rows[at].tolist()
        return torch.as_tensor(self.boxes[start : min(stop, start + per_image)])

    def check(self, dataset: DetectionDataset, *, detector: str | None = None) -> None:
        """Make sure that the file is one of all images of `dataset`, as they are now.

        A file of another program says nothing about its images: that it has all of them is checked,
        and that the boxes lie inside.

        Raises:
            InputError: an image is missing or was another, or another detector made the file.
        """
        made_by = self.metadata.get("detector")
        if detector is not None and made_by != detector:
            told = (
                f"was made by the detector {made_by}" if made_by else "does not name its detector"
            )
            raise InputError(f"{self.path}: {told}, not {detector}; {DUMP_AGAIN} with that one")
        missing = np.setdiff1d(dataset.image_ids, self.image_ids)
        if len(missing):
            raise InputError(
                f"{self.path}: has no proposals of {len(missing)} of the {len(dataset)} images in "
                f"{dataset.annotations_file}, the first is {missing[0]}; {DUMP_AGAIN}"
            )
        bar = tqdm(dataset.image_ids, "checking proposals", leave=False, disable=None, unit="image")
        for position, image_id in enumerate(bar):
            if self.digests is not None:
                self.for_image(image_id, dataset.digest(position), 0)
            else:
                self._check_inside(image_id, dataset.size(position))

    def _check_inside(self, image_id: int, size: tuple[int, int]) -> None:
        height, width = size
        boxes = self.for_image(image_id, None, np.iinfo(np.int64).max)
        limit = boxes.new_tensor((width, height)) + TOLERANCE
        sound = (boxes[:, :2] >= -TOLERANCE) & (boxes[:, :2] <= boxes[:, 2:])
        sound &= boxes[:, 2:] <= limit
        if not sound.all():
            box = boxes[~sound.all(dim=1)][0].tolist()
            raise InputError(
                f"{self.path}: a proposal of image {image_id} is no box (x1 y1 x2 y2) inside its "
                f"{width} x {height} pixels: {', '.join(f'{value:.6g}' for value in box)}; name "
                f"the file of these images, or correct its bbox_mode"
            )

    def describe(self, per_image: int) -> str:
        """A few words: how many, from where, and what could not be checked."""
        text = f"proposals from {self.path}, the {per_image} best of each image"
        return text if self.digests is not None else f"{text} (versions and detector not verified)"


def open_proposals(path: Path) -> ProposalFile:
    """A file of proposals: one of ours, mapped, or one in detectron2's form, read whole.

    Raises:
        InputError: no such file, neither of the two, or damaged.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "no such file"
        raise InputError(f"{path}: {what}; name what scripts/dump_proposals.py wrote")
    with path.open("rb") as file:
        start = file.read(9)
    if start[8:] == b"{":  # the length of the header, then the header
        return _open_own(path)
    return _open_foreign(path)


def _open_own(path: Path) -> ProposalFile:
    try:
        with safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT or set(file.keys()) != set(ARRAYS):
                raise InputError(
                    f"{path}: holds no proposals (format {metadata.get('format')!r}, arrays "
                    f"{', '.join(sorted(file.keys())[:5])}); {DUMP_AGAIN}"
                )
            image_ids, offsets, digests = map(file.get_tensor, ("image_ids", "offsets", "digests"))
            total = file.get_slice("boxes").get_shape()[0]
    except SafetensorError as error:
        raise damaged(path, error) from error
    if len(offsets) != len(image_ids) + 1 or offsets[0] != 0 or offsets[-1] != total:
        raise damaged(path, "offsets do not fit the boxes")
    return ProposalFile.index(path, image_ids, offsets, MappedBoxes(path), digests, metadata)


def _open_foreign(path: Path) -> ProposalFile:
    records = read_detectron2(path)
    boxes = np.concatenate([np.zeros((0, 4), np.float32), *(r.boxes for r in records)])
    return ProposalFile.index(
        path,
        np.array([record.image_id for record in records], dtype=np.int64),
        np.cumsum([0, *(len(record.boxes) for record in records)], dtype=np.int64),
        torch.from_numpy(boxes).share_memory_(),  # one copy for all worker processes
    )


NAMES = {"ids": "indexes", "boxes": "boxes", "objectness_logits": "scores"}  # ours here: theirs
XYXY, XYWH = 0, 1  # detectron2's BoxMode of absolute coordinates


def read_detectron2(path: Path) -> list[Record]:
    """The proposals of each image in such a file, best first; runs nothing that it may carry.

    Raises:
        InputError: no such pickle, one that asks for more than arrays, entries that do not fit.
    """
    content = _load(path)
    columns = {name: content.get(name, content.get(old)) for name, old in NAMES.items()}
    for name, column in columns.items():
        if not isinstance(column, list | tuple | np.ndarray):
            raise damaged(path, f"no list `{name}`")
    lengths = [len(column) for column in columns.values()]
    if len(set(lengths)) > 1:
        raise damaged(path, f"{' / '.join(map(str, lengths))} entries of {' / '.join(columns)}")
    mode = content.get("bbox_mode", XYXY)
    if mode not in (XYXY, XYWH):
        raise InputError(
            f"{path}: bbox_mode={mode!r}; write the boxes as 0 (x1 y1 x2 y2) or 1 (x y w h), in "
            f"pixels"
        )
    entries = zip(*columns.values(), strict=True)
    return [_record(path, id_, boxes, scores, mode == XYWH) for id_, boxes, scores in entries]


def _load(path: Path) -> Mapping[str, Any]:
    try:
        content = load_pickle(path)
    except Refused as refused:
        raise InputError(
            f"{path}: asks for {refused}, which proposals do not need; refused, since loading it "
            f"could run code; write arrays alone"
        ) from refused
    except Exception as error:  # a damaged file fails anywhere in the reader
        raise damaged(path, type(error).__name__) from error
    if not isinstance(content, Mapping):
        raise damaged(path, f"a {type(content).__name__}")
    return content


def _record(path: Path, id_: Any, boxes: Any, scores: Any, is_xywh: bool) -> Record:
    try:
        image_id = int(str(id_))
        corners = np.array(boxes, dtype=np.float32)
        values = np.array(scores, dtype=np.float32).ravel()
    except (TypeError, ValueError) as error:
        raise damaged(path, f"image {id_!r}: {error}") from None
    if corners.shape != (len(values), 4) and corners.size + values.size:
        raise damaged(path, f"image {id_!r}: boxes {corners.shape}, scores {values.shape}")
    corners = corners.reshape(-1, 4)
    if is_xywh:
        corners[:, 2:] += corners[:, :2]
    return Record(image_id, corners, values).best_first()


class WithProposals(Dataset[Sample]):
    """Any data set, its samples given proposals from a file.

    Everything but `read` and `describe` is the data set's own.
    """

    def __init__(
        self, dataset: DetectionDataset, path: Path, *, per_image: int, detector: str | None = None
    ) -> None:
        """Open the file and hold it against the data set.

        Args:
            dataset: whose images the file must have; it may have more.
            path: of the file.
            per_image: how many of an image's proposals are used, the best ones.
            detector: hash of the weights that must have made the file; None admits any.

        Raises:
            InputError: no such file, an image that it lacks or that has changed since, or another
                detector.
        """
        self._dataset = dataset
        self._file = open_proposals(path)
        self._file.check(dataset, detector=detector)
        self._per_image = per_image

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # not there yet while a worker process takes the object apart
            raise AttributeError(name)
        return getattr(self._dataset, name)

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Sample:
        return self.read(index)

    def read(self, index: int) -> Sample:
        """The data set's own sample with its proposals, clipped to the image, best first.

        Raises:
            InputError: as the data set, and where another file has taken the place of this one.
        """
        sample = self._dataset.read(index)
        boxes = self._file.for_image(sample.image_id, self._dataset.digest(index), self._per_image)
        boxes = clip(boxes, self._dataset.size(index))
        return replace(sample, proposals=boxes[is_nonempty(boxes)])

    def describe(self, most: int | None = 5) -> str:
        """The data set's line, and where the proposals are from."""
        return f"{self._dataset.describe(most)}, {self._file.describe(self._per_image)}"
