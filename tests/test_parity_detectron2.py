"""With detectron2's weights, this network computes what detectron2 computes, forward and backward.

The numbers in `tests/golden` are detectron2's for weights and images that are drawn from a seed.
Those of the shared data are for larger models on photographs; GOLDEN_DIR names another such folder.
"""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.ops import box_iou

from models.weight_names import detectron2_name
from ops.masks import paste_masks
from ops.structures import Detections
from tests.golden.inputs import some_of_gradient
from tests.golden_models import MODELS, SHARED, Golden, load_drawn, load_shared

RELATIVE = 1e-4
LOSSES = {
    "loss_cls": "train_loss_cls",
    "loss_box": "train_loss_box_reg",
    "loss_mask": "train_loss_mask",
    "loss_rpn_cls": "train_loss_rpn_cls",
    "loss_rpn_box": "train_loss_rpn_loc",
}
both_images = pytest.mark.parametrize("index", [0, 1])


@pytest.fixture(
    scope="module",
    params=[*((name, load_drawn) for name in MODELS), *((name, load_shared) for name in SHARED)],
    ids=[*(f"drawn-{name}" for name in MODELS), *(f"shared-{name}" for name in SHARED)],
)
def golden(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Golden:
    name, load = request.param
    if load is load_drawn:
        return load(name, tmp_path_factory.mktemp("weights"))
    given = os.environ.get("GOLDEN_DIR")
    return load(name, Path(given) if given else request.getfixturevalue("shared") / "golden")


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest value."""
    assert actual.shape == expected.shape
    return float((actual - expected).abs().max() / expected.abs().max())


def assert_close_to_kept(golden: Golden, index: int, name: str, actual: Tensor) -> None:
    """Compare a large array with those of its values that are kept."""
    kept = golden.of_image(index, name).flatten()
    assert relative_error(actual.flatten()[:: golden.step], kept) <= RELATIVE


@torch.no_grad()
def features_of(golden: Golden, index: int) -> Tensor:
    return golden.model.backbone(golden.model.normalize([golden.images[index]]))


def size_of(golden: Golden, index: int) -> tuple[int, int]:
    return tuple(golden.images[index].shape[1:])


def nearest_boxes(boxes: Tensor, expected: Tensor) -> Tensor:
    """For each expected box, the index of the nearest of `boxes`, each of which serves once."""
    distance = (expected[:, None] - boxes[None]).abs().amax(dim=2)
    chosen = []
    for row in distance:
        row[chosen] = torch.inf
        chosen.append(int(row.argmin()))
    return torch.tensor(chosen, dtype=torch.int64)


def test_the_normalised_input(golden: Golden) -> None:
    actual = golden.model.normalize([golden.images[0]])
    kept = golden.of_image(0, "input").flatten()
    assert relative_error(actual.flatten()[:: golden.step**2], kept) <= 1e-6


@both_images
def test_features(golden: Golden, index: int) -> None:
    assert_close_to_kept(golden, index, "features", features_of(golden, index))


@both_images
@torch.no_grad()
def test_rpn_outputs(golden: Golden, index: int) -> None:
    features = features_of(golden, index)
    height, width = features.shape[-2:]
    logits, deltas = golden.model.rpn.head(features)
    for actual, name in ((logits, "rpn_logits"), (deltas, "rpn_deltas")):
        maps = actual.reshape(height, width, -1).permute(2, 0, 1)  # [A, H, W] or [4 A, H, W]
        assert_close_to_kept(golden, index, name, maps)


@both_images
@torch.no_grad()
def test_proposals(golden: Golden, index: int) -> None:
    (proposals,), _ = golden.model.rpn(features_of(golden, index), [size_of(golden, index)], None)
    boxes = golden.of_image(index, "proposals_xyxy")
    assert len(proposals.boxes) == len(boxes)
    order = nearest_boxes(proposals.boxes, boxes)  # near ties may stand in another order
    assert relative_error(proposals.boxes[order], boxes) <= RELATIVE
    logits = golden.of_image(index, "proposal_logits")
    assert relative_error(proposals.logits[order], logits) <= RELATIVE


@both_images
@torch.no_grad()
def test_pooled_features(golden: Golden, index: int) -> None:
    head = golden.model.roi_heads.head
    boxes = golden.of_image(index, "proposals_xyxy")[: golden.pooled]
    pooled = head.pooler(features_of(golden, index), [boxes], head.pool_size)
    assert_close_to_kept(golden, index, "pooled", pooled)


@both_images
@torch.no_grad()
def test_class_logits_and_box_deltas(golden: Golden, index: int) -> None:
    boxes = golden.of_image(index, "proposals_xyxy")
    output = golden.model.roi_heads.head.predict_boxes(features_of(golden, index), [boxes])
    assert_close_to_kept(golden, index, "class_logits", output.class_logits)
    assert_close_to_kept(golden, index, "box_deltas", output.deltas)


@torch.no_grad()
def detections_in_expected_order(golden: Golden, index: int) -> Detections:
    """The detections, each at the place of the expected one of its class that is nearest."""
    (detections,) = golden.model([golden.images[index]])
    boxes = golden.of_image(index, "det_boxes_xyxy")
    labels = golden.of_image(index, "det_classes")
    assert sorted(detections.labels.tolist()) == sorted(labels.tolist())
    order = torch.full_like(labels, -1)
    for label in labels.unique():
        actual = (detections.labels == label).nonzero()[:, 0]
        expected = (labels == label).nonzero()[:, 0]
        order[expected] = actual[nearest_boxes(detections.boxes[actual], boxes[expected])]
    assert sorted(order.tolist()) == list(range(len(detections)))
    assert detections.masks is not None
    return Detections(
        *(getattr(detections, name)[order] for name in ("boxes", "scores", "labels", "masks"))
    )


@both_images
def test_detections(golden: Golden, index: int) -> None:
    detections = detections_in_expected_order(golden, index)
    boxes = golden.of_image(index, "det_boxes_xyxy")
    scores = golden.of_image(index, "det_scores")
    masks = golden.of_image(index, "det_mask_probs").flatten()
    assert len(detections) > 0
    assert torch.allclose(detections.boxes, boxes, rtol=0, atol=0.01)
    assert torch.diagonal(box_iou(detections.boxes, boxes)).min() > 0.999
    assert torch.allclose(detections.scores, scores, rtol=0, atol=1e-4)
    assert torch.allclose(detections.masks.flatten()[:: golden.step], masks, rtol=0, atol=1e-3)


@both_images
def test_pasted_masks(golden: Golden, index: int) -> None:
    detections = detections_in_expected_order(golden, index)
    size = size_of(golden, index)
    pasted = paste_masks(detections.masks, detections.boxes, size).numpy().astype(bool)
    packed = golden.expected[f"image{index}_det_masks_full_packed"]
    expected = np.unpackbits(packed, count=pasted.size).reshape(pasted.shape).astype(bool)
    assert expected.any()
    for mask, expected_mask in zip(pasted, expected, strict=True):
        union = (mask | expected_mask).sum()
        assert union == 0 or (mask & expected_mask).sum() / union >= 0.999


def test_training_losses_and_gradients(golden: Golden) -> None:
    golden.model.zero_grad()
    losses = golden.model(golden.images, golden.targets)
    assert set(losses) == set(LOSSES)
    for name, name_there in LOSSES.items():
        assert losses[name].item() == pytest.approx(float(golden.expected[name_there]), rel=1e-5)
    sum(losses.values()).backward()
    gradients = {
        detectron2_name(name): parameter.grad
        for name, parameter in golden.model.named_parameters()
        if parameter.grad is not None
    }
    expected = {
        name.removeprefix("gradnorm/"): float(value)
        for name, value in golden.expected.items()
        if name.startswith("gradnorm/")
    }
    assert gradients.keys() == expected.keys()  # what is frozen there is frozen here
    norms = {name: float(gradient.norm()) for name, gradient in gradients.items()}
    assert norms == pytest.approx(expected, rel=1e-3)
    if "gradient_values" in golden.expected:
        kept = golden.expected["gradient_values"]
        for name in expected:
            gradient = gradients[name].flatten()
            values = gradient[some_of_gradient(len(gradient))].numpy()
            typical = expected[name] / len(gradient) ** 0.5
            assert values == pytest.approx(kept[: len(values)], rel=0, abs=1e-2 * typical), name
            kept = kept[len(values) :]
