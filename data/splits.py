"""The interface of data sets, and the two splits that a run trains and validates on.

A data set of another kind needs a class with the members of `DetectionDataset` and a function that
returns `DataSplits`; its YAML in configs/data names that function as `_target_`.
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

# The check before training decodes the images of data sets up to this size (about half a minute);
# of larger ones it reads the headers only, and `scripts/validate_data.py` decodes them.
DECODED_AT_MOST = 4000


class DetectionDataset(Protocol):
    """N images with their objects, in ascending order of image ids.

    `data.coco.CocoDataset` is one; `data.proposals.WithProposals` adds proposals to any.

    Attributes:
        categories: in ascending order of COCO's ids; a label is a position in it.
        image_ids: COCO's ids of the images.
        aspect_ratios: width / height, float64 ``[N]``.
        annotations_file: the file it was read from, for messages.
    """

    categories: tuple[Category, ...]
    image_ids: list[int]
    aspect_ratios: np.ndarray
    annotations_file: Path

    def __len__(self) -> int: ...

    def read(self, index: int) -> Sample:
        """The image at its own size with its objects; the target leaves crowd regions out."""
        ...

    def crowds(self, index: int) -> Target:
        """The image's crowd regions, in the pixels of its file."""
        ...

    def entry(self, index: int) -> ImageEntry:
        """The image's annotations."""
        ...

    def path(self, index: int) -> Path:
        """The image's file."""
        ...

    def ground_truth(self) -> dict[str, list[dict[str, Any]]]:
        """Images and usable annotations, crowd regions included, as a COCO document."""
        ...

    def describe(self, most: int | None = 5) -> str:
        """One line: what it holds and what was left out, with `most` ids a reason (None: all)."""
        ...


@dataclass(frozen=True)
class DataSplits:
    """The data sets to train and to validate on, with the transforms of their images."""

    train: DetectionDataset
    val: DetectionDataset
    train_transform: TrainTransform
    eval_transform: EvalTransform

    @staticmethod
    def of(
        train: DetectionDataset,
        val: DetectionDataset,
        train_transform: Mapping[str, Any],
        eval_transform: Mapping[str, Any],
    ) -> "DataSplits":
        """Splits whose transforms are given as settings. Raises InputError as `from_settings`."""
        return DataSplits(
            train,
            val,
            from_settings(TrainTransform, "data.train_transform", train_transform),
            from_settings(EvalTransform, "data.eval_transform", eval_transform),
        )


def check_images(
    dataset: DetectionDataset, *, workers: int = 2, decode: bool | None = None
) -> None:
    """Open every image once before training, in threads, with a progress bar.

    Args:
        workers: threads.
        decode: decode the pixels (True), or read only the headers (False), which misses damage
            after them. None decodes data sets of up to `DECODED_AT_MOST` images.

    Raises:
        InputError: for the first image that does not decode or has not the stated size.
    """
    if decode is None:
        decode = len(dataset) <= DECODED_AT_MOST
    with closing(broken_images(dataset, workers=workers, decode=decode)) as broken:
        for error in broken:
            raise error


def broken_images(
    dataset: DetectionDataset, *, workers: int, decode: bool
) -> Generator[InputError, None, None]:
    """The error of each image that `check_images` would refuse, in the data set's order."""
    check = read_image if decode else check_header

    def failure(index: int) -> InputError | None:
        try:
            check(dataset.path(index), dataset.entry(index).size)
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
        InputError: a setting is unknown, missing or has a wrong value.
    """
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    unknown = [key for key in values if key not in known]
    if unknown:
        raise InputError(f"{name}.{unknown[0]}: no such setting; choose among {', '.join(known)}")
    try:
        return kind(**values)
    except TypeError as error:
        raise InputError(f"{name}: {error}; correct the setting's value") from None
