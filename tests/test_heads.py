"""What runs on each RoI: scale of the pooler, shapes, sharing of maps, initial weights."""

import pytest
import torch
from torch import Tensor, nn

from models.heads import BoxPredictor, RoIPooler, SharedHead, SplitHead, TwoFC
from ops.roi_align import roi_align

CLASSES = 5
BOXES = [
    torch.tensor([[0.0, 0.0, 64.0, 64.0], [16.0, 8.0, 50.0, 60.0]]),
    torch.tensor([[3.0, 4.0, 90.0, 40.0]]),
]
NO_BOXES = [torch.zeros(0, 4), torch.zeros(0, 4)]
FEATURES = torch.randn(2, 6, 8, 8, generator=torch.Generator().manual_seed(0))


def shared_head(*, pool_size: int = 7, mask_dim: int | None = 8) -> SharedHead:
    torch.manual_seed(0)
    return SharedHead(
        RoIPooler(roi_align, stride=16),
        nn.Conv2d(6, 10, 3, stride=pool_size // 7, padding=1),
        channels=10,
        pool_size=pool_size,
        num_classes=CLASSES,
        mask_dim=mask_dim,
    )


def split_head(*, mask_dim: int | None = 8) -> SplitHead:
    torch.manual_seed(0)
    return SplitHead(
        RoIPooler(roi_align, stride=16),
        TwoFC(6, 7, 12),
        channels=6,
        dim=12,
        pool_size=7,
        num_classes=CLASSES,
        mask_dim=mask_dim,
    )


@pytest.mark.parametrize("stride", [16, 32])
def test_any_callable_pools_at_the_inverse_of_the_stride(stride: int) -> None:
    calls = []

    def op(features: Tensor, rois: Tensor, size: int, scale: float) -> Tensor:
        calls.append((rois, size, scale))
        return torch.zeros(len(rois), features.shape[1], size, size)

    pooled = RoIPooler(op, stride=stride)(FEATURES, BOXES, 9)
    ((rois, size, scale),) = calls
    assert pooled.shape == (3, 6, 9, 9)
    assert size == 9
    assert scale == 1 / stride
    assert rois[:, 0].tolist() == [0, 0, 1]
    assert torch.equal(rois[:, 1:], torch.cat(BOXES))


@pytest.mark.parametrize("pool_size", [7, 14])
def test_shapes_of_the_shared_head(pool_size: int) -> None:
    head = shared_head(pool_size=pool_size)
    output = head.predict_boxes(FEATURES, BOXES)
    assert output.class_logits.shape == (3, CLASSES + 1)
    assert output.deltas.shape == (3, 4 * CLASSES)
    assert output.maps is not None
    assert output.maps.shape == (3, 10, 7, 7)
    masks = head.predict_masks(FEATURES, BOXES, None)
    assert masks.shape == (3, CLASSES, 14, 14)
    assert head.mask_resolution == 14


def test_masks_reuse_the_maps_of_the_boxes() -> None:
    head = shared_head()
    maps = head.predict_boxes(FEATURES, BOXES).maps
    assert maps is not None
    again = head.predict_masks(FEATURES, BOXES, None)
    assert torch.equal(head.predict_masks(FEATURES, BOXES, maps), again)
    assert torch.allclose(head.predict_masks(FEATURES, [], maps[1:2]), again[1:2], atol=1e-6)


def test_the_shared_head_classifies_boxes_by_the_mean_of_their_map() -> None:
    head = shared_head()
    output = head.predict_boxes(FEATURES, BOXES)
    assert output.maps is not None
    vectors = output.maps.flatten(2).sum(dim=2) / 49
    assert torch.allclose(output.class_logits, head.box_predictor.classes(vectors), atol=1e-6)


def test_shapes_of_the_split_head() -> None:
    head = split_head()
    output = head.predict_boxes(FEATURES, BOXES)
    assert output.class_logits.shape == (3, CLASSES + 1)
    assert output.deltas.shape == (3, 4 * CLASSES)
    assert output.maps is None
    assert head.predict_masks(FEATURES, BOXES, None).shape == (3, CLASSES, 28, 28)
    assert head.mask_resolution == 28


def test_the_split_heads_masks_pool_twice_as_finely_as_its_boxes() -> None:
    sizes = []

    def op(features: Tensor, rois: Tensor, size: int, scale: float) -> Tensor:
        sizes.append(size)
        return roi_align(features, rois, size, scale)

    head = split_head()
    head.pooler = RoIPooler(op, stride=16)
    head.predict_boxes(FEATURES, BOXES)
    head.predict_masks(FEATURES, BOXES, None)
    assert sizes == [7, 14]


@pytest.mark.parametrize("make", [shared_head, split_head])
def test_no_rois_give_no_predictions(make: type) -> None:
    head = make()
    output = head.predict_boxes(FEATURES, NO_BOXES)
    assert output.class_logits.shape == (0, CLASSES + 1)
    assert output.deltas.shape == (0, 4 * CLASSES)
    side = head.mask_resolution
    assert head.predict_masks(FEATURES, NO_BOXES, None).shape == (0, CLASSES, side, side)


@pytest.mark.parametrize("make", [shared_head, split_head])
def test_without_masks_there_is_no_mask_branch(make: type) -> None:
    names = [name for name, _ in make(mask_dim=None).named_parameters()]
    assert names
    assert not any("mask" in name for name in names)


def test_the_two_predictors_start_near_zero() -> None:
    torch.manual_seed(0)
    predictor = BoxPredictor(512, 20)
    assert predictor.classes.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert predictor.deltas.weight.std().item() == pytest.approx(0.001, rel=0.05)
    assert not predictor.classes.bias.any()
    assert not predictor.deltas.bias.any()


@pytest.mark.parametrize("make", [shared_head, split_head])
def test_all_parameters_learn(make: type) -> None:
    head = make()
    output = head.predict_boxes(FEATURES, BOXES)
    masks = head.predict_masks(FEATURES, BOXES, output.maps)
    (output.class_logits.square().sum() + output.deltas.sum() + masks.square().sum()).backward()
    idle = [n for n, p in head.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []
