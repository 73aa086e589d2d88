"""Every pooler in every variant, beside its slow reference: a new pooler adds its lines here."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import pytest
import reference_ops as slow
import torch
import torch.nn.functional as F
from torch import Tensor

from ops.crop_resize import crop_resize
from ops.prroi_pool import prroi_pool
from ops.roi_align import pooled, roi_align
from ops.roi_plan import grid
from ops.roi_pool import plan as pool_plan
from ops.roi_pool import roi_pool
from ops.roi_warp import roi_warp

Pooler = Callable[..., Tensor]


@dataclass(frozen=True)
class Case:
    """A pooler with its settings.

    Attributes:
        reference: the same in loops, ``(features, rois, (h, w), scale) -> [K, C, h, w]``.
        differentiable: the keyword that asks for gradients of the RoIs, {} where they always are,
            None where there are none.
        continuous: whether the result varies continuously with the RoI, so that numbers rounded
            differently stay close and numeric differentiation means something.
    """

    pooler: Pooler
    reference: Pooler
    differentiable: dict[str, bool] | None = None
    continuous: bool = True
    settings: dict[str, object] = field(default_factory=dict)

    def __call__(self, *arguments: object, **more: object) -> Tensor:
        return self.pooler(*arguments, **self.settings, **more)


def planned_roi_pool(
    features: Tensor, rois: Tensor, size: int | tuple[int, int], scale: float
) -> Tensor:
    """RoIPool by its plan, which small maps on a CPU do without."""
    return pooled(features, pool_plan(grid(features, rois, size, scale), "caffe"), "max")


def _mnc_max(features: Tensor, rois: Tensor, size: tuple[int, int], scale: float) -> Tensor:
    fine = slow.roi_warp_mnc(features, rois, (2 * size[0], 2 * size[1]), scale)
    return F.max_pool2d(fine, 2)


def _crop(features: Tensor, rois: Tensor, size: tuple[int, int], scale: float) -> Tensor:
    """Crop and resize in loops, after the description of ``tf.image.crop_and_resize``."""
    rows, columns = 2 * size[0], 2 * size[1]
    height, width = features.shape[2:]
    fine = features.new_zeros(len(rois), features.shape[1], rows, columns)
    for k, (image, *box) in enumerate(rois.tolist()):
        x1, y1, x2, y2 = (edge * scale for edge in box)
        for i in range(rows):
            for j in range(columns):
                y, x = y1 + i * (y2 - y1) / (rows - 1), x1 + j * (x2 - x1) / (columns - 1)
                if 0 <= y <= height - 1 and 0 <= x <= width - 1:
                    fine[k, :, i, j] = _between(features[int(image)], y, x)
    return F.max_pool2d(fine, 2)


def _between(plane: Tensor, y: float, x: float) -> Tensor:
    top, left = math.floor(y), math.floor(x)
    bottom, right = math.ceil(y), math.ceil(x)
    above = plane[:, top, left] * (1 - x + left) + plane[:, top, right] * (x - left)
    below = plane[:, bottom, left] * (1 - x + left) + plane[:, bottom, right] * (x - left)
    return above * (1 - y + top) + below * (y - top)


def _case(pooler: Pooler, reference: Pooler, *facts: object, **settings: object) -> Case:
    return Case(pooler, partial(reference, **settings), *facts, settings)  # type: ignore[arg-type]


def _align(**settings: object) -> Case:
    return _case(roi_align, slow.roi_align, {"coordinate_grad": True}, True, **settings)


def _warp(**settings: object) -> Case:
    return _case(roi_warp, slow.roi_warp, {}, False, **settings)


MNC = {"mode": "mnc", "sampling_ratio": 1}
CASES = {
    "pool": _case(roi_pool, slow.roi_pool, None, False),
    "pool planned": _case(planned_roi_pool, slow.roi_pool, None, False),
    "pool floor": _case(roi_pool, slow.roi_pool, None, False, rounding="floor"),
    "align": _align(),
    "align one": _align(sampling_ratio=1),
    "align adaptive": _align(sampling_ratio=0),
    "align old": _align(aligned=False),
    "align old adaptive": _align(aligned=False, sampling_ratio=0),
    "align max": _align(agg="max"),
    "align max three": _align(agg="max", sampling_ratio=3),
    "align max adaptive": _align(agg="max", sampling_ratio=0),
    "align thirds max": _align(agg="max", placement="thirds"),
    "warp": _warp(),
    "warp max": _warp(agg="max"),
    "warp old": _warp(aligned=False),
    "warp adaptive": _warp(sampling_ratio=0),
    "warp mnc": Case(roi_warp, slow.roi_warp_mnc, {}, False, dict(MNC)),
    "warp mnc max": Case(roi_warp, _mnc_max, {}, False, {"mode": "mnc", "agg": "max"}),
    "crop": _case(crop_resize, _crop, {}, False),
    "prroi": _case(prroi_pool, slow.prroi_pool, {}, True),
}

every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def random_rois(count: int, images: int, height: float, width: float, seed: int = 0) -> Tensor:
    """Float64 RoIs ``[K, 5]`` of all sizes, some of them partly outside ``height x width``."""
    generator = torch.Generator().manual_seed(seed)
    unit = torch.rand(count, 4, generator=generator, dtype=torch.float64) * 1.4 - 0.2
    corners = unit * torch.tensor([width, height, width, height], dtype=torch.float64)
    low, high = (
        torch.minimum(corners[:, :2], corners[:, 2:]),
        corners[:, :2].maximum(corners[:, 2:]),
    )
    image = torch.randint(0, images, (count, 1), generator=generator).double()
    return torch.cat((image, low, high), dim=1)
