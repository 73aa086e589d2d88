"""Batches from a data set: their order, and the worker processes that prepare them.

The order of the training images and the augmentation of each depend only on the seed and the number
of the batch. So the number of workers changes neither, and a run can resume at any batch.
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

SampleKey = tuple[int, int]
"""(epoch, index of the image): identifies one training sample and its augmentation."""


def training_order(
    aspect_ratios: np.ndarray, *, batch_size: int, seed: int
) -> Iterator[tuple[SampleKey, ...]]:
    """Endless batches, each of only wide or only tall images, so that little is padded.

    Every epoch is a permutation of all images, drawn from (seed, epoch). Its images are collected
    in two buckets, wide and tall; a bucket of `batch_size` images becomes a batch, which may hold
    images of two epochs.
    """
    is_wide = aspect_ratios > 1
    buckets: tuple[list[SampleKey], list[SampleKey]] = ([], [])
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
    """Endless training batches.

    Args:
        transform: applied to each sample, with a generator made from (seed, epoch, image).
        batch_size: images per batch on this rank. The ranks split each batch of
            ``batch_size * world_size`` images, so the same total gives the same training.
        seed: of order and augmentation.
        workers: processes that decode and augment; 0 does it in this process, which is faster for
            images of about a hundred pixels.
        start: number of the first batch, 0 for a new run.
        rank, world_size: this process among those that train together.
        pin_memory: put batches into page-locked memory, which a GPU copies faster.

    Raises:
        InputError: while iterating, for an image that does not decode.
    """
    order = training_order(dataset.aspect_ratios, batch_size=batch_size * world_size, seed=seed)
    of_rank = slice(rank * batch_size, (rank + 1) * batch_size)
    batches = (keys[of_rank] for keys in itertools.islice(order, start, None))
    return iter(_Batches(_Augmented(dataset, transform, seed), batches, workers, pin_memory))


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
    """Every image once, in order; has a length, and can be iterated several times.

    Each rank gets one contiguous share. The shares differ by at most one image and are not padded,
    so no image counts twice.
    """
    share = np.array_split(np.arange(len(dataset)), world_size)[rank].tolist()
    batches = [
        tuple((0, index) for index in share[first : first + batch_size])
        for first in range(0, len(share), batch_size)
    ]
    return _Batches(_Augmented(dataset, transform, 0), batches, workers, pin_memory)


@dataclass(frozen=True)
class _Augmented(Dataset[Sample | InputError]):
    """The data set with its transform; each key determines the generator of its sample."""

    dataset: DetectionDataset
    transform: TrainTransform | EvalTransform
    seed: int

    def __getitem__(self, key: SampleKey) -> Sample | InputError:
        epoch, index = key
        generator = np.random.default_rng((self.seed, epoch, index))
        try:
            return self.transform(self.dataset.read(index), generator)
        except InputError as error:  # DataLoader would wrap it in the worker's traceback
            return error


class _Batches:
    """A DataLoader that raises a worker's InputError unchanged."""

    def __init__(
        self,
        samples: _Augmented,
        batches: "Sequence[Sequence[SampleKey]] | Iterator[Sequence[SampleKey]]",
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
            # Without one, DataLoader would take a number from the generator that training uses.
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
    """One thread per worker, since the workers run in parallel."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
