"""What people call a network of the ablation, told from its configuration."""

from collections.abc import Mapping
from typing import Any

NAMES = {
    "roi_pool": "RoIPool",
    "roi_warp": "RoIWarp",
    "roi_align": "RoIAlign",
    "prroi_pool": "PrRoIPool",
}
OWN_AGGREGATION = {"roi_pool": "max", "prroi_pool": "avg"}  # of poolers that leave no choice
PLAIN_WIDTH = 64  # channels of the first stage in an ordinary ResNet or VGG16


def describe_pooler(pooler: Mapping[str, Any]) -> tuple[str, str]:
    """Name and aggregation of a configured pooler; one that is new goes by its function's name."""
    function = str(pooler["_target_"]).rpartition(".")[-1]
    name = NAMES.get(function, function)
    if pooler.get("mode") == "mnc":
        name += " (MNC)"
    return name, str(pooler.get("agg", OWN_AGGREGATION.get(function, "")))


def describe_backbone(backbone: Mapping[str, Any]) -> str:
    """VGG16, ResNet-50, or ResNet-16 (width 32): layers are counted as in He et al. (2015)."""
    function = str(backbone["_target_"]).rpartition(".")[-1]
    name = "ResNet" if function == "resnet" else function.upper()
    depth = backbone.get("depth")
    if "blocks" in backbone:
        depth = 2 + sum(backbone["blocks"]) * (3 if backbone.get("bottleneck") else 2)
    layers = f"-{depth}" if depth else ""
    width = backbone.get("width") or PLAIN_WIDTH
    narrow = f" (width {width})" if width != PLAIN_WIDTH else ""
    return f"{name}{layers}{narrow}"
