"""What every pooler owes its callers: dtypes, autocast, memory formats, compilation, messages."""

import pytest
import torch
from pooler_cases import CASES, Case, every_case, planned_roi_pool, random_rois

from ops import roi_kernels
from ops.errors import InputError
from ops.roi_align import align, roi_align
from ops.roi_average import weighted_sum
from ops.roi_max import sample_max
from ops.roi_plan import checked_image_index, grid
from ops.roi_pool import roi_pool
from ops.roi_table import _stable_order, spread
from ops.roi_warp import roi_warp


def inputs(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    maps = torch.randn(2, 6, 12, 15, generator=torch.Generator().manual_seed(0)).to(dtype)
    return maps, random_rois(20, 2, 192, 240).float()


@every_case
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float16, 1e-3), (torch.bfloat16, 8e-3), (torch.float64, 1e-5)]
)
@pytest.mark.parametrize("rois_dtype", [torch.float32, torch.float64])
def test_any_float_dtype_is_computed_in_float32_at_least(case: Case, dtype, tolerance, rois_dtype):
    maps, rois = inputs(dtype)
    exact = maps.clone().to(torch.promote_types(dtype, torch.float32)).requires_grad_()
    leaf = maps.clone().requires_grad_()
    pooled = case(leaf, rois.to(rois_dtype), 4, 1 / 16)
    expected = case(exact, rois.to(rois_dtype), 4, 1 / 16)
    assert pooled.dtype == dtype
    # One rounding at the end, not one per sample: exactly the rounded float32 result.
    assert torch.equal(pooled, expected.to(dtype))
    grad = torch.ones_like(expected)
    pooled.backward(grad.to(dtype))
    expected.backward(grad)
    assert torch.equal(leaf.grad, exact.grad.to(dtype))


@every_case
def test_autocast_changes_nothing(case: Case):
    maps, rois = inputs(torch.bfloat16)
    plain = case(maps, rois, 4, 1 / 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(case(maps, rois, 4, 1 / 16), plain)
        assert case(maps.float(), rois, 4, 1 / 16).dtype == torch.float32


@every_case
def test_any_memory_format_gives_the_same(case: Case):
    maps, rois = inputs()
    views = [maps.contiguous(memory_format=torch.channels_last), maps.flip(3).flip(3)]
    views += [torch.cat((maps, maps), 1)[:, :6], maps.transpose(2, 3).contiguous().transpose(2, 3)]
    plain = case(maps, rois, 4, 1 / 16)
    for view in views:
        assert torch.equal(case(view, rois, 4, 1 / 16), plain)
    assert plain.shape == (20, 6, 4, 4)


@every_case
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_coordinate_that_is_not_finite_names_its_roi(case: Case, value):
    maps, rois = inputs()
    rois[7, 3] = value
    with pytest.raises(ValueError, match=r"RoI 7 .*finite"):
        case(maps, rois, 4, 1 / 16)


@every_case
def test_wrong_shapes_and_images_are_told(case: Case):
    maps, rois = inputs()
    with pytest.raises(ValueError, match=r"\[K, 5\]"):
        case(maps, rois[:, 1:], 4, 1 / 16)
    with pytest.raises(ValueError, match=r"\[L, 4\]"):
        case(maps, [rois[:, :3]], 4, 1 / 16)
    with pytest.raises(ValueError, match=r"\[N, C, H, W\]"):
        case(maps[0], rois, 4, 1 / 16)
    with pytest.raises(ValueError, match=r"RoI \d+ .*0 \.\. 0"):
        case(maps[:1], rois, 4, 1 / 16)
    with pytest.raises(InputError, match="output_size"):
        case(maps, rois, 0, 1 / 16)


@pytest.mark.parametrize(
    ("pooler", "settings", "names"),
    [
        (roi_pool, {"rounding": "round"}, "rounding.*caffe or floor"),
        (roi_align, {"agg": "mean"}, "agg.*avg or max"),
        (roi_align, {"placement": "random"}, "placement.*uniform or thirds"),
        (roi_warp, {"mode": "mask"}, "mode.*paper or mnc"),
        (roi_warp, {"agg": "mean"}, "agg.*avg or max"),
        (roi_warp, {"mode": "mnc", "sampling_ratio": 0}, "sampling_ratio.*at least 1"),
    ],
)
def test_an_unknown_setting_names_its_choices(pooler, settings, names):
    with pytest.raises(InputError, match=names):
        pooler(*inputs(), 4, 1 / 16, **settings)


@pytest.mark.parametrize("name", ["align", "align adaptive", "align max", "pool"])
@pytest.mark.parametrize("aligned", [True, False])
def test_cudas_route_gives_the_same_numbers(name, aligned):
    maps, rois = inputs()
    area = grid(maps, rois, (4, 5), 1 / 16)
    agg, ratio = ("max", 3) if name == "align max" else ("avg", 0 if "adaptive" in name else 2)
    if name == "pool":
        expected = planned_roi_pool(maps, rois, (4, 5), 1 / 16)
        kernel = roi_kernels.pool(maps, area)
    else:
        assert roi_kernels.can_align(ratio, agg, "uniform")
        expected = align(maps, area, ratio, aligned, agg)
        kernel = roi_kernels.align(maps, area, ratio, aligned, agg)
    torch.testing.assert_close(kernel, expected, rtol=1e-4, atol=1e-4)


def test_cudas_kernels_serve_only_where_they_are_right():
    maps, rois = inputs()
    assert not roi_kernels.serve(maps, grid(maps, rois, 4, 1 / 16))  # a CPU tensor
    assert roi_kernels.serve_pool(maps, grid(maps, rois, 4, 1 / 16))  # a small one
    large = torch.zeros(1, 1024, 50, 68)
    assert not roi_kernels.serve_pool(large, grid(large, rois[rois[:, 0] == 0], 4, 1 / 16))
    assert not roi_kernels.can_align(0, "max", "uniform")
    assert not roi_kernels.can_align(2, "avg", "thirds")


OPERATORS = [weighted_sum, sample_max, checked_image_index]


def operator_arguments(operator: object) -> tuple[object, ...]:
    maps = torch.randn(2, 3, 5, 6, requires_grad=True)
    image = torch.tensor([0, 1, 1])
    rows, columns = torch.randint(0, 5, (3, 2, 4)), torch.randint(0, 6, (3, 3, 4))
    row_weights = torch.rand(3, 2, 4, requires_grad=True)
    column_weights = torch.rand(3, 3, 4, requires_grad=True)
    if operator is weighted_sum:
        return maps, [image, rows, row_weights, columns, column_weights]
    if operator is checked_image_index:
        return torch.rand(4, 5), 2
    twos = torch.full((3, 2), 2), torch.full((3, 3), 2)
    rows, row_weights = rows.unflatten(2, (2, 2)), row_weights.detach().unflatten(2, (2, 2))
    columns, column_weights = (
        columns.unflatten(2, (2, 2)),
        column_weights.detach().unflatten(2, (2, 2)),
    )
    return maps, [
        image,
        rows,
        row_weights.requires_grad_(),
        twos[0],
        columns,
        column_weights.requires_grad_(),
        twos[1],
    ]


# torch's compiler asks each tensor for its .grad, and warns itself of those that are no leaves.
own_warning = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")


@own_warning
@pytest.mark.parametrize("operator", OPERATORS, ids=lambda operator: operator._name)
def test_operators_are_registered_right(operator):
    torch.library.opcheck(operator, operator_arguments(operator))


@own_warning
@pytest.mark.parametrize(
    "name", ["pool", "pool planned", "align", "align max", "warp mnc max", "prroi"]
)
def test_compiled_gives_the_same(name):
    maps, rois = inputs()
    case = CASES[name]

    def step(x: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
        return case(x * 2, boxes, 4, 1 / 16).relu()

    whole = name.startswith(("align", "warp"))  # the others ask how large the largest bin is
    compiled = torch.compile(step, backend="aot_eager", fullgraph=whole)
    eager_leaf, leaf = maps.clone().requires_grad_(), maps.clone().requires_grad_()
    eager, result = step(eager_leaf, rois), compiled(leaf, rois)
    assert torch.equal(result, eager)
    eager.square().sum().backward()
    result.square().sum().backward()
    assert torch.equal(leaf.grad, eager_leaf.grad)


def test_many_cells_sort_stably_beyond_16_bits():
    cells = torch.randint(0, 1 << 20, (5000,), generator=torch.Generator().manual_seed(0))
    cells[::3] = cells[0]
    assert torch.equal(_stable_order(cells), torch.sort(cells, stable=True).indices)


def test_spread_is_the_plain_sum():
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(30, 4, generator=generator).double()
    cells = torch.randint(0, 9, (30, 5), generator=generator)
    weights = torch.randn(30, 5, generator=generator).double()
    total, expected = torch.ones(9, 4).double(), torch.ones(9, 4).double()
    spread(total, rows, cells, weights)
    for b in range(30):
        for t in range(5):
            expected[cells[b, t]] += weights[b, t] * rows[b]
    torch.testing.assert_close(total, expected)
