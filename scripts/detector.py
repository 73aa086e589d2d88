"""A trained network from its checkpoint alone, for images that belong to no data set."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf

from build import build_model, build_runtime, plain, saved_config
from data.settings import from_settings
from data.transforms import EvalTransform
from engine.checkpoint import Checkpoint, load_checkpoint, load_weights_into
from engine.runtime import Runtime
from evaluate import detect
from models.mask_rcnn import MaskRCNN
from models.weights import FILLED_LATER
from ops.errors import InputError
from ops.structures import Batch, Category, Detections, Sample, Target


@dataclass(frozen=True)
class Detector:
    """A network that is ready, and what belongs to it.

    Attributes:
        model: filled, in evaluation mode, on the runtime's device.
        categories: of its labels, in their order.
        transform: how images are prepared, as in its run's evaluation.
        runtime: where it computes.
        config: its run's settings.
    """

    model: MaskRCNN
    categories: tuple[Category, ...]
    transform: EvalTransform
    runtime: Runtime
    config: DictConfig

    def find(self, image: np.ndarray) -> Detections:
        """The objects in an image, uint8 RGB ``[H, W, 3]``, in its pixels; on the CPU."""
        pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)  # [3, H, W]
        nothing = Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
        sample = Sample(pixels, nothing, 0, (image.shape[0], image.shape[1]))
        return detect(self.model, Batch((self.transform(sample),)), self.runtime)[0]


def open_detector(
    given: Path,
    *,
    device: str | None = None,
    score_threshold: float | None = None,
    proposing: bool = True,
) -> Detector:
    """Build the network of a checkpoint with its own settings, and fill it.

    Args:
        given: a .pt file, or a run's folder (then its last.pt).
        device: as `engine.runtime.start_runtime`; None takes the run's.
        score_threshold: detections below it are not made; None takes the run's. Raising it changes
            nothing about those above.
        proposing: whether it has to find objects by itself; False admits a network that was trained
            on frozen proposals, for boxes that are given.

    Raises:
        InputError: no such checkpoint, or one without classes, without an RPN where it is to
            propose, or without a second stage; a device that is not there.
    """
    path = given / "checkpoints" / "last.pt" if given.is_dir() else given
    if path.suffix in (".pkl", ".pth"):
        raise InputError(
            f"{path}: weights from outside lack settings and class names; make a checkpoint of "
            "them once with scripts/import_weights.py"
        )
    checkpoint = load_checkpoint(path)
    _check_complete(checkpoint, path, proposing)
    cfg = saved_config(checkpoint.config_text)
    OmegaConf.update(cfg, "backbone.weights", FILLED_LATER)
    if device is not None:
        OmegaConf.update(cfg, "device", device)
    if score_threshold is not None:
        OmegaConf.update(cfg, "roi.score_threshold", score_threshold)
    runtime = build_runtime(_with_a_precision_for_the_device(cfg))
    model = build_model(cfg, len(checkpoint.categories))
    load_weights_into(model, checkpoint.model, path)
    return Detector(
        model=model.to(runtime.device).eval(),
        categories=tuple(Category(c["id"], c["name"]) for c in checkpoint.categories),
        transform=from_settings(
            EvalTransform, "data.eval_transform", plain(cfg.data.eval_transform)
        ),
        runtime=runtime,
        config=cfg,
    )


def _check_complete(checkpoint: Checkpoint, path: Path, proposing: bool) -> None:
    if not checkpoint.categories:
        raise InputError(
            f"{path}: its `categories` are empty, so its classes have no names; give a checkpoint "
            "written by train.py or scripts/import_weights.py"
        )
    parts = (
        ("rpn.", "no RPN (it was trained on proposals from a file)", "proposals=rpn"),
        ("roi_heads.", "no second stage (it only proposes)", "proposals_only=false"),
    )
    for part, what, remedy in parts if proposing else parts[1:]:
        if not any(name.startswith(part) for name in checkpoint.model):
            raise InputError(
                f"{path}: has {what} and finds nothing in new images by itself; give a detector "
                f"trained with {remedy}"
            )


def _with_a_precision_for_the_device(cfg: DictConfig) -> DictConfig:
    """float16 is for GPUs alone; a network trained so computes in float32 elsewhere."""
    on_gpu = cfg.device.startswith("cuda") or (cfg.device == "auto" and torch.cuda.is_available())
    if cfg.precision == "float16" and not on_gpu:
        OmegaConf.update(cfg, "precision", "float32")
    return cfg
