"""Mask R-CNN (He et al., 2017): the network, and how it is built from its parts."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from models.anchors import AnchorGenerator
from models.heads import PoolingOp, RoIPooler, SharedHead, SplitHead, TwoFC
from models.network import Network
from models.normalization import Normalize
from models.roi_heads import RoIHeads
from models.rpn import RPN, Proposals, RPNHead
from ops.structures import Detections, Target

Losses = dict[str, Tensor]


class MaskRCNN(nn.Module):
    """Computes losses if targets are given, and detections if not.

    The choice does not depend on `self.training`, so that validation losses can be computed.

    Args:
        normalize, backbone: the parts.
        rpn: None for a network that is given its proposals, as Fast R-CNN is.
        roi_heads: None for a network that only proposes: its detections are the proposals, of class
            0, scored by their objectness.
    """

    def __init__(
        self,
        *,
        normalize: Normalize,
        backbone: nn.Module,
        rpn: RPN | None,
        roi_heads: RoIHeads | None,
    ) -> None:
        super().__init__()
        self.normalize = normalize
        self.backbone = backbone
        self.rpn = rpn
        self.roi_heads = roi_heads

    def forward(
        self,
        images: list[Tensor],
        targets: list[Target] | None = None,
        proposals: list[Tensor] | None = None,
    ) -> Losses | list[Detections]:
        """All boxes are in the pixels of `images`.

        Args:
            images: N x uint8 RGB ``[3, h, w]``, of any sizes.
            targets: of each image.
            proposals: N x ``[P, 4]``, used instead of the RPN's.

        Raises:
            ValueError: the network has no RPN and no proposals are given.
        """
        sizes = [(image.shape[1], image.shape[2]) for image in images]
        batch = self.normalize(images)  # [N, 3, max h, max w]
        features = self.backbone(batch)  # [N, C, H, W]
        losses: Losses = {}
        if proposals is None or self.roi_heads is None:
            if self.rpn is None:
                raise ValueError("this network has no RPN: give it proposals")
            proposed, losses = self.rpn(features, sizes, targets)
            if self.roi_heads is None:
                return as_detections(proposed) if targets is None else losses
            proposals = [p.boxes for p in proposed]
        if targets is None:
            return self.roi_heads.detect(features, proposals, sizes)
        return losses | self.roi_heads.losses(features, proposals, targets)


def as_detections(proposals: list[Proposals]) -> list[Detections]:
    """Proposals as detections of class 0, scored by their objectness."""
    return [
        Detections(p.boxes, p.logits.sigmoid(), p.boxes.new_zeros(len(p.boxes), dtype=torch.int64))
        for p in proposals
    ]


def build_mask_rcnn(
    *,
    backbone: Callable[..., Network],
    stride: int,
    pooler: PoolingOp,
    num_classes: int,
    mask: bool,
    head: Mapping[str, Any],
    anchors: Mapping[str, Any],
    rpn: Mapping[str, Any] | None,
    roi: Mapping[str, Any] | None,
) -> MaskRCNN:
    """Build the network. Scales, channels and resolutions follow from the backbone and its stride.

    Args:
        backbone: takes `stride` and returns the two parts of an ImageNet network.
        stride: 16 or 32.
        pooler: any op with the signature of `PoolingOp`.
        num_classes: of the data set, without background.
        mask: False leaves the mask branch out (Faster R-CNN).
        head: `fc_dim` (of `TwoFC`) and `mask_dim` (of the mask branch).
        anchors: `sizes`, `aspect_ratios` and `offset` of `AnchorGenerator`.
        rpn: settings of `RPN`; None for a network without one.
        roi: settings of `RoIHeads`; None for a network that only proposes.

    Raises:
        InputError: from the backbone.
    """
    network = backbone(stride=stride)
    roi_heads = None
    if roi is not None:
        layers = _build_head(network, pooler, num_classes=num_classes, mask=mask, **head)
        roi_heads = RoIHeads(layers, num_classes=num_classes, mask=mask, **roi)
    return MaskRCNN(
        normalize=Normalize(network.statistics),
        backbone=network.trunk,
        rpn=None if rpn is None else _build_rpn(network, anchors, rpn),
        roi_heads=roi_heads,
    )


def _build_rpn(network: Network, anchors: Mapping[str, Any], rpn: Mapping[str, Any]) -> RPN:
    generator = AnchorGenerator(stride=network.stride, **anchors)
    head = RPNHead(
        channels=network.channels, anchors_per_cell=generator.per_cell, hidden=network.channels
    )
    return RPN(head, generator, **rpn)


def _build_head(
    network: Network, op: PoolingOp, *, num_classes: int, mask: bool, fc_dim: int, mask_dim: int
) -> SharedHead | SplitHead:
    """On RoIs, C4 runs res5, VGG16 its fc6 and fc7, and C5 two new fully connected layers."""
    pooler = RoIPooler(op, stride=network.stride)
    layers, width = network.roi_layers, network.roi_channels
    common: dict[str, Any] = {
        "pool_size": network.pool_size,
        "num_classes": num_classes,
        "mask_dim": mask_dim if mask else None,
    }
    if network.shares_maps:
        assert layers is not None
        return SharedHead(pooler, layers, channels=width, **common)
    if layers is None:
        layers, width = TwoFC(network.channels, network.pool_size, fc_dim), fc_dim
    return SplitHead(pooler, layers, channels=network.channels, dim=width, **common)
