"""ResNet: shapes and strides of every depth, what learns, torchvision's features from its file."""

from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from torch import Tensor, nn
from torchvision import models as tv_models

from models import weights as weight_files
from models.network import Network
from models.normalization import TORCHVISION, Normalize
from models.resnet import FrozenBatchNorm2d, resnet
from ops.errors import InputError

EXPANSION = {18: 1, 34: 1, 50: 4, 101: 4}


def one_line(error: pytest.ExceptionInfo[InputError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def run(module: nn.Module | None, x: Tensor) -> Tensor:
    assert module is not None
    with torch.no_grad():
        return module(x)


def narrow(**settings: object) -> Network:
    chosen = {"blocks": (1, 1, 1, 1), "bottleneck": False, "stem_channels": 8, "width": 8}
    return resnet(**{"stride": 16, **chosen, **settings})  # type: ignore[arg-type]


@pytest.mark.parametrize("depth", EXPANSION)
def test_c4_cuts_before_res5_and_c5_after_it(depth: int) -> None:
    with torch.device("meta"):
        image = torch.zeros(1, 3, 96, 160)
        c4, c5 = resnet(depth=depth, stride=16), resnet(depth=depth, stride=32)
        width = 256 * EXPANSION[depth]
        assert c4.trunk(image).shape == (1, width, 6, 10)
        assert c5.trunk(image).shape == (1, 2 * width, 3, 5)
        assert c4.roi_layers is not None
        pooled = torch.zeros(2, width, c4.pool_size, c4.pool_size)
        assert c4.roi_layers(pooled).shape == (2, 2 * width, 7, 7)
    assert (c4.stride, c4.channels, c4.roi_channels) == (16, width, 2 * width)
    assert (c5.stride, c5.channels, c5.roi_layers, c5.pool_size) == (32, 2 * width, None, 7)
    assert c4.shares_maps
    assert not c5.shares_maps


@pytest.mark.parametrize("depth", EXPANSION)
def test_parameters_are_as_many_as_torchvisions(depth: int) -> None:
    with torch.device("meta"):
        ours = resnet(depth=depth, stride=32, norm="batch").trunk
        theirs = getattr(tv_models, f"resnet{depth}")()
    count = sum(p.numel() for p in theirs.parameters())
    without_classifier = count - sum(p.numel() for p in theirs.fc.parameters())
    assert sum(p.numel() for p in ours.parameters()) == without_classifier


def test_c4_can_leave_res5_out() -> None:
    network = narrow(res5_on_rois=False)
    assert network.roi_layers is None
    assert (network.channels, network.pool_size) == (32, 7)
    assert not any(name.startswith("res5") for name, _ in network.trunk.named_parameters())
    assert run(network.trunk, torch.zeros(1, 3, 64, 96)).shape == (1, 32, 4, 6)


@pytest.mark.parametrize(("res5_stride", "side"), [(1, 7), (2, 14)])
def test_res5_takes_the_grid_of_its_stride(res5_stride: int, side: int) -> None:
    network = narrow(res5_stride=res5_stride)
    assert network.pool_size == side
    assert run(network.roi_layers, torch.zeros(2, network.channels, side, side)).shape[-2:] == (
        7,
        7,
    )


@pytest.mark.parametrize("size", [(33, 65), (100, 75)])
@pytest.mark.parametrize("stride", [16, 32])
def test_sizes_that_the_stride_does_not_divide_are_rounded_up(
    size: tuple[int, int], stride: int
) -> None:
    features = run(narrow(stride=stride).trunk, torch.zeros(1, 3, *size))
    assert features.shape[-2:] == tuple(-(-edge // stride) for edge in size)


@pytest.mark.parametrize("norm", ["frozen", "batch", "group"])
def test_signal_keeps_its_size_at_the_start(norm: str) -> None:
    torch.manual_seed(0)
    network = resnet(stride=32, norm=norm, blocks=(3, 4, 6, 3), bottleneck=True, width=16)
    network.trunk.train()
    features = run(network.trunk, torch.randn(2, 3, 64, 64))
    assert 0.01 < features.std() < 100


def test_a_frozen_norm_is_batch_norm_in_evaluation() -> None:
    torch.manual_seed(0)
    theirs = nn.BatchNorm2d(6).eval()
    for tensor in (theirs.weight.data, theirs.bias.data, theirs.running_mean):
        tensor.normal_()
    theirs.running_var.uniform_(0.5, 2)
    ours = FrozenBatchNorm2d(6).train()
    ours.load_state_dict(theirs.state_dict(), strict=False)
    x = torch.randn(2, 6, 5, 5)
    assert torch.allclose(ours(x), theirs(x), atol=1e-6)
    assert list(ours.parameters()) == []
    assert ours(x.bfloat16()).dtype == torch.bfloat16


# Weights


def randomised(network: nn.Module) -> nn.Module:
    """Random weights, and batch statistics as if trained on something."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.2, 0.8)
            nn.init.normal_(module.bias, std=0.1)
    return network.eval()


@pytest.fixture(scope="module", params=[18, 50])
def torchvisions(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[int, nn.Module, Path]:
    """Depth, network and the file of its state dict."""
    network = randomised(getattr(tv_models, f"resnet{request.param}")())
    path = tmp_path_factory.mktemp("weights") / "network.pth"
    torch.save(network.state_dict(), path)
    return request.param, network.double(), path


@pytest.mark.parametrize("norm", ["frozen", "batch"])
@pytest.mark.parametrize("stride", [16, 32])
def test_torchvisions_file_gives_torchvisions_features(
    torchvisions: tuple[int, nn.Module, Path], stride: int, norm: str
) -> None:
    depth, theirs, path = torchvisions
    ours = resnet(depth=depth, stride=stride, norm=norm, weights=str(path), res5_stride=2)
    x = torch.randn(1, 3, 64, 96, dtype=torch.float64)
    stem = nn.Sequential(theirs.conv1, theirs.bn1, theirs.relu, theirs.maxpool)
    c4 = run(nn.Sequential(stem, theirs.layer1, theirs.layer2, theirs.layer3), x)
    c5 = run(theirs.layer4, c4)
    features = run(ours.trunk.double().eval(), x)
    if stride == 32:
        assert (features - c5).abs().max() < 1e-6 * c5.abs().max()
    else:
        assert (features - c4).abs().max() < 1e-6 * c4.abs().max()
        assert ours.roi_layers is not None
        top = run(ours.roi_layers.double().eval(), features)
        assert (top - c5).abs().max() < 1e-6 * c5.abs().max()


def test_a_file_in_the_older_format_of_pytorch_is_read_too(
    torchvisions: tuple[int, nn.Module, Path], tmp_path: Path
) -> None:
    depth, _, path = torchvisions
    older = tmp_path / "older.pth"
    torch.save(torch.load(path), older, _use_new_zipfile_serialization=False)
    one = resnet(depth=depth, stride=16, weights=str(older)).trunk.state_dict()
    other = resnet(depth=depth, stride=16, weights=str(path)).trunk.state_dict()
    assert all(torch.equal(one[name], other[name]) for name in other)


@pytest.mark.parametrize("stages", [0, 1, 2, 3])
def test_frozen_stages_take_no_gradient(
    torchvisions: tuple[int, nn.Module, Path], stages: int
) -> None:
    depth, _, path = torchvisions
    trunk = resnet(depth=depth, stride=16, weights=str(path), frozen_stages=stages).trunk
    frozen = {name for name, p in trunk.named_parameters() if not p.requires_grad}
    names = ("stem", "res2", "res3", "res4")
    expected = {n for n, _ in trunk.named_parameters() if n.startswith(names[:stages])}
    assert frozen == (expected if stages else set())


def test_random_filters_are_never_frozen() -> None:
    assert all(p.requires_grad for p in narrow(frozen_stages=2).trunk.parameters())


def test_a_missing_file_is_named() -> None:
    with pytest.raises(InputError) as error:
        narrow(weights="/nowhere/at/all.pth")
    assert "/nowhere/at/all.pth" in one_line(error)
    assert "give a path" in one_line(error)


@pytest.mark.parametrize("content", [b"not PyTorch's", b""])
def test_a_file_that_is_no_state_dict_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "network.pth"
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        narrow(weights=str(path))
    assert str(path) in one_line(error)
    assert "state dict" in one_line(error)


def test_a_file_that_holds_something_else_is_named(tmp_path: Path) -> None:
    path = tmp_path / "list.pth"
    torch.save([1, 2], path)
    with pytest.raises(InputError, match=r"holds a list.*state dict") as error:
        narrow(weights=str(path))
    assert str(path) in one_line(error)


def test_another_depth_is_told_by_the_first_tensor_that_does_not_fit(
    torchvisions: tuple[int, nn.Module, Path],
) -> None:
    depth, _, path = torchvisions
    with pytest.raises(InputError) as error:
        resnet(depth={18: 50, 50: 18}[depth], stride=16, weights=str(path))
    text = one_line(error)
    assert str(path) in text
    assert "layer1.0." in text


def test_a_narrower_network_is_told_both_shapes(
    torchvisions: tuple[int, nn.Module, Path],
) -> None:
    path = torchvisions[2]
    with pytest.raises(InputError, match=r"conv1.weight has shape \(64, 3, 7, 7\)") as error:
        narrow(weights=str(path))
    assert "(8, 3, 7, 7)" in one_line(error)


def test_a_download_that_fails_is_told_with_the_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr(tv_models.ResNet18_Weights, "get_state_dict", fail)
    with pytest.raises(InputError) as error:
        resnet(depth=18, stride=16, weights="imagenet")
    text = one_line(error)
    for part in ("backbone.weights", "no route to host", ".pth", "backbone.weights=null", "PATH"):
        assert part in text


def test_imagenets_weights_bring_their_normalisation(monkeypatch: pytest.MonkeyPatch) -> None:
    state = tv_models.resnet18().state_dict()
    entry = weight_files.RESNET_ENTRIES[18]
    monkeypatch.setattr(type(entry), "get_state_dict", lambda *_, **__: state)
    network = resnet(depth=18, stride=16, weights="imagenet")
    assert network.statistics.channel_order == "rgb"
    assert network.statistics.mean == pytest.approx((123.675, 116.28, 103.53))
    assert network.statistics.std == pytest.approx((58.395, 57.12, 57.375))
    assert torch.equal(network.trunk.state_dict()["stem.conv.weight"], state["conv1.weight"])


def test_a_network_of_ones_own_has_no_imagenet_weights() -> None:
    with pytest.raises(InputError, match=r"backbone\.weights=null"):
        narrow(weights="imagenet")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stride": 8}, "stride=8: choose stride=16"),
        ({"depth": 20, "blocks": None, "bottleneck": None}, "backbone.depth=20: choose"),
        ({"norm": "layer"}, "backbone.norm=layer: choose"),
        ({"res5_stride": 3}, "backbone.res5_stride=3: choose"),
        ({"frozen_stages": 6}, "backbone.frozen_stages=6: choose"),
        ({"frozen_stages": -1}, "backbone.frozen_stages=-1: choose"),
    ],
)
def test_a_setting_without_sense_is_named(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        narrow(**settings)
    one_line(error)


def test_frozen_stages_keep_the_statistics_of_their_weights(tmp_path: Path) -> None:
    settings = {"stride": 16, "norm": "batch", "blocks": (1, 1, 1, 1), "bottleneck": False}
    source = resnet(**settings, width=8, stem_channels=8)
    state = {f"backbone.{name}": t for name, t in source.trunk.state_dict().items()}
    state |= {f"roi_heads.head.res5.{n}": t for n, t in source.roi_layers.state_dict().items()}
    state |= {f"normalize.{n}": t for n, t in Normalize(TORCHVISION).state_dict().items()}
    path = tmp_path / "weights.pt"
    content = {"model": state, "config_text": "backbone: {}", "categories": []}
    torch.save(content, path)
    network = resnet(**settings, width=8, stem_channels=8, frozen_stages=2, weights=str(path))
    before = {n: t.clone() for n, t in network.trunk.state_dict().items()}
    network.trunk.train()
    network.trunk(torch.randn(2, 3, 64, 64))
    changed = {n for n, t in network.trunk.state_dict().items() if not torch.equal(t, before[n])}
    assert changed
    assert not any(name.startswith(("stem.", "res2.")) for name in changed)


def test_a_checkpoints_backbone_says_how_much_of_it_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    source = narrow(stride=32)
    state = {f"backbone.{name}": t for name, t in source.trunk.state_dict().items()}
    state |= {f"normalize.{n}": t for n, t in Normalize(TORCHVISION).state_dict().items()}
    path = tmp_path / "weights.pt"
    torch.save({"model": state, "config_text": "backbone: {}", "categories": []}, path)
    filled = narrow(stride=32, weights=str(path)).trunk.state_dict()
    assert all(torch.equal(filled[n], t) for n, t in source.trunk.state_dict().items())
    count = len(filled)
    assert f"{count} tensors loaded, 0 missing, 0 unexpected; 3 others" in capsys.readouterr().out
