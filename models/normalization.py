"""Normalisation of pixels, which belongs to the weights: with the wrong mean, AP is lower."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class PixelStatistics:
    """Mean and standard deviation of each channel on the 0..255 scale, in `channel_order`."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    channel_order: str = "rgb"


# torchvision's ImageNet weights, and training from scratch.
TORCHVISION = PixelStatistics(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
# torchvision's weights of VGG16's convolutions without fc6 and fc7, which come from Caffe.
TORCHVISION_FEATURES = PixelStatistics(
    mean=(122.99925, 116.99985, 103.9992), std=(1.0, 1.0, 1.0), channel_order="rgb"
)
# The original ResNet weights of MSRA, which detectron2's models start from.
MSRA = PixelStatistics(mean=(103.53, 116.28, 123.675), std=(1.0, 1.0, 1.0), channel_order="bgr")
# Detectron's weights, and Caffe's.
DETECTRON = PixelStatistics(
    mean=(102.9801, 115.9465, 122.7717), std=(1.0, 1.0, 1.0), channel_order="bgr"
)
# Networks trained on RGB in 0..1, as torchvision's `ToTensor` gives it, without mean and deviation.
RGB01 = PixelStatistics(mean=(0.0, 0.0, 0.0), std=(255.0, 255.0, 255.0))
# Oxford's VGG networks in Caffe, and Keras's conversions of them.
CAFFE = PixelStatistics(mean=(103.939, 116.779, 123.68), std=(1.0, 1.0, 1.0), channel_order="bgr")
ORDERS = {"rgb": (0, 1, 2), "bgr": (2, 1, 0)}


class Normalize(nn.Module):
    """Normalises uint8 images and pads them into one batch.

    Zeros are added *after* normalisation, on the right and at the bottom, up to the largest height
    and width of the batch. The statistics are buffers, so a checkpoint keeps them with its weights.
    """

    order: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, statistics: PixelStatistics) -> None:
        super().__init__()
        self.register_buffer("order", torch.tensor(ORDERS[statistics.channel_order]))
        self.register_buffer("mean", torch.tensor(statistics.mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(statistics.std).view(3, 1, 1))

    @staticmethod
    def statistics_of(state: Mapping[str, Tensor]) -> PixelStatistics:
        """The statistics in a detector's state dict."""
        order = tuple(state["normalize.order"].tolist())
        return PixelStatistics(
            mean=tuple(state["normalize.mean"].flatten().tolist()),
            std=tuple(state["normalize.std"].flatten().tolist()),
            channel_order=next(name for name, places in ORDERS.items() if places == order),
        )

    def forward(self, images: list[Tensor]) -> Tensor:
        """RGB images uint8 ``[3, h, w]`` -> float32 ``[N, 3, max h, max w]``, channels last."""
        height = max(image.shape[1] for image in images)
        width = max(image.shape[2] for image in images)
        batch = torch.zeros((len(images), 3, height, width), device=self.mean.device)
        batch = batch.contiguous(memory_format=torch.channels_last)
        for canvas, image in zip(batch, images, strict=True):
            normalized = (image[self.order].float() - self.mean) / self.std
            canvas[:, : image.shape[1], : image.shape[2]] = normalized
        return batch
