"""The layers that run on each RoI (Mask R-CNN, figure 4).

Two heads with one interface. C4: `SharedHead`, where one pooled map goes through res5 and serves
boxes and masks. C5 and VGG16: `SplitHead`, with fully connected layers on a 7x7 grid for boxes and
four convolutions on a 14x14 grid for masks. Letters: K RoIs, C feature channels, P pooled side, D
vector length, L classes (without background), m the mask's resolution.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from ops.boxes import with_image_index

# (features [N, C, H, W], rois [K, 5], output_size, spatial_scale) -> [K, C, P, P]
PoolingOp = Callable[[Tensor, Tensor, int, float], Tensor]


class RoIPooler(nn.Module):
    """Any pooling op at the scale of one feature map.

    Args:
        op: any function with the signature of `PoolingOp`, such as those in `ops`.
        stride: of the features; the op's spatial scale is always its inverse.
    """

    def __init__(self, op: PoolingOp, *, stride: int) -> None:
        super().__init__()
        self.op = op
        self.scale = 1.0 / stride

    def forward(self, features: Tensor, boxes: list[Tensor], size: int) -> Tensor:
        """Features ``[N, C, H, W]`` in N lists of boxes (pixels) -> ``[K, C, size, size]``."""
        return self.op(features, with_image_index(boxes), size, self.scale)

    def extra_repr(self) -> str:
        return f"{self.op}, scale={self.scale}"


@dataclass(frozen=True)
class BoxOutput:
    """Class logits ``[K, L + 1]``, background last; deltas ``[K, 4 L]``; and the maps
    ``[K, D, 7, 7]`` that the mask branch can use too, None if it pools separately."""

    class_logits: Tensor
    deltas: Tensor
    maps: Tensor | None


class BoxPredictor(nn.Module):
    """The two sibling layers of Fast R-CNN (section 2.1)."""

    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__()
        self.classes = nn.Linear(dim, num_classes + 1)
        self.deltas = nn.Linear(dim, 4 * num_classes)
        nn.init.normal_(self.classes.weight, std=0.01)
        nn.init.normal_(self.deltas.weight, std=0.001)
        for layer in (self.classes, self.deltas):
            nn.init.zeros_(layer.bias)

    def forward(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """``[K, D]`` -> class logits ``[K, L + 1]``, deltas ``[K, 4 L]``."""
        return self.classes(vectors).float(), self.deltas(vectors).float()


class MaskPredictor(nn.Sequential):
    """Deconvolution to twice the size, then one logit a pixel and class (section 3)."""

    def __init__(self, channels: int, dim: int, num_classes: int) -> None:
        deconv = nn.ConvTranspose2d(channels, dim, 2, stride=2)
        logits = nn.Conv2d(dim, num_classes, 1)
        nn.init.kaiming_normal_(deconv.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(logits.weight, std=0.001)
        for layer in (deconv, logits):
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        super().__init__(OrderedDict(deconv=deconv, relu=nn.ReLU(inplace=True), logits=logits))


class MaskConvs(nn.Sequential):
    """The fully convolutional mask head: four 3x3 convolutions, then `MaskPredictor`."""

    def __init__(self, channels: int, dim: int, num_classes: int) -> None:
        super().__init__()
        for number in range(1, 5):
            conv = nn.Conv2d(channels if number == 1 else dim, dim, 3, padding=1)
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
            self.add_module(f"conv{number}", conv)
            self.add_module(f"relu{number}", nn.ReLU(inplace=True))
        self.add_module("predictor", MaskPredictor(dim, dim, num_classes))


class TwoFC(nn.Sequential):
    """Two hidden fully connected layers on the pooled grid (the box head of figure 4, right)."""

    def __init__(self, channels: int, pool_size: int, dim: int) -> None:
        fc1, fc2 = nn.Linear(channels * pool_size**2, dim), nn.Linear(dim, dim)
        for layer in (fc1, fc2):
            nn.init.kaiming_uniform_(layer.weight, a=1)
            nn.init.zeros_(layer.bias)
        relu1, relu2 = nn.ReLU(inplace=True), nn.ReLU(inplace=True)
        super().__init__(
            OrderedDict(flatten=nn.Flatten(), fc1=fc1, relu1=relu1, fc2=fc2, relu2=relu2)
        )


class SharedHead(nn.Module):
    """C4: pool, res5, then average for the boxes and deconvolve for the masks (figure 4, left).

    Args:
        pooler: takes each RoI's features.
        res5: pooled ``[K, C, P, P]`` -> ``[K, channels, 7, 7]``.
        channels: of the output of `res5`.
        pool_size: P.
        num_classes: L.
        mask_dim: channels between deconvolution and logits; None leaves the mask branch out.
    """

    def __init__(
        self,
        pooler: RoIPooler,
        res5: nn.Module,
        *,
        channels: int,
        pool_size: int,
        num_classes: int,
        mask_dim: int | None,
    ) -> None:
        super().__init__()
        self.pooler = pooler
        self.pool_size = pool_size
        self.res5 = res5
        self.box_predictor = BoxPredictor(channels, num_classes)
        self.mask_predictor = (
            None if mask_dim is None else MaskPredictor(channels, mask_dim, num_classes)
        )
        self.mask_resolution = 14

    def predict_boxes(self, features: Tensor, boxes: list[Tensor]) -> BoxOutput:
        maps = self._maps(features, boxes)
        logits, deltas = self.box_predictor(maps.mean(dim=(2, 3)))
        return BoxOutput(logits, deltas, maps)

    def predict_masks(self, features: Tensor, boxes: list[Tensor], maps: Tensor | None) -> Tensor:
        """Mask logits ``[K, L, 14, 14]``; from `maps` if `predict_boxes` has computed them."""
        assert self.mask_predictor is not None
        return self.mask_predictor(self._maps(features, boxes) if maps is None else maps)

    def _maps(self, features: Tensor, boxes: list[Tensor]) -> Tensor:
        return self.res5(self.pooler(features, boxes, self.pool_size))


class SplitHead(nn.Module):
    """C5 and VGG16: boxes and masks are pooled separately (figure 4, right).

    Args:
        pooler: takes each RoI's features.
        box_layers: pooled ``[K, C, P, P]`` -> vectors ``[K, dim]``.
        channels: C.
        dim: length of the vectors.
        pool_size: P.
        num_classes: L.
        mask_dim: channels of the mask convolutions; None leaves the mask branch out.
    """

    MASK_POOL = 14

    def __init__(
        self,
        pooler: RoIPooler,
        box_layers: nn.Module,
        *,
        channels: int,
        dim: int,
        pool_size: int,
        num_classes: int,
        mask_dim: int | None,
    ) -> None:
        super().__init__()
        self.pooler = pooler
        self.pool_size = pool_size
        self.box_layers = box_layers
        self.box_predictor = BoxPredictor(dim, num_classes)
        self.mask_convs = None if mask_dim is None else MaskConvs(channels, mask_dim, num_classes)
        self.mask_resolution = 2 * self.MASK_POOL

    def predict_boxes(self, features: Tensor, boxes: list[Tensor]) -> BoxOutput:
        vectors = self.box_layers(self.pooler(features, boxes, self.pool_size))
        logits, deltas = self.box_predictor(vectors)
        return BoxOutput(logits, deltas, None)

    def predict_masks(self, features: Tensor, boxes: list[Tensor], maps: Tensor | None) -> Tensor:
        """Mask logits ``[K, L, 28, 28]``."""
        assert self.mask_convs is not None
        return self.mask_convs(self.pooler(features, boxes, self.MASK_POOL))
