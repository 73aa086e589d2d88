"""detectron2's names for the layers of its C4, C5 and DC5 models."""

import re

# Ours on the left; what the mask branch is called depends on the head that it belongs to.
DETECTOR = {
    "rpn.head.conv": "proposal_generator.rpn_head.conv",
    "rpn.head.objectness": "proposal_generator.rpn_head.objectness_logits",
    "rpn.head.deltas": "proposal_generator.rpn_head.anchor_deltas",
    "roi_heads.head.box_layers.fc1": "roi_heads.box_head.fc1",
    "roi_heads.head.box_layers.fc2": "roi_heads.box_head.fc2",
    "roi_heads.head.box_predictor.classes": "roi_heads.box_predictor.cls_score",
    "roi_heads.head.box_predictor.deltas": "roi_heads.box_predictor.bbox_pred",
    "roi_heads.head.mask_predictor.deconv": "roi_heads.mask_head.deconv",
    "roi_heads.head.mask_predictor.logits": "roi_heads.mask_head.predictor",
    "roi_heads.head.mask_convs.conv1": "roi_heads.mask_head.mask_fcn1",
    "roi_heads.head.mask_convs.conv2": "roi_heads.mask_head.mask_fcn2",
    "roi_heads.head.mask_convs.conv3": "roi_heads.mask_head.mask_fcn3",
    "roi_heads.head.mask_convs.conv4": "roi_heads.mask_head.mask_fcn4",
    "roi_heads.head.mask_convs.predictor.deconv": "roi_heads.mask_head.deconv",
    "roi_heads.head.mask_convs.predictor.logits": "roi_heads.mask_head.predictor",
}
LAYERS = {
    "stem.conv.": "stem.conv1.",
    "stem.norm.": "stem.conv1.norm.",
    ".shortcut.conv.": ".shortcut.",
    ".norm1.": ".conv1.norm.",
    ".norm2.": ".conv2.norm.",
    ".norm3.": ".conv3.norm.",
}


def detectron2_backbone_name(ours: str) -> str:
    """`res3.1.norm2.weight` -> `res3.1.conv2.norm.weight`."""
    for layer, theirs in LAYERS.items():
        ours = ours.replace(layer, theirs)
    return ours


def detectron2_name(ours: str) -> str:
    """The whole detector's: `roi_heads.head.res5.0.conv1.weight` -> `roi_heads.res5.0...`.

    Raises:
        KeyError: a layer that detectron2's models do not have, such as VGG16's.
    """
    stage = re.fullmatch(r"(backbone|roi_heads)\.(?:head\.)?((?:stem|res\d)\..+)", ours)
    if stage:
        return f"{stage[1]}.{detectron2_backbone_name(stage[2])}"
    layer, leaf = ours.rsplit(".", 1)
    return f"{DETECTOR[layer]}.{leaf}"
