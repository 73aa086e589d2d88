"""The RPN: its outputs' order, its proposals against a slow loop, its losses, its edges."""

import math

import pytest
import torch
from torch import Tensor

from models.anchors import AnchorGenerator
from models.rpn import RPN, RPNHead
from ops.boxes import decode, encode, iou
from ops.structures import Target

STRIDE = 16
SIZE = (96, 128)  # height, width in pixels; 6 x 8 cells
NONE = Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
TWO = Target(torch.tensor([[10.0, 12.0, 50.0, 40.0], [60.0, 20.0, 120.0, 90.0]]), torch.arange(2))


def make_rpn(**settings: object) -> RPN:
    torch.manual_seed(0)
    anchors = AnchorGenerator(sizes=(16, 32, 64), aspect_ratios=(0.5, 1, 2), stride=STRIDE)
    head = RPNHead(channels=4, anchors_per_cell=anchors.per_cell, hidden=8)
    return RPN(head, anchors, **settings)


def random_outputs(anchors: int, spread: float = 0.5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(anchors, generator=generator)
    return logits, spread * torch.randn(anchors, 4, generator=generator)


def slow_proposals(
    anchors: Tensor, logits: Tensor, deltas: Tensor, pre_nms: int, post_nms: int, threshold: float
) -> list[list[float]]:
    """The same in loops over Python numbers: best first, decode, clip, suppress."""
    height, width = SIZE
    order = sorted(range(len(logits)), key=lambda k: -float(logits[k]))[:pre_nms]
    kept: list[list[float]] = []
    for k in order:
        x1, y1, x2, y2 = anchors[k].tolist()
        dx, dy, dw, dh = deltas[k].tolist()
        x, y = (x1 + x2) / 2 + dx * (x2 - x1), (y1 + y2) / 2 + dy * (y2 - y1)
        w, h = (x2 - x1) * math.exp(dw), (y2 - y1) * math.exp(dh)
        box = [
            min(max(x - w / 2, 0), width),
            min(max(y - h / 2, 0), height),
            min(max(x + w / 2, 0), width),
            min(max(y + h / 2, 0), height),
        ]
        if box[2] <= box[0] or box[3] <= box[1]:
            continue
        if all(_overlap(box, other) <= threshold for other in kept):
            kept.append(box)
    return kept[:post_nms]


def _overlap(one: list[float], other: list[float]) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(width, 0) * max(height, 0)
    areas = sum((b[2] - b[0]) * (b[3] - b[1]) for b in (one, other))
    return shared / (areas - shared)


def test_outputs_stand_in_the_order_of_the_anchors() -> None:
    head = make_rpn().head
    features = torch.randn(2, 4, 3, 5)
    logits, deltas = head(features)
    hidden = head.conv(features).relu()
    maps, delta_maps = head.objectness(hidden), head.deltas(hidden)
    image, row, column, anchor = 1, 2, 3, 7
    place = (row * 5 + column) * 9 + anchor
    assert logits.shape == (2, 135)
    assert deltas.shape == (2, 135, 4)
    assert logits[image, place] == maps[image, anchor, row, column]
    expected = delta_maps[image, 4 * anchor : 4 * anchor + 4, row, column]
    assert torch.equal(deltas[image, place], expected)


@pytest.mark.parametrize(("pre_nms", "post_nms"), [(432, 432), (100, 20), (10_000, 50)])
def test_proposals_are_those_of_a_slow_loop(pre_nms: int, post_nms: int) -> None:
    rpn = make_rpn()
    anchors = rpn.anchors(6, 8)
    logits, deltas = random_outputs(len(anchors))
    proposals = rpn.propose(anchors, logits, deltas, SIZE, pre_nms, post_nms)
    expected = slow_proposals(anchors, logits, deltas, pre_nms, post_nms, rpn.nms_iou)
    assert len(expected) > 5
    assert torch.allclose(proposals.boxes, torch.tensor(expected), atol=1e-4)
    assert torch.equal(proposals.logits, proposals.logits.sort(descending=True).values)


def test_what_lies_outside_the_image_is_not_proposed() -> None:
    rpn = make_rpn()
    anchors = torch.tensor([[-40.0, -40.0, -8.0, -8.0], [130.0, 5.0, 160.0, 30.0]])
    proposals = rpn.propose(anchors, torch.ones(2), torch.zeros(2, 4), SIZE, 10, 10)
    assert proposals.boxes.shape == (0, 4)
    assert proposals.logits.shape == (0,)


def test_numbers_that_are_not_finite_are_not_proposed() -> None:
    rpn = make_rpn()
    anchors = torch.tensor([[0.0, 0.0, 20.0, 20.0]]).repeat(5, 1) + 22 * torch.arange(5)[:, None]
    logits = torch.tensor([1.0, math.nan, 3.0, math.inf, 2.0])
    deltas = torch.zeros(5, 4)
    deltas[2, 1] = math.inf
    deltas[0, 3] = math.nan
    proposals = rpn.propose(anchors, logits, deltas, (200, 200), 5, 5)
    assert torch.equal(proposals.boxes, anchors[4:])


def test_enormous_deltas_stay_finite() -> None:
    rpn = make_rpn()
    anchors = rpn.anchors(6, 8)
    logits, deltas = random_outputs(len(anchors), spread=1e6)
    boxes = rpn.propose(anchors, logits, deltas, SIZE, 400, 100).boxes
    assert torch.isfinite(boxes).all()


def test_more_is_kept_for_training_than_for_testing() -> None:
    rpn = make_rpn(pre_nms=(300, 100), post_nms=(30, 7), nms_iou=0.95)
    features = torch.randn(2, 4, 6, 8)
    learning, losses = rpn(features, [SIZE, SIZE], [TWO, NONE])
    testing, nothing = rpn(features, [SIZE, SIZE], None)
    assert [len(p.boxes) for p in learning] == [30, 30]
    assert [len(p.boxes) for p in testing] == [7, 7]
    assert set(losses) == {"loss_rpn_cls", "loss_rpn_box"}
    assert nothing == {}


def test_each_image_is_clipped_to_its_own_size() -> None:
    rpn = make_rpn()
    sizes = [(96, 128), (50, 70)]
    proposals, _ = rpn(torch.randn(2, 4, 6, 8), sizes, None)
    for of_image, (height, width) in zip(proposals, sizes, strict=True):
        assert (of_image.boxes <= torch.tensor([width, height, width, height])).all()
    assert proposals[0].boxes[:, 2].max() > 70


def test_proposals_carry_no_gradient_and_losses_do() -> None:
    rpn = make_rpn()
    proposals, losses = rpn(torch.randn(1, 4, 6, 8), [SIZE], [TWO])
    assert not proposals[0].boxes.requires_grad
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.any() for p in rpn.head.parameters())


def test_losses_with_every_anchor_sampled_are_those_of_a_slow_loop() -> None:
    rpn = make_rpn(batch_per_image=1000, positive_fraction=1.0)
    anchors = rpn.anchors(6, 8)
    outputs = [random_outputs(len(anchors)), random_outputs(len(anchors), spread=0.1)]
    logits = torch.stack([o[0] for o in outputs])
    deltas = torch.stack([o[1] for o in outputs])
    losses = rpn.losses(anchors, logits, deltas, [TWO, NONE])

    overlap = iou(TWO.boxes, anchors)
    classification = torch.nn.functional.softplus(logits[1]).sum().item()
    regression = 0.0
    for k in range(len(anchors)):
        best, truth = overlap[:, k].max(dim=0)
        rescued = bool((overlap[:, k] == overlap.max(dim=1).values).any())
        if best >= 0.7 or rescued:
            classification += math.log1p(math.exp(-logits[0, k]))
            target = encode(TWO.boxes[truth][None], anchors[k : k + 1], (1.0, 1.0, 1.0, 1.0))[0]
            regression += float((deltas[0, k] - target).abs().sum())
        elif best < 0.3:
            classification += math.log1p(math.exp(logits[0, k]))
    assert losses["loss_rpn_cls"].item() == pytest.approx(classification / 2000, rel=1e-4)
    assert losses["loss_rpn_box"].item() == pytest.approx(regression / 2000, rel=1e-4)


def test_perfect_deltas_cost_nothing() -> None:
    rpn = make_rpn(batch_per_image=1000, positive_fraction=1.0)
    anchors = rpn.anchors(6, 8)
    nearest = iou(TWO.boxes, anchors).argmax(dim=0)
    deltas = encode(TWO.boxes[nearest], anchors, (1.0, 1.0, 1.0, 1.0))
    losses = rpn.losses(anchors, torch.zeros(1, len(anchors)), deltas[None], [TWO])
    assert losses["loss_rpn_box"].item() == pytest.approx(0, abs=1e-6)
    assert torch.allclose(
        decode(deltas, anchors, (1.0, 1.0, 1.0, 1.0)), TWO.boxes[nearest], atol=1e-3
    )


def test_an_image_without_objects_has_a_background_loss_only() -> None:
    losses = make_rpn()(torch.randn(1, 4, 6, 8), [SIZE], [NONE])[1]
    assert losses["loss_rpn_cls"] > 0
    assert losses["loss_rpn_box"] == 0
