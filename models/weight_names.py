"""What torchvision, detectron2 and Detectron call the layers of our networks.

Our own names, of a backbone: `stem.conv.weight`, `res3.1.norm2.bias`, `features.28.weight`,
`fc6.weight`; of a detector: `rpn.head.conv.weight`, `roi_heads.head.box_predictor.deltas.bias`.

Detectron keeps its models, and MSRA its ResNets, under Caffe2's names. Detectron counts the
background as class 0 and orders anchors ratio by ratio; here the background is last and anchors are
ordered size by size.
"""

import re

import torch
from torch import Tensor

# torchvision

TORCHVISION_STAGES = {"res2": "layer1", "res3": "layer2", "res4": "layer3", "res5": "layer4"}
TORCHVISION_STEM = {"conv": "conv1", "norm": "bn1"}
TORCHVISION_SHORTCUT = {"conv": "downsample.0", "norm": "downsample.1"}
TORCHVISION_FC = {"fc6": "classifier.0", "fc7": "classifier.3"}


def torchvision_name(ours: str) -> str:
    """`res3.1.norm2.weight` -> `layer2.1.bn2.weight`, `fc6.bias` -> `classifier.0.bias`."""
    stage, rest = ours.split(".", 1)
    if stage == "features":
        return ours
    if stage in TORCHVISION_FC:
        return f"{TORCHVISION_FC[stage]}.{rest}"
    if stage == "stem":
        layer, leaf = rest.split(".")
        return f"{TORCHVISION_STEM[layer]}.{leaf}"
    block, layer, leaf = rest.split(".", 2)
    if layer == "shortcut":
        layer, leaf = leaf.split(".")
        layer = TORCHVISION_SHORTCUT[layer]
    return f"{TORCHVISION_STAGES[stage]}.{block}.{layer.replace('norm', 'bn')}.{leaf}"


def with_epsilon(tensors: dict[str, Tensor], epsilon: float) -> dict[str, Tensor]:
    """Variances less `epsilon`, for weights made where none was added to them.

    torchvision's first detection models normalised without one; ours adds it back.
    """
    return {
        name: tensor - epsilon if name.endswith("running_var") else tensor
        for name, tensor in tensors.items()
    }


# detectron2

# Ours on the left; what the mask branch is called depends on the head that it belongs to.
DETECTRON2_LAYERS = {
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
DETECTRON2_SUBLAYERS = {
    "stem.conv.": "stem.conv1.",
    "stem.norm.": "stem.conv1.norm.",
    ".shortcut.conv.": ".shortcut.",
    ".norm1.": ".conv1.norm.",
    ".norm2.": ".conv2.norm.",
    ".norm3.": ".conv3.norm.",
}


def detectron2_backbone_name(ours: str) -> str:
    """`res3.1.norm2.weight` -> `res3.1.conv2.norm.weight`."""
    for layer, theirs in DETECTRON2_SUBLAYERS.items():
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
    return f"{DETECTRON2_LAYERS[layer]}.{leaf}"


# Detectron

DETECTRON_LAYERS = {
    "rpn.head.conv": "conv_rpn",
    "rpn.head.objectness": "rpn_cls_logits",
    "rpn.head.deltas": "rpn_bbox_pred",
    "roi_heads.head.box_layers.fc1": "fc6",
    "roi_heads.head.box_layers.fc2": "fc7",
    "roi_heads.head.box_layers.fc6": "fc6",
    "roi_heads.head.box_layers.fc7": "fc7",
    "roi_heads.head.box_predictor.classes": "cls_score",
    "roi_heads.head.box_predictor.deltas": "bbox_pred",
    "roi_heads.head.mask_predictor.deconv": "conv5_mask",
    "roi_heads.head.mask_predictor.logits": "mask_fcn_logits",
    "roi_heads.head.mask_convs.conv1": "_[mask]_fcn1",
    "roi_heads.head.mask_convs.conv2": "_[mask]_fcn2",
    "roi_heads.head.mask_convs.conv3": "_[mask]_fcn3",
    "roi_heads.head.mask_convs.conv4": "_[mask]_fcn4",
    "roi_heads.head.mask_convs.predictor.deconv": "conv5_mask",
    "roi_heads.head.mask_convs.predictor.logits": "mask_fcn_logits",
}
# By place in `features`.
CAFFE_CONVOLUTIONS = {
    0: "conv1_1",
    2: "conv1_2",
    5: "conv2_1",
    7: "conv2_2",
    10: "conv3_1",
    12: "conv3_2",
    14: "conv3_3",
    17: "conv4_1",
    19: "conv4_2",
    21: "conv4_3",
    24: "conv5_1",
    26: "conv5_2",
    28: "conv5_3",
}
CAFFE_BRANCHES = {"shortcut": "branch1", "1": "branch2a", "2": "branch2b", "3": "branch2c"}
CAFFE_LEAVES = {"conv.weight": "w", "conv.bias": "b"} | {
    f"norm.{ours}": f"bn_{theirs}"
    for ours, theirs in {
        "weight": "s",
        "bias": "b",
        "running_mean": "rm",
        "running_var": "riv",
    }.items()
}
# Other spellings of the same, in MSRA's files.
CAFFE_SPELLINGS = {"gamma": "s", "beta": "b", "running_mean": "rm", "running_var": "riv"}
ASPECT_RATIOS = 3
EPSILON = 1e-5


def detectron_backbone_name(ours: str) -> str:
    """`res3.1.norm2.weight` -> `res3_1_branch2b_bn_s`, `features.0.bias` -> `conv1_1_b`."""
    stage, rest = ours.split(".", 1)
    if stage == "features":
        layer, leaf = rest.split(".")
        return f"{CAFFE_CONVOLUTIONS[int(layer)]}_{CAFFE_LEAVES[f'conv.{leaf}']}"
    if stage == "stem":
        return f"{'conv1' if rest.startswith('conv') else 'res_conv1'}_{CAFFE_LEAVES[rest]}"
    if stage in ("fc6", "fc7"):
        return f"{stage}_{CAFFE_LEAVES[f'conv.{rest}']}"
    block, layer, leaf = rest.split(".", 2)
    if layer == "shortcut":
        return f"{stage}_{block}_{CAFFE_BRANCHES[layer]}_{CAFFE_LEAVES[leaf]}"
    return f"{stage}_{block}_{CAFFE_BRANCHES[layer[-1]]}_{CAFFE_LEAVES[f'{layer[:-1]}.{leaf}']}"


def detectron_name(ours: str) -> str:
    """The whole detector's: `rpn.head.conv.weight` -> `conv_rpn_w`.

    Raises:
        KeyError: a layer that Detectron's models do not have.
    """
    stage = re.fullmatch(r"(?:backbone|roi_heads\.head)\.((?:stem|res\d)\..+)", ours)
    if stage:
        return detectron_backbone_name(stage[1])
    if ours.startswith("backbone."):
        return detectron_backbone_name(ours.replace("backbone.", "features.", 1))
    layer, leaf = ours.rsplit(".", 1)
    return f"{DETECTRON_LAYERS[layer]}_{CAFFE_LEAVES[f'conv.{leaf}']}"


def with_one_spelling(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Norms named alike; where a file keeps scale and shift alone, neutral statistics beside them.

    The variance is 1 less the epsilon that a norm adds, so that the scale is exactly the file's.
    """
    renamed = {}
    for name, tensor in tensors.items():
        norm, found, leaf = name.rpartition("_bn_")
        renamed[f"{norm}_bn_{CAFFE_SPELLINGS.get(leaf, leaf)}" if found else name] = tensor
    for name in [name for name in renamed if name.endswith("_bn_s")]:
        norm = name.removesuffix("s")
        renamed.setdefault(f"{norm}rm", torch.zeros_like(renamed[name]))
        renamed.setdefault(f"{norm}riv", torch.full_like(renamed[name], 1 - EPSILON))
    return renamed


def in_our_order(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """A detector's outputs with the background last and alone in the classifier, and with anchors
    size by size (Detectron: ``anchor = ratio * sizes + size``)."""
    ordered = dict(tensors)
    for leaf in ("w", "b"):
        for name, change in (
            ("cls_score", lambda rows: rows.roll(-1, dims=0)),
            ("bbox_pred", lambda rows: rows[4:]),
            ("mask_fcn_logits", lambda rows: rows[1:]),
            ("rpn_cls_logits", lambda rows: _sizes_outermost(rows, 1)),
            ("rpn_bbox_pred", lambda rows: _sizes_outermost(rows, 4)),
        ):
            if f"{name}_{leaf}" in ordered:
                ordered[f"{name}_{leaf}"] = change(ordered[f"{name}_{leaf}"])
    return ordered


def _sizes_outermost(rows: Tensor, numbers: int) -> Tensor:
    if len(rows) % (ASPECT_RATIOS * numbers):
        return rows  # of another shape than the network's; said when it is compared
    return rows.unflatten(0, (ASPECT_RATIOS, -1, numbers)).transpose(0, 1).flatten(0, 2)
