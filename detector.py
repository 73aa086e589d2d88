"""A trained network, opened from its run or its checkpoint: the one way to open either.

from detector import load

detector = load("outputs/RUN")
found = detector("photo.jpg")
for box, score, label in zip(found.boxes, found.scores, found.labels):
    print(detector.names[label], float(score), box.tolist())
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf

from build import build_model, build_runtime, check_categories
from configuration import plain, saved_config
from data.images import decode
from data.splits import DetectionDataset, from_settings
from data.transforms import EvalTransform
from models.mask_rcnn import MaskRCNN
from models.network import LOADED_LATER
from ops.boxes import rescale
from ops.errors import InputError
from ops.structures import Batch, Category, Detections, Sample, Target
from running.checkpoint import Checkpoint, load_checkpoint, load_weights_into
from running.runtime import Runtime

# A part that a task may need: what its absence means, and what would have trained it.
PARTS = {
    "rpn": ("no RPN (it was trained on proposals from a file)", "proposals=rpn"),
    "roi_heads": ("no second stage (it only proposes)", "proposals_only=false"),
}


@dataclass(frozen=True)
class Detector:
    """A network that is ready, and what belongs to it.

    Attributes:
        model: filled, in evaluation mode, on the runtime's device.
        categories: of its labels, in their order.
        transform: how images are prepared, as in its run's evaluation.
        runtime: where it computes.
        config: its run's settings, as changed on opening.
        checkpoint: the file that it was read from.
    """

    model: MaskRCNN
    categories: tuple[Category, ...]
    transform: EvalTransform
    runtime: Runtime
    config: DictConfig
    checkpoint: Path

    @property
    def names(self) -> list[str]:
        """The classes' names by label."""
        return [category.name for category in self.categories]

    @property
    def folder(self) -> Path:
        """The folder of its run; of a checkpoint by itself, the folder that it lies in."""
        parent = self.checkpoint.parent
        return parent.parent if parent.name == "checkpoints" else parent

    def __call__(self, image: str | Path | np.ndarray) -> Detections:
        """The objects in an image, best score first, on the CPU.

        Args:
            image: a file, or its pixels: uint8 RGB ``[H, W, 3]``.

        Returns:
            boxes float32 ``[D, 4]``, x1 y1 x2 y2 in the image's pixels; scores ``[D]``; labels
            ``[D]``, places in `names`; masks ``[D, m, m]``, probabilities within each box, which
            `ops.masks.paste_masks` puts into the image; None where the network has no mask branch.

        Raises:
            InputError: the file cannot be read as an image.
        """
        pixels = image if isinstance(image, np.ndarray) else decode(Path(image))
        tensor = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)  # [3, H, W]
        nothing = Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
        sample = Sample(tensor, nothing, 0, (tensor.shape[1], tensor.shape[2]))
        return detect(self.model, Batch((self.transform(sample),)), self.runtime)[0]

    def check_categories(self, dataset: DetectionDataset) -> None:
        """InputError unless `dataset` has the categories that the network was trained on."""
        trained = [{"id": c.id, "name": c.name} for c in self.categories]
        check_categories(trained, dataset, self.checkpoint)


@torch.no_grad()
def detect(model: MaskRCNN, batch: Batch, runtime: Runtime) -> list[Detections]:
    """Detections of each image of `batch`, in the pixels of its file, on the CPU."""
    batch = batch.to(runtime.device)
    with runtime.autocast():
        detections = model(batch.images, proposals=batch.proposals)
    return [
        rescale(found.cpu(), (sample.image.shape[1], sample.image.shape[2]), sample.original_size)
        for found, sample in zip(detections, batch.samples, strict=True)
    ]


def load(
    run: str | Path,
    *,
    device: str | None = None,
    score_threshold: float | None = None,
    needs: Collection[str] = tuple(PARTS),
    change: Callable[[DictConfig], DictConfig] | None = None,
) -> Detector:
    """Build the network of a run with the run's own settings, and fill it.

    Args:
        run: the run's folder (then its last checkpoint), or a .pt file.
        device: as `running.runtime.start_runtime`; None takes the run's.
        score_threshold: detections below it are not made; None takes the run's. Raising it changes
            nothing about those above.
        needs: which of `PARTS` the network must have; both, to find objects by itself.
        change: further changes of the run's settings.

    Raises:
        InputError: no such checkpoint, one without class names or without a part that is needed; a
            device that is not there.
    """
    path = Path(run).expanduser()
    path = path / "checkpoints" / "last.pt" if path.is_dir() else path
    if path.suffix in (".pkl", ".pth"):
        raise InputError(
            f"{path}: weights from outside lack settings and class names; make a checkpoint of "
            "them once with scripts/import_weights.py"
        )
    checkpoint = load_checkpoint(path)
    _check_complete(checkpoint, path, needs)
    cfg = saved_config(checkpoint.config_text)
    _choose_precision(cfg, device)
    cfg = cfg if change is None else change(cfg)
    # The file holds every weight: nothing is downloaded for a network that is about to be filled.
    OmegaConf.update(cfg, "backbone.weights", LOADED_LATER)
    if device is not None:
        OmegaConf.update(cfg, "device", device)
    if score_threshold is not None:
        OmegaConf.update(cfg, "roi.score_threshold", score_threshold)
    runtime = build_runtime(cfg)
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
        checkpoint=path,
    )


def _check_complete(checkpoint: Checkpoint, path: Path, needs: Collection[str]) -> None:
    if not checkpoint.categories:
        raise InputError(
            f"{path}: its `categories` are empty, so its classes have no names; give a checkpoint "
            "written by train.py or scripts/import_weights.py"
        )
    for part in needs:
        what, remedy = PARTS[part]
        if not any(name.startswith(f"{part}.") for name in checkpoint.model):
            raise InputError(
                f"{path}: has {what} and finds nothing in new images by itself; give a detector "
                f"trained with {remedy}"
            )


def _choose_precision(cfg: DictConfig, device: str | None) -> None:
    """float16 is for GPUs alone; a network trained so computes in float32 elsewhere."""
    wanted = device or cfg.device
    on_gpu = wanted.startswith("cuda") or (wanted == "auto" and torch.cuda.is_available())
    if cfg.precision == "float16" and not on_gpu:
        OmegaConf.update(cfg, "precision", "float32")
