"""What crosses file boundaries: images, targets and detections.

The house conventions, stated here once:

- A box is ``(x1, y1, x2, y2)`` in pixels of the image at hand, in continuous coordinates: pixel
  ``(column, row)`` covers ``[column, column + 1) x [row, row + 1)``, so a box around it alone is
  ``(column, row, column + 1, row + 1)`` and a width is ``x2 - x1``, never ``+ 1``.
- Another format or frame is in the name (``boxes_xywh``, ``boxes_in_features``).
- An image is uint8 RGB. In a tensor it is ``[3, H, W]``, in NumPy ``[H, W, 3]``.
- A label is a contiguous class index ``0 .. num_classes - 1``; the background is the *last* class
  and exists inside the classifier alone. COCO's category ids live in the data set's files only.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor


@dataclass(frozen=True)
class Category:
    """A class of the data set: COCO's ``id`` (any positive integer) and ``name``."""

    id: int
    name: str


@dataclass(frozen=True)
class Polygons:
    """An object's outline as one or more closed rings, each float64 ``[P, 2]`` (x, y), P >= 3."""

    rings: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Bitmap:
    """A binary mask at its source's resolution, cropped to the object.

    Attributes:
        pixels: uint8 ``[h, w]``, 0 or 1.
        box: where the crop lies in the image. Transforms move and stretch this box (and mirror the
            pixels) instead of resampling the mask, so no detail is lost before the RoI reads it.
    """

    pixels: np.ndarray
    box: tuple[float, float, float, float]


Segmentation = Polygons | Bitmap


@dataclass(frozen=True)
class Target:
    """What is true of one image.

    Attributes:
        boxes: float32 ``[G, 4]``.
        labels: int64 ``[G]``.
        masks: G segmentations in the image's pixels, or empty where no masks are asked for.
    """

    boxes: Tensor
    labels: Tensor
    masks: tuple[Segmentation, ...] = ()

    def to(self, device: object) -> "Target":
        """Boxes and labels on `device`; segmentations stay on the host."""
        return replace(
            self,
            boxes=self.boxes.to(device, non_blocking=True),  # type: ignore[call-overload]
            labels=self.labels.to(device, non_blocking=True),  # type: ignore[call-overload]
        )

    def pin_memory(self) -> "Target":
        return replace(self, boxes=self.boxes.pin_memory(), labels=self.labels.pin_memory())


@dataclass(frozen=True)
class Sample:
    """One image as the network will see it, with what is true of it.

    Attributes:
        image: uint8 RGB ``[3, H, W]``, after resizing and augmentation.
        target: in the pixels of `image`.
        image_id: COCO's id of the image.
        original_size: (height, width) of the file, the frame in which results are reported.
        proposals: boxes float32 ``[P, 4]`` in the pixels of `image`, best first, for a network that
            is given its proposals; None for one that makes its own.
    """

    image: Tensor
    target: Target
    image_id: int
    original_size: tuple[int, int]
    proposals: Tensor | None = None

    def to(self, device: object) -> "Sample":
        """Image, target and proposals on `device`; segmentations stay on the host."""
        return self._moved(lambda t: t.to(device, non_blocking=True), self.target.to(device))  # type: ignore[call-overload]

    def pin_memory(self) -> "Sample":
        return self._moved(Tensor.pin_memory, self.target.pin_memory())

    def _moved(self, move: Callable[[Tensor], Tensor], target: Target) -> "Sample":
        proposals = None if self.proposals is None else move(self.proposals)
        return replace(self, image=move(self.image), target=target, proposals=proposals)


@dataclass(frozen=True)
class Batch:
    """Samples side by side, not padded yet: the model normalises first, then pads with zeros."""

    samples: tuple[Sample, ...]

    @property
    def images(self) -> list[Tensor]:
        return [sample.image for sample in self.samples]

    @property
    def targets(self) -> list[Target]:
        return [sample.target for sample in self.samples]

    @property
    def proposals(self) -> list[Tensor] | None:
        """Those of each sample, or None where samples come without."""
        given = [sample.proposals for sample in self.samples if sample.proposals is not None]
        return given if given and len(given) == len(self.samples) else None

    def to(self, device: object) -> "Batch":
        return Batch(tuple(sample.to(device) for sample in self.samples))

    def pin_memory(self) -> "Batch":
        return Batch(tuple(sample.pin_memory() for sample in self.samples))

    @staticmethod
    def collate(samples: Sequence[Sample]) -> "Batch":
        return Batch(tuple(samples))


@dataclass(frozen=True)
class Detections:
    """What the network says of one image, best score first.

    Attributes:
        boxes: float32 ``[D, 4]``.
        scores: float32 ``[D]``, the softmax probability of `labels`.
        labels: int64 ``[D]``.
        masks: float32 ``[D, m, m]``, the probability map of the predicted class inside each box, or
            None for Faster R-CNN.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    masks: Tensor | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, chosen: Tensor) -> "Detections":
        """Some of them; `chosen` is bool ``[D]`` or indices ``[n]``."""
        return self._each(lambda tensor: tensor[chosen])

    def cpu(self) -> "Detections":
        return self._each(Tensor.cpu)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Detections":
        masks = None if self.masks is None else change(self.masks)
        return Detections(change(self.boxes), change(self.scores), change(self.labels), masks)
