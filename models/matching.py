"""Assignment of boxes to ground truth, and the sampling of boxes for a loss (RPN and RoI heads)."""

from dataclasses import dataclass

import torch
from torch import Tensor

NEGATIVE, IGNORED, POSITIVE = 0, -1, 1


@dataclass(frozen=True)
class Assignment:
    """For B boxes: `index` int64 ``[B]`` of the ground truth of each, and `label` int8 ``[B]``,
    which is NEGATIVE, IGNORED or POSITIVE."""

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
        allow_low_quality: also make the boxes positive that overlap a ground truth most, however
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
        # Of equally good boxes all become positive.
        label[(overlap == best_of_truth[:, None]).any(dim=0)] = POSITIVE
    return Assignment(index, label)


def subsample(label: Tensor, *, count: int, positive_fraction: float) -> tuple[Tensor, Tensor]:
    """Draw at most `count` of the boxes at random: indices of positives, then of negatives.

    At most ``int(count * positive_fraction)`` are positive, the rest negative (Fast R-CNN, section
    2.3). Random numbers come from the CPU's default generator on every device, so that a seed gives
    the same sample everywhere.

    Used for the RPN's anchors and for RoIs alike, and before any RoI is pooled: only labels are
    known here. Sampling that depends on losses, such as hard examples, belongs into
    `RoIHeads.losses`, after the head has run on all RoIs.
    """
    positive = (label == POSITIVE).nonzero().squeeze(1)
    negative = (label == NEGATIVE).nonzero().squeeze(1)
    positives = min(len(positive), int(count * positive_fraction))
    negatives = min(len(negative), count - positives)
    return _draw(positive, positives), _draw(negative, negatives)


def _draw(candidates: Tensor, count: int) -> Tensor:
    chosen = torch.randperm(len(candidates))[:count]
    return candidates[chosen.to(candidates.device)]
