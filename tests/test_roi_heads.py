"""The second stage: which RoIs are sampled, and how predictions become detections."""

import pytest
import torch
from torch import Tensor, nn

from models.heads import BoxOutput
from models.roi_heads import BOX_WEIGHTS, RoIHeads
from ops.boxes import encode, iou
from ops.structures import Polygons, Target

CLASSES = 3
SIZE = (100, 120)
TRUTH = torch.tensor(
    [[10.0, 10.0, 40.0, 50.0], [60.0, 20.0, 110.0, 80.0], [12.0, 60.0, 50.0, 95.0]]
)
LABELS = torch.tensor([2, 0, 1])
FEATURES = torch.zeros(1, 1, 4, 4)


def _outline(box: Tensor) -> Polygons:
    x1, y1, x2, y2 = box.tolist()
    return Polygons((torch.tensor([[x1, y1], [x2, y1], [x2, y2], [x1, y2]]).double().numpy(),))


TARGET = Target(TRUTH, LABELS, tuple(_outline(box) for box in TRUTH))
NO_TARGET = Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))


class AllKnowing(nn.Module):
    """A head that gives each RoI the class, box and mask of the object it overlaps most."""

    mask_resolution = 14

    def predict_boxes(self, features: Tensor, boxes: list[Tensor]) -> BoxOutput:
        rois = torch.cat(boxes)
        if len(rois) == 0:
            return BoxOutput(torch.zeros(0, CLASSES + 1), torch.zeros(0, 4 * CLASSES), None)
        overlap, index = iou(TRUTH, rois).max(dim=0)
        labels = torch.where(overlap >= 0.5, LABELS[index], CLASSES)
        logits = 20 * nn.functional.one_hot(labels, CLASSES + 1).float()
        deltas = encode(TRUTH[index], rois, BOX_WEIGHTS).repeat(1, CLASSES)
        return BoxOutput(logits, deltas, None)

    def predict_masks(self, features: Tensor, boxes: list[Tensor], maps: Tensor | None) -> Tensor:
        count = sum(len(b) for b in boxes)
        logits = torch.full((count, CLASSES, 14, 14), -20.0)
        for roi, label in enumerate(self._labels(boxes)):
            logits[roi, label] = 20.0
        return logits

    def _labels(self, boxes: list[Tensor]) -> list[int]:
        rois = torch.cat(boxes)
        return LABELS[iou(TRUTH, rois).argmax(dim=0)].tolist() if len(rois) else []


def make_heads(**settings: object) -> RoIHeads:
    return RoIHeads(AllKnowing(), num_classes=CLASSES, **settings)  # type: ignore[arg-type]


def proposals(count: int = 40, jitter: float = 4.0) -> Tensor:
    """Boxes near the objects, then as many far from them."""
    generator = torch.Generator().manual_seed(0)
    near = TRUTH.repeat(count, 1)[:count] + jitter * torch.randn(count, 4, generator=generator)
    corner = torch.rand(count, 2, generator=generator) * 80
    size = 2 + 8 * torch.rand(count, 2, generator=generator)
    return torch.cat((near, torch.cat((corner, corner + size), dim=1)))


# Sampling


def test_sampled_rois_have_the_foreground_first_with_its_truth() -> None:
    heads = make_heads(batch_per_image=32, positive_fraction=0.25)
    rois = heads.sample_rois(proposals(), TARGET)
    assert rois.boxes.shape == (32, 4)
    assert rois.truth.shape == (8, 4)
    assert (rois.labels[:8] < CLASSES).all()
    assert (rois.labels[8:] == CLASSES).all()
    overlap = iou(rois.boxes, TRUTH)
    assert (overlap[:8].max(dim=1).values >= 0.5).all()
    assert (overlap[8:] < 0.5).all()
    nearest = overlap[:8].argmax(dim=1)
    assert torch.equal(rois.truth, TRUTH[nearest])
    assert torch.equal(rois.labels[:8], LABELS[nearest])
    assert list(rois.masks) == [TARGET.masks[i] for i in nearest.tolist()]


def test_objects_are_rois_themselves_even_without_proposals() -> None:
    rois = make_heads(positive_fraction=1.0).sample_rois(torch.zeros(0, 4), TARGET)
    assert sorted(rois.boxes.tolist()) == sorted(TRUTH.tolist())
    assert torch.equal(rois.boxes, rois.truth)


def test_an_image_without_objects_has_only_background() -> None:
    rois = make_heads(batch_per_image=16).sample_rois(proposals(), NO_TARGET)
    assert rois.labels.tolist() == [CLASSES] * 16
    assert rois.truth.shape == (0, 4)
    assert rois.masks == ()


def test_without_masks_no_outline_is_needed() -> None:
    target = Target(TRUTH, LABELS)
    assert make_heads(mask=False).sample_rois(proposals(), target).masks == ()


def test_losses_of_a_perfect_head_are_almost_zero() -> None:
    torch.manual_seed(0)
    losses = make_heads().losses(FEATURES, [proposals()], [TARGET])
    assert set(losses) == {"loss_cls", "loss_box", "loss_mask"}
    assert losses["loss_cls"] < 1e-6
    assert losses["loss_box"] < 1e-5
    # Its masks fill the RoI; the objects are rectangles that all but fill it too.
    exact = make_heads(positive_fraction=1.0).losses(FEATURES, [torch.zeros(0, 4)], [TARGET])
    assert exact["loss_mask"] < 1e-6


def test_losses_without_masks_are_two() -> None:
    losses = make_heads(mask=False).losses(FEATURES, [proposals()], [Target(TRUTH, LABELS)])
    assert set(losses) == {"loss_cls", "loss_box"}


def test_losses_without_any_roi_are_zero() -> None:
    losses = make_heads().losses(FEATURES, [torch.zeros(0, 4)], [NO_TARGET])
    assert [loss.item() for loss in losses.values()] == [0, 0, 0]


# Detecting


def test_a_perfect_head_finds_every_object_once() -> None:
    (found,) = make_heads().detect(FEATURES, [proposals()], [SIZE])
    order = found.labels.argsort()
    assert torch.allclose(found.boxes[order], TRUTH[LABELS.argsort()], atol=1e-3)
    assert found.labels[order].tolist() == [0, 1, 2]
    assert (found.scores > 0.999).all()
    assert found.masks is not None
    assert found.masks.shape == (3, 14, 14)
    assert (found.masks > 0.999).all()


def test_without_masks_detections_have_none() -> None:
    (found,) = make_heads(mask=False).detect(FEATURES, [proposals()], [SIZE])
    assert len(found) == 3
    assert found.masks is None


def test_images_keep_their_own_detections() -> None:
    features = FEATURES.repeat(3, 1, 1, 1)
    only_first = TRUTH[:1] + 1
    found = make_heads().detect(features, [proposals(), torch.zeros(0, 4), only_first], [SIZE] * 3)
    assert [len(d) for d in found] == [3, 0, 1]
    assert found[1].masks is not None
    assert found[1].masks.shape == (0, 14, 14)
    assert found[2].labels.tolist() == [2]


def _select(heads: RoIHeads, boxes: list[list[float]], scores: list[list[float]]) -> list:
    """Detections of RoIs with one box for all classes, as (label, score, box)."""
    per_class = torch.tensor(boxes).repeat(1, CLASSES)
    found = heads.select(per_class, torch.tensor(scores), SIZE)
    triples = zip(found.labels.tolist(), found.scores.tolist(), found.boxes.tolist(), strict=True)
    return [(label, pytest.approx(score), box) for label, score, box in triples]


def test_detections_come_best_first_above_the_threshold() -> None:
    boxes = [[0.0, 0.0, 10.0, 10.0], [50.0, 50.0, 70.0, 70.0]]
    scores = [[0.1, 0.3, 0.04, 0.56], [0.8, 0.0, 0.05, 0.15]]  # background last
    assert _select(make_heads(score_threshold=0.05), boxes, scores) == [
        (0, 0.8, boxes[1]),
        (1, 0.3, boxes[0]),
        (0, 0.1, boxes[0]),
    ]


def test_suppression_is_within_a_class() -> None:
    boxes = [[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 9.0], [0.0, 0.0, 10.0, 4.0]]
    scores = [[0.9, 0.0, 0.0, 0.1], [0.8, 0.7, 0.0, 0.0], [0.6, 0.0, 0.0, 0.4]]
    # 0.9 overlap is suppressed, 0.4 is not; another class is kept.
    assert _select(make_heads(nms_iou=0.5), boxes, scores) == [
        (0, 0.9, boxes[0]),
        (1, 0.7, boxes[1]),
        (0, 0.6, boxes[2]),
    ]


def test_at_most_so_many_detections_are_kept() -> None:
    boxes = [[10.0 * k, 0.0, 10.0 * k + 8, 9.0] for k in range(10)]
    scores = [[0.05 * k + 0.1, 0.0, 0.0, 0.9 - 0.05 * k] for k in range(10)]
    kept = _select(make_heads(detections_per_image=4), boxes, scores)
    assert [box for _, _, box in kept] == boxes[:5:-1]


def test_predictions_that_are_not_finite_are_left_out() -> None:
    boxes = [[0.0, 0.0, 10.0, float("nan")], [0.0, 0.0, 9.0, 9.0], [40.0, 40.0, 50.0, 50.0]]
    scores = [[0.9, 0.0, 0.0, 0.1], [float("nan"), 0.2, 0.1, 0.7], [0.0, 0.5, 0.0, 0.5]]
    assert _select(make_heads(), boxes, scores) == [(1, 0.5, boxes[2])]


def test_detections_are_cut_to_the_image() -> None:
    ((_, _, box),) = _select(make_heads(), [[-9.0, -9.0, 900.0, 900.0]], [[0.9, 0.0, 0.0, 0.1]])
    assert box == [0, 0, SIZE[1], SIZE[0]]
