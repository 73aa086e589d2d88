"""What moving an image by some pixels does to a trained network, and to its pooler alone.

A backbone of stride s commutes with a shift by s pixels, and with no smaller one. So a change of
the pooled features has two causes, the backbone and the pooler, and two figures tell them apart:

- `feature_change`: of the trained network's own pooled features, both causes together;
- `jump`: of the pooler alone, on a map that is shifted exactly. Its two channels hold at each cell
  the place of the cell's centre in the image, so a bin's pooled values say where it reads. With an
  exact pooler that place moves with the object; how far it strays is the jump, in image pixels.
  A linear map is also what bilinear interpolation reproduces without error.
"""

from collections.abc import Sequence
from dataclasses import dataclass
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
from detector import load
from judging.coco_eval import coco_metrics, coco_results
from models.heads import RoIPooler
from models.mask_rcnn import MaskRCNN
from models.roi_heads import RoIHeads
from ops.boxes import clip, is_nonempty
from ops.structures import Detections, Sample
from running.runtime import Runtime
from running.tracking import Value, hyperparameters

SCORED = ("AP", "AP50", "AP75")


@dataclass(frozen=True)
class ShiftedRun:
    """What one run gives at each shift.

    Attributes:
        folder: of the run.
        settings: see `running.tracking.hyperparameters`.
        images: how many were shifted.
        figures: by shift in pixels: ``bbox/AP`` ... in percent, ``feature_change`` in percent,
            ``jump`` in pixels.
    """

    folder: Path
    settings: dict[str, Value]
    images: int
    figures: dict[int, dict[str, float]]


@dataclass(frozen=True)
class TrainedRun:
    """A run's network and data, ready to be used."""

    model: MaskRCNN
    heads: RoIHeads
    data: DataSplits
    runtime: Runtime
    stride: int
    backend: str
    settings: dict[str, Value]


def measure(
    folder: Path, *, images: int, shifts: Sequence[int] | None = None, progress: bool = True
) -> ShiftedRun:
    """Shift the first validation images, detect on them, score, and compare pooled features.

    Args:
        folder: of a finished run with a second stage.
        images: how many; 0 takes all.
        shifts: pixels, right and down alike; those beyond the stride are left out. None takes
            `default_shifts`. Shift 0 always comes along: the others are compared with it.

    Raises:
        InputError: its checkpoint or data cannot be had.
    """
    run = open_run(folder)
    chosen = default_shifts(run.stride) if shifts is None else shifts
    chosen = sorted({0, *(shift for shift in chosen if shift <= run.stride)})
    indices = range(min(images or len(run.data.val), len(run.data.val)))
    results: dict[int, list[dict[str, Any]]] = {shift: [] for shift in chosen}
    changes = {shift: torch.zeros(2, dtype=torch.float64) for shift in chosen}
    jumps = {shift: torch.zeros(2, dtype=torch.float64) for shift in chosen}
    bar = tqdm(
        total=len(indices) * len(chosen),
        desc=f"{folder.parent.name}/{folder.name}",
        disable=not progress,
        leave=False,
        unit="image",
    )
    for index in indices:
        still: tuple[Tensor, Tensor] | None = None
        for shift in chosen:
            found, pooled, places = look(run, index, shift)
            results[shift] += found
            still = still or (pooled, places)
            change = (pooled - still[0]).abs().sum()
            changes[shift] += torch.stack((change, still[0].abs().sum()))
            strays = (places - still[1]).norm(dim=1)  # [G, P, P]
            jumps[shift] += torch.tensor([strays.sum(), strays.numel()])
            bar.update()
    bar.close()
    truth = _truth(run.data.val, len(indices))
    figures = {
        shift: {
            **_scores(run, truth, results[shift]),
            "feature_change": 100 * _ratio(changes[shift]),
            "jump": _ratio(jumps[shift]),
        }
        for shift in chosen
    }
    return ShiftedRun(folder, run.settings, len(indices), figures)


def default_shifts(stride: int) -> list[int]:
    """Every eighth of the stride, and the whole stride."""
    return list(range(0, stride + 1, stride // 8))


def shifted(sample: Sample, shift: int, stride: int) -> tuple[Sample, int]:
    """The image moved right and down by `shift` pixels, and where its corner then lies.

    It lies on a ground of its mean colour with a margin of a stride or more on every side. The
    ground has the same size for every shift from 0 to the stride, and no object is cut.
    """
    height, width = sample.image.shape[1:]
    size = (_ground(height, stride), _ground(width, stride))
    corner = stride + shift
    return pad_with_mean(sample, size, (corner, corner)), corner


def _ground(edge: int, stride: int) -> int:
    return -(-edge // stride) * stride + 3 * stride


def places_read(
    pooler: RoIPooler, boxes: Tensor, size: tuple[int, int], bins: int, stride: int, corner: int
) -> Tensor:
    """Where in the image each bin reads: x and y in its pixels, float64 ``[G, 2, bins, bins]``.

    Args:
        boxes: ``[G, 4]`` on the ground.
        size: (rows, columns) of the feature map.
        corner: where the image's corner lies on the ground, x and y alike.
    """
    rows, columns = ((torch.arange(n, dtype=torch.float64) + 0.5) * stride - corner for n in size)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return pooler(torch.stack((x, y))[None], [boxes.double().cpu()], bins)


def open_run(folder: Path) -> TrainedRun:
    """Network and data of a run, from its last checkpoint, in float32."""

    def in_float32(cfg: DictConfig) -> DictConfig:
        # Small differences are compared: they must not be those of a short number format.
        OmegaConf.update(cfg, "precision", "float32")
        return cfg

    detector = load(folder, needs=("roi_heads",), change=in_float32)
    cfg, model = detector.config, detector.model
    data = build_data(cfg)
    detector.check_categories(data.val)
    assert model.roi_heads is not None
    settings = hyperparameters(plain(cfg))
    return TrainedRun(
        model, model.roi_heads, data, detector.runtime, cfg.stride, cfg.evaluation.backend, settings
    )


@torch.no_grad()
def look(run: TrainedRun, index: int, shift: int) -> tuple[list[dict[str, Any]], Tensor, Tensor]:
    """One image at one shift: COCO's results in the file's pixels, the pooled features of its true
    boxes ``[G, C, P, P]``, and where their bins read ``[G, 2, P, P]``."""
    prepared = run.data.eval_transform(run.data.val.read(index))
    sample, corner = shifted(prepared, shift, run.stride)
    model, device = run.model, run.runtime.device
    image = sample.image.to(device)
    size = (image.shape[1], image.shape[2])
    features = model.backbone(model.normalize([image]))  # [1, C, H, W]
    if sample.proposals is not None:
        proposals = [sample.proposals.to(device)]
    else:
        assert model.rpn is not None
        proposals = [found.boxes for found in model.rpn(features, [size], None)[0]]
    found = run.heads.detect(features, proposals, [size])[0].cpu()

    head = run.heads.head
    boxes = sample.target.boxes.to(device)
    pooled = head.pooler(features, [boxes], head.pool_size).double().cpu()
    grid = (features.shape[2], features.shape[3])
    places = places_read(head.pooler, boxes, grid, head.pool_size, run.stride, corner)
    prepared_size = (prepared.image.shape[1], prepared.image.shape[2])
    results = _in_file(run, found, corner, prepared_size, sample)
    return results, pooled, places


def _in_file(
    run: TrainedRun, found: Detections, corner: int, prepared: tuple[int, int], sample: Sample
) -> list[dict[str, Any]]:
    """Detections on the ground as COCO's results in the pixels of the file.

    A box that reaches beyond the image is cut for the box score alone: its mask is pasted from the
    whole box, as it was predicted.
    """
    original = sample.original_size
    scale_y, scale_x = original[0] / prepared[0], original[1] / prepared[1]
    boxes = (found.boxes - corner) * torch.tensor([scale_x, scale_y, scale_x, scale_y])
    cut = clip(boxes, original)
    inside = is_nonempty(cut)
    results = coco_results(
        Detections(
            boxes[inside],
            found.scores[inside],
            found.labels[inside],
            None if found.masks is None else found.masks[inside],
        ),
        image_id=sample.image_id,
        original_size=original,
        category_ids=[category.id for category in run.data.val.categories],
    )
    for result, (x1, y1, x2, y2) in zip(results, cut[inside].tolist(), strict=True):
        result["bbox"] = [x1, y1, x2 - x1, y2 - y1]
    return results


def _truth(dataset: DetectionDataset, images: int) -> dict[str, Any]:
    """The COCO document of the first `images` images."""
    truth = dataset.ground_truth()
    ids = set(dataset.image_ids[:images])
    return {
        "images": [image for image in truth["images"] if image["id"] in ids],
        "annotations": [a for a in truth["annotations"] if a["image_id"] in ids],
        "categories": truth["categories"],
    }


def _scores(
    run: TrainedRun, truth: dict[str, Any], results: list[dict[str, Any]]
) -> dict[str, float]:
    kinds = ("bbox", "segm") if run.heads.mask else ("bbox",)
    metrics = coco_metrics(truth, results, iou_types=kinds, backend=run.backend)
    return {f"{kind}/{name}": metrics[f"{kind}/{name}"] for kind in kinds for name in SCORED}


def _ratio(sums: Tensor) -> float:
    """Of two sums; 0 where there was nothing to sum."""
    return float(sums[0] / sums[1]) if sums[1] > 0 else 0.0
