"""The whole network: what comes out for what goes in, joined from its parts."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from models.mask_rcnn import MaskRCNN, build_mask_rcnn
from models.normalization import MSRA, Normalize
from models.resnet import resnet
from models.vgg import vgg16
from ops.roi_align import roi_align
from ops.roi_pool import roi_pool
from ops.roi_warp import roi_warp
from ops.structures import Detections, Polygons, Target

CLASSES = 4
RPN_SETTINGS = {"pre_nms": (200, 100), "post_nms": (40, 20), "batch_per_image": 32}
LOSSES = {"loss_rpn_cls", "loss_rpn_box", "loss_cls", "loss_box", "loss_mask"}


def narrow_resnet(stride: int) -> Any:
    return resnet(
        stride=stride, blocks=(1, 1, 1, 1), bottleneck=False, stem_channels=8, width=8, norm="group"
    )


def narrow_vgg(stride: int) -> Any:
    return vgg16(stride=stride, width=8, fc_dim=16, dropout=0.0)


def build(**changes: Any) -> MaskRCNN:
    torch.manual_seed(0)
    settings: dict[str, Any] = {
        "backbone": narrow_resnet,
        "stride": 16,
        "pooler": roi_align,
        "num_classes": CLASSES,
        "mask": True,
        "head": {"fc_dim": 16, "mask_dim": 8},
        "anchors": {"sizes": (16, 32, 64), "aspect_ratios": (0.5, 1, 2), "offset": 0.0},
        "rpn": RPN_SETTINGS,
        # Nothing is certain yet: all that is said is to be heard.
        "roi": {"batch_per_image": 16, "score_threshold": 0.0, "detections_per_image": 10},
    }
    return build_mask_rcnn(**{**settings, **changes})


def picture(height: int, width: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)


def objects(*boxes: tuple[float, float, float, float]) -> Target:
    corners = [[[x1, y1], [x2, y1], [x2, y2], [x1, y2]] for x1, y1, x2, y2 in boxes]
    return Target(
        torch.tensor(boxes).reshape(-1, 4),
        torch.arange(len(boxes)) % CLASSES,
        tuple(Polygons((np.array(ring),)) for ring in corners),
    )


IMAGES = [picture(64, 96), picture(80, 48, seed=1)]
TARGETS = [
    objects((5.0, 8.0, 40.0, 50.0), (50.0, 20.0, 90.0, 60.0)),
    objects((4.0, 30.0, 40.0, 70.0)),
]


def detections(model: MaskRCNN, images: list[Tensor], **arguments: Any) -> list[Detections]:
    with torch.no_grad():
        found = model(images, **arguments)
    assert isinstance(found, list)
    return found


def losses(model: MaskRCNN, *arguments: Any) -> dict[str, Tensor]:
    torch.manual_seed(0)
    terms = model(*arguments)
    assert isinstance(terms, dict)
    return terms


@pytest.mark.parametrize("training", [True, False])
def test_losses_with_targets_and_detections_without(training: bool) -> None:
    model = build().train(training)
    terms = losses(model, IMAGES, TARGETS)
    assert set(terms) == LOSSES
    assert all(torch.isfinite(term) and term.ndim == 0 for term in terms.values())
    found = detections(model, IMAGES)
    assert [type(d) for d in found] == [Detections, Detections]
    assert model.training is training


def test_the_loss_is_the_same_in_training_and_in_evaluation() -> None:
    model = build()  # with a norm that has no two modes
    one = losses(model.train(), IMAGES, TARGETS)
    other = losses(model.eval(), IMAGES, TARGETS)
    assert all(torch.equal(one[name], other[name]) for name in LOSSES)


@pytest.mark.parametrize("pooler", [roi_pool, roi_warp, roi_align])
@pytest.mark.parametrize("stride", [16, 32])
@pytest.mark.parametrize("backbone", [narrow_resnet, narrow_vgg])
def test_every_network_learns_and_detects_with_every_pooler(
    backbone: Any, stride: int, pooler: Any
) -> None:
    model = build(backbone=backbone, stride=stride, pooler=pooler)
    sum(losses(model, IMAGES, TARGETS).values()).backward()
    without = [n for n, p in model.named_parameters() if p.grad is None]
    assert without == []
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    for found, image in zip(detections(model.eval(), IMAGES), IMAGES, strict=True):
        height, width = image.shape[1:]
        assert 0 < len(found) <= 10
        assert (found.boxes >= 0).all()
        assert (found.boxes <= torch.tensor([width, height, width, height])).all()
        assert torch.equal(found.scores, found.scores.sort(descending=True).values)
        assert found.labels.min() >= 0
        assert found.labels.max() < CLASSES
        assert found.masks is not None
        assert len(found.masks) == len(found)
        assert ((found.masks >= 0) & (found.masks <= 1)).all()


def test_without_masks_it_is_faster_rcnn() -> None:
    model = build(mask=False)
    boxes_alone = [Target(t.boxes, t.labels) for t in TARGETS]
    assert set(losses(model, IMAGES, boxes_alone)) == LOSSES - {"loss_mask"}
    assert all(found.masks is None for found in detections(model, IMAGES))
    assert not any("mask" in name for name in model.state_dict())


def test_an_image_without_objects_has_a_background_loss() -> None:
    model = build()
    terms = losses(model, IMAGES[:1], [objects()])
    assert terms["loss_rpn_cls"] > 0
    assert terms["loss_cls"] > 0
    assert [terms[n].detach() for n in ("loss_rpn_box", "loss_box", "loss_mask")] == [0, 0, 0]
    sum(terms.values()).backward()
    assert all(p.grad is not None for p in model.parameters())  # as ranks in step require


def test_an_image_without_objects_among_others() -> None:
    terms = losses(build(), IMAGES, [TARGETS[0], objects()])
    assert all(torch.isfinite(term) and term > 0 for term in terms.values())


def test_given_proposals_replace_those_of_the_rpn() -> None:
    boxes = [t.boxes + 1 for t in TARGETS]
    model = build()
    assert set(losses(model, IMAGES, TARGETS, boxes)) == {"loss_cls", "loss_box", "loss_mask"}
    one = detections(model, IMAGES, proposals=boxes)
    other = detections(model, IMAGES, proposals=[boxes[0], boxes[1][:0]])
    assert len(one[0]) > 0
    assert torch.allclose(one[0].boxes, other[0].boxes, atol=1e-4)
    assert len(other[1]) == 0


def test_a_network_without_rpn_must_be_given_proposals() -> None:
    model = build(rpn=None)
    assert not any(name.startswith("rpn") for name in model.state_dict())
    assert set(losses(model, IMAGES, TARGETS, [t.boxes for t in TARGETS])) == {
        "loss_cls",
        "loss_box",
        "loss_mask",
    }
    with pytest.raises(ValueError, match="give it proposals"):
        model(IMAGES)


@pytest.mark.parametrize("norm", ["batch", "group", "frozen"])
def test_no_rois_at_all_give_finite_losses(norm: str) -> None:
    def backbone(stride: int) -> Any:
        return resnet(
            stride=stride,
            blocks=(1, 1, 1, 1),
            bottleneck=False,
            stem_channels=8,
            width=8,
            norm=norm,
        )

    model = build(backbone=backbone).train()
    terms = losses(model, IMAGES[:1], [objects()], [torch.zeros(0, 4)])
    assert [term.detach() for term in terms.values()] == [0, 0, 0]
    sum(terms.values()).backward()
    assert all(torch.isfinite(tensor).all() for tensor in model.state_dict().values())


# Images side by side


def test_another_image_of_the_same_size_changes_no_detections() -> None:
    model = build().eval()
    image, other = picture(64, 96), picture(64, 96, seed=5)
    alone, beside = detections(model, [image])[0], detections(model, [image, other])[0]
    assert torch.allclose(alone.boxes, beside.boxes, atol=1e-3)
    assert torch.allclose(alone.scores, beside.scores, atol=1e-5)


def test_padding_changes_only_the_cells_whose_field_reaches_it() -> None:
    def frozen(stride: int) -> Any:
        return resnet(
            stride=stride, blocks=(1, 1, 1, 1), bottleneck=False, stem_channels=8, width=8
        )

    model = build(backbone=frozen).eval()
    image, wider = picture(64, 512), picture(64, 704, seed=5)
    with torch.no_grad():
        alone = model.backbone(model.normalize([image]))
        padded = model.backbone(model.normalize([image, wider]))[:1]
    assert alone.shape[-1] == 32
    assert padded.shape[-1] == 44
    assert torch.allclose(alone[..., :20], padded[..., :20], atol=1e-5)
    found = detections(model, [image, wider])[0]
    assert found.boxes[:, 2].max() <= 512


def test_the_order_of_images_is_the_order_of_detections() -> None:
    model = build().eval()
    forth, back = detections(model, IMAGES), detections(model, IMAGES[::-1])
    for one, other in zip(forth, back[::-1], strict=True):
        assert torch.allclose(one.scores, other.scores, atol=1e-5)


def test_channels_are_reversed_if_the_weights_are_bgr() -> None:
    model = build().eval()
    model.normalize = Normalize(MSRA)
    image = picture(32, 32)
    network_input = model.normalize([image])[0]
    expected = image.flip(0).float() - torch.tensor(MSRA.mean).view(3, 1, 1)
    assert torch.allclose(network_input, expected)


def test_any_callable_can_be_the_pooler() -> None:
    calls = []

    def average_everything(features: Tensor, rois: Tensor, size: int, scale: float) -> Tensor:
        calls.append(scale)
        of_image = features.mean(dim=(2, 3))[rois[:, 0].long()]
        return of_image[:, :, None, None].expand(-1, -1, size, size)

    model = build(pooler=average_everything, stride=32)
    assert set(losses(model, IMAGES, TARGETS)) == LOSSES
    assert set(calls) == {1 / 32}


def test_lower_precision_gives_finite_losses_near_the_others() -> None:
    model = build()
    full = losses(model, IMAGES, TARGETS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = losses(model, IMAGES, TARGETS)
    sum(half.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    for name in ("loss_rpn_cls", "loss_cls", "loss_mask"):
        assert half[name].dtype == torch.float32
        assert half[name].item() == pytest.approx(full[name].item(), rel=0.05)
