"""The maximum never holds all of its samples: what it allocates is bounded by what it gives."""

from collections.abc import Callable
from functools import partial
from itertools import accumulate

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from ops.roi_align import roi_align
from ops.roi_warp import roi_warp

MOST = 3.0  # times the output


def peak_bytes(run: Callable[[], object]) -> int:
    """The most that `run` holds at one time, beyond what was held before it."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        kept = run()
    events = recorded.profiler.kineto_results.events()
    changes = [(e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"]
    del kept
    return max(accumulate(size for _, size in sorted(changes, key=lambda change: change[0])))


def inputs() -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    features = torch.randn(1, 256, 50, 68, generator=draw)
    corners = torch.rand(128, 2, generator=draw) * torch.tensor([700.0, 500.0])
    sizes = torch.rand(128, 2, generator=draw) * 300 + 16
    return features, torch.cat([torch.zeros(128, 1), corners, corners + sizes], dim=1)


@pytest.mark.parametrize("op", [roi_align, roi_warp])
@pytest.mark.parametrize("samples", [2, 4])
def test_the_maximum_holds_at_most_three_times_its_output(
    op: Callable[..., Tensor], samples: int
) -> None:
    features, rois = inputs()
    pool = partial(op, rois=rois, output_size=14, spatial_scale=1 / 16, agg="max")
    output = 128 * 256 * 14 * 14 * 4
    forward = peak_bytes(lambda: pool(features, sampling_ratio=samples))
    assert output <= forward <= MOST * output
    features.requires_grad_()
    gradient = torch.ones(128, 256, 14, 14)
    both = peak_bytes(lambda: pool(features, sampling_ratio=samples).backward(gradient))
    assert output <= both <= MOST * output


def test_all_samples_at_once_would_be_found_out() -> None:
    features, rois = inputs()
    at_once = partial(roi_align, rois=rois, output_size=28, spatial_scale=1 / 16, sampling_ratio=1)
    held = peak_bytes(lambda: torch.nn.functional.max_pool2d(at_once(features), 2))
    assert held > MOST * 128 * 256 * 14 * 14 * 4
