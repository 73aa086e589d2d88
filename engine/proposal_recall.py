"""How many of the objects the proposals reach: average recall (Hosang et al., 2015)."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ops.boxes import iou

COUNTS = (100, 1000)  # proposals an image, as COCO's evaluators report them
THRESHOLDS = torch.arange(10) * 0.05 + 0.5  # of IoU, .50 to .95


def proposal_recall(
    ground_truth: Mapping[str, Any], results: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """Average recall of class-agnostic proposals over IoU .50 to .95, in percent.

    Args:
        ground_truth: a COCO annotation file's content; crowd regions are no objects.
        results: proposals in COCO's result format, in any order.

    Returns:
        ``proposals/AR100`` and ``proposals/AR1000``: with the best so many of an image; 0 where
        the set has no objects.
    """
    truth = _boxes(a for a in ground_truth["annotations"] if not a.get("iscrowd", 0))
    ordered = sorted(results, key=lambda result: -result["score"])
    proposed = _boxes(ordered)
    metrics = {}
    for count in COUNTS:
        overlaps = [
            best_overlaps(iou(boxes, proposed[image][:count]))
            for image, boxes in truth.items()
            if image in proposed
        ]
        reached = torch.cat([torch.zeros(0), *overlaps])
        objects = max(sum(len(boxes) for boxes in truth.values()), 1)
        found = (reached[:, None] >= THRESHOLDS).sum(dim=0)  # [10]
        metrics[f"proposals/AR{count}"] = 100 * float(found.double().mean()) / objects
    return metrics


def best_overlaps(overlaps: Tensor) -> Tensor:
    """The IoU each object is reached with, none sharing a proposal: ``[G, P]`` -> ``[min(G, P)]``.

    The surest pair is taken first, then the surest of what remains, as Detectron does.
    """
    overlaps = overlaps.clone()
    reached = []
    for _ in range(min(overlaps.shape)):
        best = int(overlaps.argmax())
        row, column = divmod(best, overlaps.shape[1])
        reached.append(float(overlaps[row, column]))
        overlaps[row], overlaps[:, column] = -1.0, -1.0
    return torch.tensor(reached)


def _boxes(entries: Any) -> dict[int, Tensor]:
    """Boxes ``[n, 4]`` of each image, x1 y1 x2 y2, from entries with COCO's x, y, width, height."""
    listed: dict[int, list[list[float]]] = defaultdict(list)
    for entry in entries:
        x, y, width, height = entry["bbox"]
        listed[entry["image_id"]].append([x, y, x + width, y + height])
    return {image: torch.tensor(boxes) for image, boxes in listed.items()}
