"""The optimiser's parameter groups, the learning rate over time, gradient clipping."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ops.errors import InputError

REFERENCE_IMAGES = 16  # images per step that a learning rate is stated for
NORMALISATIONS = (
    nn.modules.batchnorm._NormBase,  # batch and instance normalisation
    nn.GroupNorm,
    nn.LayerNorm,
)


def parameter_groups(
    model: nn.Module,
    *,
    weight_decay: float,
    bias_lr_factor: float = 1.0,
    bias_decay: float,
    norm_decay: float,
) -> list[dict[str, Any]]:
    """Weights, biases and normalisation parameters, each with its decay and learning rate factor.

    Only parameters that require a gradient, each exactly once, also when modules share it. A
    normalisation layer's bias belongs to the normalisation group. Detectron learned biases at
    twice the rate without decay (``bias_lr_factor=2, bias_decay=0``); detectron2 treats them as
    weights.

    Returns:
        A list of groups as torch.optim takes them; the key "lr_factor" is read by
        `set_learning_rate` and travels in the optimiser's state.
    """
    members: dict[str, list[nn.Parameter]] = {"weights": [], "biases": [], "norms": []}
    seen: set[nn.Parameter] = set()
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad and parameter not in seen:
                seen.add(parameter)
                members[_kind(module, name)].append(parameter)
    decay = {"weights": weight_decay, "biases": bias_decay, "norms": norm_decay}
    factor = {"weights": 1.0, "biases": bias_lr_factor, "norms": 1.0}
    return [
        {"name": k, "params": ps, "weight_decay": decay[k], "lr_factor": factor[k]}
        for k, ps in members.items()
        if ps
    ]


def _kind(module: nn.Module, name: str) -> str:
    if isinstance(module, NORMALISATIONS):
        return "norms"
    return "biases" if name == "bias" else "weights"


def effective_lr(lr_per_16: float, images_per_step: int) -> float:
    """The learning rate for this many images a step, by the linear scaling rule.

    Source: Goyal et al., "Accurate, Large Minibatch SGD", section 2.1. Mask R-CNN states 0.02 for
    16 images.
    """
    return lr_per_16 * images_per_step / REFERENCE_IMAGES


def lr_factor(
    step: int,
    *,
    steps: int,
    warmup_steps: int = 0,
    warmup_factor: float = 1.0,
    milestones: Sequence[int] = (),
    gamma: float = 0.1,
    shape: Literal["multistep", "cosine"] = "multistep",
) -> float:
    """What the learning rate is multiplied by in step `step` (counted from 0) of `steps`.

    The schedule's value times the warm-up's, which rises linearly from `warmup_factor` to 1 over
    `warmup_steps` (Goyal et al., section 2.2). "multistep" multiplies by `gamma` from each
    milestone on (Mask R-CNN, section 3.1.1: by 0.1 at 120k of 160k steps); "cosine" falls from 1
    towards 0 (Loshchilov and Hutter, SGDR, equation 5, without restarts).

    Raises:
        InputError: an unknown shape.
    """
    if shape == "multistep":
        scheduled = gamma ** sum(step >= milestone for milestone in milestones)
    elif shape == "cosine":
        scheduled = 0.5 * (1 + math.cos(math.pi * step / steps))
    else:
        raise InputError(f"schedule.shape={shape}: unknown; choose multistep or cosine")
    if step >= warmup_steps:
        return scheduled
    return scheduled * (warmup_factor + (1 - warmup_factor) * step / warmup_steps)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group `lr` times its own factor.

    The rate is a function of the step number alone, so there is no scheduler state to resume.
    """
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_factor", 1.0)


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float | None) -> Tensor:
    """Scale all gradients together so that their joint L2 norm is at most `max_norm`.

    Args:
        max_norm: None or 0 leaves the gradients as they are.

    Returns:
        The norm before clipping, a scalar on the gradients' device (0 where there are none).
    """
    with_gradient = [p for p in parameters if p.grad is not None]
    if not max_norm:
        return torch.nn.utils.get_total_norm([p.grad for p in with_gradient if p.grad is not None])
    return torch.nn.utils.clip_grad_norm_(with_gradient, max_norm)


def check_finite(losses: Mapping[str, Tensor], step: int) -> None:
    """Stop at the first loss that is NaN or infinite, naming it.

    Raises:
        InputError: names the terms, the step and what to change.
    """
    values = torch.stack([loss.detach().float() for loss in losses.values()])
    if values.isfinite().all():  # one wait for the device, whatever the number of terms
        return
    bad = [
        f"{k}={v:g}" for k, v in zip(losses, values.tolist(), strict=True) if not math.isfinite(v)
    ]
    raise InputError(
        f"step {step}: {', '.join(bad)} not finite: training diverged; lower schedule.lr, "
        "raise schedule.warmup_steps, set schedule.clip_norm, or use precision=float32"
    )
