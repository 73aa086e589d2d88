"""Backbones trained on pixels of another scale: the same features of the same photograph."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchvision import models as torchvision_models

from models.normalization import Normalize
from models.resnet import resnet
from models.vgg import vgg16
from ops.errors import InputError
from scripts.import_weights import main as import_weights
from tests.foreign_weights import randomised

IMAGE = torch.arange(3 * 70 * 90).mul(37).remainder(256).to(torch.uint8).view(3, 70, 90)
CAFFE_MEAN = torch.tensor([103.939, 116.779, 123.68]).view(3, 1, 1)
IMAGENET_MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
IMAGENET_STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
INPUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "rgb01": lambda image: image / 255,
    "caffe_bgr": lambda image: image.flip(0).float() - CAFFE_MEAN,
    "torchvision": lambda image: (image / 255 - IMAGENET_MEAN) / IMAGENET_STD,
}


def written(tensors: dict[str, Tensor], folder: Path, pixels: str) -> str:
    """The path of a converted file."""
    torch.save(tensors, folder / "source.pth")
    words = (folder / "source.pth", folder / "backbone.pt", "--pixels", pixels)
    import_weights([*map(str, words)])
    return str(folder / "backbone.pt")


@pytest.mark.parametrize("pixels", INPUTS)
@torch.no_grad()
def test_a_resnet_sees_a_photograph_as_it_was_trained_to(pixels: str, tmp_path: Path) -> None:
    theirs = randomised(torchvision_models.resnet18(num_classes=5)).eval()
    path = written(theirs.state_dict(), tmp_path, pixels)
    network = resnet(stride=16, depth=18, weights=path, res5_on_rois=False)
    found = network.trunk.eval()(Normalize(network.statistics)([IMAGE]))
    layers = [theirs.conv1, theirs.bn1, theirs.relu, theirs.maxpool]
    stages = [theirs.layer1, theirs.layer2, theirs.layer3]
    expected = nn.Sequential(*layers, *stages)(INPUTS[pixels](IMAGE)[None])
    assert found.shape == expected.shape  # to the border, where the first layer pads with zeros
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


@pytest.mark.parametrize("pixels", INPUTS)
@torch.no_grad()
def test_vggs_convolutions_see_a_photograph_as_they_were_trained_to(
    pixels: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = randomised(torchvision_models.vgg16(num_classes=5).features).eval()
    tensors = {f"features.{name}": tensor for name, tensor in theirs.state_dict().items()}
    path = written(tensors, tmp_path, pixels)
    network = vgg16(stride=16, fc_dim=8, weights=path)
    message = capsys.readouterr().out
    assert "26 tensors loaded, 0 missing, 0 unexpected" in message
    assert "fc6 and fc7 start at random" in message
    found = network.trunk.eval()(Normalize(network.statistics)([IMAGE]))
    expected = theirs[:30](INPUTS[pixels](IMAGE)[None])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


def test_a_classifier_with_a_part_missing_is_still_refused(tmp_path: Path) -> None:
    theirs = torchvision_models.vgg16(num_classes=5).features.state_dict()
    tensors = {f"features.{name}": tensor for name, tensor in theirs.items()}
    tensors["classifier.3.bias"] = torch.zeros(4096)
    path = written(tensors, tmp_path, "torchvision")
    with pytest.raises(InputError, match=r"has no tensor classifier\.0\.weight"):
        vgg16(stride=16, fc_dim=8, weights=path)


@pytest.mark.parametrize(
    ("tensors", "words", "expected"),
    [
        ({"conv1.weight": torch.zeros(1)}, ["out.pkl"], "give only SOURCE and OUT.pt"),
        ({"conv1.weight": torch.zeros(1)}, ["out.pt", "mask=false"], "give only SOURCE and OUT.pt"),
        ({"backbone.stem.conv1.weight": torch.zeros(1)}, ["out.pt"], "whose pixels are known"),
    ],
)
def test_what_has_no_pixels_to_be_stated_is_refused_in_one_line(
    tensors: dict[str, Tensor],
    words: list[str],
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(tensors, "source.pth")
    with pytest.raises(SystemExit):
        import_weights(["source.pth", *words, "--pixels", "rgb01"])
    message = capsys.readouterr().err.splitlines()
    assert len(message) == 1 and expected in message[0]
    assert not list(tmp_path.glob("out*"))
