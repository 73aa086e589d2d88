"""Images moved by whole pixels, with nothing cut: laid on a larger ground."""

from dataclasses import replace

import numpy as np
import torch

from ops.structures import Bitmap, Polygons, Sample, Segmentation


def laid_on(sample: Sample, size: tuple[int, int], offset: tuple[int, int]) -> Sample:
    """The sample on a ground of its own mean colour; target and proposals move with it.

    Args:
        size: (height, width) of the ground, pixels.
        offset: (x, y) of the image's upper left corner on it, pixels.

    Raises:
        ValueError: the image would reach beyond the ground.
    """
    height, width = sample.image.shape[1:]
    x, y = offset
    if not (0 <= x <= size[1] - width and 0 <= y <= size[0] - height):
        raise ValueError(f"an image of {(height, width)} at {offset} is not within {size}")
    mean = sample.image.float().mean(dim=(1, 2)).round().to(torch.uint8)  # [3]
    ground = mean[:, None, None].repeat(1, *size)  # [3, H, W]
    ground[:, y : y + height, x : x + width] = sample.image
    move = torch.tensor([x, y, x, y], dtype=torch.float32)
    target = replace(
        sample.target,
        boxes=sample.target.boxes + move,
        masks=tuple(_moved(mask, offset) for mask in sample.target.masks),
    )
    proposals = None if sample.proposals is None else sample.proposals + move
    return replace(sample, image=ground, target=target, proposals=proposals)


def _moved(mask: Segmentation, offset: tuple[int, int]) -> Segmentation:
    x, y = offset
    if isinstance(mask, Polygons):
        return Polygons(tuple(ring + np.array([x, y]) for ring in mask.rings))
    x1, y1, x2, y2 = mask.box
    return Bitmap(mask.pixels, (x1 + x, y1 + y, x2 + x, y2 + y))
