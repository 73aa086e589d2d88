"""An ImageNet network cut in two at the feature map.

Every detector of the R-CNN family is one: the `trunk` runs once an image, and the layers of the
ImageNet network beyond the feature map, the `roi_layers`, run on each RoI: res5 for C4, fc6 and fc7
for VGG16, none for C5 (Mask R-CNN, figure 4).
"""

from dataclasses import dataclass

from torch import nn

from models.normalization import PixelStatistics
from ops.errors import InputError

STRIDES = (16, 32)
LOADED_LATER = "later"  # in place of a file of weights: the caller fills the whole network
STAGES = 5  # stem, res2 .. res5; conv1 .. conv5


@dataclass(frozen=True)
class Network:
    """The two halves and what the rest must know of them.

    Attributes:
        trunk: images ``[N, 3, h, w]`` -> features ``[N, channels, h / stride, w / stride]``.
        stride: image pixels per feature cell; every other part derives its scale from it.
        channels: of the features.
        roi_layers: pooled features ``[K, channels, P, P]`` -> maps ``[K, roi_channels, 7, 7]``
            (res5) or vectors ``[K, roi_channels]`` (fc6, fc7); None where the head reuses no layer.
        pool_size: P, the side of the grid that the box branch pools to.
        roi_channels: channels that come out of `roi_layers`, 0 without one.
        shares_maps: whether `roi_layers` gives maps, which boxes and masks can share.
        statistics: the normalisation that belongs to the weights.
    """

    trunk: nn.Module
    stride: int
    channels: int
    roi_layers: nn.Module | None
    pool_size: int
    roi_channels: int
    shares_maps: bool
    statistics: PixelStatistics


def check_stride(stride: int) -> None:
    """Raises InputError unless `stride` is one that the networks can be cut at."""
    if stride not in STRIDES:
        raise InputError(
            f"stride={stride}: choose stride=16 (C4, conv5_3) or stride=32 (C5, pool5)"
        )


def check_frozen_stages(count: int) -> None:
    """Raises InputError unless `count` of the five stages of a network can be frozen."""
    if not 0 <= count <= STAGES:
        raise InputError(
            f"backbone.frozen_stages={count}: choose 0 (none) to {STAGES} (all stages)"
        )


def freeze(*parts: nn.Module) -> None:
    """Take no gradient for any parameter of `parts`."""
    for part in parts:
        part.requires_grad_(False)


def describe(module: nn.Module) -> str:
    """Parameters of `module` in millions: total and trainable, for people."""
    total = sum(p.numel() for p in module.parameters())
    trainable = sum(p.numel() for p in module.parameters() if p.requires_grad)
    return f"{total / 1e6:.2f} M parameters, {trainable / 1e6:.2f} M trainable"
