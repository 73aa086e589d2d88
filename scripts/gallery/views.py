"""Images of a data set as the network receives them, drawn with what is true of them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from data.splits import DetectionDataset
from data.statistics import size_of
from data.transforms import EvalTransform, TrainTransform
from drawing.visualize import draw_target
from ops.errors import InputError
from ops.structures import Sample


@dataclass(frozen=True)
class View:
    """One image.

    Attributes:
        image_id: COCO's.
        file_name: as the annotations have it.
        file_size: (height, width) of the file.
        size: (height, width) as the network receives it.
        objects: names of the classes of the objects that it receives, one for each.
        sizes: how many of the file's objects are "small", "medium" and "large".
        crowds: number of crowd regions in the picture.
        picture: uint8 RGB ``[k h, k w, 3]``.
    """

    image_id: int
    file_name: str
    file_size: tuple[int, int]
    size: tuple[int, int]
    objects: tuple[str, ...]
    sizes: Counter[str]
    crowds: int
    picture: np.ndarray


def view(
    dataset: DetectionDataset,
    index: int,
    transform: TrainTransform | EvalTransform,
    *,
    seed: int,
    epoch: int,
    mask_resolution: int,
) -> View:
    """Prepare an image as the loader does, and draw its target over it.

    The masks are the mask head's targets: rasterised in each object's own box (the RoI of a perfect
    proposal) at the head's resolution, and put back. Crowd regions are hatched; no loss sees them.

    Args:
        seed, epoch: of the run; they and the index decide crop, mirroring and colours.
        mask_resolution: cells across a mask target, 14 or 28.
    """
    original = dataset.read(index)
    sample, around = (
        transform(replace(original, target=target), np.random.default_rng((seed, epoch, index)))
        for target in (original.target, dataset.crowds(index))
    )
    names = [category.name for category in dataset.categories]
    entry = dataset.entry(index)
    return View(
        image_id=entry.id,
        file_name=entry.file_name,
        file_size=(entry.height, entry.width),
        size=(sample.image.shape[1], sample.image.shape[2]),
        objects=tuple(names[label] for label in sample.target.labels.tolist()),
        sizes=Counter(size_of(a.area) for a in entry.objects),
        crowds=len(around.target.labels),
        picture=draw_target(
            _pixels(sample),
            sample.target,
            names,
            crowds=around.target,
            resolution=mask_resolution,
        ),
    )


def _pixels(sample: Sample) -> np.ndarray:
    return np.ascontiguousarray(sample.image.permute(1, 2, 0).numpy())  # [H, W, 3]


def choose(
    dataset: DetectionDataset, *, count: int, only: str | None, ids: Sequence[int] | None
) -> list[int]:
    """Indices of the images to be shown; see configs/browse.yaml.

    Raises:
        InputError: a setting without sense, an id that is not in the split, or no such image.
    """
    if ids is not None:
        places = {image_id: index for index, image_id in enumerate(dataset.image_ids)}
        absent = [str(image_id) for image_id in ids if image_id not in places]
        if absent:
            raise InputError(
                f"ids={absent[0]}: no image of {dataset.annotations_file} has this id, or it is "
                "left out of training (data.keep_empty, data.select); choose others"
            )
        return [places[image_id] for image_id in ids]
    if only not in (None, "crowd", "empty"):
        raise InputError(f"only={only}: unknown; choose crowd, empty or null")
    if count < 1:
        raise InputError(f"count={count}: give 1 or more")
    fitting = [index for index in range(len(dataset)) if _fits(dataset, index, only)]
    if not fitting:
        raise InputError(
            f"only={only}: no such image in {dataset.annotations_file}; training leaves empty ones "
            "out unless data.keep_empty=true"
        )
    places_in_fitting = np.linspace(0, len(fitting) - 1, min(count, len(fitting)))
    return [fitting[round(place)] for place in places_in_fitting.tolist()]


def _fits(dataset: DetectionDataset, index: int, only: str | None) -> bool:
    if only is None:
        return True
    entry = dataset.entry(index)
    if only == "empty":
        return not entry.objects
    return len(entry.objects) < len(entry.annotations)
