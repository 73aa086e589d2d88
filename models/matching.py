"""Which ground truth a box answers for, and which boxes a loss is taken over."""

from dataclasses import dataclass

import torch
from torch import Tensor

NEGATIVE, IGNORED, POSITIVE = 0, -1, 1


@dataclass(frozen=True)
class Assignment:
    """For each of B boxes: `index` int64 ``[B]`` of its ground truth, `label` int8 ``[B]``."""

    index: Tensor
    label: Tensor


def match(
    overlap: Tensor, *, negative_below: float, positive_from: float, allow_low_quality: bool
) -> Assignment:
    """Assign each box to the ground truth that it overlaps most.

    Args:
        overlap: IoU ``[G, B]`` of ground truths and boxes; G may be 0 (all boxes negative).
        negative_below: boxes with a smaller best IoU are negative.
        positive_from: boxes with at least this best IoU are positive; those between are ignored.
        allow_low_quality: also make positive whichever boxes overlap a ground truth most, however
            little, so that every object has one (Faster R-CNN, section 3.1.2, rule (i)).
    """
    ground_truths, boxes = overlap.shape
    if ground_truths == 0:
        index = torch.zeros(boxes, dtype=torch.int64, device=overlap.device)
        return Assignment(index, index.to(torch.int8))
    best, index = overlap.max(dim=0)
    label = torch.full_like(index, IGNORED, dtype=torch.int8)
    label[best < negative_below] = NEGATIVE
    label[best >= positive_from] = POSITIVE
    if allow_low_quality:
        best_of_truth = overlap.max(dim=1).values  # [G]
        # Ties share: every box as good as the best is rescued.
        label[(overlap == best_of_truth[:, None]).any(dim=0)] = POSITIVE
    return Assignment(index, label)


def subsample(label: Tensor, *, count: int, positive_fraction: float) -> tuple[Tensor, Tensor]:
    """Draw at most `count` of the boxes at random: indices of positives, then of negatives.

    At most ``int(count * positive_fraction)`` are positive; negatives fill up (Fast R-CNN,
    section 2.3). Random numbers come from the default generator of the CPU, whatever the device,
    so a seed gives the same draw everywhere.
    """
    positive = (label == POSITIVE).nonzero().squeeze(1)
    negative = (label == NEGATIVE).nonzero().squeeze(1)
    positives = min(len(positive), int(count * positive_fraction))
    negatives = min(len(negative), count - positives)
    return _draw(positive, positives), _draw(negative, negatives)


def _draw(candidates: Tensor, count: int) -> Tensor:
    chosen = torch.randperm(len(candidates))[:count]
    return candidates[chosen.to(candidates.device)]
