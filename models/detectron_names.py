"""Caffe2's names, in which Detectron's models and MSRA's ResNets are kept, and Detectron's order.

Detectron counts the background as class 0 and its anchors ratio by ratio; here the background is
last and anchors go size by size.
"""

import re

import torch
from torch import Tensor

DETECTOR = {
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
CONVOLUTIONS = {
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
BRANCHES = {"shortcut": "branch1", "1": "branch2a", "2": "branch2b", "3": "branch2c"}
LEAVES = {"conv.weight": "w", "conv.bias": "b"} | {
    f"norm.{ours}": f"bn_{theirs}"
    for ours, theirs in {
        "weight": "s",
        "bias": "b",
        "running_mean": "rm",
        "running_var": "riv",
    }.items()
}
# Other spellings of the same, in MSRA's files.
SPELLINGS = {"gamma": "s", "beta": "b", "running_mean": "rm", "running_var": "riv"}
ASPECT_RATIOS = 3
EPSILON = 1e-5


def detectron_backbone_name(ours: str) -> str:
    """`res3.1.norm2.weight` -> `res3_1_branch2b_bn_s`, `features.0.bias` -> `conv1_1_b`."""
    stage, rest = ours.split(".", 1)
    if stage == "features":
        layer, leaf = rest.split(".")
        return f"{CONVOLUTIONS[int(layer)]}_{LEAVES[f'conv.{leaf}']}"
    if stage == "stem":
        return f"{'conv1' if rest.startswith('conv') else 'res_conv1'}_{LEAVES[rest]}"
    if stage in ("fc6", "fc7"):
        return f"{stage}_{LEAVES[f'conv.{rest}']}"
    block, layer, leaf = rest.split(".", 2)
    if layer == "shortcut":
        return f"{stage}_{block}_{BRANCHES[layer]}_{LEAVES[leaf]}"
    return f"{stage}_{block}_{BRANCHES[layer[-1]]}_{LEAVES[f'{layer[:-1]}.{leaf}']}"


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
    return f"{DETECTOR[layer]}_{LEAVES[f'conv.{leaf}']}"


def with_one_spelling(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Norms named alike; where a file keeps scale and shift alone, neutral statistics beside them.

    The variance is 1 less the epsilon that a norm adds, so that the scale is exactly the file's.
    """
    renamed = {}
    for name, tensor in tensors.items():
        norm, found, leaf = name.rpartition("_bn_")
        renamed[f"{norm}_bn_{SPELLINGS.get(leaf, leaf)}" if found else name] = tensor
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
