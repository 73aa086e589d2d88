"""The five losses against values computed with pencil and paper, and their edge cases."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.losses import box_losses, mask_loss, rpn_losses, smooth_l1_sum


def test_smooth_l1_is_quadratic_below_beta_and_linear_above() -> None:
    difference = torch.tensor([0.0, 0.5, 1.0, -3.0])
    zeros = torch.zeros(4)
    assert smooth_l1_sum(difference, zeros, 1.0) == pytest.approx(0.125 + 0.5 + 2.5)
    assert smooth_l1_sum(difference, zeros, 0.5) == pytest.approx(0.25 + 0.75 + 2.75)
    assert smooth_l1_sum(difference, zeros, 0.0) == pytest.approx(4.5)


def _rpn(labels: list[list[int]], targets: Tensor, **changes: float) -> dict[str, Tensor]:
    logits = torch.tensor([[0.0, math.log(3), -2.0], [math.log(3), 0.0, 7.0]])
    deltas = torch.arange(24.0).view(2, 3, 4)
    settings = {"normalizer": 4.0, "beta": 0.0, **changes}
    return rpn_losses(logits, deltas, torch.tensor(labels, dtype=torch.int8), targets, **settings)


def test_rpn_losses_have_the_computed_values() -> None:
    # Positives: (image 0, anchor 1) with deltas 4..7 and (1, 0) with 12..15; (1, 1) is background.
    targets = torch.tensor([[4.0, 5.0, 6.0, 9.0], [12.0, 12.0, 14.0, 15.0]])
    losses = _rpn([[-1, 1, -1], [1, 0, -1]], targets)
    of_positive = -math.log(0.75)  # sigmoid(log 3) = 3/4
    assert losses["loss_rpn_cls"].item() == pytest.approx((2 * of_positive + math.log(2)) / 4)
    assert losses["loss_rpn_box"].item() == pytest.approx((2 + 1) / 4)


def test_rpn_losses_ignore_what_is_not_sampled() -> None:
    losses = _rpn([[-1, -1, -1], [-1, -1, -1]], torch.zeros(0, 4))
    assert losses["loss_rpn_cls"] == 0
    assert losses["loss_rpn_box"] == 0


def test_rpn_losses_without_objects_have_no_box_term() -> None:
    losses = _rpn([[0, -1, -1], [-1, 0, -1]], torch.zeros(0, 4))
    assert losses["loss_rpn_cls"].item() == pytest.approx(2 * math.log(2) / 4)
    assert losses["loss_rpn_box"] == 0


def test_box_losses_have_the_computed_values() -> None:
    logits = torch.zeros(4, 3)  # two classes and the background: probability 1/3 each
    deltas = torch.zeros(4, 8)
    deltas[1, 4:] = torch.tensor([1.0, 2.0, 3.0, 4.0])
    deltas[1, :4] = 100.0  # another class's deltas count for nothing
    labels = torch.tensor([2, 1, 2, 2])
    losses = box_losses(logits, deltas, labels, torch.tensor([[1.0, 0.0, 3.0, 5.0]]), beta=0.0)
    assert losses["loss_cls"].item() == pytest.approx(math.log(3))
    assert losses["loss_box"].item() == pytest.approx(3 / 4)  # over all RoIs, not the foreground


def test_box_losses_without_foreground() -> None:
    logits = torch.randn(3, 5, requires_grad=True)
    deltas = torch.randn(3, 16, requires_grad=True)
    losses = box_losses(logits, deltas, torch.full((3,), 4), torch.zeros(0, 4), beta=0.0)
    assert losses["loss_cls"] > 0
    assert losses["loss_box"] == 0
    sum(losses.values()).backward()
    assert deltas.grad is not None
    assert not deltas.grad.any()


def test_box_losses_without_rois_are_zero_and_still_part_of_the_graph() -> None:
    logits = torch.randn(0, 5, requires_grad=True)
    deltas = torch.randn(0, 16, requires_grad=True)
    none = torch.zeros(0, dtype=torch.int64)
    losses = box_losses(logits, deltas, none, torch.zeros(0, 4), beta=0.0)
    assert [loss.item() for loss in losses.values()] == [0, 0]
    sum(losses.values()).backward()
    assert logits.grad is not None


def test_mask_loss_depends_on_the_true_class_only() -> None:
    logits = torch.full((2, 3, 2, 2), 50.0)  # a wrong class would cost about 25 or 50
    logits[0, 1] = 0.0
    logits[1, 2] = torch.tensor([[math.log(3), -math.log(3)], [0.0, 0.0]])
    targets = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [1.0, 0.0]]])
    loss = mask_loss(logits, torch.tensor([1, 2]), targets)["loss_mask"]
    expected = (6 * math.log(2) - 2 * math.log(0.75)) / 8
    assert loss.item() == pytest.approx(expected)


def test_mask_loss_without_foreground_is_zero_and_still_part_of_the_graph() -> None:
    logits = torch.randn(0, 3, 2, 2, requires_grad=True)
    loss = mask_loss(logits, torch.zeros(0, dtype=torch.int64), torch.zeros(0, 2, 2))["loss_mask"]
    assert loss == 0
    loss.backward()
    assert logits.grad is not None


def test_gradients_flow_to_what_was_sampled_and_nowhere_else() -> None:
    logits = torch.randn(1, 4, requires_grad=True)
    deltas = torch.randn(1, 4, 4, requires_grad=True)
    labels = torch.tensor([[1, 0, -1, -1]], dtype=torch.int8)
    losses = rpn_losses(logits, deltas, labels, torch.zeros(1, 4), normalizer=2.0, beta=0.0)
    sum(losses.values()).backward()
    assert (logits.grad != 0).tolist() == [[True, True, False, False]]
    assert (deltas.grad != 0).all(dim=2).tolist() == [[True, False, False, False]]


def test_losses_of_half_precision_logits_are_float32() -> None:
    logits = torch.randn(6, 3, dtype=torch.bfloat16)
    labels = torch.tensor([0, 1, 2, 2, 2, 2])
    losses = box_losses(logits, torch.zeros(6, 8).bfloat16(), labels, torch.zeros(2, 4), beta=0.0)
    assert losses["loss_cls"].dtype == torch.float32
    assert losses["loss_cls"].item() == pytest.approx(
        F.cross_entropy(logits.float(), labels).item()
    )
