"""Weights from outside into our networks: by explicit names, never by a guess.

Backbones take theirs from anything that holds one (`load_resnet`, `load_vgg16`), whole detectors
from detectors (`load_detector`). Every tensor must find its place, or nothing is loaded.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from torch import Tensor, nn
from torchvision import models as tv_models

from models.network import LOADED_LATER
from models.normalization import TORCHVISION, TORCHVISION_FEATURES, Normalize, PixelStatistics
from models.weight_files import SETTINGS, TORCHVISION_IMAGENET, WeightFile, open_weights
from ops.errors import InputError

IMAGENET = "imagenet"
RESNET_ENTRIES: dict[int, tv_models.WeightsEnum] = {
    18: tv_models.ResNet18_Weights.IMAGENET1K_V1,
    34: tv_models.ResNet34_Weights.IMAGENET1K_V1,
    50: tv_models.ResNet50_Weights.IMAGENET1K_V1,
    101: tv_models.ResNet101_Weights.IMAGENET1K_V1,
}


def structure_of(weights: str | None) -> dict[str, Any]:
    """Settings of the backbone that come with `weights`, which no tensor's shape shows.

    Raises:
        InputError: see `open_weights`.
    """
    if weights in (None, LOADED_LATER):
        return {}
    if weights == IMAGENET:
        return dict(TORCHVISION_IMAGENET.structure or {})
    return open_weights(Path(str(weights))).structure


def complete_structure(
    chosen: Mapping[str, Any], weights: str | None, *, whole: bool
) -> dict[str, Any]:
    """Settings of the backbone that `chosen` leaves open (None), as `weights` have them.

    Args:
        chosen: the backbone's settings; VGG16, for example, names none of those in question.
        whole: whether `weights` fill the whole detector, and none of its settings may differ.

    Raises:
        InputError: see `open_weights`; or a setting differs, which no shape would show.
    """
    wanted = {k: v for k, v in structure_of(weights).items() if k in chosen}
    for name, value in wanted.items():
        if whole and chosen[name] not in (None, value):
            raise InputError(
                f"{weights}: is of a network with backbone.{name}={value}, which no shape shows, "
                f"and the configuration has {chosen[name]}; set backbone.{name}={value}"
            )
    return {
        name: wanted.get(name, default)
        for name, default in SETTINGS.items()
        if name in chosen and chosen[name] is None
    }


def load_resnet(
    stages: Mapping[str, nn.Module], weights: str, *, depth: int | None, stride_in_1x1: bool
) -> PixelStatistics:
    """Fill stem .. res5 (or fewer); returns the normalisation that belongs to the weights.

    Args:
        stages: by their names.
        weights: `imagenet` (torchvision's), a path, or `later`.
        depth: of the network, None for one of no published depth.
        stride_in_1x1: where its strides are; the weights must agree.

    Raises:
        InputError: no torchvision entry of this depth, no network, no such file, other tensors, a
            number that is not finite.
    """
    if weights == LOADED_LATER:
        return TORCHVISION
    file = _open(weights, RESNET_ENTRIES.get(depth or 0))
    theirs = file.structure.get("stride_in_1x1", stride_in_1x1)
    if theirs != stride_in_1x1 and any("conv3.weight" in n for n in stages["res2"].state_dict()):
        raise InputError(
            f"{file.path}: {file.kind.title} has its strides in "
            f"{'1x1' if theirs else '3x3'} convolutions, which no shape shows; set "
            f"backbone.stride_in_1x1={str(theirs).lower()}, or null to follow the weights"
        )
    source = _of_backbone(file)
    if "res5" not in stages:
        left_out = file.kind.backbone_name("res5.0.conv1.weight").partition("0")[0]  # as `layer4.`
        source = {name: tensor for name, tensor in source.items() if not name.startswith(left_out)}
    _fill(nn.ModuleDict(dict(stages)), source, file, file.kind.backbone_name)
    return _statistics(file)


def load_vgg16(features: nn.Module, roi_layers: nn.Module, weights: str) -> PixelStatistics:
    """Fill conv1_1 .. conv5_3, fc6 and fc7; as `load_resnet`.

    A file may hold only the convolutions: torchvision's has not-a-number in the place of the rest,
    others leave the rest out. fc6 and fc7 then keep what they have.
    """
    if weights == LOADED_LATER:
        return TORCHVISION
    file = _open(weights, tv_models.VGG16_Weights.IMAGENET1K_V1)
    source = _of_backbone(file)
    parts: dict[str, nn.Module] = {"features": features, **dict(roi_layers.named_children())}
    first = source.get("classifier.0.bias")
    without_values = first is not None and bool(first.isnan().all())
    if without_values or all(name.startswith("features.") for name in source):
        source = {n: t for n, t in source.items() if n.startswith("features.")}
        _fill(nn.ModuleDict({"features": features}), source, file, file.kind.backbone_name)
        print(f"{file.path}: holds only the convolutions; fc6 and fc7 start at random")
        of_torchvision = without_values and file.kind.statistics is not None
        return TORCHVISION_FEATURES if of_torchvision else _statistics(file)
    _fill(nn.ModuleDict(parts), source, file, file.kind.backbone_name)
    return _statistics(file)


def load_detector(model: nn.Module, file: WeightFile) -> None:
    """Fill a whole detector, its normalisation included.

    Raises:
        InputError: the file holds no detector, one that cannot be had here, or other tensors.
    """
    if file.kind.detector_name is None:
        raise InputError(f"{file.path}: {file.kind.title} {file.kind.no_detector}")
    source = {n: t for n, t in file.tensors.items() if not file.kind.aside.fullmatch(n)}
    if file.kind.statistics is not None:
        source |= {
            f"normalize.{n}": t for n, t in Normalize(_statistics(file)).state_dict().items()
        }
    _fill(model, source, file, file.kind.detector_name)


def _open(weights: str, entry: tv_models.WeightsEnum | None) -> WeightFile:
    if weights != IMAGENET:
        return open_weights(Path(weights))
    if entry is None:
        raise InputError(
            "backbone.weights=imagenet: torchvision has no ImageNet weights for this network; set "
            "backbone.weights=null to train from scratch or backbone.weights=PATH"
        )
    try:
        state = dict(entry.get_state_dict(progress=True, check_hash=True))
    except (URLError, OSError, RuntimeError) as error:
        raise InputError(
            f"backbone.weights=imagenet: cannot download {entry.url} ({error}); download it "
            "elsewhere and set backbone.weights=PATH, or train from scratch: backbone.weights=null"
        ) from error
    return WeightFile(Path(Path(entry.url).name), TORCHVISION_IMAGENET, state)


def _of_backbone(file: WeightFile) -> dict[str, Tensor]:
    """The file's tensors that belong to a backbone, without their prefixes."""
    found = {}
    for name, tensor in file.tensors.items():
        for prefix in file.kind.prefixes:
            bare = name.removeprefix(prefix)
            if name.startswith(prefix) and file.kind.backbone.match(bare):
                found[bare] = tensor
                break
    return found


def _statistics(file: WeightFile) -> PixelStatistics:
    return file.kind.statistics or Normalize.statistics_of(file.tensors)


def _fill(
    module: nn.Module,
    source: Mapping[str, Tensor],
    file: WeightFile,
    translate: Callable[[str], str],
) -> None:
    """Copy into each tensor of `module` its own of `source`; all names and all shapes must fit."""
    needed, given = _without_counters(module.state_dict()), _without_counters(source)
    wanted = {name: _their_name(name, translate) for name in needed}
    differences = _differences(needed, given, wanted)
    if differences:
        raise InputError(
            f"{file.path}: {file.kind.title} does not fit this network: {differences}; "
            "choose the backbone, stride, head, mask branch and data set that it was made for"
        )
    for name in wanted.values():
        least, greatest = given[name].aminmax()  # either is not-a-number if any is; no copy
        if not (math.isfinite(least) and math.isfinite(greatest)):
            raise InputError(
                f"{file.path}: {name} holds not-a-number or infinity: the training that wrote it "
                "failed; give weights of an earlier step"
            )
    with torch.no_grad():
        for name, tensor in needed.items():
            tensor.copy_(given[wanted[name]])
    # The normalisation of pixels comes with the kind of file where the file itself has none.
    from_file = [
        n for n in needed if not n.startswith("normalize.") or file.kind.statistics is None
    ]
    print(
        f"{file.path}: {file.kind.title}: {len(from_file)} tensors loaded, 0 missing, "
        f"0 unexpected; {len(file.tensors) - len(from_file)} others in the file are not needed"
    )


def _their_name(ours: str, translate: Callable[[str], str]) -> str:
    try:
        return ours if ours.startswith("normalize.") else translate(ours)
    except KeyError:
        return f"{ours}, a layer that such files do not have,"


def _differences(
    needed: Mapping[str, Tensor], given: Mapping[str, Tensor], wanted: Mapping[str, str]
) -> str:
    """What keeps `given` from filling `needed`, in words; empty where nothing does."""
    missing = [f"{wanted[n]} {_shape(t)}" for n, t in needed.items() if wanted[n] not in given]
    known = set(wanted.values())
    unexpected = [f"{n} {_shape(t)}" for n, t in given.items() if n not in known]
    misshaped = [
        f"{wanted[n]} has shape {_shape(given[wanted[n]])}, the network needs {_shape(t)}"
        for n, t in needed.items()
        if wanted[n] in given and given[wanted[n]].shape != t.shape
    ]
    found = {
        "has no tensor {}": missing,
        "nothing takes {}": unexpected,
        "{}": misshaped,
    }
    return "; ".join(
        form.format(names[0]) + (f" (and {len(names) - 1} more)" if len(names) > 1 else "")
        for form, names in found.items()
        if names
    )


def _without_counters(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without the number of batches that a norm has seen, which nothing depends on."""
    return {n: t for n, t in state.items() if not n.endswith("num_batches_tracked")}


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))
