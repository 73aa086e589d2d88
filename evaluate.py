"""Evaluate a network: detections, COCO's figures, validation loss.

    python evaluate.py checkpoint=outputs/RUN
    python evaluate.py experiment=detectron2/r50_c4 weights=model_final.pkl data.root=/data/coco
    python evaluate.py detections=outputs/RUN/detections.json

`evaluate` is an ordinary function that training calls too; around it stand the few functions that
turn a configuration into parts (`build_data`, `build_model`) and the command line.
"""

import itertools
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import InstantiationException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from data.coco import CocoDataset, DataSplits
from data.loader import eval_loader
from data.transforms import EvalTransform
from engine.checkpoint import load_checkpoint, load_weights_into
from engine.coco_eval import (
    coco_metrics,
    coco_results,
    compare_with_expected,
    read_results,
    results_table,
)
from engine.run_folder import write_json
from engine.runtime import Runtime, start_runtime
from models.mask_rcnn import MaskRCNN, build_mask_rcnn
from models.weight_kinds import open_weights
from models.weights import FILLED_LATER, load_detector, settle_structure
from ops.boxes import rescale
from ops.errors import InputError
from ops.structures import Batch, Detections

LOSS_SEED = 0  # the validation loss samples the same anchors and RoIs every time


@dataclass(frozen=True)
class Evaluation:
    """COCO's figures in percent (and `val/loss` ...), and the detections they come from."""

    metrics: dict[str, float]
    results: list[dict[str, Any]]


def evaluate(
    model: MaskRCNN,
    dataset: CocoDataset,
    transform: EvalTransform,
    runtime: Runtime,
    *,
    backend: str = "pycocotools",
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
        backend, per_category: see `engine.coco_eval.coco_metrics`.
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
    results = []
    for batch in tqdm(loader, "evaluating", disable=not show, leave=False, unit="batch"):
        for sample, found in zip(batch.samples, detect(model, batch, runtime), strict=True):
            results += coco_results(
                found,
                image_id=sample.image_id,
                original_size=sample.original_size,
                category_ids=category_ids,
            )
    results = runtime.gather_objects(results)
    metrics = coco_metrics(
        dataset.ground_truth(),
        results,
        iou_types=("bbox", "segm") if model.roi_heads.mask else ("bbox",),
        per_category=per_category,
        backend=backend,
    )
    if loss_images:
        batches = -(-loss_images // (batch_size * runtime.world_size))
        metrics |= validation_loss(model, itertools.islice(iter(loader), batches), runtime)
    model.train(was_training)
    return Evaluation(metrics, results)


@torch.no_grad()
def detect(model: MaskRCNN, batch: Batch, runtime: Runtime) -> list[Detections]:
    """Detections of each image of `batch`, in the pixels of its file, on the CPU."""
    batch = batch.to(runtime.device)
    with runtime.autocast():
        detections = model(batch.images)
    return [
        rescale(found.cpu(), (sample.image.shape[1], sample.image.shape[2]), sample.original_size)
        for found, sample in zip(detections, batch.samples, strict=True)
    ]


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
                losses = model(batch.images, batch.targets)
            for name, value in losses.items():
                sums[f"val/{name}"] = sums.get(f"val/{name}", 0.0) + float(value)
            count += 1
    means = {name: total / count for name, total in sums.items()}
    return runtime.average({"val/loss": sum(means.values()), **means})


def build_data(cfg: DictConfig) -> DataSplits:
    """The data set that `cfg.data` describes. Raises InputError for anything wrong with it."""
    missing = sorted(f"data.{key}" for key in OmegaConf.missing_keys(cfg.data))
    if missing:
        raise InputError(f"{', '.join(missing)} is not set: give it on the command line")
    overrides = {"masks": False} if not cfg.mask else {}
    return instantiate(cfg.data, **overrides)


def with_structure(cfg: DictConfig) -> DictConfig:
    """`cfg` with what its weights decide about the backbone written out, where it leaves that open.

    A checkpoint keeps the result, and so needs no other file to be built again.

    Raises:
        InputError: `cfg` states otherwise than the detector that is to fill the whole network.
    """
    weights = cfg.weights or cfg.backbone.get("weights")
    settled = settle_structure(plain(cfg.backbone), weights, whole=bool(cfg.weights))
    return OmegaConf.merge(cfg, {"backbone": settled})  # type: ignore[return-value]


def load_weights(model: MaskRCNN, path: Path, dataset: CocoDataset) -> None:
    """Fill `model` from a detector's file: ours, for the same categories, or detectron's.

    Raises:
        InputError: no such file, no detector, other categories, another architecture.
    """
    file = open_weights(path)
    if file.categories is not None:
        check_categories(file.categories, dataset, path)
    load_detector(model, file)


def build_model(cfg: DictConfig, num_classes: int) -> MaskRCNN:
    """The network that `cfg` describes, with the data set's number of classes.

    Where `cfg.weights` is to fill all of it, the backbone alone is given no weights before.

    Raises:
        InputError: unknown stride, weights that cannot be had, and other settings without sense.
    """
    model = build_mask_rcnn(
        backbone=instantiate(cfg.backbone, **({"weights": FILLED_LATER} if cfg.weights else {})),
        stride=cfg.stride,
        pooler=instantiate(cfg.pooler),
        num_classes=num_classes,
        mask=cfg.mask,
        head=plain(cfg.head),
        anchors=plain(cfg.proposals.anchors),
        rpn=plain(cfg.proposals.rpn),
        roi=plain(cfg.roi),
    )
    if cfg.channels_last:
        model = model.to(memory_format=torch.channels_last)
    return model


def instantiate(node: DictConfig, **changes: Any) -> Any:
    """Hydra's instantiate, with an InputError of ours coming through as it was raised."""
    try:
        return hydra.utils.instantiate(node, _convert_="all", **changes)
    except InstantiationException as error:
        if isinstance(error.__cause__, InputError):
            raise error.__cause__ from None
        raise


def plain(node: DictConfig) -> dict[str, Any]:
    """A configuration node as a plain dict, references resolved."""
    return OmegaConf.to_container(node, resolve=True)  # type: ignore[return-value]


def build_runtime(cfg: DictConfig) -> Runtime:
    """Device, number format, threads and ranks that `cfg` asks for."""
    return start_runtime(
        device=cfg.device,
        precision=cfg.precision,
        threads=cfg.threads,
        deterministic=cfg.deterministic,
    )


def evaluate_checkpoint(cfg: DictConfig, overrides: Sequence[str]) -> dict[str, float]:
    """What `python evaluate.py checkpoint=...` does: returns and writes the figures.

    Args:
        cfg: configs/evaluate.yaml, composed.
        overrides: the words of the command line; they alone change the checkpoint's settings.
    """
    path = _checkpoint_path(Path(cfg.checkpoint))
    checkpoint = load_checkpoint(path)
    cfg = with_overrides(OmegaConf.create(checkpoint.config_text), cfg, overrides)  # type: ignore[arg-type]
    runtime = build_runtime(cfg)
    data = build_data(cfg)
    check_categories(checkpoint.categories, data.val, path)
    # The file holds every weight: nothing is downloaded for a network that is about to be filled.
    OmegaConf.update(cfg, "backbone.weights", FILLED_LATER)
    model = build_model(cfg, len(data.val.categories))
    load_weights_into(model, checkpoint.model, path)
    run = path.parent.parent if path.parent.name == "checkpoints" else path.parent
    return _evaluate_and_write(cfg, model, data, runtime, run)


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
        _write(_output_folder(cfg, beside), evaluation.metrics, evaluation.results)
        print_comparison(cfg, evaluation.metrics, data)
    runtime.close()
    return evaluation.metrics


def evaluate_detections(cfg: DictConfig, overrides: Sequence[str]) -> dict[str, float]:
    """What `python evaluate.py detections=...` does; the run's config.yaml beside the file, if
    there is one, says which data set they are of."""
    path = Path(cfg.detections)
    results = read_results(path)
    beside = path.parent / "config.yaml"
    if beside.is_file():
        cfg = with_overrides(OmegaConf.load(beside), cfg, overrides)  # type: ignore[arg-type]
    data = build_data(cfg)
    metrics = coco_metrics(
        data.val.ground_truth(),
        results,
        iou_types=("bbox", "segm") if cfg.mask else ("bbox",),
        per_category=cfg.evaluation.per_category,
        backend=cfg.evaluation.backend,
    )
    _write(_output_folder(cfg, path.parent), metrics, None)
    return metrics


def print_comparison(cfg: DictConfig, metrics: Mapping[str, float], data: DataSplits) -> None:
    """`metrics` beside the configuration's `expected`, where it has any."""
    if cfg.get("expected") is not None:
        print(compare_with_expected(metrics, images=len(data.val), expected=plain(cfg.expected)))


def evaluation_settings(cfg: DictConfig) -> dict[str, Any]:
    """The keyword arguments of `evaluate` that come from the configuration."""
    settings = {key: value for key, value in cfg.evaluation.items() if key != "pictures"}
    return {**settings, "workers": cfg.workers, "progress": cfg.run.progress}


def with_overrides(saved: DictConfig, fresh: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """`saved`, with every setting or group that `overrides` names taken from `fresh`."""
    merged = OmegaConf.create(OmegaConf.to_yaml(saved))
    OmegaConf.set_struct(merged, False)
    absent = object()  # null is a value like any other
    for key in ("checkpoint", "detections", "output"):
        OmegaConf.update(merged, key, fresh.get(key))
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        key = override.key_or_group.replace("/", ".")
        value = OmegaConf.select(fresh, key, default=absent)
        if value is not absent and key not in ("hydra", "experiment"):
            OmegaConf.update(merged, key, value, merge=False)
    return merged  # type: ignore[return-value]


def check_categories(
    categories: Sequence[Mapping[str, Any]], dataset: CocoDataset, path: Path
) -> None:
    """InputError unless the checkpoint's `categories` are the data set's, id by id."""
    trained = [(c["id"], c["name"]) for c in categories]
    present = [(c.id, c.name) for c in dataset.categories]
    if trained == present:
        return
    differing = [*sorted(set(trained) ^ set(present)), "their order"]
    raise InputError(
        f"{path}: trained on {len(trained)} categories, {dataset.annotations_file} has "
        f"{len(present)}; the first that differs is {differing[0]}; "
        "evaluate on the data set it was trained for"
    )


def command_line(action: Callable[[], Any]) -> Any:
    """Run `action`; a user's mistake becomes one line and exit status 2, not a traceback.

    In a sweep it is raised instead, so that Hydra marks the job and goes on with the others.
    """
    try:
        return action()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
            raise
        sys.exit(2)


def _checkpoint_path(given: Path) -> Path:
    return given / "checkpoints" / "last.pt" if given.is_dir() else given


def _output_folder(cfg: DictConfig, beside: Path) -> Path:
    return Path(cfg.output) if cfg.output else beside / "evaluation"


def _write(folder: Path, metrics: dict[str, float], results: list[dict[str, Any]] | None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if results is not None:
        write_json(folder / "detections.json", results)
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
    main()
