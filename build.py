"""From a configuration to the parts it describes: data, network, runtime; and back to one line of
text for what is wrong with it.

Of the project's modules, the entry points alone see a configuration, and this is how they read it.
"""

import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import InstantiationException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from data.coco import CocoDataset, DataSplits
from engine.checkpoint import Checkpoint, load_weights_into
from engine.runtime import Runtime, start_runtime
from models.mask_rcnn import MaskRCNN, build_mask_rcnn
from models.weight_kinds import open_weights
from models.weights import FILLED_LATER, load_detector, settle_structure
from ops.errors import InputError

# What a configuration saved by an earlier version does not state.
UNSTATED = {"proposals": {"files": None}, "proposals_only": False}


def saved_config(text: str) -> DictConfig:
    """The configuration that a checkpoint or a run's config.yaml holds."""
    return OmegaConf.merge(UNSTATED, OmegaConf.create(text))  # type: ignore[return-value]


def build_data(cfg: DictConfig) -> DataSplits:
    """The data set that `cfg.data` describes, with the proposals that `cfg.proposals` names.

    Raises:
        InputError: for anything wrong with either.
    """
    missing = sorted(
        key for key in OmegaConf.missing_keys(cfg) if key.startswith(("data.", "proposals."))
    )
    if missing:
        raise InputError(f"{', '.join(missing)} is not set: give it on the command line")
    overrides = {"masks": False} if not cfg.mask or cfg.proposals_only else {}
    data = instantiate(cfg.data, **overrides)
    if cfg.proposals.files is not None:
        _attach_proposals(data, plain(cfg.proposals))
    return data


def _attach_proposals(data: DataSplits, proposals: dict[str, Any]) -> None:
    """Give each split the proposals of its file, as many of an image as an RPN would keep."""
    files, (train_top, val_top) = proposals["files"], proposals["rpn"]["post_nms"]
    data.train.attach_proposals(Path(files["train"]), top=train_top, detector=files["detector"])
    if data.val is not data.train:
        data.val.attach_proposals(Path(files["val"]), top=val_top, detector=files["detector"])


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
    frozen = cfg.proposals.files is not None
    if frozen and cfg.proposals_only:
        raise InputError("proposals_only=true: has nothing to learn with proposals=frozen; set one")
    model = build_mask_rcnn(
        backbone=instantiate(cfg.backbone, **({"weights": FILLED_LATER} if cfg.weights else {})),
        stride=cfg.stride,
        pooler=instantiate(cfg.pooler),
        num_classes=num_classes,
        mask=cfg.mask,
        head=plain(cfg.head),
        anchors=plain(cfg.proposals.anchors),
        rpn=None if frozen else plain(cfg.proposals.rpn),
        roi=None if cfg.proposals_only else plain(cfg.roi),
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


def restored_model(
    cfg: DictConfig, checkpoint: Checkpoint, dataset: CocoDataset, path: Path
) -> MaskRCNN:
    """The network of the checkpoint at `path`, to be used on `dataset`.

    Raises:
        InputError: it was trained on other categories.
    """
    check_categories(checkpoint.categories, dataset, path)
    # The file holds every weight: nothing is downloaded for a network that is about to be filled.
    OmegaConf.update(cfg, "backbone.weights", FILLED_LATER)
    model = build_model(cfg, len(dataset.categories))
    load_weights_into(model, checkpoint.model, path)
    return model


def checkpoint_path(given: Path) -> Path:
    """The checkpoint that `given`, a file or a run's folder, stands for."""
    return given / "checkpoints" / "last.pt" if given.is_dir() else given


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
        if _in_a_sweep():
            raise
        sys.exit(2)
    except Exception as error:
        if not _in_a_sweep():
            raise
        # Told here, because Hydra tells of the first failure alone, at the end; and raised as plain
        # text, because not every error survives the way back from a launcher's process.
        traceback.print_exc()
        raise RuntimeError(f"{type(error).__name__}: {error}") from None


def _in_a_sweep() -> bool:
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN
