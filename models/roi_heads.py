"""The second stage: RoIs are sampled for the losses, and predictions become detections."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torchvision.ops import batched_nms

from models.heads import SharedHead, SplitHead
from models.losses import box_losses, mask_loss
from models.matching import match, subsample
from ops import boxes as box_ops
from ops.masks import mask_targets
from ops.structures import Detections, Segmentation, Target

BOX_WEIGHTS = (10.0, 10.0, 5.0, 5.0)


@dataclass(frozen=True)
class SampledRoIs:
    """The K RoIs of one image that the losses are taken over, the F foreground ones first.

    Attributes:
        boxes: ``[K, 4]`` in image pixels.
        labels: int64 ``[K]``, the number of classes for background.
        truth: ``[F, 4]``, the ground-truth box of each foreground RoI.
        masks: the ground-truth mask of each foreground RoI; empty without a mask branch.
    """

    boxes: Tensor
    labels: Tensor
    truth: Tensor
    masks: tuple[Segmentation, ...]


class RoIHeads(nn.Module):
    """Classifies, refines and masks proposals (Mask R-CNN, section 3).

    Args:
        head: pooler and layers.
        num_classes: L, without background.
        mask: whether there is a mask branch.
        batch_per_image, positive_fraction: see `matching.subsample`, for the RoIs of an image.
        positive_from: IoU with a ground-truth box from which a RoI is foreground.
        score_threshold, nms_iou, detections_per_image: detections are those above this score, not
            suppressed by another of their class, and at most so many.
        beta: delta at which the box loss turns from quadratic to linear; 0 is L1.
    """

    def __init__(
        self,
        head: SharedHead | SplitHead,
        *,
        num_classes: int,
        mask: bool = True,
        batch_per_image: int = 64,
        positive_fraction: float = 0.25,
        positive_from: float = 0.5,
        score_threshold: float = 0.05,
        nms_iou: float = 0.5,
        detections_per_image: int = 100,
        beta: float = 0.0,
    ) -> None:
        super().__init__()
        self.head = head
        self.num_classes = num_classes
        self.mask = mask
        self.batch_per_image = batch_per_image
        self.positive_fraction = positive_fraction
        self.positive_from = positive_from
        self.score_threshold = score_threshold
        self.nms_iou = nms_iou
        self.detections_per_image = detections_per_image
        self.beta = beta

    def losses(
        self, features: Tensor, proposals: list[Tensor], targets: list[Target]
    ) -> dict[str, Tensor]:
        """Classification, box and mask losses over sampled RoIs of all images.

        Args:
            features: ``[N, C, H, W]``.
            proposals: N x ``[P, 4]`` in image pixels; ground-truth boxes are added to them.
            targets: in the pixels of the images.
        """
        sampled = [self.sample_rois(*pair) for pair in zip(proposals, targets, strict=True)]
        labels = torch.cat([rois.labels for rois in sampled])  # [K]
        foreground = [rois.boxes[: len(rois.truth)] for rois in sampled]
        boxes_fg = torch.cat(foreground)  # [F, 4]
        truth = torch.cat([rois.truth for rois in sampled])  # [F, 4]

        output = self.head.predict_boxes(features, [rois.boxes for rois in sampled])
        deltas = box_ops.encode(truth, boxes_fg, BOX_WEIGHTS)
        losses = box_losses(output.class_logits, output.deltas, labels, deltas, beta=self.beta)
        if self.mask:
            # The mask loss is over foreground RoIs; C4 reuses the maps of their boxes.
            is_foreground = (labels < self.num_classes).nonzero().squeeze(1)  # [F]
            maps = None if output.maps is None else output.maps[is_foreground]
            logits = self.head.predict_masks(features, foreground, maps)
            segmentations = [mask for rois in sampled for mask in rois.masks]
            target = mask_targets(segmentations, boxes_fg, self.head.mask_resolution)
            losses |= mask_loss(logits, labels[is_foreground], target)
        return losses

    @torch.no_grad()
    def sample_rois(self, proposals: Tensor, target: Target) -> SampledRoIs:
        """Label one image's proposals and sample those that the losses are taken over.

        At random, before anything is pooled; see `matching.subsample`.
        """
        boxes = torch.cat((proposals, target.boxes))  # so that every object has a perfect RoI
        matches = match(
            box_ops.iou(target.boxes, boxes),
            negative_below=self.positive_from,
            positive_from=self.positive_from,
            allow_low_quality=False,
        )
        positive, negative = subsample(
            matches.label, count=self.batch_per_image, positive_fraction=self.positive_fraction
        )
        truth = matches.index[positive]
        labels = torch.cat(
            (target.labels[truth], target.labels.new_full((len(negative),), self.num_classes))
        )
        return SampledRoIs(
            boxes=boxes[torch.cat((positive, negative))],
            labels=labels,
            truth=target.boxes[truth],
            masks=tuple(target.masks[i] for i in truth.tolist()) if self.mask else (),
        )

    def detect(
        self, features: Tensor, proposals: list[Tensor], sizes: list[tuple[int, int]]
    ) -> list[Detections]:
        """Detections of each image in its own pixels: boxes first, then masks of those kept."""
        output = self.head.predict_boxes(features, proposals)
        counts = [len(boxes) for boxes in proposals]
        probabilities = output.class_logits.softmax(dim=1)  # [K, L + 1]
        boxes = box_ops.decode(output.deltas, torch.cat(proposals), BOX_WEIGHTS)  # [K, 4 L]
        of_images = zip(boxes.split(counts), probabilities.split(counts), sizes, strict=True)
        detections = [self.select(*of_image) for of_image in of_images]
        return self._with_masks(features, detections) if self.mask else detections

    def select(self, boxes: Tensor, probabilities: Tensor, size: tuple[int, int]) -> Detections:
        """Score threshold, per-class suppression and the best of one image.

        Args:
            boxes: ``[P, 4 L]``, one for each class.
            probabilities: ``[P, L + 1]``.
            size: (height, width) in pixels.
        """
        finite = torch.isfinite(boxes).all(dim=1) & torch.isfinite(probabilities).all(dim=1)
        boxes = box_ops.clip(boxes[finite].unflatten(1, (-1, 4)), size)  # [P, L, 4]
        scores = probabilities[finite, :-1]  # [P, L]
        row, label = (scores > self.score_threshold).nonzero(as_tuple=True)
        boxes, scores = boxes[row, label], scores[row, label]
        kept = batched_nms(boxes, scores, label, self.nms_iou)[: self.detections_per_image]
        return Detections(boxes=boxes[kept], scores=scores[kept], labels=label[kept])

    def _with_masks(self, features: Tensor, detections: list[Detections]) -> list[Detections]:
        """Masks are predicted in the refined boxes, for the predicted class only."""
        logits = self.head.predict_masks(features, [d.boxes for d in detections], None)
        labels = torch.cat([d.labels for d in detections])
        of_class = logits[torch.arange(len(labels), device=labels.device), labels]  # [D, m, m]
        masks = of_class.float().sigmoid().split([len(d) for d in detections])
        return [replace(d, masks=mask) for d, mask in zip(detections, masks, strict=True)]
