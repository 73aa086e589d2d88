"""Average recall of proposals (Hosang et al., 2015)."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from judging.results import Results
from ops.boxes import iou

COUNTS = (100, 1000)  # proposals per image, as Detectron and detectron2 report
THRESHOLDS = torch.arange(10) * 0.05 + 0.5  # of IoU, .50 to .95


class ProposalRecall:
    """Average recall of class-agnostic proposals over IoU .50 to .95, image by image."""

    def __init__(self, ground_truth: Mapping[str, Any]) -> None:
        """`ground_truth` is a COCO annotation file's content; crowd regions are left out."""
        objects = [a for a in ground_truth["annotations"] if not a.get("iscrowd", 0)]
        boxes_xywh = np.array([a["bbox"] for a in objects], np.float64).reshape(-1, 4)
        self._truth = _by_image(np.array([a["image_id"] for a in objects]), boxes_xywh)
        self._overlaps: dict[int, list[Tensor]] = {count: [] for count in COUNTS}

    def add(self, image_id: int, boxes: Tensor) -> None:
        """Add one image's proposals ``[P, 4]``, best first, in the pixels of its file."""
        truth = self._truth.get(image_id)
        if truth is None or not len(boxes):
            return
        overlaps = iou(truth, boxes.float())
        for count, parts in self._overlaps.items():
            parts.append(best_overlaps(overlaps[:, :count]))

    def figures(self) -> dict[str, float]:
        """``proposals/AR100`` and ``proposals/AR1000``, of the 100 and 1000 best proposals of each
        image, in percent; 0 if the set has no objects."""
        objects = max(sum(len(boxes) for boxes in self._truth.values()), 1)
        figures = {}
        for count, parts in self._overlaps.items():
            overlaps = torch.cat([torch.zeros(0), *parts])
            recalled = (overlaps[:, None] >= THRESHOLDS).sum(dim=0)  # [10]
            figures[f"proposals/AR{count}"] = 100 * float(recalled.double().mean()) / objects
        return figures


def proposal_recall(ground_truth: Mapping[str, Any], results: Results) -> dict[str, float]:
    """`ProposalRecall.figures` of proposals in any order."""
    recall = ProposalRecall(ground_truth)
    order = np.argsort(-results.scores, kind="stable")
    by_image = _by_image(results.image_ids[order], results.boxes_xywh[order])
    for image_id, boxes in by_image.items():
        recall.add(image_id, boxes)
    return recall.figures()


def best_overlaps(overlaps: Tensor) -> Tensor:
    """IoU of each object with a proposal of its own: ``[G, P]`` -> ``[min(G, P)]``.

    The pair of the largest IoU is taken first, then the largest of the rest, as in Detectron.
    """
    overlaps = overlaps.clone()
    best = []
    for _ in range(min(overlaps.shape)):
        row, column = divmod(int(overlaps.argmax()), overlaps.shape[1])
        best.append(float(overlaps[row, column]))
        overlaps[row], overlaps[:, column] = -1.0, -1.0
    return torch.tensor(best)


def _by_image(image_ids: NDArray[np.int64], boxes_xywh: NDArray[np.float64]) -> dict[int, Tensor]:
    """Boxes ``[n, 4]`` of each image, x1 y1 x2 y2, in the order given."""
    order = np.argsort(image_ids, kind="stable")
    corners = boxes_xywh[order]
    corners[:, 2:] += corners[:, :2]
    images, starts = np.unique(image_ids[order], return_index=True)
    parts = np.split(corners.astype(np.float32), starts[1:])
    boxes = map(torch.from_numpy, parts)
    return dict(zip(images.tolist(), boxes, strict=False))  # no boxes at all are one empty part
