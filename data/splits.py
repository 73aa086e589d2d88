"""What a data set must offer, and the two splits that a run is given.

A data set of another kind needs a class with the members of `DetectionDataset` and a function that
returns `DataSplits`; its YAML in configs/data names that function as `_target_`. `data.shapes` is
the shortest example.
"""

from collections.abc import Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from tqdm import tqdm

from data.annotations import ImageEntry
from data.images import check_header, read_image
from data.transforms import EvalTransform, TrainTransform
from ops.errors import InputError
from ops.structures import Category, Sample, Target

# Up to so many images a check before training decodes every one (about half a minute); beyond, it
# reads the headers alone and leaves the rest to `scripts/validate_data.py`.
DECODED_AT_MOST = 4000


class DetectionDataset(Protocol):
    """Images with their objects, in ascending order of image ids.

    `data.coco.CocoDataset` is one, `data.proposals.WithProposals` makes one of any other.

    Attributes:
        categories: in ascending order of COCO's ids; a label is the position in it.
        image_ids: COCO's ids of the images.
        aspect_ratios: width / height, float64 ``[N]``.
        annotations_file: where it was read from, for messages.
    """

    categories: tuple[Category, ...]
    image_ids: list[int]
    aspect_ratios: np.ndarray
    annotations_file: Path

    def __len__(self) -> int: ...

    def read(self, index: int) -> Sample:
        """The image at its own size with its objects; crowd regions are no part of the target."""
        ...

    def crowds(self, index: int) -> Target:
        """An image's crowd regions, in the pixels of its file."""
        ...

    def entry(self, index: int) -> ImageEntry:
        """What the annotations say of an image."""
        ...

    def path(self, index: int) -> Path:
        """The image's file."""
        ...

    def size(self, index: int) -> tuple[int, int]:
        """(height, width) that the annotations state."""
        ...

    def digest(self, index: int) -> bytes:
        """8 bytes that stand for the image; see `data.annotations.ImageEntry`."""
        ...

    def fingerprint(self) -> str:
        """Hexadecimal digits that stand for all images."""
        ...

    def ground_truth(self) -> dict[str, list[dict[str, Any]]]:
        """Images and usable annotations, crowd regions included, as a COCO document."""
        ...

    def describe(self, most: int | None = 5) -> str:
        """One line: what is in it and what was left out, with `most` ids a reason (None: all)."""
        ...


@dataclass(frozen=True)
class DataSplits:
    """What a run learns from and what it is judged by, with how each image is prepared."""

    train: DetectionDataset
    val: DetectionDataset
    train_transform: TrainTransform
    eval_transform: EvalTransform


def check_images(
    dataset: DetectionDataset, *, workers: int = 2, decode: bool | None = None
) -> None:
    """Open every image once before training, in threads, with a progress bar.

    Args:
        dataset: whose files are opened.
        workers: threads.
        decode: decode the pixels (True), or read the headers alone (False), which misses damage
            further inside. None decodes up to `DECODED_AT_MOST` images.

    Raises:
        InputError: of the first image that does not decode or is of another size than stated.
    """
    if decode is None:
        decode = len(dataset) <= DECODED_AT_MOST
    with closing(broken_images(dataset, workers=workers, decode=decode)) as broken:
        for error in broken:
            raise error


def broken_images(
    dataset: DetectionDataset, *, workers: int, decode: bool
) -> Generator[InputError, None, None]:
    """What is wrong with each image that `check_images` would refuse, in the data set's order."""
    check = read_image if decode else check_header

    def failure(index: int) -> InputError | None:
        try:
            check(dataset.path(index), dataset.size(index))
        except InputError as error:
            return error
        return None

    pool = ThreadPoolExecutor(max(workers, 1))
    try:
        results = pool.map(failure, range(len(dataset)))
        for error in tqdm(
            results, "checking images", len(dataset), leave=False, unit="image", disable=None
        ):
            if error is not None:
                yield error
    finally:
        pool.shutdown(cancel_futures=True)


Settings = TypeVar("Settings")


def from_settings(kind: type[Settings], name: str, values: Mapping[str, Any]) -> Settings:
    """Build the dataclass `kind` from `values`, the settings under `name`.

    Raises:
        InputError: a setting that `kind` does not have, or one that it needs and `values` lacks.
    """
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    unknown = [key for key in values if key not in known]
    if unknown:
        raise InputError(f"{name}.{unknown[0]}: no such setting; choose among {', '.join(known)}")
    try:
        return kind(**values)
    except TypeError as error:
        raise InputError(f"{name}: {error}; correct the setting's value") from None
