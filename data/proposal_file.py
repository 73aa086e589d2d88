"""A file of proposals opened: looked up by image, held against the data set it is used for."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from tqdm import tqdm

from data.detectron2_proposals import read_detectron2
from data.proposals import ARRAYS, DUMP_AGAIN, FORMAT, damaged
from ops.errors import InputError

if TYPE_CHECKING:
    from data.coco import CocoDataset

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

    def for_image(self, image_id: int, digest: bytes | None, top: int) -> Tensor:
        """The `top` best boxes of an image: float32 ``[P, 4]`` in the pixels of its file.

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
        return torch.as_tensor(self.boxes[start : min(stop, start + top)])

    def check(self, dataset: "CocoDataset", *, detector: str | None = None) -> None:
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

    def describe(self, top: int) -> str:
        """A few words: how many, from where, and what could not be checked."""
        text = f"proposals from {self.path}, the {top} best of each image"
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
