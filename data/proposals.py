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
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
from safetensors.numpy import save_file

from ops.errors import InputError

if TYPE_CHECKING:
    from data.coco import CocoDataset

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
    path: Path, dataset: "CocoDataset", records: Iterable[Record], *, detector: str
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
