"""ResNet (He et al., 2016), cut at C4 (stride 16) or C5 (stride 32).

The stages carry the paper's names: stem, res2 .. res5. Letters: K RoIs, P the pooled side.
"""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.network import Network, check_frozen_stages, check_stride, freeze
from models.normalization import TORCHVISION, PixelStatistics
from ops.errors import InputError

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
NormLayer = Callable[[int], nn.Module]


class FrozenBatchNorm2d(nn.Module):
    """Batch normalisation whose statistics and affine parameters are constants.

    ``y = x * scale + shift`` in the dtype of `x`, so that mixed precision stays mixed. The names
    are those of `nn.BatchNorm2d`, so its state loads here.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight * (self.running_var + self.eps).rsqrt()  # [C]
        shift = self.bias - self.running_mean * scale
        scale, shift = scale.to(x.dtype).view(-1, 1, 1), shift.to(x.dtype).view(-1, 1, 1)
        return torch.addcmul(shift, x, scale)


def _freeze_stages(stages: "OrderedDict[str, nn.Module]", count: int) -> None:
    for name in list(stages)[:count]:
        stages[name] = _with_frozen_norms(stages[name])
        freeze(stages[name])


def _with_frozen_norms(module: nn.Module) -> nn.Module:
    """`module` with its batch norms as constants: frozen filters need their own statistics."""
    if isinstance(module, nn.BatchNorm2d):
        frozen = FrozenBatchNorm2d(module.num_features, module.eps)
        state = {n: t for n, t in module.state_dict().items() if n != "num_batches_tracked"}
        frozen.load_state_dict(state)
        return frozen
    for name, child in module.named_children():
        setattr(module, name, _with_frozen_norms(child))
    return module


def _group_norm(channels: int) -> nn.Module:
    return nn.GroupNorm(max(channels // 16, 1), channels)


# frozen: batch statistics fixed to those of ImageNet training, as all published detectors do.
# batch: trained and tracked; needs more than a few images a step. group: Wu and He, 2018.
NORMS: dict[str, NormLayer] = {
    "frozen": FrozenBatchNorm2d,
    "batch": nn.BatchNorm2d,
    "group": _group_norm,
}


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; the first carries the stride."""

    def __init__(
        self,
        in_channels: int,
        width: int,
        stride: int,
        norm: NormLayer,
        stride_in_1x1: bool,
        dilation: int,
    ) -> None:
        super().__init__()
        self.out_channels = width
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, dilation, dilation, bias=False)
        self.norm1 = norm(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, dilation, dilation, bias=False)
        self.norm2 = norm(width)
        self.shortcut = _shortcut(in_channels, width, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.norm1(self.conv1(x)), inplace=True)
        out = self.norm2(self.conv2(out))
        return F.relu(out + self.shortcut(x), inplace=True)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions and a shortcut.

    The stride sits in the 3x3 convolution (torchvision's weights) or in the first 1x1
    (`stride_in_1x1`: the original weights of MSRA, which detectron2's models carry).
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        stride: int,
        norm: NormLayer,
        stride_in_1x1: bool,
        dilation: int,
    ) -> None:
        super().__init__()
        first, second = (stride, 1) if stride_in_1x1 else (1, stride)
        self.out_channels = out_channels = 4 * width
        self.conv1 = nn.Conv2d(in_channels, width, 1, first, bias=False)
        self.norm1 = norm(width)
        self.conv2 = nn.Conv2d(width, width, 3, second, dilation, dilation, bias=False)
        self.norm2 = norm(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.norm3 = norm(out_channels)
        self.shortcut = _shortcut(in_channels, out_channels, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.norm1(self.conv1(x)), inplace=True)
        out = F.relu(self.norm2(self.conv2(out)), inplace=True)
        out = self.norm3(self.conv3(out))
        return F.relu(out + self.shortcut(x), inplace=True)


def _shortcut(in_channels: int, out_channels: int, stride: int, norm: NormLayer) -> nn.Module:
    if in_channels == out_channels and stride == 1:
        return nn.Identity()
    conv = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, norm=norm(out_channels)))


def _stem(channels: int, norm: NormLayer) -> nn.Sequential:
    """7x7 stride 2, then 3x3 max pooling stride 2: a quarter of the image's size."""
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(3, channels, 7, 2, 3, bias=False),
            norm=norm(channels),
            relu=nn.ReLU(inplace=True),
            pool=nn.MaxPool2d(3, 2, 1),
        )
    )


def resnet(
    *,
    stride: int,
    depth: int | None = None,
    blocks: tuple[int, int, int, int] | None = None,
    bottleneck: bool | None = None,
    stem_channels: int = 64,
    width: int = 64,
    norm: str = "frozen",
    frozen_stages: int = 2,
    stride_in_1x1: bool | None = None,
    res5_on_rois: bool = True,
    res5_stride: int = 1,
    res5_dilation: int = 1,
    weights: str | None = None,
) -> Network:
    """A ResNet as trunk and RoI layers.

    Args:
        stride: 16 cuts after res4, and res5 runs on each RoI; 32 keeps res5 (not dilated) in the
            trunk and leaves no RoI layers.
        depth: 18, 34, 50 or 101; or give `blocks` and `bottleneck` for another shape.
        blocks: residual blocks in res2 .. res5.
        bottleneck: block kind; by default that of the depth.
        stem_channels, width: channels of the stem, and of the 3x3 convolutions of res2 (doubled
            in each later stage).
        norm: frozen, batch or group.
        frozen_stages: 1 takes no gradient for the stem, 2 none for stem and res2, and so on.
            Without weights none is frozen: random filters are not worth keeping.
        stride_in_1x1: see `Bottleneck`; None follows the weights (False without any).
        res5_on_rois: at stride 16, whether res5 runs on each RoI (C4); False leaves it out, and the
            head gets two fully connected layers of its own, as at stride 32.
        res5_stride: of res5 on RoIs. 1: RoIs are pooled to 7x7 (Mask R-CNN, figure 4);
            2: to 14x14, as in Detectron and detectron2.
        res5_dilation: at stride 16, 2 keeps res5 in the trunk, with 3x3 convolutions two cells
            apart instead of strides (DC5), and leaves no RoI layers; 1 does not.
        weights: `imagenet` (torchvision's), a file of any kind with a ResNet in it, `later` where
            the caller fills the network, or None to start from random numbers.

    Raises:
        InputError: for an unknown stride, depth, norm, stage, or weights that cannot be had.
    """
    _check(stride, norm, res5_stride, res5_dilation)
    check_frozen_stages(frozen_stages)
    if stride_in_1x1 is None:
        stride_in_1x1 = _stride_in_1x1_of(weights)
    is_bottleneck = bottleneck if bottleneck is not None else (depth or 0) >= 50
    block = partial(
        Bottleneck if is_bottleneck else BasicBlock,
        norm=NORMS[norm],
        stride_in_1x1=stride_in_1x1,
    )
    on_rois = stride == 16 and res5_dilation == 1
    stages = _stages(
        block,
        tuple(blocks) if blocks is not None else _blocks_of(depth),
        res5=not on_rois or res5_on_rois,
        res5_stride=res5_stride if on_rois else 2 // res5_dilation,
        res5_dilation=res5_dilation,
        stem=_stem(stem_channels, NORMS[norm]),
        channels=stem_channels,
        width=width,
    )
    _initialize(stages)
    statistics = TORCHVISION
    if weights is not None:
        statistics = _fill(stages, weights, depth=depth, stride_in_1x1=stride_in_1x1)
        _freeze_stages(stages, frozen_stages)
    channels = _channels_of(stages)
    roi_layers = stages.pop("res5", None) if on_rois else None
    return Network(
        trunk=nn.Sequential(stages),
        stride=stride,
        channels=_channels_of(stages),
        roi_layers=roi_layers,
        pool_size=7 * res5_stride if roi_layers is not None else 7,
        roi_channels=channels if roi_layers is not None else 0,
        shares_maps=roi_layers is not None,
        statistics=statistics,
    )


def _fill(stages: "OrderedDict[str, nn.Module]", weights: str, **structure: Any) -> PixelStatistics:
    from models.weights import load_resnet  # a network from scratch needs no reader of files

    return load_resnet(stages, weights, **structure)


def _stride_in_1x1_of(weights: str | None) -> bool:
    """Where networks with these weights have their strides."""
    if weights is None:
        return False
    from models.weights import structure_of

    return structure_of(weights).get("stride_in_1x1", False)


def _check(stride: int, norm: str, res5_stride: int, res5_dilation: int) -> None:
    check_stride(stride)
    if norm not in NORMS:
        raise InputError(f"backbone.norm={norm}: choose one of {', '.join(NORMS)}")
    if res5_stride not in (1, 2):
        raise InputError(f"backbone.res5_stride={res5_stride}: choose 1 (7x7) or 2 (14x14)")
    if res5_dilation not in (1, 2) or (res5_dilation, stride) == (2, 32):
        raise InputError(
            f"backbone.res5_dilation={res5_dilation}: choose 1, or 2 (DC5) at stride=16"
        )


def _stages(
    block: Callable[..., "BasicBlock | Bottleneck"],
    counts: tuple[int, ...],
    *,
    res5: bool,
    res5_stride: int,
    res5_dilation: int,
    stem: nn.Module,
    channels: int,
    width: int,
) -> "OrderedDict[str, nn.Module]":
    """Stem, res2, res3, res4, and res5 where it is wanted."""
    stages: OrderedDict[str, nn.Module] = OrderedDict(stem=stem)
    strides, dilations = (1, 2, 2, res5_stride), (1, 1, 1, res5_dilation)
    for index, count in enumerate(counts if res5 else counts[:3]):
        layers = []
        for position in range(count):
            stride = strides[index] if position == 0 else 1
            layers.append(block(channels, width << index, stride, dilation=dilations[index]))
            channels = layers[-1].out_channels
        stages[f"res{index + 2}"] = nn.Sequential(*layers)
    return stages


def _channels_of(stages: "OrderedDict[str, nn.Module]") -> int:
    return next(reversed(stages.values()))[-1].out_channels  # type: ignore[index]


def _blocks_of(depth: int | None) -> tuple[int, ...]:
    if depth not in BLOCKS:
        raise InputError(f"backbone.depth={depth}: choose one of {', '.join(map(str, BLOCKS))}")
    return BLOCKS[depth]


def _initialize(stages: OrderedDict[str, nn.Module]) -> None:
    """He initialisation, with residual branches that start small.

    A trained norm at the end of a branch starts at zero, so the block starts as the identity. A
    frozen one would stay zero; it starts at 1 / sqrt(blocks), which keeps the variance of the sum
    bounded. Weights that are loaded later overwrite both.
    """
    blocks = [
        module
        for stage in stages.values()
        for module in stage.modules()
        if isinstance(module, BasicBlock | Bottleneck)
    ]
    for stage in stages.values():
        for module in stage.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    for block in blocks:
        last = block.norm3 if isinstance(block, Bottleneck) else block.norm2
        start = len(blocks) ** -0.5 if isinstance(last, FrozenBatchNorm2d) else 0.0
        nn.init.constant_(last.weight, start)  # type: ignore[arg-type]
