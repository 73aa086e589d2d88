"""From a data set to batches: what comes when, and in which process it is prepared.

The order of training images and the randomness of each are functions of the seed and the position
alone. The number of worker processes changes neither, and a run can go on at any batch.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from data.splits import DetectionDataset
from data.transforms import EvalTransform, TrainTransform
from ops.errors import InputError
from ops.structures import Batch, Sample

Draw = tuple[int, int]
"""(epoch, index of the image): one sample of training."""


def training_order(
    aspect_ratios: np.ndarray, *, batch_size: int, seed: int
) -> Iterator[tuple[Draw, ...]]:
    """Batches of draws without end, wide images apart from tall ones so that little is padded.

    Every epoch is a permutation of all images by (seed, epoch); they queue up in two buckets, and a
    bucket that holds `batch_size` leaves as a batch, possibly across the border of two epochs.
    """
    is_wide = aspect_ratios > 1
    buckets: tuple[list[Draw], list[Draw]] = ([], [])
    for epoch in itertools.count():
        order = np.random.default_rng((seed, epoch)).permutation(len(is_wide))
        for index in order.tolist():
            bucket = buckets[int(is_wide[index])]
            bucket.append((epoch, index))
            if len(bucket) == batch_size:
                yield tuple(bucket)
                bucket.clear()


def train_loader(
    dataset: DetectionDataset,
    transform: TrainTransform,
    *,
    batch_size: int,
    seed: int,
    workers: int,
    start: int = 0,
    rank: int = 0,
    world_size: int = 1,
    pin_memory: bool = False,
) -> Iterator[Batch]:
    """Training batches without end.

    Args:
        dataset: what to learn from.
        transform: applied to each sample, with a generator made from (seed, epoch, image).
        batch_size: images a batch on this rank. The ranks share each batch of
            ``batch_size * world_size`` images, so the same total gives the same training.
        seed: of order and augmentation.
        workers: processes that decode and augment; 0 does it in this one, the faster way for
            images of about a hundred pixels.
        start: number of the batch to begin with, 0 for a new run.
        rank, world_size: this process among those that train together.
        pin_memory: put batches where a GPU fetches them fastest.

    Raises:
        InputError: while iterating, of an image that does not decode.
    """
    order = training_order(dataset.aspect_ratios, batch_size=batch_size * world_size, seed=seed)
    mine = (
        draws[rank * batch_size : (rank + 1) * batch_size]
        for draws in itertools.islice(order, start, None)
    )
    return iter(_Batches(_Augmented(dataset, transform, seed), mine, workers, pin_memory))


def eval_loader(
    dataset: DetectionDataset,
    transform: EvalTransform,
    *,
    batch_size: int = 1,
    workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
    pin_memory: bool = False,
) -> "_Batches":
    """Every image once, in order: sized, and iterable any number of times.

    The ranks take neighbouring shares whose lengths differ by one at most; none is padded, so no
    image counts twice.
    """
    shares = np.array_split(np.arange(len(dataset)), world_size)[rank].tolist()
    batches = [
        tuple((0, index) for index in shares[first : first + batch_size])
        for first in range(0, len(shares), batch_size)
    ]
    return _Batches(_Augmented(dataset, transform, 0), batches, workers, pin_memory)


@dataclass(frozen=True)
class _Augmented(Dataset[Sample | InputError]):
    """The data set with its transform; asked for draws, so each knows its own randomness."""

    dataset: DetectionDataset
    transform: TrainTransform | EvalTransform
    seed: int

    def __getitem__(self, draw: Draw) -> Sample | InputError:
        epoch, index = draw
        generator = np.random.default_rng((self.seed, epoch, index))
        try:
            return self.transform(self.dataset.read(index), generator)
        except InputError as error:  # raised, it would arrive wrapped in the worker's traceback
            return error


class _Batches:
    """A DataLoader that raises a worker's InputError as it was."""

    def __init__(
        self,
        samples: _Augmented,
        batches: "Sequence[Sequence[Draw]] | Iterator[Sequence[Draw]]",
        workers: int,
        pin_memory: bool,
    ) -> None:
        self._batches = batches
        self._loader = DataLoader(
            samples,
            batch_sampler=batches,  # type: ignore[arg-type]
            num_workers=workers,
            collate_fn=_collate,
            pin_memory=pin_memory,
            worker_init_fn=_start_worker,
            persistent_workers=workers > 0,
            prefetch_factor=4 if workers > 0 else None,
            # Its own, so that starting to load takes no number from the stream that training draws.
            generator=torch.Generator(),
        )

    def __len__(self) -> int:
        return len(self._batches)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._loader:
            if isinstance(batch, InputError):
                raise batch
            yield batch


def _collate(samples: list[Sample | InputError]) -> Batch | InputError:
    for sample in samples:
        if isinstance(sample, InputError):
            return sample
    return Batch.collate(samples)  # type: ignore[arg-type]


def _start_worker(worker: int) -> None:
    """One thread a worker: the workers themselves are the parallelism."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
