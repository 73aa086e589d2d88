"""Image entries in shared memory, one copy for all processes."""

import pickle
from collections.abc import Iterable, Sequence

import numpy as np
import torch

from data.annotations import ImageEntry


class PackedEntries(Sequence[ImageEntry]):
    """Image entries as one run of bytes in shared memory, taken out one at a time.

    A list of Python objects is copied into every worker process little by little, because counting
    references writes to it. Bytes and offsets in shared tensors stay one copy, under fork as under
    spawn.
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
