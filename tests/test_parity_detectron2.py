"""With detectron2's weights, our network computes what detectron2 computes, forward and backward.

The golden folder holds three small models with seeded weights and detectron2's own outputs on two
images each; GOLDEN_DIR names another one.
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
from tests.golden_models import MODELS, Golden, load_golden

RELATIVE = 1e-4
LOSSES = {
    "loss_cls": "train_loss_cls",
    "loss_box": "train_loss_box_reg",
    "loss_mask": "train_loss_mask",
    "loss_rpn_cls": "train_loss_rpn_cls",
    "loss_rpn_box": "train_loss_rpn_loc",
}
both_images = pytest.mark.parametrize("index", [0, 1])


@pytest.fixture(scope="session")
def golden_folder(request: pytest.FixtureRequest) -> Path:
    given = os.environ.get("GOLDEN_DIR")
    return Path(given) if given else request.getfixturevalue("shared") / "golden"


@pytest.fixture(scope="module", params=MODELS)
def golden(request: pytest.FixtureRequest, golden_folder: Path) -> Golden:
    return load_golden(request.param, golden_folder)


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, relative to the largest value."""
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max() / theirs.abs().max())


@torch.no_grad()
def features_of(golden: Golden, index: int) -> Tensor:
    return golden.model.backbone(golden.model.normalize([golden.images[index]]))


def size_of(golden: Golden, index: int) -> tuple[int, int]:
    return tuple(golden.images[index].shape[1:])


def partners(ours: Tensor, theirs: Tensor) -> Tensor:
    """For each of their boxes, the index of ours nearest to it; each of ours serves once."""
    distance = (theirs[:, None] - ours[None]).abs().amax(dim=2)
    chosen = []
    for row in distance:
        row[chosen] = torch.inf
        chosen.append(int(row.argmin()))
    return torch.tensor(chosen, dtype=torch.int64)


def test_the_input_is_normalised_alike(golden: Golden) -> None:
    ours = golden.model.normalize([golden.images[0]])
    assert relative_error(ours, golden.of_image(0, "input_nchw")) <= 1e-6


@both_images
def test_features(golden: Golden, index: int) -> None:
    ours = features_of(golden, index)
    assert relative_error(ours, golden.of_image(index, "features").view(ours.shape)) <= RELATIVE


@both_images
@torch.no_grad()
def test_rpn_outputs(golden: Golden, index: int) -> None:
    features = features_of(golden, index)
    logits, deltas = golden.model.rpn.head(features)
    height, width = features.shape[-2:]
    for ours, name in ((logits, "rpn_logits"), (deltas, "rpn_deltas")):
        theirs = golden.of_image(index, name).squeeze(0)  # [A, H, W] or [4 A, H, W]
        maps = ours.reshape(height, width, len(theirs)).permute(2, 0, 1)
        assert relative_error(maps, theirs) <= RELATIVE


@both_images
@torch.no_grad()
def test_proposals(golden: Golden, index: int) -> None:
    proposals, _ = golden.model.rpn(features_of(golden, index), [size_of(golden, index)], None)
    boxes = golden.of_image(index, "proposals_xyxy")
    logits = golden.of_image(index, "proposal_logits")
    assert len(proposals[0].boxes) == len(boxes)
    order = partners(proposals[0].boxes, boxes)  # near ties may stand in another order
    assert relative_error(proposals[0].boxes[order], boxes) <= RELATIVE
    assert relative_error(proposals[0].logits[order], logits) <= RELATIVE


@both_images
@torch.no_grad()
def test_pooled_features(golden: Golden, index: int) -> None:
    head = golden.model.roi_heads.head
    boxes = golden.of_image(index, "proposals_xyxy")[:8]
    pooled = head.pooler(features_of(golden, index), [boxes], head.pool_size)
    assert relative_error(pooled, golden.of_image(index, "pooled_first8")) <= RELATIVE


@both_images
@torch.no_grad()
def test_class_logits_and_box_deltas(golden: Golden, index: int) -> None:
    boxes = golden.of_image(index, "proposals_xyxy")
    output = golden.model.roi_heads.head.predict_boxes(features_of(golden, index), [boxes])
    theirs = golden.of_image(index, "class_logits")
    assert relative_error(output.class_logits, theirs) <= RELATIVE
    assert relative_error(output.deltas, golden.of_image(index, "box_deltas")) <= RELATIVE


def in_their_order(found: Detections, golden: Golden, index: int) -> Detections:
    """Ours, each at the place of the one of theirs that has its class and is nearest."""
    theirs = golden.of_image(index, "det_boxes_xyxy")
    labels = golden.of_image(index, "det_classes")
    assert sorted(found.labels.tolist()) == sorted(labels.tolist())
    order = torch.full_like(labels, -1)
    for label in labels.unique():
        mine, other = (found.labels == label).nonzero()[:, 0], (labels == label).nonzero()[:, 0]
        order[other] = mine[partners(found.boxes[mine], theirs[other])]
    assert sorted(order.tolist()) == list(range(len(found)))
    assert found.masks is not None
    return Detections(
        found.boxes[order], found.scores[order], found.labels[order], found.masks[order]
    )


@both_images
@torch.no_grad()
def test_detections(golden: Golden, index: int) -> None:
    found = in_their_order(golden.model([golden.images[index]])[0], golden, index)
    boxes = golden.of_image(index, "det_boxes_xyxy")
    probabilities = golden.of_image(index, "det_mask_probs").view(found.masks.shape)
    assert len(found) > 0
    assert torch.allclose(found.boxes, boxes, rtol=0, atol=0.01)
    assert torch.diagonal(box_iou(found.boxes, boxes)).min() > 0.999
    assert torch.allclose(found.scores, golden.of_image(index, "det_scores"), rtol=0, atol=1e-4)
    assert torch.allclose(found.masks, probabilities, rtol=0, atol=1e-3)


@both_images
@torch.no_grad()
def test_pasted_masks(golden: Golden, index: int) -> None:
    found = in_their_order(golden.model([golden.images[index]])[0], golden, index)
    shape = tuple(golden.expected[f"image{index}_det_masks_full_shape"].tolist())
    packed = golden.expected[f"image{index}_det_masks_full_packed"]
    theirs = np.unpackbits(packed, count=int(np.prod(shape))).reshape(shape).astype(bool)
    ours = paste_masks(found.masks, found.boxes, size_of(golden, index)).numpy().astype(bool)
    assert theirs.any()
    for mine, other in zip(ours, theirs, strict=True):
        union = (mine | other).sum()
        assert union == 0 or (mine & other).sum() / union >= 0.999


def test_training_losses_and_gradients(golden: Golden) -> None:
    golden.model.zero_grad()
    losses = golden.model(golden.images, golden.targets)
    assert set(losses) == set(LOSSES)
    for ours, theirs in LOSSES.items():
        assert losses[ours].item() == pytest.approx(float(golden.expected[theirs]), rel=1e-5)
    sum(losses.values()).backward()
    norms = {
        detectron2_name(name): float(parameter.grad.norm())
        for name, parameter in golden.model.named_parameters()
        if parameter.grad is not None
    }
    expected = {
        name.removeprefix("gradnorm/"): float(value)
        for name, value in golden.expected.items()
        if name.startswith("gradnorm/")
    }
    assert norms.keys() == expected.keys()  # what is frozen there is frozen here
    assert norms == pytest.approx(expected, rel=1e-3)
