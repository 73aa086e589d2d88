"""Parameter groups, learning rate schedules, clipping, and the check for divergence."""

import math

import pytest
import torch
from torch import nn

from ops.errors import InputError
from running.optim import (
    check_finite,
    clip_gradients,
    effective_lr,
    lr_factor,
    parameter_groups,
    set_learning_rate,
)


def _network() -> nn.Sequential:
    """conv (weight, bias), batch norm (weight, bias), a frozen conv, and a shared linear layer."""
    shared = nn.Linear(4, 4)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), shared, nn.GroupNorm(2, 4)
    )
    network.append(shared)
    network[2].requires_grad_(False)
    return network


def test_every_trainable_parameter_is_in_exactly_one_group() -> None:
    network = _network()
    groups = parameter_groups(network, weight_decay=1e-4, bias_decay=0.0, norm_decay=0.0)
    grouped = [p for group in groups for p in group["params"]]
    trainable = {p for p in network.parameters() if p.requires_grad}
    assert len(grouped) == len(trainable) == 8
    assert set(grouped) == trainable


def test_detectron_learns_biases_at_twice_the_rate_without_decay() -> None:
    network = _network()
    groups = parameter_groups(
        network, weight_decay=1e-4, bias_lr_factor=2.0, bias_decay=0.0, norm_decay=0.01
    )
    by_name = {group["name"]: group for group in groups}
    assert set(by_name["biases"]["params"]) == {network[0].bias, network[3].bias}
    assert set(by_name["norms"]["params"]) == {*network[1].parameters(), *network[4].parameters()}
    assert [by_name[n]["weight_decay"] for n in ("weights", "biases", "norms")] == [1e-4, 0.0, 0.01]
    optimizer = torch.optim.SGD(groups, lr=1.0)
    set_learning_rate(optimizer, 0.02)
    assert {g["name"]: g["lr"] for g in optimizer.param_groups} == {
        "weights": 0.02,
        "biases": 0.04,
        "norms": 0.02,
    }


def test_a_group_without_parameters_is_left_out() -> None:
    groups = parameter_groups(
        nn.Linear(2, 2, bias=False), weight_decay=0.1, bias_decay=0.0, norm_decay=0.0
    )
    assert [group["name"] for group in groups] == ["weights"]


def test_rate_factors_survive_a_resume() -> None:
    def optimizer() -> torch.optim.Optimizer:
        groups = parameter_groups(
            nn.Linear(2, 2), weight_decay=0.0, bias_lr_factor=2.0, bias_decay=0.0, norm_decay=0.0
        )
        return torch.optim.SGD(groups, lr=0.1, momentum=0.9)

    resumed = optimizer()
    resumed.load_state_dict(optimizer().state_dict())
    set_learning_rate(resumed, 1.0)
    assert [group["lr"] for group in resumed.param_groups] == [1.0, 2.0]


def test_the_rate_grows_in_line_with_the_images_of_a_step() -> None:
    assert effective_lr(0.02, 16) == pytest.approx(0.02)
    assert effective_lr(0.02, 2) == pytest.approx(0.0025)


def test_the_papers_schedule() -> None:
    factors = [
        lr_factor(step, steps=160_000, milestones=[120_000])
        for step in (0, 119_999, 120_000, 159_999)
    ]
    assert factors == pytest.approx([1, 1, 0.1, 0.1])


def test_milestones_multiply() -> None:
    at = [lr_factor(s, steps=9, milestones=[3, 6], gamma=0.5) for s in (2, 3, 5, 6, 8)]
    assert at == [1, 0.5, 0.5, 0.25, 0.25]


def test_warm_up_is_a_line_from_its_factor_to_one() -> None:
    at = [lr_factor(s, steps=10, warmup_steps=4, warmup_factor=0.2) for s in range(6)]
    assert at == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])


def test_cosine_starts_at_one_passes_one_half_and_ends_near_zero() -> None:
    at = [lr_factor(s, steps=100, shape="cosine") for s in (0, 50, 99)]
    assert at == pytest.approx([1.0, 0.5, 0.5 * (1 + math.cos(0.99 * math.pi))])


def test_warm_up_multiplies_the_cosine() -> None:
    settings = {"steps": 100, "shape": "cosine"}
    warm = lr_factor(5, warmup_steps=10, warmup_factor=0.0, **settings)
    assert warm == pytest.approx(0.5 * lr_factor(5, **settings))


def test_an_unknown_shape_is_named() -> None:
    with pytest.raises(InputError, match=r"schedule\.shape=linear: unknown; choose multistep or"):
        lr_factor(0, steps=1, shape="linear")  # type: ignore[arg-type]


def _with_gradient(*values: float) -> nn.Parameter:
    parameter = nn.Parameter(torch.zeros(len(values)))
    parameter.grad = torch.tensor(values)
    return parameter


def test_clipping_keeps_the_direction_of_all_gradients_together() -> None:
    a, b = _with_gradient(3.0, 0.0), _with_gradient(4.0)
    assert clip_gradients(iter([a, b, nn.Parameter(torch.zeros(1))]), 1.0).item() == 5.0
    assert torch.cat([a.grad, b.grad]).tolist() == pytest.approx([0.6, 0.0, 0.8], abs=1e-5)


@pytest.mark.parametrize("max_norm", [None, 0, 100.0])
def test_gradients_below_the_limit_stay_as_they_are(max_norm: float | None) -> None:
    a = _with_gradient(3.0, 4.0)
    assert clip_gradients([a], max_norm).item() == 5.0
    assert a.grad.tolist() == [3.0, 4.0]


def test_divergence_names_the_term_and_the_remedy() -> None:
    losses = {"loss_mask": torch.tensor(1.0), "loss_box": torch.tensor(float("inf"))}
    with pytest.raises(InputError, match=r"^step 7: loss_box=inf not finite: .*lower schedule.lr"):
        check_finite(losses, 7)


def test_finite_losses_pass() -> None:
    check_finite({"a": torch.tensor(1.0), "b": torch.tensor(2.0, dtype=torch.bfloat16)}, 0)
