"""torchvision's RoI kernels, which serve where they are the quicker ones and do no harm.

That is RoIPool of a small map on a CPU, where they run serially and so give the same bits each
time, and everything on CUDA unless deterministic algorithms are asked for: there their backward
passes add atomically, so two runs differ in the last bits, and under torch's deterministic mode
torchvision's RoIAlign turns to a fallback that reads the border for samples outside the map.
The project's own operators are deterministic everywhere, and correct there.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision import ops as torchvision_ops

from ops.roi_plan import Grid
from ops.roi_table import compute_dtype

# Bytes of a map that a core's L2 cache holds: scattered single reads and additions are cheap there.
_SMALL_MAP = 1 << 20


def serve(features: Tensor, rois_on_map: Grid) -> bool:
    """Whether to use the kernels of this file: they give no gradient to the boxes."""
    return (
        features.is_cuda
        and not torch.are_deterministic_algorithms_enabled()
        and not rois_on_map.boxes.requires_grad
    )


def serve_pool(features: Tensor, rois_on_map: Grid) -> bool:
    """Whether `pool` is to be used."""
    image_bytes = features[0].numel() * compute_dtype(features).itemsize if len(features) else 0
    on_cpu = features.device.type == "cpu" and image_bytes <= _SMALL_MAP
    return on_cpu or serve(features, rois_on_map)


def can_align(sampling_ratio: int, agg: str, placement: str) -> bool:
    """Whether `align` can express these settings of RoIAlign."""
    return placement == "uniform" and (agg == "avg" or sampling_ratio > 0)


def align(
    features: Tensor, rois_on_map: Grid, sampling_ratio: int, aligned: bool, agg: str
) -> Tensor:
    """RoIAlign, ``[K, C, h, w]``; a maximum of n x n samples is that of n x n one-sample bins."""
    inputs, rois = _inputs(features, rois_on_map)
    if agg == "avg":
        pooled = torchvision_ops.roi_align(
            inputs, rois, rois_on_map.bins, 1.0, sampling_ratio, aligned
        )
    else:
        parts = (rois_on_map.bins[0] * sampling_ratio, rois_on_map.bins[1] * sampling_ratio)
        samples = torchvision_ops.roi_align(inputs, rois, parts, 1.0, 1, aligned)
        pooled = F.max_pool2d(samples, sampling_ratio)
    return pooled.to(features.dtype)


def pool(features: Tensor, rois_on_map: Grid) -> Tensor:
    """Caffe's RoIPool, ``[K, C, h, w]``."""
    inputs, rois = _inputs(features, rois_on_map)
    return torchvision_ops.roi_pool(inputs, rois, rois_on_map.bins, 1.0).to(features.dtype)


def _inputs(features: Tensor, rois_on_map: Grid) -> tuple[Tensor, Tensor]:
    """Features and RoIs ``[K, 5]`` (in feature coordinates) in one dtype, float32 at least."""
    dtype = compute_dtype(features)
    rois = torch.cat((rois_on_map.image[:, None].to(dtype), rois_on_map.boxes.to(dtype)), dim=1)
    return features.to(dtype), rois
