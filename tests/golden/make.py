"""Compute the numbers in this folder with an installed detectron2 (see README.md)."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2 import model_zoo
from detectron2.config import CfgNode
from detectron2.layers import paste_masks_in_image
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances, PolygonMasks
from detectron2.utils.events import EventStorage

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.golden.inputs import NUM_CLASSES, OBJECTS, POOLED, STEP, image, some_of_gradient, weight

C4 = "COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x.yaml"
DC5 = "COCO-InstanceSegmentation/mask_rcnn_R_50_DC5_1x.yaml"
MODELS = {  # the zoo's configuration, the pooler, the dilation of res5
    "c4_align": (C4, "ROIAlignV2", 1),
    "c4_pool": (C4, "ROIPool", 1),
    "c5_align": (DC5, "ROIAlignV2", 1),
    "c5_pool": (DC5, "ROIPool", 1),
    "dc5_align": (DC5, "ROIAlignV2", 2),
}


def configuration(name: str) -> CfgNode:
    zoo, pooler, dilation = MODELS[name]
    cfg = model_zoo.get_config(zoo)
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.RESNETS.STEM_OUT_CHANNELS = 4
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 16
    cfg.MODEL.RESNETS.WIDTH_PER_GROUP = 4
    cfg.MODEL.RESNETS.RES5_DILATION = dilation
    cfg.MODEL.ROI_BOX_HEAD.FC_DIM = 32
    cfg.MODEL.ROI_BOX_HEAD.POOLER_TYPE = pooler
    cfg.MODEL.ROI_MASK_HEAD.CONV_DIM = 16
    cfg.MODEL.ROI_MASK_HEAD.POOLER_TYPE = pooler
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = NUM_CLASSES
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.05
    cfg.TEST.DETECTIONS_PER_IMAGE = 15
    for use in ("TRAIN", "TEST"):
        cfg.MODEL.RPN[f"PRE_NMS_TOPK_{use}"] = 300
        cfg.MODEL.RPN[f"POST_NMS_TOPK_{use}"] = 40
    # Larger than what there is to sample from, so that nothing is drawn at random.
    cfg.MODEL.RPN.BATCH_SIZE_PER_IMAGE = cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = 100000
    return cfg


def build(name: str) -> Any:
    """The model with every weight and statistic drawn; anchors and pixel means stay."""
    model = build_model(configuration(name))
    state = model.state_dict()
    drawn = {k: torch.from_numpy(weight(k, tuple(v.shape))) for k, v in state.items() if "." in k}
    model.load_state_dict(state | {k: v for k, v in drawn.items() if "cell_anchors" not in k})
    return model


def as_input(index: int) -> dict[str, Any]:
    """An image and its objects in detectron2's form."""
    pixels = torch.from_numpy(image(index)).permute(2, 0, 1)  # [3, H, W]
    height, width = pixels.shape[1:]
    polygons = [np.array(outline, dtype=np.float64) for _, outline in OBJECTS[index]]
    corners = [p.reshape(-1, 2) for p in polygons]
    objects = Instances((height, width))
    objects.gt_boxes = Boxes([[*p.min(axis=0), *p.max(axis=0)] for p in corners])
    objects.gt_classes = torch.tensor([label for label, _ in OBJECTS[index]])
    objects.gt_masks = PolygonMasks([[polygon] for polygon in polygons])
    return {"image": pixels, "instances": objects, "height": height, "width": width}


def sampled(values: torch.Tensor) -> np.ndarray:
    return values.flatten()[::STEP].numpy()


@torch.no_grad()
def inference(model: Any, given: dict[str, Any]) -> dict[str, np.ndarray]:
    images = model.preprocess_image([given])
    features = model.backbone(images.tensor)
    maps = list(features.values())
    logits, deltas = model.proposal_generator.rpn_head(maps)
    proposals, _ = model.proposal_generator(images, features)
    boxes = proposals[0].proposal_boxes
    heads = model.roi_heads
    if hasattr(heads, "res5"):
        pooler = heads.pooler
        vectors = heads.res5(pooler(maps, [boxes])).mean(dim=[2, 3])
    else:
        pooler = heads.box_pooler
        vectors = heads.box_head(pooler(maps, [boxes]))
    class_logits, box_deltas = heads.box_predictor(vectors)
    detections = model.inference([given], do_postprocess=False)[0]
    masks = paste_masks_in_image(
        detections.pred_masks[:, 0], detections.pred_boxes, detections.image_size
    )
    return {
        "input": sampled(images.tensor)[::STEP],
        "features": sampled(maps[0]),
        "rpn_logits": sampled(logits[0]),
        "rpn_deltas": sampled(deltas[0]),
        "proposals_xyxy": boxes.tensor.numpy(),
        "proposal_logits": proposals[0].objectness_logits.numpy(),
        "pooled": sampled(pooler(maps, [boxes[:POOLED]])),
        "class_logits": sampled(class_logits),
        "box_deltas": sampled(box_deltas),
        "det_boxes_xyxy": detections.pred_boxes.tensor.numpy(),
        "det_scores": detections.scores.numpy(),
        "det_classes": detections.pred_classes.numpy(),
        "det_mask_probs": sampled(detections.pred_masks),
        "det_masks_full_packed": np.packbits(masks.numpy()),
    }


def training(model: Any, given: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    with EventStorage():
        losses = model(given)
    sum(losses.values()).backward()
    result = {f"train_{name}": loss.detach().numpy() for name, loss in losses.items()}
    gradients = {k: p.grad for k, p in model.named_parameters() if p.grad is not None}
    result["gradient_names"] = np.array(json.dumps(list(gradients)))
    result["gradient_norms"] = torch.stack([g.norm() for g in gradients.values()]).numpy()
    values = [g.flatten()[some_of_gradient(g.numel())] for g in gradients.values()]
    result["gradient_values"] = torch.cat(values).numpy()
    return result


def main() -> None:
    given = [as_input(0), as_input(1)]
    for name in MODELS:
        model = build(name)
        numbers = training(model, given)
        model.eval()
        for index in (0, 1):
            numbers |= {f"image{index}_{k}": v for k, v in inference(model, given[index]).items()}
        np.savez_compressed(Path(__file__).with_name(f"{name}.npz"), **numbers)


if __name__ == "__main__":
    main()
