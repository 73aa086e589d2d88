"""VGG16: the two cuts, what learns, torchvision's features from its file."""

from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from torch import Tensor, nn
from torchvision import models as tv_models

from models.vgg import STAGE_ENDS, vgg16
from ops.errors import InputError


def run(module: nn.Module | None, x: Tensor) -> Tensor:
    assert module is not None
    with torch.no_grad():
        return module(x)


@pytest.mark.parametrize("stride", [16, 32])
def test_shapes_and_parameters_are_those_of_vgg16(stride: int) -> None:
    with torch.device("meta"):
        network = vgg16(stride=stride)
        theirs = tv_models.vgg16()
        features = network.trunk(torch.zeros(1, 3, 96, 160))
        assert network.roi_layers is not None
        vectors = network.roi_layers(torch.zeros(2, 512, 7, 7))
    assert features.shape == (1, 512, 96 // stride, 160 // stride)
    assert vectors.shape == (2, 4096)
    assert (network.channels, network.pool_size, network.roi_channels) == (512, 7, 4096)
    assert not network.shares_maps
    parts = nn.ModuleList([network.trunk, network.roi_layers])
    count = sum(p.numel() for p in theirs.parameters())
    without_classifier = count - sum(p.numel() for p in theirs.classifier[6].parameters())
    assert sum(p.numel() for p in parts.parameters()) == without_classifier


@pytest.fixture(scope="module")
def narrow_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    """A network of VGG16's form with an eighth of its channels, and the file of its state dict.

    Torchvision's names and layers; the true widths would need 500 MB.
    """
    torch.manual_seed(0)
    plan = [layer if layer == "M" else layer // 8 for layer in tv_models.vgg.cfgs["D"]]
    theirs = tv_models.VGG(tv_models.vgg.make_layers(plan), init_weights=False)
    theirs.classifier[0] = nn.Linear(64 * 49, 32)
    theirs.classifier[3] = nn.Linear(32, 32)
    theirs.classifier[6] = nn.Linear(32, 10)
    for name, parameter in theirs.named_parameters():
        if "weight" in name:
            nn.init.kaiming_normal_(parameter, nonlinearity="relu")
    path = tmp_path_factory.mktemp("weights") / "vgg.pth"
    torch.save(theirs.state_dict(), path)
    return theirs.double().eval(), path


@pytest.mark.parametrize("stride", [16, 32])
def test_torchvisions_file_gives_torchvisions_features(
    narrow_file: tuple[nn.Module, Path], stride: int
) -> None:
    theirs, path = narrow_file
    ours = vgg16(stride=stride, width=8, fc_dim=32, weights=str(path))
    x = torch.randn(1, 3, 224, 224, dtype=torch.float64)
    pool5 = run(theirs.features, x)
    features = run(ours.trunk.double(), x)
    expected = pool5 if stride == 32 else run(theirs.features[:-1], x)
    assert torch.allclose(features, expected, rtol=1e-6, atol=1e-9)
    # At 224 pixels pool5 is the 7x7 that fc6 reads, so the whole of both networks can be compared.
    assert ours.roi_layers is not None
    vectors = run(ours.roi_layers.double().eval(), pool5)
    fc7 = run(theirs.classifier[:6], pool5.flatten(1))
    assert torch.allclose(vectors, fc7, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("stride", [16, 32])
def test_convolutions_of_the_true_widths_give_torchvisions_features(
    tmp_path: Path, stride: int
) -> None:
    """Only the classifier is narrower than VGG16's, whose 480 MB no feature depends on."""
    torch.manual_seed(1)
    theirs = tv_models.VGG(tv_models.vgg.make_layers(tv_models.vgg.cfgs["D"]), init_weights=False)
    theirs.classifier = nn.Sequential(nn.Linear(512 * 49, 8), *[nn.Identity()] * 2, nn.Linear(8, 8))
    torch.save(theirs.state_dict(), tmp_path / "vgg16.pth")
    ours = vgg16(stride=stride, fc_dim=8, weights=str(tmp_path / "vgg16.pth"))
    x = torch.randn(1, 3, 96, 128)
    expected = run(theirs.eval().features if stride == 32 else theirs.features[:-1], x)
    assert expected.std() > 0
    assert torch.equal(run(ours.trunk, x), expected)


@pytest.mark.parametrize("stages", range(6))
def test_frozen_stages_take_no_gradient(narrow_file: tuple[nn.Module, Path], stages: int) -> None:
    network = vgg16(
        stride=16, width=8, fc_dim=32, frozen_stages=stages, weights=str(narrow_file[1])
    )
    frozen = {
        int(n.split(".")[0]) for n, p in network.trunk.named_parameters() if not p.requires_grad
    }
    convolutions = [i for i, m in enumerate(network.trunk) if isinstance(m, nn.Conv2d)]
    last = STAGE_ENDS[stages - 1] if stages else 0
    assert frozen == {i for i in convolutions if i < last}
    assert len(frozen) == (0, 2, 4, 7, 10, 13)[stages]
    assert network.roi_layers is not None
    assert all(p.requires_grad for p in network.roi_layers.parameters())


def test_random_filters_are_never_frozen() -> None:
    network = vgg16(stride=16, width=8, fc_dim=32, frozen_stages=2)
    assert all(p.requires_grad for p in network.trunk.parameters())


def test_signal_keeps_its_size_at_the_start() -> None:
    torch.manual_seed(0)
    features = run(vgg16(stride=16, width=16, fc_dim=8).trunk, torch.randn(1, 3, 64, 64))
    assert 0.05 < features.std() < 20


def test_a_residual_networks_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "resnet18.pth"
    torch.save(tv_models.resnet18().state_dict(), path)
    with pytest.raises(InputError, match=r"has no tensor features\.0\.weight") as error:
        vgg16(stride=16, width=8, fc_dim=8, weights=str(path))
    assert str(path) in str(error.value)


def test_other_widths_are_refused_with_both_shapes(narrow_file: tuple[nn.Module, Path]) -> None:
    with pytest.raises(InputError, match=r"\(8, 3, 3, 3\).*\(16, 3, 3, 3\)"):
        vgg16(stride=16, width=16, fc_dim=32, weights=str(narrow_file[1]))


def test_a_missing_file_is_named() -> None:
    with pytest.raises(InputError, match=r"nowhere.pth: no such file"):
        vgg16(stride=16, width=8, fc_dim=8, weights="nowhere.pth")


def test_a_download_that_fails_is_told_with_the_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr(tv_models.VGG16_Weights, "get_state_dict", fail)
    with pytest.raises(InputError, match=r"no route to host.*backbone\.weights=null") as error:
        vgg16(stride=16, width=8, fc_dim=8, weights="imagenet")
    assert "\n" not in str(error.value)


def test_only_two_strides_are_known() -> None:
    with pytest.raises(InputError, match="stride=8: choose stride=16"):
        vgg16(stride=8, width=8, fc_dim=8)


def test_frozen_stages_beyond_the_last_are_refused() -> None:
    with pytest.raises(InputError, match=r"backbone\.frozen_stages=6: choose"):
        vgg16(stride=16, width=8, fc_dim=8, frozen_stages=6)
