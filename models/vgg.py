"""VGG16 (Simonyan and Zisserman, 2015), cut at conv5_3 (stride 16) or after pool5 (stride 32)."""

from collections import OrderedDict

from torch import nn
from torchvision.models import vgg

from models.network import Network, check_frozen_stages, check_stride, freeze
from models.normalization import TORCHVISION

CONV5_3 = 30  # layers of torchvision's `features` up to the ReLU of conv5_3
POOL5 = 31
# Layers up to and including the ReLU of each stage's last convolution.
STAGE_ENDS = (4, 9, 16, 23, 30)


def vgg16(
    *,
    stride: int,
    width: int = 64,
    fc_dim: int = 4096,
    dropout: float = 0.5,
    frozen_stages: int = 2,
    weights: str | None = None,
) -> Network:
    """VGG16 as trunk and RoI layers: fc6 and fc7 on RoIs of 7x7 (Fast R-CNN, section 2.1).

    Args:
        stride: 16 stops at conv5_3; 32 goes through pool5.
        width: channels of conv1, 64 in VGG16; later stages follow.
        fc_dim: outputs of fc6 and fc7.
        dropout: after fc6 and fc7, in training.
        frozen_stages: how many of conv1 .. conv5 take no gradient (py-faster-rcnn: 2).
            Without weights none is frozen: random filters are not worth keeping.
        weights: `imagenet` (torchvision's), a file with a VGG16's state dict, or None.

    Raises:
        InputError: for an unknown stride or stage, or weights that cannot be had.
    """
    check_stride(stride)
    check_frozen_stages(frozen_stages)
    plan = [layer if layer == "M" else int(layer) * width // 64 for layer in vgg.cfgs["D"]]
    features = vgg.make_layers(plan)
    channels = 8 * width
    roi_layers = nn.Sequential(
        OrderedDict(
            flatten=nn.Flatten(),  # [K, C, 7, 7] -> [K, 49 C], channels slowest
            fc6=nn.Linear(channels * 49, fc_dim),
            relu6=nn.ReLU(inplace=True),
            drop6=nn.Dropout(dropout),
            fc7=nn.Linear(fc_dim, fc_dim),
            relu7=nn.ReLU(inplace=True),
            drop7=nn.Dropout(dropout),
        )
    )
    _initialize(features, roi_layers)
    statistics = TORCHVISION
    if weights is not None:
        from models.weights import load_vgg16  # a network from scratch needs no reader of files

        statistics = load_vgg16(features, roi_layers, weights)
        freeze(*features[: STAGE_ENDS[frozen_stages - 1] if frozen_stages else 0])
    return Network(
        trunk=features[: CONV5_3 if stride == 16 else POOL5],
        stride=stride,
        channels=channels,
        roi_layers=roi_layers,
        pool_size=7,
        roi_channels=fc_dim,
        shares_maps=False,
        statistics=statistics,
    )


def _initialize(features: nn.Module, roi_layers: nn.Module) -> None:
    for module in [*features.modules(), *roi_layers.modules()]:
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
