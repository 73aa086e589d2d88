"""Region Proposal Network (Faster R-CNN, section 3).

Letters: N images, H x W cells, A anchors a cell, T = H W A anchors an image.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import nms

from models.anchors import AnchorGenerator
from models.losses import rpn_losses
from models.matching import IGNORED, NEGATIVE, POSITIVE, match, subsample
from ops import boxes as box_ops
from ops.structures import Target

BOX_WEIGHTS = (1.0, 1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Proposals:
    """One image's proposals, best first: boxes ``[P, 4]`` in its pixels, logits ``[P]``."""

    boxes: Tensor
    logits: Tensor


class RPNHead(nn.Module):
    """A 3x3 convolution, then objectness and box deltas of each anchor (1x1 convolutions).

    Args:
        channels: of the features.
        anchors_per_cell: A.
        hidden: channels of the 3x3 convolution.
    """

    def __init__(self, *, channels: int, anchors_per_cell: int, hidden: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, hidden, 3, padding=1)
        self.objectness = nn.Conv2d(hidden, anchors_per_cell, 1)
        self.deltas = nn.Conv2d(hidden, 4 * anchors_per_cell, 1)
        for layer in (self.conv, self.objectness, self.deltas):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """``[N, C, H, W]`` -> logits ``[N, T]`` and deltas ``[N, T, 4]``, anchors fastest."""
        hidden = F.relu(self.conv(features))
        logits = self.objectness(hidden).permute(0, 2, 3, 1).flatten(1)  # [N, H W A]
        deltas = self.deltas(hidden).permute(0, 2, 3, 1)  # [N, H, W, 4 A]
        return logits.float(), deltas.flatten(1).unflatten(1, (-1, 4)).float()


class RPN(nn.Module):
    """Proposes boxes; with targets, computes its losses too.

    Args:
        head, anchors: its parts.
        batch_per_image, positive_fraction: see `matching.subsample`, for the anchors of an image.
        negative_below, positive_from: see `matching.match`.
        pre_nms, post_nms: boxes kept before and after suppression, as (training, test).
        nms_iou: IoU from which the lower-scored of two boxes is suppressed.
        beta: delta at which the box loss turns from quadratic to linear; 0 is L1.
    """

    def __init__(
        self,
        head: RPNHead,
        anchors: AnchorGenerator,
        *,
        batch_per_image: int = 256,
        positive_fraction: float = 0.5,
        negative_below: float = 0.3,
        positive_from: float = 0.7,
        pre_nms: Sequence[int] = (12000, 6000),
        post_nms: Sequence[int] = (2000, 1000),
        nms_iou: float = 0.7,
        beta: float = 0.0,
    ) -> None:
        super().__init__()
        self.head = head
        self.anchors = anchors
        self.batch_per_image = batch_per_image
        self.positive_fraction = positive_fraction
        self.negative_below = negative_below
        self.positive_from = positive_from
        self.pre_nms = tuple(pre_nms)
        self.post_nms = tuple(post_nms)
        self.nms_iou = nms_iou
        self.beta = beta

    def forward(
        self, features: Tensor, sizes: list[tuple[int, int]], targets: list[Target] | None
    ) -> tuple[list[Proposals], dict[str, Tensor]]:
        """Proposals of each image, and the losses if `targets` are given.

        Args:
            features: ``[N, C, H, W]``.
            sizes: (height, width) of each image before padding, in pixels.
            targets: in the pixels of the images.
        """
        anchors = self.anchors(*features.shape[-2:])  # [T, 4]
        logits, deltas = self.head(features)  # [N, T], [N, T, 4]
        losses = {} if targets is None else self.losses(anchors, logits, deltas, targets)
        use = 1 if targets is None else 0
        proposals = [
            self.propose(anchors, scores, steps, size, self.pre_nms[use], self.post_nms[use])
            for scores, steps, size in zip(logits.detach(), deltas.detach(), sizes, strict=True)
        ]
        return proposals, losses

    def propose(
        self,
        anchors: Tensor,
        logits: Tensor,
        deltas: Tensor,
        size: tuple[int, int],
        pre_nms: int,
        post_nms: int,
    ) -> Proposals:
        """The best boxes of one image: top-k, decode, clip, drop the empty, suppress, top-k."""
        logits, order = logits.topk(min(pre_nms, len(logits)))
        boxes = box_ops.decode(deltas[order], anchors[order], BOX_WEIGHTS)
        finite = torch.isfinite(boxes).all(dim=1) & torch.isfinite(logits)
        boxes = box_ops.clip(boxes, size)
        usable = finite & box_ops.is_nonempty(boxes)
        boxes, logits = boxes[usable], logits[usable]
        kept = nms(boxes, logits, self.nms_iou)[:post_nms]
        return Proposals(boxes[kept], logits[kept])

    def losses(
        self, anchors: Tensor, logits: Tensor, deltas: Tensor, targets: list[Target]
    ) -> dict[str, Tensor]:
        """Both losses over the sampled anchors of all images."""
        labels, target_deltas = [], []
        for target in targets:
            matches = match(
                box_ops.iou(target.boxes, anchors),
                negative_below=self.negative_below,
                positive_from=self.positive_from,
                allow_low_quality=True,
            )
            positive, negative = subsample(
                matches.label, count=self.batch_per_image, positive_fraction=self.positive_fraction
            )
            label = torch.full_like(matches.label, IGNORED)
            label[negative], label[positive] = NEGATIVE, POSITIVE
            labels.append(label)
            positive = positive.sort().values  # `rpn_losses` takes them in the order of anchors
            truth = target.boxes[matches.index[positive]]
            target_deltas.append(box_ops.encode(truth, anchors[positive], BOX_WEIGHTS))
        return rpn_losses(
            logits,
            deltas,
            torch.stack(labels),
            torch.cat(target_deltas),
            normalizer=self.batch_per_image * len(targets),
            beta=self.beta,
        )
