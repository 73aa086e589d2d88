"""The second stage: which RoIs a loss is taken over, and how predictions become detections."""

from dataclasses import dataclass

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
    """RoIs of one image that enter the losses, the F foreground ones first.

    Attributes:
        boxes: ``[K, 4]`` in image pixels.
        labels: int64 ``[K]``, the number of classes for background.
        truth: ``[F, 4]``, the ground-truth box of each foreground RoI.
        masks: F segmentations.
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
        batch_per_image, positive_fraction: RoIs of an image that the losses sample.
        positive_from: IoU from which a RoI is foreground.
        score_threshold, nms_iou, detections_per_image: what is kept at test time.
        beta: where the box loss turns from quadratic to linear, in deltas; 0 is L1.
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
            targets: of each image.
        """
        sampled = [self.sample_rois(*pair) for pair in zip(proposals, targets, strict=True)]
        boxes = [rois.boxes for rois in sampled]
        labels = torch.cat([rois.labels for rois in sampled])  # [K]
        foreground = (labels < self.num_classes).nonzero().squeeze(1)  # [F]
        of_foreground = [rois.boxes[: len(rois.truth)] for rois in sampled]
        boxes_fg = torch.cat(of_foreground)  # [F, 4]
        truth = torch.cat([rois.truth for rois in sampled])  # [F, 4]

        output = self.head.predict_boxes(features, boxes)
        losses = box_losses(
            output.class_logits,
            output.deltas,
            labels,
            box_ops.encode(truth, boxes_fg, BOX_WEIGHTS),
            beta=self.beta,
        )
        if self.mask:
            # Only foreground RoIs have a mask; C4 goes on from the maps their boxes already have.
            maps = None if output.maps is None else output.maps[foreground]
            logits = self.head.predict_masks(features, of_foreground, maps)
            segmentations = [mask for rois in sampled for mask in rois.masks]
            target = mask_targets(segmentations, boxes_fg, self.head.mask_resolution)
            losses |= mask_loss(logits, labels[foreground], target)
        return losses

    @torch.no_grad()
    def sample_rois(self, proposals: Tensor, target: Target) -> SampledRoIs:
        """Label one image's proposals and draw those that enter the losses."""
        boxes = torch.cat((proposals, target.boxes))  # a perfect RoI for every object
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
        detections = [
            self.select(*of_image)
            for of_image in zip(
                boxes.split(counts), probabilities.split(counts), sizes, strict=True
            )
        ]
        return self._with_masks(features, detections) if self.mask else detections

    def select(self, boxes: Tensor, probabilities: Tensor, size: tuple[int, int]) -> Detections:
        """Score threshold, per-class suppression and the best of one image.

        Args:
            boxes: ``[P, 4 L]``, a box for every class.
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
        """Masks are predicted on the refined boxes, for the predicted class alone."""
        logits = self.head.predict_masks(features, [d.boxes for d in detections], None)
        labels = torch.cat([d.labels for d in detections])
        own = logits[torch.arange(len(labels), device=labels.device), labels]  # [D, m, m]
        masks = own.float().sigmoid().split([len(d) for d in detections])
        return [
            Detections(d.boxes, d.scores, d.labels, mask)
            for d, mask in zip(detections, masks, strict=True)
        ]
