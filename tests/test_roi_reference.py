"""Every pooler against slow loops, and against torchvision where it has the same one."""

import pytest
import torch
import torch.nn.functional as F
import torchvision.ops as torchvision_ops
from hypothesis import given, settings
from hypothesis import strategies as st
from pooler_cases import CASES, Case, every_case, planned_roi_pool, random_rois

from ops.roi_align import roi_align
from ops.roi_pool import roi_pool


def features(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@every_case
@pytest.mark.parametrize("size", [(3, 3), (2, 5)])
def test_agrees_with_loops(case: Case, size):
    maps, rois = features(2, 3, 7, 9), random_rois(12, 2, 7 * 4, 9 * 4)
    torch.testing.assert_close(case(maps, rois, size, 0.25), case.reference(maps, rois, size, 0.25))


@every_case
@pytest.mark.parametrize("transposed", [False, True])
def test_torchvisions_own_test_boxes(case: Case, transposed):
    maps = torch.rand(2, 5, 10, 10, generator=torch.Generator().manual_seed(0))
    maps = maps.permute(0, 1, 3, 2) if transposed else maps
    boxes = [[0, 0, 0, 9, 9], [0, 0, 5, 4, 9], [0, 5, 5, 9, 9], [1, 0, 0, 9, 9]]
    rois = torch.tensor(boxes, dtype=torch.float32)
    expected = case.reference(maps, rois, (5, 5), 1.0).float()
    torch.testing.assert_close(case(maps, rois, 5, 1.0), expected, rtol=1e-5, atol=1e-5)


coordinate = st.floats(-40, 140, width=32)


@every_case
@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.lists(st.tuples(coordinate, coordinate, coordinate, coordinate), min_size=1, max_size=3))
def test_any_box_agrees_with_loops(case: Case, boxes):
    maps = features(1, 2, 6, 6)
    rois = torch.tensor([[0.0, *box] for box in boxes], dtype=torch.float64)
    torch.testing.assert_close(
        case(maps, rois, 4, 1 / 16), case.reference(maps, rois, (4, 4), 1 / 16), atol=1e-7, rtol=0
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sampling_ratio", [0, 1, 2, 3])
@pytest.mark.parametrize("aligned", [False, True])
def test_roi_align_and_its_gradient_agree_with_torchvision(dtype, sampling_ratio, aligned):
    maps, rois = features(2, 8, 20, 25, dtype=dtype), random_rois(40, 2, 320, 400).to(dtype)
    ours, theirs = maps.clone().requires_grad_(), maps.clone().requires_grad_()
    pooled = roi_align(ours, rois, (7, 5), 1 / 16, sampling_ratio=sampling_ratio, aligned=aligned)
    expected = torchvision_ops.roi_align(theirs, rois, (7, 5), 1 / 16, sampling_ratio, aligned)
    torch.testing.assert_close(pooled, expected, rtol=1e-5, atol=1e-5)
    grad = torch.randn_like(expected)
    pooled.backward(grad)
    expected.backward(grad)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-4)


def test_max_agrees_with_pooling_torchvisions_single_samples():
    maps, rois = features(2, 8, 20, 25), random_rois(40, 2, 320, 400)
    ours, theirs = maps.clone().requires_grad_(), maps.clone().requires_grad_()
    pooled = roi_align(ours, rois, 7, 1 / 16, agg="max")
    expected = F.max_pool2d(torchvision_ops.roi_align(theirs, rois, 14, 1 / 16, 1, True), 2)
    torch.testing.assert_close(pooled, expected)
    grad = torch.randn_like(expected)
    pooled.backward(grad)
    expected.backward(grad)
    torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1, 7, 14])
@pytest.mark.parametrize("levels", [None, 3])
@pytest.mark.parametrize("pooler", [roi_pool, planned_roi_pool])
def test_roi_pool_and_its_gradient_agree_with_torchvision_to_the_bit(pooler, dtype, size, levels):
    maps = features(2, 8, 40, 70, dtype=dtype)
    if levels is not None:  # many ties: the first cell must win
        maps = maps.mul(levels / 3).round().clamp(0, 2)
    rois = random_rois(60, 2, 40 * 16, 70 * 16).to(dtype)
    rois[:20, 1:] = (rois[:20, 1:] / 8).round() * 8  # halves of a cell
    ours, theirs = maps.clone().requires_grad_(), maps.clone().requires_grad_()
    pooled = pooler(ours, rois, size, 1 / 16)
    expected = torchvision_ops.roi_pool(theirs, rois, size, 1 / 16)
    assert torch.equal(pooled, expected)
    grad = torch.randint(-4, 5, expected.shape).to(dtype)  # sums of whole numbers are exact
    pooled.backward(grad)
    expected.backward(grad)
    assert torch.equal(ours.grad, theirs.grad)


@pytest.mark.parametrize("height", [29, 57, 58, 62, 114, 116])
@pytest.mark.parametrize("size", [7, 14])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bins_edges_are_rounded_as_torchvision_rounds_them(height, size, dtype):
    maps = torch.arange(120.0, dtype=dtype)[None, None, :, None].expand(1, 1, 120, 2)
    rois = torch.tensor([[0, 0, 0, 1, height - 1]], dtype=dtype)
    for sign in (1, -1):  # the last and the first cell of each bin
        maps = (maps * sign).contiguous()
        assert torch.equal(
            planned_roi_pool(maps, rois, size, 1.0), torchvision_ops.roi_pool(maps, rois, size, 1.0)
        )


@pytest.mark.parametrize("pooler", [roi_pool, planned_roi_pool])
def test_a_bin_of_nothing_but_nan_gives_the_lowest_number_and_no_gradient(pooler):
    maps = torch.full((1, 1, 4, 4), torch.nan)
    maps[0, 0, 2:, 2:] = 1.0
    ours, theirs = maps.clone().requires_grad_(), maps.clone().requires_grad_()
    rois = torch.tensor([[0.0, 0, 0, 3, 3]])
    pooled, expected = pooler(ours, rois, 2, 1.0), torchvision_ops.roi_pool(theirs, rois, 2, 1.0)
    assert torch.equal(pooled, expected)
    pooled.sum().backward()
    expected.sum().backward()
    assert torch.equal(ours.grad, theirs.grad)


@every_case
def test_a_list_of_boxes_is_the_same_as_rois(case: Case):
    maps, rois = features(3, 2, 6, 6), random_rois(9, 3, 24, 24)
    rois = rois[rois[:, 0].argsort(stable=True)]
    boxes = [rois[rois[:, 0] == i, 1:] for i in range(3)]
    assert torch.equal(case(maps, boxes, 2, 0.25), case(maps, rois, 2, 0.25))


@every_case
def test_no_rois_give_an_empty_result_and_zero_gradient(case: Case):
    maps = torch.rand(1, 3, 10, 10, requires_grad=True)
    for rois in (torch.zeros(0, 5), [torch.zeros(0, 4)]):
        pooled = case(maps, rois, 7, 1.0)
        assert pooled.shape == (0, 3, 7, 7)
        maps.grad = None
        pooled.sum().backward()
        assert not maps.grad.any()


def test_each_variant_differs_from_every_other():
    maps, rois = features(1, 2, 12, 12), random_rois(6, 1, 192, 192)
    results = {name: case(maps, rois, 3, 1 / 16) for name, case in CASES.items()}
    del results["pool planned"]  # the same as pool
    names = list(results)
    for i, name in enumerate(names):
        for other in names[:i]:
            assert not torch.allclose(results[name], results[other]), (name, other)
