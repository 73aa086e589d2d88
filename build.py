"""From a configuration to the parts it describes: data, network, runtime."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import hydra
import torch
from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf

from configuration import plain
from data.splits import DataSplits, DetectionDataset
from models.mask_rcnn import MaskRCNN, build_mask_rcnn
from models.network import LOADED_LATER
from ops.errors import InputError
from running.runtime import Runtime, start_runtime


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
    data = instantiate(cfg.data, masks=cfg.mask and not cfg.proposals_only)
    if cfg.proposals.files is not None:
        data = _with_proposals(data, plain(cfg.proposals))
    return data


def _with_proposals(data: DataSplits, proposals: dict[str, Any]) -> DataSplits:
    """Each split with the proposals of its file, as many of an image as an RPN would keep."""
    from data.proposals import WithProposals  # not needed where the RPN is trained

    files, (train_count, val_count) = proposals["files"], proposals["rpn"]["post_nms"]
    detector = files["detector"]
    train = WithProposals(
        data.train, Path(files["train"]), per_image=train_count, detector=detector
    )
    val = train
    if data.val is not data.train:
        val = WithProposals(data.val, Path(files["val"]), per_image=val_count, detector=detector)
    return replace(data, train=train, val=val)


def with_structure(cfg: DictConfig) -> DictConfig:
    """`cfg` with what its weights decide about the backbone written out, where it leaves that open.

    A checkpoint keeps the result, and so needs no other file to be built again.

    Raises:
        InputError: `cfg` states otherwise than the detector that is to fill the whole network, or
            wants statistics to be kept where there are no weights.
    """
    weights = cfg.weights or cfg.backbone.get("weights")
    if weights is None and cfg.backbone.get("norm") == "frozen":
        raise InputError(
            "backbone.norm=frozen: keeps the statistics of weights, and backbone.weights=null has "
            "none; set backbone.norm=group (any batch) or batch (8 images a GPU or more)"
        )
    if weights is None and cfg.backbone.get("stride_in_1x1", False) is not None:
        return cfg
    from models.weights import complete_structure  # a network from scratch needs no reader of files

    settled = complete_structure(plain(cfg.backbone), weights, whole=bool(cfg.weights))
    return OmegaConf.merge(cfg, {"backbone": settled})  # type: ignore[return-value]


def load_weights(model: MaskRCNN, path: Path, dataset: DetectionDataset) -> None:
    """Fill `model` from a detector's file: ours, for the same categories, or detectron's.

    Raises:
        InputError: no such file, no detector, other categories, another architecture.
    """
    from models.weight_files import open_weights
    from models.weights import load_detector

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
        backbone=instantiate(cfg.backbone, **({"weights": LOADED_LATER} if cfg.weights else {})),
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


def build_runtime(cfg: DictConfig) -> Runtime:
    """Device, number format, threads and ranks that `cfg` asks for."""
    return start_runtime(
        device=cfg.device,
        precision=cfg.precision,
        threads=cfg.threads,
        deterministic=cfg.deterministic,
    )


def check_categories(
    categories: Sequence[Mapping[str, Any]], dataset: DetectionDataset, path: Path
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
