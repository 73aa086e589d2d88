"""Gradients to features and to boxes, and the same bits whatever the number of threads."""

import pytest
import torch
from pooler_cases import CASES, Case, every_case, planned_roi_pool, random_rois

from ops.roi_align import roi_align
from ops.roi_pool import roi_pool
from ops.roi_warp import roi_warp

ON_REQUEST = [case for case in CASES.values() if case.differentiable is not None]
CONTINUOUS = [case for case in ON_REQUEST if case.continuous]


def distinct(*shape: int) -> torch.Tensor:
    """Numbers of which no two samples tie, so that a small step changes no maximum."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@every_case
@pytest.mark.parametrize("transposed", [False, True])
def test_gradient_to_the_features_is_the_numeric_one(case: Case, transposed):
    maps = distinct(2, 1, 5, 6)
    maps = (maps.transpose(2, 3) if transposed else maps).requires_grad_()
    boxes = [[0, 0, 0, 4, 4], [0, 0, 2, 3, 4], [1, 2, 2, 4, 4], [1, -3, 1, 2.4, 9]]
    rois = torch.tensor(boxes, dtype=torch.float64)
    fast = transposed  # a random direction instead of every entry
    check = torch.autograd.gradcheck
    assert check(lambda x: case(x, rois, 2, 1.0), (maps,), atol=1e-5, fast_mode=fast)


def test_caffes_own_gradient_check():
    maps = distinct(4, 3, 12, 8).requires_grad_()
    boxes = [[0, 1, 1, 6, 6], [2, 6, 2, 7, 11], [1, 3, 1, 5, 10], [0, 3, 3, 3, 3]]
    rois = torch.tensor(boxes, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda x: planned_roi_pool(x, rois, 6, 1.0), (maps,), fast_mode=True
    )


@pytest.mark.parametrize("case", CONTINUOUS)
def test_gradient_to_the_boxes_is_the_numeric_one(case: Case):
    maps = torch.randn(1, 2, 8, 8, generator=torch.Generator().manual_seed(3)).double()
    # Nothing here puts a sample on a cell's centre or on the border, where there are two slopes.
    boxes = torch.tensor([[1.13, 1.27, 5.61, 6.33], [2.17, 0.39, 3.47, 2.21]], dtype=torch.float64)

    def pooled(x: torch.Tensor) -> torch.Tensor:
        return case(maps, [x], 2, 1.0, **case.differentiable)

    assert torch.autograd.gradcheck(pooled, (boxes.requires_grad_(),), eps=1e-6, atol=1e-5)


@pytest.mark.parametrize("settings", [{}, {"agg": "max"}, {"aligned": False}])
def test_rounding_passes_the_gradient_of_the_box_straight_through(settings):
    maps = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)).double()
    rounded = torch.tensor([[0, 32.0, 48, 160, 208]], dtype=torch.float64)
    off = rounded + torch.tensor([0, 3.0, -5, 2, 6.5])
    gradients = []
    for rois, pooler, more in (
        (off, roi_warp, {}),
        (rounded, roi_align, {"coordinate_grad": True}),
    ):
        rois = rois.clone().requires_grad_()
        pooled = pooler(maps, rois, 5, 1 / 16, **settings, **more)
        pooled.square().sum().backward()
        gradients.append(rois.grad)
    torch.testing.assert_close(*gradients)
    assert gradients[0].abs().sum() > 0


def test_roi_align_and_roi_pool_leave_the_boxes_alone_unless_asked():
    maps = torch.rand(1, 1, 8, 8, requires_grad=True)
    rois = torch.tensor([[0.0, 1, 1, 5, 5]], requires_grad=True)
    for pooler in (roi_align, roi_pool):
        pooler(maps, rois, 2, 1.0).sum().backward()
    assert rois.grad is None


def test_a_box_off_the_map_gets_no_gradient():
    rois = torch.tensor([[0.0, 100, 100, 140, 150]], requires_grad=True)
    for settings in ({}, {"mode": "mnc"}, {"agg": "max"}):
        roi_warp(torch.rand(1, 1, 8, 8), rois, 2, 1.0, **settings).sum().backward()
    assert not rois.grad.any()


@every_case
def test_the_same_bits_for_any_number_of_threads(case: Case):
    maps = torch.randn(2, 40, 20, 25, generator=torch.Generator().manual_seed(1)).relu()
    rois = random_rois(40, 2, 320, 400).float()
    threads = torch.get_num_threads()
    results = []
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            leaf = maps.clone().requires_grad_()
            pooled = case(leaf, rois, 7, 1 / 16)
            pooled.backward(torch.cos(torch.arange(pooled.numel()).view(pooled.shape).float()))
            results.append((pooled.detach(), leaf.grad))
    finally:
        torch.set_num_threads(threads)
    for pooled, grad in results[1:]:
        assert torch.equal(pooled, results[0][0])
        assert torch.equal(grad, results[0][1])
