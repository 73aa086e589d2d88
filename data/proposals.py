"""Files of proposals, written by one trained RPN and given to other networks instead of their own.

A file holds one split, as safetensors, so that it is mapped into memory and never read whole:

====================  =====================  =========================================
``image_ids``         int64 ``[N]``          COCO's ids, in any order
``offsets``           int64 ``[N + 1]``      where each image's rows begin and end
``boxes``             float32 ``[T, 4]``     pixels of the image's file, best first
``scores``            float32 ``[T]``        objectness, in the same order
``digests``           uint8 ``[N, 8]``       `ImageEntry.digest` of each image
====================  =====================  =========================================

Its metadata: ``format``; ``detector``, a hash of the weights that made it; ``per_image``, the
largest number of boxes of an image.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor
from tqdm import tqdm

from data.splits import DetectionDataset
from files.atomic import replacing
from files.restricted_pickle import Refused, load_pickle
from ops.boxes import clip, is_nonempty
from ops.errors import InputError
from ops.structures import Sample

FORMAT = "roi-poolers proposals 1"
ARRAYS = ("image_ids", "offsets", "boxes", "scores", "digests")
DUMP_AGAIN = "dump the proposals again (scripts/dump_proposals.py)"


@dataclass(frozen=True)
class Record:
    """The P proposals of one image.

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
    """Write the proposals of `dataset`, atomically; boxes go to the disk as they come.

    Args:
        path: of the file, `*.safetensors`.
        records: one for each image, in any order.
        detector: hash of the weights that made them.

    Raises:
        ValueError: an image has no record, or two.
    """
    position = {image_id: index for index, image_id in enumerate(dataset.image_ids)}
    image_ids, counts = [], []
    with TemporaryFile(dir=path.parent) as boxes, TemporaryFile(dir=path.parent) as scores:
        for record in map(Record.best_first, records):
            boxes.write(record.boxes.astype("<f4").tobytes())
            scores.write(record.scores.astype("<f4").tobytes())
            image_ids.append(record.image_id)
            counts.append(len(record.scores))
        if sorted(image_ids) != sorted(position):
            raise ValueError("give the proposals of every image of the data set, each once")
        digests = b"".join(dataset.entry(position[image_id]).digest for image_id in image_ids)
        arrays = {
            "image_ids": np.array(image_ids, dtype=np.int64),
            "offsets": np.cumsum([0, *counts], dtype=np.int64),
            "boxes": _mapped_file(boxes).reshape(-1, 4),
            "scores": _mapped_file(scores),
            "digests": np.frombuffer(digests, np.uint8).reshape(-1, 8),
        }
        metadata = {"format": FORMAT, "detector": detector, "per_image": str(max(counts))}
        with replacing(path) as temporary:
            temporary.touch()
            mode = temporary.stat().st_mode
            save_file(arrays, temporary, metadata)
            temporary.chmod(mode)  # safetensors lets nobody but the owner read it


def _mapped_file(file: IO[bytes]) -> np.ndarray:
    file.flush()
    empty = file.tell() == 0  # an empty file cannot be mapped
    return np.zeros(0, np.float32) if empty else np.memmap(file, dtype=np.float32, mode="r")


def damaged(path: Path, why: object) -> InputError:
    """The error of a file that cannot be read as proposals."""
    return InputError(f"{path}: is no file of proposals, or is damaged ({why}); {DUMP_AGAIN}")


# How far, in pixels, a box in a file of another program may reach over its image's edge.
TOLERANCE = 1.0


class MappedBoxes:
    """The array `boxes` of a file, read slice by slice; each process maps the file itself.

    Raises:
        InputError: while reading, if the file was replaced since it was opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamp = self._identify()
        self._slices: Any = None

    def __getitem__(self, rows: slice) -> np.ndarray:
        if rows.start >= rows.stop:  # safetensors has no empty slices
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


class ProposalFile:
    """The proposals of a split, by image; can be sent to worker processes.

    Attributes:
        path: of the file.
        image_ids: int64 ``[N]``, ascending.
        rows: int64 ``[N, 2]``, the first row of each image in `boxes` and the one after its last.
        boxes: float32 ``[T, 4]``, best first within an image.
        digests: uint8 ``[N, 8]``; None for a file of another program.
        detector: hash of the weights that made it; None for a file of another program.
    """

    def __init__(
        self,
        path: Path,
        image_ids: np.ndarray,
        offsets: np.ndarray,
        boxes: MappedBoxes | Tensor,
        digests: np.ndarray | None = None,
        detector: str | None = None,
    ) -> None:
        """Sort the images. Raises InputError for an image that occurs twice."""
        order = np.argsort(image_ids, kind="stable")
        self.path = path
        self.image_ids = image_ids[order]
        self.rows = np.stack((offsets[:-1], offsets[1:]), axis=1)[order]
        self.boxes = boxes
        self.digests = None if digests is None else digests[order]
        self.detector = detector
        twice = self.image_ids[1:][self.image_ids[1:] == self.image_ids[:-1]]
        if len(twice):
            raise InputError(f"{path}: image {twice[0]} occurs twice; {DUMP_AGAIN}")

    def for_image(self, image_id: int, digest: bytes | None, per_image: int) -> Tensor:
        """The `per_image` best boxes of an image: float32 ``[P, 4]`` in the pixels of its file.

        Args:
            digest: of the image as it is now; None skips the check that it has not changed.

        Raises:
            InputError: the file has no such image, or the image has changed since.
        """
        at = int(np.searchsorted(self.image_ids, image_id))
        if at == len(self.image_ids) or self.image_ids[at] != image_id:
            raise InputError(f"{self.path}: has no proposals of image {image_id}; {DUMP_AGAIN}")
        known = None if self.digests is None else self.digests[at].tobytes()
        if known is not None and digest is not None and known != digest:
            raise InputError(
                f"{self.path}: image {image_id} has changed since its proposals were made (name, "
                f"size, boxes or classes); {DUMP_AGAIN}"
            )
        start, stop = self.rows[at].tolist()
        return torch.as_tensor(self.boxes[start : min(stop, start + per_image)])

    def check(self, dataset: DetectionDataset, *, detector: str | None = None) -> None:
        """Check that the file has every image of `dataset`, unchanged.

        A file of another program has no digests; its boxes are checked to lie inside the images.

        Raises:
            InputError: an image is missing or has changed, or another detector made the file.
        """
        if detector is not None and self.detector != detector:
            problem = "does not name its detector"
            if self.detector:
                problem = f"was made by the detector {self.detector}, not {detector}"
            raise InputError(f"{self.path}: {problem}; {DUMP_AGAIN} with detector {detector}")
        missing = np.setdiff1d(dataset.image_ids, self.image_ids)
        if len(missing):
            raise InputError(
                f"{self.path}: has no proposals of {len(missing)} of the {len(dataset)} images in "
                f"{dataset.annotations_file}, the first is {missing[0]}; {DUMP_AGAIN}"
            )
        bar = tqdm(dataset.image_ids, "checking proposals", leave=False, disable=None, unit="image")
        for position, image_id in enumerate(bar):
            if self.digests is not None:
                self.for_image(image_id, dataset.entry(position).digest, 0)
            else:
                self._check_inside(image_id, dataset.entry(position).size)

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
        """One phrase: the file, how many proposals are used, and what could not be checked."""
        text = f"proposals from {self.path}, the {per_image} best of each image"
        return text if self.digests is not None else f"{text} (images and detector not verified)"


def open_proposals(path: Path) -> ProposalFile:
    """A file of proposals: this project's, mapped, or detectron2's or Detectron's, read whole.

    Raises:
        InputError: no such file, of another kind, or damaged.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "no such file"
        raise InputError(f"{path}: {what}; name what scripts/dump_proposals.py wrote")
    with path.open("rb") as file:
        start = file.read(9)
    if start[8:] == b"{":  # safetensors: eight bytes of length, then a header in JSON
        return _open_safetensors(path)
    return _open_pickle(path)


def _open_safetensors(path: Path) -> ProposalFile:
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
    detector = metadata.get("detector")
    return ProposalFile(path, image_ids, offsets, MappedBoxes(path), digests, detector)


def _open_pickle(path: Path) -> ProposalFile:
    records = _read_pickle(path)
    boxes = np.concatenate([np.zeros((0, 4), np.float32), *(r.boxes for r in records)])
    return ProposalFile(
        path,
        np.array([record.image_id for record in records], dtype=np.int64),
        np.cumsum([0, *(len(record.boxes) for record in records)], dtype=np.int64),
        torch.from_numpy(boxes).share_memory_(),  # one copy for all worker processes
    )


# detectron2's names of the columns, and Detectron's.
NAMES = {"ids": "indexes", "boxes": "boxes", "objectness_logits": "scores"}
XYXY, XYWH = 0, 1  # detectron2's BoxMode of absolute coordinates


def _read_pickle(path: Path) -> list[Record]:
    """The proposals of each image, best first; runs no code that the pickle may hold."""
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
            f"could run code; write nothing but arrays"
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


class WithProposals:
    """A data set whose samples have proposals from a file.

    All other members of `DetectionDataset` are those of the data set that it wraps.
    """

    def __init__(
        self, dataset: DetectionDataset, path: Path, *, per_image: int, detector: str | None = None
    ) -> None:
        """Open the file and check it.

        Args:
            dataset: the file must have all of its images, and may have more.
            path: of the file.
            per_image: the number of an image's best proposals that are used.
            detector: hash of the weights that must have made the file; None for any.

        Raises:
            InputError: as `open_proposals` and `ProposalFile.check`.
        """
        self._dataset = dataset
        self._file = open_proposals(path)
        self._file.check(dataset, detector=detector)
        self._per_image = per_image

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # asked for while unpickling, before `_dataset` exists
            raise AttributeError(name)
        return getattr(self._dataset, name)

    def __len__(self) -> int:
        return len(self._dataset)

    def read(self, index: int) -> Sample:
        """The data set's sample with its proposals, clipped to the image, best first.

        Raises:
            InputError: as the data set, or the file was replaced since it was opened.
        """
        sample, entry = self._dataset.read(index), self._dataset.entry(index)
        boxes = clip(self._file.for_image(entry.id, entry.digest, self._per_image), entry.size)
        return replace(sample, proposals=boxes[is_nonempty(boxes)])

    def describe(self, most: int | None = 5) -> str:
        """The data set's line, and the source of the proposals."""
        return f"{self._dataset.describe(most)}, {self._file.describe(self._per_image)}"
