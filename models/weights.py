"""ImageNet weights into our networks: by explicit names, never by a guess.

The normalisation comes back with the weights, because it belongs to them.
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from urllib.error import URLError

import torch
from torch import Tensor, nn
from torchvision import models as tv_models

from models.normalization import TORCHVISION, PixelStatistics
from ops.errors import InputError

IMAGENET = "imagenet"
RESNET_ENTRIES: dict[int, tv_models.WeightsEnum] = {
    18: tv_models.ResNet18_Weights.IMAGENET1K_V1,
    34: tv_models.ResNet34_Weights.IMAGENET1K_V1,
    50: tv_models.ResNet50_Weights.IMAGENET1K_V1,
    101: tv_models.ResNet101_Weights.IMAGENET1K_V1,
}
# Ours on the left, torchvision's on the right.
STAGES = {"res2": "layer1", "res3": "layer2", "res4": "layer3", "res5": "layer4"}
STEM = {"conv": "conv1", "norm": "bn1"}
SHORTCUT = {"conv": "downsample.0", "norm": "downsample.1"}


def load_resnet(
    stages: Mapping[str, nn.Module], weights: str, *, depth: int | None
) -> PixelStatistics:
    """Fill stem .. res5 from torchvision's names; returns the normalisation of those weights.

    Raises:
        InputError: no torchvision entry of this depth, no network, no such file, other shapes.
    """
    entry = RESNET_ENTRIES.get(depth or 0)
    source, statistics = _read(weights, entry)
    for stage_name, stage in stages.items():
        wanted = {name: _torchvision_resnet_name(stage_name, name) for name in stage.state_dict()}
        _fill(stage, source, wanted, weights)
    return statistics


def load_vgg16(features: nn.Module, top: nn.Module, weights: str) -> PixelStatistics:
    """Fill conv1_1 .. conv5_3, fc6 and fc7 from torchvision's names; as `load_resnet`."""
    source, statistics = _read(weights, tv_models.VGG16_Weights.IMAGENET1K_V1)
    _fill(features, source, {n: f"features.{n}" for n in features.state_dict()}, weights)
    linear = {"fc6": "classifier.0", "fc7": "classifier.3"}
    _fill(top, source, {n: _renamed(n, linear) for n in top.state_dict()}, weights)
    return statistics


def _torchvision_resnet_name(stage: str, name: str) -> str:
    """`res3`, `1.norm2.weight` -> `layer2.1.bn2.weight`."""
    if stage == "stem":
        return _renamed(name, STEM)
    block, rest = name.split(".", 1)
    if rest.startswith("shortcut."):
        rest = _renamed(rest.removeprefix("shortcut."), SHORTCUT)
    return f"{STAGES[stage]}.{block}.{rest.replace('norm', 'bn')}"


def _renamed(name: str, table: Mapping[str, str]) -> str:
    head, tail = name.split(".", 1)
    return f"{table[head]}.{tail}"


def _read(
    weights: str, entry: tv_models.WeightsEnum | None
) -> tuple[Mapping[str, Tensor], PixelStatistics]:
    if weights != IMAGENET:
        return _read_file(Path(weights)), TORCHVISION
    if entry is None:
        raise InputError(
            "backbone.weights=imagenet: torchvision has no ImageNet weights for this network; set "
            "backbone.weights=null to train from scratch or backbone.weights=PATH"
        )
    preset = entry.transforms()
    statistics = PixelStatistics(
        mean=_to_bytes(preset.mean), std=_to_bytes(preset.std), channel_order="rgb"
    )
    try:
        return entry.get_state_dict(progress=True, check_hash=True), statistics
    except (URLError, OSError, RuntimeError) as error:
        raise InputError(
            f"backbone.weights=imagenet: cannot download {entry.url} ({error}); download it "
            "elsewhere and set backbone.weights=PATH, or train from scratch: backbone.weights=null"
        ) from error


def _to_bytes(values: list[float]) -> tuple[float, float, float]:
    """From the 0..1 scale to 0..255."""
    red, green, blue = (255 * value for value in values)
    return red, green, blue


def _read_file(path: Path) -> Mapping[str, Tensor]:
    if not path.is_file():
        raise InputError(f"backbone.weights={path}: no such file; give a path, imagenet or null")
    try:
        # Torchvision's older files, VGG16's among them, are no zip archives: they cannot be mapped.
        state = torch.load(
            path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
        )
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{path}: not a PyTorch state dict ({reason}); give torchvision's .pth file"
        ) from error
    if not isinstance(state, Mapping):
        raise InputError(f"{path}: holds a {type(state).__name__}, not a state dict of tensors")
    return state


def _fill(
    module: nn.Module, source: Mapping[str, Tensor], wanted: Mapping[str, str], file: str
) -> None:
    """Copy `source[wanted[name]]` into each of `module`'s names; refuse what does not fit."""
    loaded = {}
    for name, current in module.state_dict().items():
        theirs = wanted[name]
        if name.endswith("num_batches_tracked"):
            loaded[name] = source.get(theirs, current)
            continue
        if theirs not in source:
            raise InputError(f"{file}: has no tensor {theirs}; is it another architecture?")
        if source[theirs].shape != current.shape:
            raise InputError(
                f"{file}: {theirs} has shape {tuple(source[theirs].shape)}, the network needs "
                f"{tuple(current.shape)}; choose the backbone that the file was made for"
            )
        loaded[name] = source[theirs]
    module.load_state_dict(loaded)
