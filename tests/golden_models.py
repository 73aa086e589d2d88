"""Outputs of detectron2 on small models, and the same models built here from the zoo's settings."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from torch import Tensor

from build import build_model, with_structure
from models.mask_rcnn import MaskRCNN
from models.weight_files import open_weights
from models.weights import load_detector
from ops.structures import Polygons, Target

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
NUM_CLASSES = 80
# The widths and counts that the golden models were made with.
NARROW = (
    "backbone.stem_channels=8",
    "backbone.width=8",
    "head.fc_dim=32",
    "head.mask_dim=16",
    "proposals.rpn.pre_nms=[600,600]",
    "proposals.rpn.post_nms=[100,100]",
    "proposals.rpn.batch_per_image=100000",
    "roi.batch_per_image=100000",
    "roi.score_threshold=0.02",
    "roi.detections_per_image=30",
)
MODELS = {
    "c4_align": ("experiment=detectron2/r50_c4",),
    "c4_pool": ("experiment=detectron2/r50_c4", "pooler=pool"),
    "c5_align": ("experiment=detectron2/r50_dc5", "stride=32", "backbone.res5_dilation=1"),
}


@dataclass(frozen=True)
class Golden:
    """A model built here and filled with detectron2's weights, and what detectron2 computes.

    Attributes:
        expected: arrays by name, with ``image0_``, ``image1_`` before those of an image.
        images: uint8 RGB ``[3, h, w]``.
    """

    model: MaskRCNN
    expected: dict[str, np.ndarray]
    images: list[Tensor]
    targets: list[Target]

    def of_image(self, index: int, name: str) -> Tensor:
        return torch.from_numpy(self.expected[f"image{index}_{name}"])


def settings(name: str, folder: Path, *more: str, config: str = "evaluate") -> DictConfig:
    """The zoo's experiment with the golden model's widths and weights."""
    weights = f"weights='{folder / name / 'weights.pkl'}'"
    with initialize_config_dir(version_base="1.3", config_dir=str(CONFIGS)):
        return compose(config, overrides=[*MODELS[name], *NARROW, weights, "data.root=.", *more])


def load_golden(name: str, folder: Path) -> Golden:
    cfg = with_structure(settings(name, folder))
    model = build_model(cfg, NUM_CLASSES)
    load_detector(model, open_weights(Path(cfg.weights)))
    with np.load(folder / name / "expected.npz") as file:
        expected = {key: file[key] for key in file.files}
    return Golden(model.eval(), expected, *zip(*(_image(expected, k) for k in (0, 1)), strict=True))


def _image(expected: dict[str, np.ndarray], index: int) -> tuple[Tensor, Target]:
    bgr = torch.from_numpy(expected[f"image{index}_bgr_uint8"])
    polygons = json.loads(str(expected[f"image{index}_gt_polygons_json"]))
    masks = tuple(
        Polygons(tuple(np.asarray(ring, dtype=np.float64).reshape(-1, 2) for ring in rings))
        for rings in polygons
    )
    target = Target(
        torch.from_numpy(expected[f"image{index}_gt_boxes_xyxy"]).float(),
        torch.from_numpy(expected[f"image{index}_gt_classes"]).long(),
        masks,
    )
    return bgr.flip(-1).permute(2, 0, 1).contiguous(), target


def full_size_c4() -> dict[str, Tensor]:
    """Tensors by our names, in the shapes of the zoo's R50-C4."""
    with initialize_config_dir(version_base="1.3", config_dir=str(CONFIGS)):
        cfg = compose("train", overrides=["experiment=detectron2/r50_c4", "backbone.weights=null"])
    return dict(build_model(cfg, NUM_CLASSES).state_dict())
