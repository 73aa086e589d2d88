"""Train Mask R-CNN with a pluggable RoI pooler, and evaluate it.

    python train.py                                        the demo
    python train.py backbone=vgg16 stride=32 pooler=warp data=coco data.root=/data/coco
    python train.py -m pooler=pool,warp,align stride=16,32 seed=0,1

`train` reads from top to bottom: parts, run folder, loop, evaluation. It is an ordinary function of
a composed configuration; Hydra's wrapper stands at the end.
"""

import hashlib
import re
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import hydra
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from build import build_data, build_model, build_runtime, instantiate, load_weights, with_structure
from configuration import check_settings, command_line, plain, run_command
from data.loader import train_loader
from data.splits import DataSplits, check_images
from detector import detect
from drawing.visualize import truth_beside_prediction
from evaluate import evaluate, evaluation_settings, print_comparison
from judging.coco_eval import results_table
from judging.matches import save_matches
from judging.matching import match_results
from judging.results import write_results
from models.mask_rcnn import MaskRCNN
from models.network import describe
from ops.errors import InputError
from ops.structures import Batch
from running.checkpoint import CheckpointKeeper, load_checkpoint, load_weights_into
from running.optim import (
    check_finite,
    clip_gradients,
    effective_lr,
    lr_factor,
    parameter_groups,
    set_learning_rate,
)
from running.run_folder import RunFolder
from running.runtime import Runtime, rng_state, seed_everything, set_rng_state
from running.tracking import Tracker, hyperparameters

# Settings that change neither what is learned nor what is measured: a run may go on under others.
NEUTRAL_SETTINGS = (
    *("run.overwrite", "run.progress", "run.keep", "run.wait", "run.root", "run.name"),
    *("workers", "expected", "evaluation.backend"),
)
# Settings that follow the machine. They change roundings, so that an unfinished run keeps its own.
MACHINE_SETTINGS = ("threads", "device")
# The best checkpoint is the one with the highest of these, the first that a run measures.
BEST_BY = ("segm/AP", "bbox/AP", "proposals/AR1000")


def train(cfg: DictConfig) -> dict[str, Any]:
    """Train, evaluate and leave a finished run folder; returns its metrics.

    A finished run of the same configuration is not repeated; an unfinished one goes on from its
    last checkpoint.

    Raises:
        InputError: bad data or settings, before any training; a loss that is not finite.
    """
    with ExitStack() as opened:
        return _train(cfg, opened)


def _train(cfg: DictConfig, opened: ExitStack) -> dict[str, Any]:
    """`train`; what it opens is closed with `opened`, however it ends."""
    check_settings(cfg)
    runtime = build_runtime(cfg)
    if runtime.world_size > 1:  # gradients would not be averaged: rather none than wrong ones
        raise InputError(
            f"WORLD_SIZE={runtime.world_size}: training runs in one process; start it without "
            "torchrun"
        )
    per_batch = images_per_batch(cfg, runtime)
    evaluating = evaluation_settings(cfg)
    cfg = with_structure(cfg)
    config_text = OmegaConf.to_yaml(cfg, resolve=True)
    if (Path(cfg.run.dir) / "metrics.json").is_file() and not cfg.run.overwrite:
        return _finished_before(opened.enter_context(_open_folder(cfg, config_text)))
    data = build_data(cfg)
    seed_everything(cfg.seed, runtime.rank)
    model = build_model(cfg, len(data.train.categories))
    if cfg.weights:
        load_weights(model, Path(cfg.weights), data.train)
    for dataset in {id(d): d for d in (data.train, data.val)}.values():
        print(dataset.describe())
        check_images(dataset)
    folder = opened.enter_context(_open_folder(cfg, config_text))
    if folder.state == "finished":  # by another process, for which this one waited
        return _finished_before(folder)

    # The parts of a run
    model.to(runtime.device).train()
    schedule = cfg.schedule
    optimizer = instantiate(schedule.optimizer)(
        parameter_groups(
            model,
            weight_decay=schedule.weight_decay,
            bias_lr_factor=schedule.bias_lr_factor,
            bias_decay=schedule.bias_decay,
            norm_decay=schedule.norm_decay,
        ),
        lr=schedule.lr,
    )
    scaler = runtime.grad_scaler()
    base_lr = effective_lr(schedule.lr, schedule.images_per_step)
    keeper = CheckpointKeeper(folder.checkpoints, keep=cfg.run.keep)
    start, seconds = _resume(folder, model, optimizer, keeper)
    tracker = opened.enter_context(Tracker(folder.path, start_step=start, active=runtime.is_main))
    tracker.session(hyperparameters(plain(cfg)), variant_name(cfg))
    tracker.text("config", f"```yaml\n{config_text}\n```")
    _announce(cfg, model, runtime, base_lr, per_batch, len(data.train))
    batches = train_loader(
        data.train,
        data.train_transform,
        batch_size=per_batch,
        seed=cfg.seed,
        workers=cfg.workers,
        start=start * schedule.accumulate,
        rank=runtime.rank,
        world_size=runtime.world_size,
        pin_memory=runtime.device.type == "cuda",
    )

    def save(step: int, score: float | None) -> None:
        keeper.save(
            step=step,
            score=score,
            model=model,
            optimizer=optimizer,
            config_text=config_text,
            categories=[{"id": c.id, "name": c.name} for c in data.train.categories],
            rng=rng_state(),
            extra={"train_seconds": seconds + time.monotonic() - began},
        )

    # The loop
    began = time.monotonic()
    bar = tqdm(
        total=schedule.steps,
        initial=start,
        desc="training",
        disable=not (cfg.run.progress and runtime.is_main),
        unit="step",
        mininterval=0.5,
    )
    metrics: dict[str, float] = {}
    for step in range(start, schedule.steps):
        lr = base_lr * lr_factor(step, **_shape_of(schedule))
        set_learning_rate(optimizer, lr)
        tick = time.monotonic()
        waited = 0.0
        losses: dict[str, float] = {}
        for _ in range(schedule.accumulate):
            asked = time.monotonic()
            batch = next(batches).to(runtime.device)
            waited += time.monotonic() - asked
            with runtime.autocast():
                terms = model(batch.images, batch.targets, batch.proposals)
            check_finite(terms, step)
            total = sum(terms.values())
            scaler.scale(total / schedule.accumulate).backward()
            for name, value in {"loss": total, **terms}.items():
                share = float(value.detach()) / schedule.accumulate
                losses[f"train/{name}"] = losses.get(f"train/{name}", 0.0) + share
        scaler.unscale_(optimizer)
        norm = clip_gradients(model.parameters(), schedule.clip_norm)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)

        done = step + 1
        bar.update()
        bar.set_postfix_str(f"loss {losses['train/loss']:.3f}, lr {lr:.2e}")
        if done % schedule.log_every == 0 or done == schedule.steps:
            spent = time.monotonic() - tick
            tracker.scalars(
                {
                    **losses,
                    "train/lr": lr,
                    "train/gradient_norm": float(norm),
                    "train/data_seconds": waited,
                    "train/step_seconds": spent,
                },
                done,
            )
        score = None
        if done % schedule.eval_every == 0 or done == schedule.steps:
            evaluation = evaluate(model, data.val, data.eval_transform, runtime, **evaluating)
            metrics = evaluation.metrics
            score = next(metrics[key] for key in BEST_BY if key in metrics)
            tracker.scalars(metrics, done)
            tracker.pr_curves(evaluation.precision, done)
            _show(model, data, runtime, tracker, cfg.evaluation.pictures, done)
            bar.write(f"step {done}: " + _one_line(metrics))
        if score is not None or done % schedule.checkpoint_every == 0:
            save(done, score)
    bar.close()
    seconds += time.monotonic() - began

    # The result; metrics.json comes last, because it means "finished".
    if not metrics:  # interrupted after the last step, before its end
        evaluation = evaluate(model, data.val, data.eval_transform, runtime, **evaluating)
        metrics = evaluation.metrics
    write_results(folder.detections, evaluation.results)
    truth = data.val.ground_truth()
    matches = {k: match_results(truth, evaluation.results, k) for k in evaluation.precision}
    if matches:
        save_matches(folder.matches, matches)
    tracker.finish()  # before the figures: they mean that all else is written
    result = {**metrics, "train_seconds": seconds, "best/AP": keeper.best, "steps": schedule.steps}
    folder.write_metrics(result)
    print(results_table(metrics))
    print_comparison(cfg, metrics, data)
    print(f"{folder.path}: {schedule.steps} steps in {seconds / 60:.1f} minutes")
    return result


def _open_folder(cfg: DictConfig, config_text: str) -> RunFolder:
    return RunFolder.open(
        Path(cfg.run.dir),
        config_text,
        overwrite=cfg.run.overwrite,
        wait=cfg.run.wait,
        ignore=NEUTRAL_SETTINGS,
        ignore_finished=MACHINE_SETTINGS,
    )


def _finished_before(folder: RunFolder) -> dict[str, Any]:
    print(f"{folder.path}: finished before; run.overwrite=true trains it again")
    print(results_table(folder.read_metrics()))
    return folder.read_metrics()


def images_per_batch(cfg: DictConfig, runtime: Runtime) -> int:
    """Images that one process computes at once; InputError where the step does not divide."""
    parts = runtime.world_size * cfg.schedule.accumulate
    if cfg.schedule.images_per_step % parts:
        raise InputError(
            f"schedule.images_per_step={cfg.schedule.images_per_step}: does not divide into "
            f"{runtime.world_size} processes x schedule.accumulate={cfg.schedule.accumulate}; "
            "choose a multiple"
        )
    return cfg.schedule.images_per_step // parts


def _shape_of(schedule: DictConfig) -> dict[str, Any]:
    names = ("steps", "warmup_steps", "warmup_factor", "milestones", "gamma", "shape")
    return {name: schedule[name] for name in names}


def _resume(
    folder: RunFolder,
    model: MaskRCNN,
    optimizer: torch.optim.Optimizer,
    keeper: CheckpointKeeper,
) -> tuple[int, float]:
    """Steps done and seconds spent by an unfinished run, its state put back; (0, 0.0) for none."""
    if not folder.last_checkpoint.is_file():
        return 0, 0.0
    checkpoint = load_checkpoint(folder.last_checkpoint)
    load_weights_into(model, checkpoint.model, folder.last_checkpoint)
    if checkpoint.optimizer is not None:
        optimizer.load_state_dict(checkpoint.optimizer)
    if checkpoint.rng is not None:
        set_rng_state(checkpoint.rng)
    keeper.best = checkpoint.best
    print(f"{folder.path}: goes on after step {checkpoint.step}")
    return checkpoint.step, checkpoint.extra["train_seconds"]


def _announce(
    cfg: DictConfig,
    model: MaskRCNN,
    runtime: Runtime,
    base_lr: float,
    per_batch: int,
    images: int,
) -> None:
    """What is in effect, in a few lines: people compare it with what they meant."""
    schedule = cfg.schedule
    epochs = schedule.steps * schedule.images_per_step / images
    pooler = cfg.pooler._target_.rpartition(".")[-1]
    print(f"{describe(model)}; stride {cfg.stride}, {pooler}")
    print(
        f"{schedule.steps} steps of {schedule.images_per_step} images ({epochs:.1f} epochs), "
        f"{per_batch} at once; learning rate {base_lr:g} "
        f"(stated {schedule.lr:g} per 16 images), {schedule.shape}, "
        f"warm-up {schedule.warmup_steps} steps; {runtime.precision}"
    )


def _show(
    model: MaskRCNN,
    data: DataSplits,
    runtime: Runtime,
    tracker: Tracker,
    count: int,
    step: int,
) -> None:
    """The first validation images, truth beside prediction, the same at every evaluation."""
    if not runtime.is_main or count == 0:
        return
    names = [category.name for category in data.val.categories]
    model.eval()
    pictures = []
    for index in range(min(count, len(data.val))):
        original = data.val.read(index)
        prepared = data.eval_transform(original, None)
        found = detect(model, Batch((prepared,)), runtime)[0]
        pictures.append(truth_beside_prediction(original, found, names))
    model.train()
    tracker.images("val", pictures, step)


def _one_line(metrics: Mapping[str, float]) -> str:
    names = {
        "bbox/AP": "box AP",
        "segm/AP": "mask AP",
        "proposals/AR100": "AR of 100 proposals",
        "proposals/AR1000": "of 1000",
        "val/loss": "validation loss",
    }
    return ", ".join(f"{name} {metrics[k]:.2f}" for k, name in names.items() if k in metrics)


LONGEST_NAME = 120  # bytes of a folder's name; file systems end at 255, archives earlier
# Words of the command line that a run's name leaves out: where, how, or stated in it already.
NOT_IN_NAME = {
    *("experiment", "seed", "workers", "device", "threads", "data.root"),
    *("proposals.files.train", "proposals.files.val"),
}


def run_name(cfg: DictConfig, choices: Mapping[str, str], overrides: list[str]) -> str:
    """A name that tells runs of a sweep apart: the choices, then whatever else was overridden.

    An experiment of a family, such as `demo/pool_s16`, gives `demo/pool_s16/seed0`: a folder of the
    family, one of the variant, one of the run. Whatever is overridden makes it another variant.
    """
    experiment = choices.get("experiment") or "null"
    if "/" in experiment:
        family, _, variant = experiment.rpartition("/")
        variant = _safe("_".join([variant, *_changed(overrides, NOT_IN_NAME)]))
        return f"{family}/{variant}/seed{cfg.seed}"
    parts = [choices["data"], choices["backbone"], f"s{cfg.stride}", choices["pooler"]]
    if experiment != "null":
        parts.insert(0, experiment)
    if choices["recipe"] not in ("demo", choices["schedule"]):
        parts.append(choices["recipe"])
    parts += [choices["schedule"], f"seed{cfg.seed}"]
    changed = _changed(overrides, {*choices, "stride", *NOT_IN_NAME})
    return _safe("_".join([*parts, *changed]))


def _changed(overrides: list[str], left_out: set[str]) -> list[str]:
    """The words of a command line that change what is computed, but those of `left_out`."""
    parsed = OverridesParser.create().parse_overrides(overrides)
    return [
        f"{o.key_or_group}={o.get_value_element_as_str()}"
        for o in parsed
        if o.key_or_group not in left_out and not o.key_or_group.startswith(("run.", "hydra"))
    ]


def _safe(name: str) -> str:
    """A part of a folder's name, free of what shells and Hydra's grammar read as their own."""
    part = re.sub(r"[^\w.+-]+", "-", name, flags=re.ASCII).strip("-")
    if len(part.encode()) <= LONGEST_NAME:
        return part
    digest = hashlib.sha256(part.encode()).hexdigest()[:8]
    return part.encode()[: LONGEST_NAME - 9].decode(errors="ignore") + "-" + digest


def variant_name(cfg: DictConfig) -> str:
    """The run's name without its seed: what the seeds of one variant share."""
    return re.sub(r"[/_]seed\d+(?=_|$)", "", str(cfg.run.name or cfg.run.dir))


def with_run_folder(cfg: DictConfig) -> DictConfig:
    """`cfg` with `run.name` and `run.dir` filled in from the command line's choices."""
    job = HydraConfig.get()
    name = cfg.run.name or run_name(cfg, job.runtime.choices, list(job.overrides.task))
    changes = {"run": {"name": name, "dir": cfg.run.dir or str(Path(cfg.run.root) / name)}}
    return OmegaConf.merge(cfg, changes)  # type: ignore[return-value]


@hydra.main(version_base="1.3", config_path="configs", config_name="train")
def main(cfg: DictConfig) -> float:
    """Command line; returns what sweepers optimise, the mask AP (box AP without masks)."""
    metrics = command_line(lambda: train(with_run_folder(cfg)))
    return next(metrics[key] for key in BEST_BY if key in metrics)


if __name__ == "__main__":
    run_command(main, "train")
