"""Narrow models built here from the zoo's settings, with the numbers that detectron2 computes.

`tests/golden` holds such numbers for weights and images that are drawn anew each time. A folder of
larger models with their weights, on photographs, is in the shared data.
"""

import json
import pickle
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
from models.weight_names import detectron2_name
from models.weights import load_detector
from ops.structures import Polygons, Target
from tests.golden import inputs

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
NUM_CLASSES = 80
# The widths and counts that the models of the shared data were made with.
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
# Those of tests/golden/make.py.
NARROWER = (
    "backbone.stem_channels=4",
    "backbone.width=4",
    "head.fc_dim=32",
    "head.mask_dim=16",
    "proposals.rpn.pre_nms=[300,300]",
    "proposals.rpn.post_nms=[40,40]",
    "proposals.rpn.batch_per_image=100000",
    "roi.batch_per_image=100000",
    "roi.score_threshold=0.05",
    "roi.detections_per_image=15",
)
MODELS = {
    "c4_align": ("experiment=detectron2/r50_c4",),
    "c4_pool": ("experiment=detectron2/r50_c4", "pooler=pool"),
    "c5_align": ("experiment=detectron2/r50_dc5", "stride=32", "backbone.res5_dilation=1"),
    "c5_pool": (
        *("experiment=detectron2/r50_dc5", "stride=32", "backbone.res5_dilation=1"),
        "pooler=pool",
    ),
    "dc5_align": ("experiment=detectron2/r50_dc5",),
}
SHARED = ("c4_align", "c4_pool", "c5_align")


@dataclass(frozen=True)
class Golden:
    """A model with detectron2's weights, its inputs, and what detectron2 computes.

    Attributes:
        expected: arrays by name, with ``image0_``, ``image1_`` before those of an image.
        step: of large arrays `expected` keeps every `step`-th value.
        pooled: of how many proposals an image it keeps the pooled features.
        images: uint8 RGB ``[3, h, w]``.
    """

    model: MaskRCNN
    expected: dict[str, np.ndarray]
    step: int
    pooled: int
    images: list[Tensor]
    targets: list[Target]

    def of_image(self, index: int, name: str) -> Tensor:
        return torch.from_numpy(self.expected[f"image{index}_{name}"])


def composed(name: str, *overrides: str) -> DictConfig:
    with initialize_config_dir(version_base="1.3", config_dir=str(CONFIGS)):
        return compose("evaluate", overrides=[*MODELS[name], "data.root=.", *overrides])


def loaded_model(cfg: DictConfig, num_classes: int) -> MaskRCNN:
    cfg = with_structure(cfg)
    model = build_model(cfg, num_classes)
    load_detector(model, open_weights(Path(cfg.weights)))
    return model.eval()


def load_shared(name: str, folder: Path) -> Golden:
    """A model of the shared data; `folder` holds its weights and numbers."""
    cfg = composed(name, *NARROW, f"weights='{folder / name / 'weights.pkl'}'")
    with np.load(folder / name / "expected.npz") as file:
        expected = dict(file)
    images, targets = [], []
    for index in (0, 1):
        bgr, boxes, classes, outlines = (
            expected[f"image{index}_{key}"]
            for key in ("bgr_uint8", "gt_boxes_xyxy", "gt_classes", "gt_polygons_json")
        )
        images.append(as_rgb(bgr))
        expected[f"image{index}_pooled"] = expected[f"image{index}_pooled_first8"]
        targets.append(as_target(boxes, classes, json.loads(str(outlines))))
    expected["image0_input"] = expected["image0_input_nchw"]
    return Golden(loaded_model(cfg, NUM_CLASSES), expected, 1, 8, images, targets)


def load_drawn(name: str, folder: Path) -> Golden:
    """A model of `tests/golden`; `folder` is where its weights are written, in the zoo's form."""
    cfg = composed(name, *NARROWER, "backbone.weights=null")
    state = build_model(cfg, inputs.NUM_CLASSES).state_dict()
    shapes = {
        detectron2_name(key): tuple(tensor.shape)
        for key, tensor in state.items()
        if not key.startswith("normalize.")
    }
    weights = {key: inputs.weight(key, shape) for key, shape in shapes.items()}
    path = folder / f"{name}.pkl"
    path.write_bytes(pickle.dumps({"model": weights, "__author__": ""}))
    with np.load(Path(inputs.__file__).with_name(f"{name}.npz")) as file:
        expected = dict(file)
    names = json.loads(str(expected["gradient_names"]))
    norms = dict(zip(names, expected["gradient_norms"], strict=True))
    expected |= {f"gradnorm/{key}": norm for key, norm in norms.items()}
    targets = []
    for objects in inputs.OBJECTS:
        corners = [np.reshape(outline, (-1, 2)) for _, outline in objects]
        boxes = np.array([[*ring.min(axis=0), *ring.max(axis=0)] for ring in corners])
        labels = np.array([label for label, _ in objects])
        targets.append(as_target(boxes, labels, [[outline] for _, outline in objects]))
    return Golden(
        loaded_model(composed(name, *NARROWER, f"weights='{path}'"), inputs.NUM_CLASSES),
        expected,
        inputs.STEP,
        inputs.POOLED,
        [as_rgb(inputs.image(index)) for index in (0, 1)],
        targets,
    )


def as_rgb(bgr: np.ndarray) -> Tensor:
    """uint8 BGR ``[H, W, 3]`` -> RGB ``[3, H, W]``."""
    return torch.from_numpy(bgr).flip(-1).permute(2, 0, 1).contiguous()


def as_target(boxes: np.ndarray, labels: np.ndarray, outlines: list[list[list[float]]]) -> Target:
    """Boxes ``[G, 4]``, labels ``[G]``, and of each object its rings, x y x y ..."""
    masks = tuple(
        Polygons(tuple(np.array(ring, dtype=np.float64).reshape(-1, 2) for ring in rings))
        for rings in outlines
    )
    return Target(torch.from_numpy(boxes).float(), torch.from_numpy(labels).long(), masks)


def full_size_c4() -> dict[str, Tensor]:
    """Tensors by this project's names, in the shapes of the zoo's R50-C4."""
    cfg = composed("c4_align", "backbone.weights=null")
    return dict(build_model(cfg, NUM_CLASSES).state_dict())
