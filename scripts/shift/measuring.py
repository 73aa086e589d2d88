"""The effect of a shifted image on a trained network, and on its pooler separately.

A backbone of stride s is equivariant to shifts by multiples of s pixels only. So pooled features
change for two reasons, the backbone and the pooler, and two figures separate them:

- `feature_change`: of the network's pooled features, by backbone and pooler together;
- `jump`: by the pooler only. It pools a map that holds, at each cell, the position (x, y) of the
  cell's centre in the image, so the pooled value of a bin is the image position that the bin reads.
  With an exact pooler that position moves with the object. The jump is its distance, in image
  pixels, from where it would be. Bilinear interpolation adds no error, since the map is linear.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from tqdm import tqdm

from build import build_data
from configuration import plain
from data.splits import DataSplits, DetectionDataset
from data.transforms import pad_with_mean
from detector import Detector, load
from judging.coco_eval import coco_metrics
from judging.results import Results, coco_results
from models.heads import RoIPooler
from ops.boxes import clip, is_nonempty
from ops.structures import Detections, Sample
from running.tracking import Value, hyperparameters

SCORED = ("AP", "AP50", "AP75")


@dataclass(frozen=True)
class ShiftedRun:
    """The figures of one run at each shift.

    Attributes:
        folder: of the run.
        settings: see `running.tracking.hyperparameters`.
        images: number of images that were shifted.
        figures: by shift in pixels: ``bbox/AP`` ... in percent, ``feature_change`` in percent,
            ``jump`` in pixels.
    """

    folder: Path
    settings: dict[str, Value]
    images: int
    figures: dict[int, dict[str, float]]


def measure(
    folder: Path, *, images: int, shifts: Sequence[int] | None = None, progress: bool = True
) -> ShiftedRun:
    """Shift the first validation images, detect in them, score, and compare pooled features.

    Args:
        folder: of a finished run with a second stage.
        images: number of images; 0 for all.
        shifts: pixels, both right and down; None for `default_shifts`. Those beyond the stride are
            left out, and 0 is always measured, since the others are compared with it.

    Raises:
        InputError: the run's checkpoint or data cannot be read.
    """
    detector, data = open_run(folder)
    stride = detector.config.stride
    shifts = default_shifts(stride) if shifts is None else shifts
    shifts = sorted({0, *(shift for shift in shifts if shift <= stride)})
    count = min(images or len(data.val), len(data.val))
    results: dict[int, list[Results]] = {shift: [] for shift in shifts}
    changes, jumps = ({s: torch.zeros(2, dtype=torch.float64) for s in shifts} for _ in range(2))
    name = f"{folder.parent.name}/{folder.name}"
    with tqdm(total=count * len(shifts), desc=name, disable=not progress, leave=False) as bar:
        for index in range(count):
            unshifted: tuple[Tensor, Tensor] | None = None
            for shift in shifts:
                of_image, pooled, positions = run_shifted(detector, data, index, shift)
                results[shift].append(of_image)
                unshifted = unshifted or (pooled, positions)
                change = (pooled - unshifted[0]).abs().sum()
                changes[shift] += torch.stack((change, unshifted[0].abs().sum()))
                distance = (positions - unshifted[1]).norm(dim=1)  # [G, P, P]
                jumps[shift] += torch.tensor([distance.sum(), distance.numel()])
                bar.update()
    truth = _truth(data.val, count)
    figures = {
        shift: {
            **_scores(detector, truth, Results.joined(results[shift])),
            "feature_change": 100 * _ratio(changes[shift]),
            "jump": _ratio(jumps[shift]),
        }
        for shift in shifts
    }
    return ShiftedRun(folder, hyperparameters(plain(detector.config)), count, figures)


def default_shifts(stride: int) -> list[int]:
    """Every eighth of the stride, up to the whole stride."""
    return list(range(0, stride + 1, stride // 8))


def open_run(folder: Path) -> tuple[Detector, DataSplits]:
    """Network and data of a run, from its last checkpoint, in float32."""

    def in_float32(cfg: DictConfig) -> DictConfig:
        # The differences that are measured must not be rounding errors of a shorter format.
        OmegaConf.update(cfg, "precision", "float32")
        return cfg

    detector = load(folder, needs=("roi_heads",), change=in_float32)
    data = build_data(detector.config)
    detector.check_categories(data.val)
    return detector, data


@torch.no_grad()
def run_shifted(
    detector: Detector, data: DataSplits, index: int, shift: int
) -> tuple[Results, Tensor, Tensor]:
    """Run the network on one shifted image.

    Returns:
        The detections in the pixels of the file, the pooled features of the true boxes
        ``[G, C, P, P]``, and the positions that their bins read ``[G, 2, P, P]``.
    """
    stride, model, device = detector.config.stride, detector.model, detector.runtime.device
    prepared = data.eval_transform(data.val.read(index))
    sample, offset = shifted(prepared, shift, stride)
    image = sample.image.to(device)
    size = (image.shape[1], image.shape[2])
    features = model.backbone(model.normalize([image]))  # [1, C, H, W]
    if sample.proposals is not None:
        proposals = [sample.proposals.to(device)]
    else:
        assert model.rpn is not None
        proposals = [of_image.boxes for of_image in model.rpn(features, [size], None)[0]]
    assert model.roi_heads is not None
    detections = model.roi_heads.detect(features, proposals, [size])[0].cpu()

    head = model.roi_heads.head
    boxes = sample.target.boxes.to(device)
    pooled = head.pooler(features, [boxes], head.pool_size).double().cpu()
    cells = (features.shape[2], features.shape[3])
    positions = positions_read(head.pooler, boxes, cells, head.pool_size, stride, offset)
    prepared_size = (prepared.image.shape[1], prepared.image.shape[2])
    category_ids = [category.id for category in data.val.categories]
    results = _results_in_file(detections, offset, prepared_size, sample, category_ids)
    return results, pooled, positions


def shifted(sample: Sample, shift: int, stride: int) -> tuple[Sample, int]:
    """The image shifted right and down by `shift` pixels, and the offset of its corner, x = y.

    The image is padded with its mean colour by at least a stride on every side. The padded size is
    the same for all shifts from 0 to the stride, and no object is cut.
    """
    height, width = (-(-edge // stride) * stride + 3 * stride for edge in sample.image.shape[1:])
    offset = stride + shift
    return pad_with_mean(sample, (height, width), (offset, offset)), offset


def positions_read(
    pooler: RoIPooler, boxes: Tensor, size: tuple[int, int], bins: int, stride: int, offset: int
) -> Tensor:
    """The position that each bin reads: x and y in image pixels, float64 ``[G, 2, bins, bins]``.

    Args:
        boxes: ``[G, 4]`` in the padded image.
        size: (rows, columns) of the feature map.
        offset: of the image's corner in the padded image, for x and y alike.
    """
    rows, columns = ((torch.arange(n, dtype=torch.float64) + 0.5) * stride - offset for n in size)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return pooler(torch.stack((x, y))[None], [boxes.double().cpu()], bins)


def _results_in_file(
    detections: Detections,
    offset: int,
    prepared: tuple[int, int],
    sample: Sample,
    category_ids: Sequence[int],
) -> Results:
    """Detections in the padded image as results in the pixels of the file.

    Only the box score takes boxes clipped to the image: masks are pasted into the whole boxes, as
    they were predicted.
    """
    original = sample.original_size
    scale_y, scale_x = original[0] / prepared[0], original[1] / prepared[1]
    boxes = (detections.boxes - offset) * torch.tensor([scale_x, scale_y, scale_x, scale_y])
    clipped = clip(boxes, original)
    inside = is_nonempty(clipped)
    results = coco_results(
        replace(detections, boxes=boxes)[inside],
        image_id=sample.image_id,
        original_size=original,
        category_ids=category_ids,
    )
    boxes_xywh = clipped[inside].double().numpy()
    boxes_xywh[:, 2:] -= boxes_xywh[:, :2]
    return replace(results, boxes_xywh=boxes_xywh)


def _truth(dataset: DetectionDataset, images: int) -> dict[str, Any]:
    """The COCO document of the first `images` images."""
    truth = dataset.ground_truth()
    ids = set(dataset.image_ids[:images])
    return {
        "images": [image for image in truth["images"] if image["id"] in ids],
        "annotations": [a for a in truth["annotations"] if a["image_id"] in ids],
        "categories": truth["categories"],
    }


def _scores(detector: Detector, truth: dict[str, Any], results: Results) -> dict[str, float]:
    roi_heads = detector.model.roi_heads
    kinds = ("bbox", "segm") if roi_heads is not None and roi_heads.mask else ("bbox",)
    metrics = coco_metrics(truth, results, iou_types=kinds)
    return {f"{kind}/{name}": metrics[f"{kind}/{name}"] for kind in kinds for name in SCORED}


def _ratio(sums: Tensor) -> float:
    """The first of two sums over the second; 0 if that is 0."""
    return float(sums[0] / sums[1]) if sums[1] > 0 else 0.0
