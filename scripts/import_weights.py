"""Convert weights once: a detector's into a checkpoint or to detectron2's names, or a backbone's.

    python scripts/import_weights.py model_final.pkl zoo.pt experiment=detectron2/r50_c4 data.root=D
    python scripts/import_weights.py outputs/RUN/checkpoints/last.pt for_detectron2.pkl
    python scripts/import_weights.py resnet50.pth backbone.pt --pixels rgb01

OUT's ending says which: `.pt` is a checkpoint, for the network and the data set that the further
words describe, and then evaluates as `python evaluate.py checkpoint=zoo.pt`; `.pkl` is a file in
the form of detectron2's model zoo.

With --pixels, SOURCE is a ResNet or VGG16 in torchvision's names that was trained on pixels of
another scale, and OUT, for `backbone.weights=OUT`, is the same with its normalisation beside it:
`rgb01` (RGB in 0..1), `caffe_bgr` (BGR in 0..255 less Caffe's mean), `torchvision`. The weights
stay as they are. Folding mean and scale into the first convolution instead would not be exact: it
pads its input with zeros, which are black to a network of `rgb01` and the mean colour to the folded
one, so that everything near the image's border would change.
"""

import argparse
import pickle
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from omegaconf import OmegaConf

from build import build_data, build_model, load_weights, with_structure
from configuration import command_line, composed
from files.atomic import make_folder, replacing
from models.normalization import CAFFE, RGB01, TORCHVISION, Normalize
from models.weight_files import TORCHVISION_IMAGENET, open_weights
from models.weight_names import detectron2_name
from ops.errors import InputError
from running.checkpoint import Checkpoint, load_checkpoint, save_checkpoint

PIXELS = {"torchvision": TORCHVISION, "rgb01": RGB01, "caffe_bgr": CAFFE}


def import_backbone(source: Path, out: Path, pixels: str) -> None:
    """Write a backbone with the normalisation that its network was trained with beside it.

    Args:
        source: a state dict in torchvision's names, of a ResNet or VGG16.
        out: a file for `backbone.weights`.
        pixels: in `PIXELS`.

    Raises:
        InputError: unreadable, or a file of another kind, whose normalisation is known.
    """
    file = open_weights(source)
    if file.kind is not TORCHVISION_IMAGENET:
        raise InputError(
            f"{source}: is {file.kind.title}, whose pixels are known; give it as backbone.weights "
            "without --pixels"
        )
    tensors = {n: t for n, t in file.tensors.items() if file.kind.backbone.match(n)}
    buffers = Normalize(PIXELS[pixels]).state_dict()
    with replacing(out) as temporary:
        torch.save(tensors | {f"normalize.{n}": t for n, t in buffers.items()}, temporary)
    print(f"{out}: {len(tensors)} tensors and their normalisation; backbone.weights={out}")


def import_detector(source: Path, out: Path, overrides: Sequence[str]) -> None:
    """Write a checkpoint of the network that `overrides` describe, filled from `source`."""
    cfg = composed("train", overrides)
    OmegaConf.update(cfg, "weights", str(source))
    cfg = with_structure(cfg)
    dataset = build_data(cfg).val
    model = build_model(cfg, len(dataset.categories))
    load_weights(model, source, dataset)
    cfg.weights = None  # the checkpoint holds them
    save_checkpoint(
        out,
        model=model,
        step=0,
        config_text=OmegaConf.to_yaml(cfg, resolve=True),
        categories=[{"id": c.id, "name": c.name} for c in dataset.categories],
    )
    print(f"{out}: a checkpoint; python evaluate.py checkpoint={out}")


def export_detector(source: Path, out: Path) -> None:
    """Write a checkpoint's weights as detectron2's model zoo does, and say what to set there.

    Raises:
        InputError: detectron2 has no such network.
    """
    checkpoint = load_checkpoint(source)
    backbone = OmegaConf.create(checkpoint.config_text).backbone
    _check_known_there(checkpoint, backbone, source)
    arrays = {}
    for name, tensor in checkpoint.model.items():
        if not name.startswith("normalize."):
            try:
                arrays[detectron2_name(name)] = tensor.contiguous().numpy()
            except KeyError as layer:
                raise InputError(
                    f"{source}: detectron2 has no layer {layer}; export a ResNet"
                ) from layer
    with replacing(out) as temporary:
        temporary.write_bytes(pickle.dumps({"model": arrays, "__author__": "roi-poolers"}))
    statistics = Normalize.statistics_of(checkpoint.model)
    print(
        f"{out}: {len(arrays)} arrays; set in detectron2, beside anchors and counts as in the run:"
    )
    print(f"  INPUT.FORMAT {statistics.channel_order.upper()}")
    print(
        f"  MODEL.PIXEL_MEAN {_rounded(statistics.mean)} MODEL.PIXEL_STD {_rounded(statistics.std)}"
    )
    print(
        f"  MODEL.RESNETS.STRIDE_IN_1X1 {bool(backbone.get('stride_in_1x1'))} "
        f"MODEL.RESNETS.RES5_DILATION {backbone.get('res5_dilation', 1)} "
        f"MODEL.ROI_HEADS.NUM_CLASSES {len(checkpoint.categories)}"
    )


def _check_known_there(checkpoint: Checkpoint, backbone: Any, source: Path) -> None:
    on_rois = any(name.startswith("roi_heads.head.res5.") for name in checkpoint.model)
    if on_rois and backbone.get("res5_stride", 1) != 2:
        raise InputError(
            f"{source}: detectron2 knows res5 on RoIs with stride 2 alone, which no shape shows; "
            "export a network trained with backbone.res5_stride=2"
        )
    if backbone.get("norm") == "group":
        raise InputError(
            f"{source}: detectron2 groups channels in another way, which no shape shows; "
            "export a network trained with backbone.norm=frozen or batch"
        )


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(value, 4) for value in values]


def main(arguments: Sequence[str] | None = None) -> None:
    """Convert as the command line asks."""
    parser = argparse.ArgumentParser(description="Convert weights of detectors and backbones.")
    parser.add_argument("source", type=Path, help="a file of weights")
    parser.add_argument("out", type=Path, help="to be written: .pt, or .pkl for detectron2")
    parser.add_argument("overrides", nargs="*", help="for .pt: key=value as for train.py")
    parser.add_argument(
        "--pixels", choices=PIXELS, help="SOURCE is a backbone trained on such pixels"
    )
    chosen = parser.parse_args(arguments)

    def action() -> None:
        make_folder(chosen.out.parent)
        if chosen.pixels is not None:
            if chosen.out.suffix != ".pt" or chosen.overrides:
                raise InputError("--pixels: makes a backbone; give only SOURCE and OUT.pt with it")
            import_backbone(chosen.source, chosen.out, chosen.pixels)
        elif chosen.out.suffix == ".pkl":
            export_detector(chosen.source, chosen.out)
        elif chosen.out.suffix == ".pt":
            import_detector(chosen.source, chosen.out, chosen.overrides)
        else:
            raise InputError(f"{chosen.out}: end it in .pt (a checkpoint) or .pkl (for detectron2)")

    command_line(action)


if __name__ == "__main__":
    main()
