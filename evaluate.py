"""Evaluate a network: detections, COCO's figures, validation loss.

    python evaluate.py checkpoint=outputs/RUN
    python evaluate.py experiment=detectron2/r50_c4 weights=model_final.pkl data.root=/data/coco
    python evaluate.py detections=outputs/RUN/detections.json

`evaluate` is an ordinary function that training calls too; below it stands the command line.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import torch
from hydra.core.hydra_config import HydraConfig
from numpy.typing import NDArray
from omegaconf import DictConfig
from tqdm import tqdm

from build import build_data, build_model, build_runtime, load_weights, with_structure
from configuration import (
    check_settings,
    command_line,
    plain,
    run_command,
    saved_config,
    with_overrides,
)
from data.loader import eval_loader
from data.splits import DataSplits, DetectionDataset
from data.transforms import EvalTransform
from detector import detect, load
from files.atomic import make_folder, write_json
from judging.coco_eval import (
    CocoEvaluation,
    check_backend,
    coco_evaluation,
    compare_with_expected,
    results_table,
)
from judging.proposal_recall import proposal_recall
from judging.results import Results, check_masks, coco_results, read_results, write_results
from models.mask_rcnn import MaskRCNN
from ops.errors import InputError
from running.runtime import Runtime

LOSS_SEED = 0  # the validation loss samples the same anchors and RoIs every time


@dataclass(frozen=True)
class Evaluation:
    """COCO's figures in percent (and `val/loss` ...), and the detections they come from.

    `precision`, by kind: see `judging.coco_eval.CocoEvaluation`; empty for proposals.
    """

    metrics: dict[str, float]
    results: Results
    precision: dict[str, NDArray[np.float64]]


def evaluate(
    model: MaskRCNN,
    dataset: DetectionDataset,
    transform: EvalTransform,
    runtime: Runtime,
    *,
    backend: str = "hotcoco",
    per_category: bool = False,
    batch_size: int = 1,
    loss_images: int = 0,
    workers: int = 0,
    progress: bool = True,
) -> Evaluation:
    """Detect on every image of `dataset` and score the result; every rank returns the same.

    Args:
        model: on the runtime's device; left in the mode it was in.
        dataset, transform: what is evaluated, and how its images are prepared.
        backend, per_category: see `judging.coco_eval.coco_evaluation`.
        batch_size: images at once.
        loss_images: how many of the first images the validation loss is taken over.
        workers: processes that load images.
        progress: whether to draw a bar.
    """
    was_training = model.training
    model.eval()
    loader = eval_loader(
        dataset,
        transform,
        batch_size=batch_size,
        workers=workers,
        rank=runtime.rank,
        world_size=runtime.world_size,
    )
    show = progress and runtime.is_main
    category_ids = [category.id for category in dataset.categories]
    parts = []
    for batch in tqdm(loader, "evaluating", disable=not show, leave=False, unit="batch"):
        for sample, found in zip(batch.samples, detect(model, batch, runtime), strict=True):
            parts.append(
                coco_results(
                    found,
                    image_id=sample.image_id,
                    original_size=sample.original_size,
                    category_ids=category_ids,
                )
            )
    results = Results.joined(runtime.gather_objects(parts))
    judged = _judge(
        dataset,
        results,
        proposals=model.roi_heads is None,
        masks=model.roi_heads is not None and bool(model.roi_heads.mask),
        per_category=per_category,
        backend=backend,
    )
    metrics = judged.metrics
    if loss_images:
        batches = -(-loss_images // (batch_size * runtime.world_size))
        metrics |= validation_loss(model, itertools.islice(iter(loader), batches), runtime)
    model.train(was_training)
    return Evaluation(metrics, results, judged.precision)


def _judge(
    dataset: DetectionDataset, results: Results, *, proposals: bool, masks: bool, **settings: Any
) -> CocoEvaluation:
    """COCO's figures of detections, or the recall of proposals."""
    truth = dataset.ground_truth()
    if proposals:
        return CocoEvaluation(proposal_recall(truth, results), {})
    kinds = ("bbox", "segm") if masks else ("bbox",)
    return coco_evaluation(truth, results, iou_types=kinds, **settings)


@torch.no_grad()
def validation_loss(model: MaskRCNN, batches: Any, runtime: Runtime) -> dict[str, float]:
    """Mean of each loss over `batches` as `val/loss_*`, and of their sum as `val/loss`.

    Anchors and RoIs are sampled from a fixed seed, and training's random stream is left as it was.
    """
    sums: dict[str, float] = {}
    count = 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(LOSS_SEED)
        for batch in batches:
            batch = batch.to(runtime.device)
            with runtime.autocast():
                losses = model(batch.images, batch.targets, batch.proposals)
            for name, value in losses.items():
                sums[f"val/{name}"] = sums.get(f"val/{name}", 0.0) + float(value)
            count += 1
    means = {name: total / count for name, total in sums.items()}
    return runtime.average({"val/loss": sum(means.values()), **means})


def evaluate_checkpoint(cfg: DictConfig, overrides: Sequence[str]) -> dict[str, float]:
    """What `python evaluate.py checkpoint=...` does: returns and writes the figures.

    Args:
        cfg: configs/evaluate.yaml, composed.
        overrides: the words of the command line; they alone change the checkpoint's settings.
    """
    detector = load(
        cfg.checkpoint, needs=(), change=lambda saved: with_overrides(saved, cfg, overrides)
    )
    data = build_data(detector.config)
    detector.check_categories(data.val)
    return _evaluate_and_write(
        detector.config, detector.model, data, detector.runtime, detector.folder
    )


def evaluate_weights(cfg: DictConfig) -> dict[str, float]:
    """What `python evaluate.py weights=...` does: the network is the configuration's, and the file
    fills it."""
    path = Path(cfg.weights)
    cfg = with_structure(cfg)
    runtime = build_runtime(cfg)
    data = build_data(cfg)
    model = build_model(cfg, len(data.val.categories))
    load_weights(model, path, data.val)
    beside = Path(cfg.run.root) / path.stem  # foreign files may lie where nothing can be written
    return _evaluate_and_write(cfg, model, data, runtime, beside)


def _evaluate_and_write(
    cfg: DictConfig, model: MaskRCNN, data: DataSplits, runtime: Runtime, beside: Path
) -> dict[str, float]:
    check_settings(cfg)
    output = _output_folder(cfg, beside)
    make_folder(output)
    model.to(runtime.device)
    print(data.val.describe())
    evaluation = evaluate(
        model,
        data.val,
        data.eval_transform,
        runtime,
        **evaluation_settings(cfg),
    )
    if runtime.is_main:
        _write(output, evaluation.metrics, evaluation.results)
        print_comparison(cfg, evaluation.metrics, data)
    runtime.close()
    return evaluation.metrics


def evaluate_detections(cfg: DictConfig, overrides: Sequence[str]) -> dict[str, float]:
    """What `python evaluate.py detections=...` does; the run's config.yaml beside the file, if
    there is one, says which data set they are of."""
    path = Path(cfg.detections)
    make_folder(_output_folder(cfg, path.parent))
    results = read_results(path)
    beside = path.parent / "config.yaml"
    if beside.is_file():
        cfg = with_overrides(saved_config(beside.read_text(encoding="utf-8")), cfg, overrides)
    data = build_data(cfg)
    if cfg.mask and not cfg.proposals_only:
        check_masks(results, data.val.ground_truth())
    metrics = _judge(
        data.val,
        results,
        proposals=cfg.proposals_only,
        masks=cfg.mask,
        per_category=cfg.evaluation.per_category,
        backend=cfg.evaluation.backend,
    ).metrics
    _write(_output_folder(cfg, path.parent), metrics, None)
    return metrics


def print_comparison(cfg: DictConfig, metrics: Mapping[str, float], data: DataSplits) -> None:
    """`metrics` beside the configuration's `expected`, where it has any."""
    if cfg.get("expected") is not None:
        images, steps = len(data.val), cfg.schedule.steps
        expected = plain(cfg.expected)
        print(compare_with_expected(metrics, images=images, steps=steps, expected=expected))


def evaluation_settings(cfg: DictConfig) -> dict[str, Any]:
    """The keyword arguments of `evaluate` that come from the configuration; InputError where they
    are wrong, before anything is computed."""
    check_backend(cfg.evaluation.backend)
    settings = {key: value for key, value in cfg.evaluation.items() if key != "pictures"}
    return {**settings, "workers": cfg.workers, "progress": cfg.run.progress}


def _output_folder(cfg: DictConfig, beside: Path) -> Path:
    return Path(cfg.output) if cfg.output else beside / "evaluation"


def _write(folder: Path, metrics: dict[str, float], results: Results | None) -> None:
    if results is not None:
        write_results(folder / "detections.json", results)
    write_json(folder / "metrics.json", metrics)
    print(results_table(metrics))
    print(f"written to {folder}")


@hydra.main(version_base="1.3", config_path="configs", config_name="evaluate")
def main(cfg: DictConfig) -> None:
    """Command line; see configs/evaluate.yaml."""
    overrides = list(HydraConfig.get().overrides.task)

    def action() -> None:
        if cfg.detections:
            evaluate_detections(cfg, overrides)
        elif cfg.checkpoint:
            evaluate_checkpoint(cfg, overrides)
        elif cfg.weights:
            evaluate_weights(cfg)
        else:
            raise InputError("checkpoint is not set: give checkpoint=outputs/RUN, or weights=FILE")

    command_line(action)


if __name__ == "__main__":
    run_command(main, "evaluate")
