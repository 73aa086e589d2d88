"""The five losses of Mask R-CNN. Letters: N images, A anchors, K RoIs, F of them foreground,
C classes (background is class C), m the mask's resolution."""

import torch
import torch.nn.functional as F
from torch import Tensor


def smooth_l1_sum(prediction: Tensor, target: Tensor, beta: float) -> Tensor:
    """Sum of Fast R-CNN's smooth L1 loss (eq. 3), quadratic below `beta`; L1 if `beta` is 0."""
    if beta == 0:
        return F.l1_loss(prediction, target, reduction="sum")
    return F.smooth_l1_loss(prediction, target, beta=beta, reduction="sum")


def rpn_losses(
    logits: Tensor,
    deltas: Tensor,
    labels: Tensor,
    target_deltas: Tensor,
    *,
    normalizer: float,
    beta: float,
) -> dict[str, Tensor]:
    """Faster R-CNN, eq. 1, with both terms divided by `normalizer`.

    Args:
        logits: ``[N, A]`` objectness.
        deltas: ``[N, A, 4]`` predicted.
        labels: int8 ``[N, A]``: 1 object, 0 background, -1 not in the loss.
        target_deltas: ``[P, 4]`` of the P anchors whose label is 1, in their order.
        normalizer: number of sampled anchors of all images.
    """
    counted, positive = labels >= 0, labels == 1
    classification = F.binary_cross_entropy_with_logits(
        logits[counted].float(), labels[counted].float(), reduction="sum"
    )
    regression = smooth_l1_sum(deltas[positive].float(), target_deltas, beta)
    return {"loss_rpn_cls": classification / normalizer, "loss_rpn_box": regression / normalizer}


def box_losses(
    class_logits: Tensor, deltas: Tensor, labels: Tensor, target_deltas: Tensor, *, beta: float
) -> dict[str, Tensor]:
    """Fast R-CNN, eq. 1: cross-entropy over C + 1 classes, and class-specific box regression.

    Args:
        class_logits: ``[K, C + 1]``.
        deltas: ``[K, 4 C]``.
        labels: int64 ``[K]``, C for background.
        target_deltas: ``[F, 4]`` of the foreground RoIs, in their order.

    Both are means over all K RoIs: dividing by K rather than F gives a foreground RoI the same
    weight whether there are few or many. Without RoIs they are 0, with a gradient of 0.
    """
    if len(labels) == 0:
        zero = class_logits.sum() * 0 + deltas.sum() * 0
        return {"loss_cls": zero, "loss_box": zero}
    foreground = (labels < class_logits.shape[1] - 1).nonzero().squeeze(1)
    of_class = deltas.unflatten(1, (-1, 4))[foreground, labels[foreground]]  # [F, 4]
    return {
        "loss_cls": F.cross_entropy(class_logits.float(), labels),
        "loss_box": smooth_l1_sum(of_class.float(), target_deltas, beta) / len(labels),
    }


def mask_loss(logits: Tensor, labels: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Mask R-CNN, section 3: mean binary cross-entropy on the mask of the true class only.

    Args:
        logits: ``[F, C, m, m]``.
        labels: int64 ``[F]``.
        targets: float ``[F, m, m]`` of 0 and 1.

    Without foreground it is 0, with a gradient of 0.
    """
    if len(labels) == 0:
        return {"loss_mask": logits.sum() * 0}
    of_class = logits[torch.arange(len(labels), device=logits.device), labels]  # [F, m, m]
    return {"loss_mask": F.binary_cross_entropy_with_logits(of_class.float(), targets)}
