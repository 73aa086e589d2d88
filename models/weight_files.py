"""Files of weights as they lie on disk: zipped and older PyTorch files, and pickles."""

import pickle
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

from files.restricted_pickle import Refused, load_pickle
from models.normalization import DETECTRON, MSRA, TORCHVISION, PixelStatistics
from models.weight_names import (
    EPSILON,
    detectron2_backbone_name,
    detectron2_name,
    detectron_backbone_name,
    detectron_name,
    in_our_order,
    torchvision_name,
    with_epsilon,
    with_one_spelling,
)
from ops.errors import InputError

# Where a file keeps its tensors by name; the first that it has counts.
HOLDERS = ("model", "blobs", "state_dict", "model_ema", "ema_state_dict", "state_dict_ema", "ema")
WRAPPERS = ("module.", "model.", "ema.", "ema_model.", "_orig_mod.", "net.", "network.")
MOST_WRAPPERS = 4  # one around another
# What PyTorch before 1.6 begins a file with: a pickled number of its own.
OLD_TORCH = bytes.fromhex("8a0a6cfc9c46f920")


def read_weight_file(path: Path) -> Mapping[str, Any]:
    """The mapping that the file holds; runs nothing that the file may carry.

    Raises:
        InputError: no such file, empty, cut short, or holding more than arrays and containers.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "no such file"
        raise InputError(f"{path}: {what}; give a path to a file of weights")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: is empty, not a state dict; download it again")
    try:
        content = _load(path)
    except Refused as refused:
        raise _unsafe(path, str(refused)) from refused
    except Exception as error:  # a damaged file fails in any of the readers
        name = re.search(r"GLOBAL (\S+)", str(error))
        if isinstance(error, pickle.UnpicklingError) and name:
            raise _unsafe(path, name[1]) from error
        raise InputError(
            f"{path}: is no file of weights, or is damaged ({type(error).__name__}); download it "
            "again, or give a state dict in a .pth, .pt, .pkl or .safetensors file"
        ) from error
    if not isinstance(content, Mapping):
        raise InputError(
            f"{path}: holds a {type(content).__name__}, not weights by name; give a state dict"
        )
    return content


def _load(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return load_file(path)
    if zipfile.is_zipfile(path):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    with path.open("rb") as file:
        start = file.read(16)
    if OLD_TORCH in start:
        return torch.load(path, map_location="cpu", weights_only=True)
    return load_pickle(path)


def _unsafe(path: Path, name: str) -> InputError:
    return InputError(
        f"{path}: asks for {name}, which weights do not need; refused, since loading it could run "
        "code; give a file of arrays alone"
    )


NEVER: re.Pattern[str] = re.compile(r"(?!)")


@dataclass(frozen=True)
class WeightKind:
    """How a kind of file names its tensors, and what is true of all such networks.

    Attributes:
        title: for people.
        backbone_name: our name of a backbone's tensor -> theirs, without `prefixes`.
        backbone: pattern of all their names of a backbone, without `prefixes`.
        prefixes: what stands before them in this file.
        detector_name: our name in the whole detector -> theirs; None where there is none.
        no_detector: why, for people.
        statistics: the normalisation of the images that the weights were trained on; None where the
            file brings its own.
        structure: settings of the backbone that shapes do not show, by their names.
        aside: pattern of names that belong to no layer of ours.
    """

    title: str
    backbone_name: Callable[[str], str]
    backbone: re.Pattern[str]
    statistics: PixelStatistics | None
    prefixes: tuple[str, ...] = ("",)
    detector_name: Callable[[str], str] | None = None
    no_detector: str = "holds a backbone alone: give it as backbone.weights"
    structure: Mapping[str, Any] | None = None
    aside: re.Pattern[str] = NEVER


CAFFE2_BACKBONE = re.compile(r"conv1_w|res_conv1_|res\d_\d|conv\d_\d|fc[67]_")
CAFFE2_ASIDE = re.compile(r".*_momentum|lr|weight_order|conv1_b|fc1000_.|pred_.|fc8_.")
TORCHVISION_BACKBONE = re.compile(r"(conv1|bn1|layer\d)\.|features\.|classifier\.[03]\.")

TORCHVISION_IMAGENET = WeightKind(
    "torchvision's ImageNet classifier",
    torchvision_name,
    TORCHVISION_BACKBONE,
    TORCHVISION,
    structure={"stride_in_1x1": False},
)
TORCHVISION_DETECTOR = replace(
    TORCHVISION_IMAGENET,
    title="torchvision's detector",
    prefixes=("backbone.body.",),
    no_detector="is built on a feature pyramid, which is not part of this project: give it as "
    "backbone.weights to take its backbone",
)
MSRA_IMAGENET = WeightKind(
    "MSRA's ImageNet classifier in Caffe2's names",
    detectron_backbone_name,
    CAFFE2_BACKBONE,
    MSRA,
    structure={"stride_in_1x1": True},
)
DETECTRON_IMAGENET = replace(
    MSRA_IMAGENET, title="Detectron's ImageNet classifier", statistics=DETECTRON
)
DETECTRON_DETECTOR = replace(
    DETECTRON_IMAGENET,
    title="Detectron's detector",
    detector_name=detectron_name,
    aside=CAFFE2_ASIDE,
)
DETECTRON2_DETECTOR = WeightKind(
    "detectron2's detector",
    detectron2_backbone_name,
    re.compile(r"(stem|res\d)\."),
    MSRA,
    prefixes=("backbone.bottom_up.", "backbone.", "roi_heads."),
    detector_name=detectron2_name,
    structure={"stride_in_1x1": True},
    aside=re.compile(r"pixel_(mean|std)|.*\.cell_anchors\.\d+"),
)
PYRAMID = replace(
    DETECTRON2_DETECTOR,
    title="detectron2's detector on a feature pyramid",
    detector_name=None,
    no_detector=TORCHVISION_DETECTOR.no_detector,
)
OURS = WeightKind(
    "a checkpoint of this project",
    lambda name: name.removeprefix("features."),
    re.compile(r"(stem|res\d|\d+|fc[67])\."),
    None,
    prefixes=("backbone.", "roi_heads.head.box_layers.", "roi_heads.head."),
    detector_name=lambda name: name,
)
# Settings of a backbone that no shape shows, and what they are where nothing else is said.
SETTINGS = {"stride_in_1x1": False, "res5_stride": 1, "res5_dilation": 1}


@dataclass(frozen=True)
class WeightFile:
    """Tensors under their file's own names, and what they are.

    Attributes:
        categories: ``{"id": ..., "name": ...}`` in the order of the labels; None where not stated.
    """

    path: Path
    kind: WeightKind
    tensors: dict[str, Tensor]
    categories: list[dict[str, Any]] | None = None

    @property
    def structure(self) -> dict[str, Any]:
        """Settings of the backbone that a network with these weights must have."""
        structure = dict(self.kind.structure or {})
        if self.kind.detector_name and self._res5_on_rois():
            structure.setdefault("res5_stride", 2)
        return structure

    def _res5_on_rois(self) -> bool:
        """C4's second stage, which Detectron and detectron2 always pool for on 14 x 14."""
        if self.kind.title == DETECTRON_DETECTOR.title:
            return "res5_0_branch2a_w" in self.tensors and "fc6_w" not in self.tensors
        return any(name.startswith("roi_heads.res5.") for name in self.tensors)


def open_weights(path: Path) -> WeightFile:
    """Read a file and recognise it.

    Raises:
        InputError: unreadable or unsafe (see `read_weight_file`), or of no known kind.
    """
    content = read_weight_file(path)
    if {"model", "config_text", "categories"} <= content.keys():
        return _of_checkpoint(path, content)
    held = next((content[k] for k in HOLDERS if isinstance(content.get(k), Mapping)), content)
    tensors = _without_wrappers(path, _tensors(held))
    for recognise in (_caffe2, _detectron2, _torchvision):
        file = recognise(path, tensors)
        if file is not None:
            return file
    names = ", ".join(list(tensors)[:3]) or "no arrays"
    raise InputError(
        f"{path}: is of no known kind (it begins with {names}); give weights of torchvision, "
        "Detectron, detectron2 or this project"
    )


def _without_wrappers(path: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors by the names that the network itself gives them.

    What trains a network may wrap it, which puts a prefix before each name: DataParallel,
    Lightning, an average of weights (EMA), the compiler.
    """
    for _ in range(MOST_WRAPPERS):
        prefix = next(
            (p for p in WRAPPERS if tensors and all(n.startswith(p) for n in tensors)), ""
        )
        if not prefix:
            break
        print(f"{path}: its names are read without the prefix {prefix}")
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def _tensors(held: Mapping[str, Any]) -> dict[str, Tensor]:
    tensors = {}
    for name, value in held.items():
        if isinstance(value, np.ndarray):
            # Arrays lie in the pickle's own memory, which PyTorch takes only if writable.
            value = torch.from_numpy(value if value.flags.writeable else value.copy())
        if isinstance(value, Tensor):
            tensors[str(name)] = value
    return tensors


def _of_checkpoint(path: Path, content: Mapping[str, Any]) -> WeightFile:
    backbone = yaml.safe_load(content["config_text"]).get("backbone", {})
    structure = {key: backbone[key] for key in SETTINGS if backbone.get(key) is not None}
    kind = replace(OURS, structure=structure)
    return WeightFile(path, kind, _tensors(content["model"]), content["categories"])


def _caffe2(path: Path, tensors: dict[str, Tensor]) -> WeightFile | None:
    if not tensors.keys() & {"conv1_w", "conv1_1_w"}:
        return None
    is_msra = "res_conv1_bn_gamma" in tensors
    tensors = with_one_spelling(tensors)
    if "cls_score_w" in tensors:
        return WeightFile(path, DETECTRON_DETECTOR, in_our_order(tensors))
    return WeightFile(path, MSRA_IMAGENET if is_msra else DETECTRON_IMAGENET, tensors)


def _detectron2(path: Path, tensors: dict[str, Tensor]) -> WeightFile | None:
    if any(name.startswith("backbone.bottom_up.") for name in tensors):
        return WeightFile(path, PYRAMID, tensors)
    if "backbone.stem.conv1.weight" in tensors:
        return WeightFile(path, DETECTRON2_DETECTOR, tensors)
    return None


def _torchvision(path: Path, tensors: dict[str, Tensor]) -> WeightFile | None:
    if "backbone.body.conv1.weight" in tensors:
        # The names before torchvision 0.13 are those of weights made without an epsilon.
        if "rpn.head.conv.weight" in tensors:
            tensors = with_epsilon(tensors, EPSILON)
        return WeightFile(path, TORCHVISION_DETECTOR, tensors)
    if tensors.keys() & {"conv1.weight", "features.0.weight"}:
        kind = TORCHVISION_IMAGENET
        if "normalize.mean" in tensors:  # of scripts/import_weights.py --pixels
            title = "a backbone in torchvision's names with its normalisation"
            kind = replace(kind, title=title, statistics=None)
        return WeightFile(path, kind, tensors)
    return None
