"""Files of every kind give the network they came from, with what belongs to it, or are refused."""

import math
import pickle
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision import models as tv_models
from torchvision.models import detection

from build import build_model, with_structure
from models.mask_rcnn import MaskRCNN
from models.network import Network
from models.normalization import DETECTRON, MSRA, TORCHVISION
from models.resnet import resnet
from models.weight_files import open_weights
from models.weight_names import detectron_backbone_name, detectron_name
from models.weights import load_detector, structure_of
from ops.errors import InputError
from tests.foreign_weights import detectron_file, msra_file, randomised
from tests.golden_models import CONFIGS

NARROW = ("backbone.width=8", "backbone.stem_channels=8", "head.fc_dim=16", "head.mask_dim=8")


def narrow(stride: int = 32, **settings: object) -> Network:
    return resnet(stride=stride, depth=50, width=8, stem_channels=8, **settings)  # type: ignore[arg-type]


def stages_of(network: Network) -> dict[str, Tensor]:
    return dict(randomised(network.trunk).state_dict())


@torch.no_grad()
def features(trunk: nn.Module) -> Tensor:
    image = torch.linspace(-1, 1, 3 * 64 * 96).view(1, 3, 64, 96)
    return trunk.eval()(image)


def detector(*overrides: str) -> MaskRCNN:
    with initialize_config_dir(version_base="1.3", config_dir=str(CONFIGS)):
        cfg = compose("train", overrides=["experiment=detectron2/r50_c4", *NARROW, *overrides])
    cfg.backbone.weights = None
    return build_model(cfg, 3)


def assert_same_state(ours: nn.Module, theirs: nn.Module) -> None:
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], tensor), name


def test_caffe2s_names_are_those_of_the_published_files() -> None:
    assert {
        ours: detectron_backbone_name(ours)
        for ours in (
            "stem.conv.weight",
            "stem.norm.weight",
            "res2.0.shortcut.conv.weight",
            "res2.0.shortcut.norm.bias",
            "res4.22.conv3.weight",
            "res5.2.norm2.running_mean",
            "features.28.bias",
            "fc7.weight",
        )
    } == {
        "stem.conv.weight": "conv1_w",
        "stem.norm.weight": "res_conv1_bn_s",
        "res2.0.shortcut.conv.weight": "res2_0_branch1_w",
        "res2.0.shortcut.norm.bias": "res2_0_branch1_bn_b",
        "res4.22.conv3.weight": "res4_22_branch2c_w",
        "res5.2.norm2.running_mean": "res5_2_branch2b_bn_rm",
        "features.28.bias": "conv5_3_b",
        "fc7.weight": "fc7_w",
    }
    assert detectron_name("roi_heads.head.res5.0.conv1.weight") == "res5_0_branch2a_w"
    assert detectron_name("backbone.0.bias") == "conv1_1_b"


def test_msras_file_brings_its_normalisation_and_its_strides(tmp_path: Path) -> None:
    theirs = narrow(stride_in_1x1=True)
    path = msra_file(tmp_path / "R-50.pkl", stages_of(theirs))
    ours = narrow(weights=str(path))
    assert_same_state(ours.trunk, theirs.trunk)
    assert torch.equal(features(ours.trunk), features(theirs.trunk))
    assert ours.statistics == MSRA


def test_strides_elsewhere_than_the_weights_have_them_are_refused(tmp_path: Path) -> None:
    path = msra_file(tmp_path / "R-50.pkl", stages_of(narrow()))
    with pytest.raises(InputError, match=r"strides in 1x1.*backbone\.stride_in_1x1=true") as error:
        narrow(weights=str(path), stride_in_1x1=False)
    assert "\n" not in str(error.value)


def test_detectrons_scale_and_shift_are_kept_exactly(tmp_path: Path) -> None:
    stages = stages_of(narrow(stride_in_1x1=True))
    kept = {detectron_backbone_name(n): t.numpy() for n, t in stages.items() if "running" not in n}
    (tmp_path / "R-50.pkl").write_bytes(pickle.dumps({"blobs": kept}))
    ours = narrow(weights=str(tmp_path / "R-50.pkl"))
    assert ours.statistics == DETECTRON
    norm = ours.trunk.stem.norm
    x = torch.randn(1, 8, 2, 2)
    scale, shift = (stages[f"stem.norm.{name}"].view(8, 1, 1) for name in ("weight", "bias"))
    assert torch.allclose(norm(x), x * scale + shift, rtol=1e-6, atol=1e-7)


def test_detectrons_detector_comes_into_our_order(tmp_path: Path) -> None:
    theirs = randomised(detector())
    path = detectron_file(tmp_path / "model_final.pkl", theirs.state_dict())
    ours = detector()
    load_detector(ours, open_weights(path))
    for name, tensor in theirs.state_dict().items():
        if "running" not in name and not name.startswith("normalize."):
            assert torch.equal(ours.state_dict()[name], tensor), name
    assert ours.normalize.mean.flatten().tolist() == pytest.approx(DETECTRON.mean)
    assert structure_of(str(path)) == {"stride_in_1x1": True, "res5_stride": 2}


@pytest.mark.parametrize("old", [False, True])
def test_torchvisions_detector_gives_its_backbone(tmp_path: Path, old: bool) -> None:
    """Files with the old names were made by norms that add nothing to the variance."""
    theirs = detection.maskrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    body = randomised(theirs.backbone.body)
    state = theirs.state_dict()
    if old:
        state = {name.replace("rpn.head.conv.0.0", "rpn.head.conv"): t for name, t in state.items()}
        for module in body.modules():
            if hasattr(module, "eps"):
                module.eps = 0.0
    torch.save(state, tmp_path / "maskrcnn.pth")
    ours = resnet(stride=32, depth=50, weights=str(tmp_path / "maskrcnn.pth"))
    expected = body.eval()(torch.linspace(-1, 1, 3 * 64 * 96).view(1, 3, 64, 96))["3"]
    error = (features(ours.trunk) - expected).abs().max() / expected.abs().max()
    assert error < 1e-5
    assert ours.statistics == TORCHVISION
    with pytest.raises(InputError, match=r"feature pyramid.*backbone\.weights"):
        load_detector(detector(), open_weights(tmp_path / "maskrcnn.pth"))


def test_a_detectors_backbone_serves_at_either_stride(shared: Path) -> None:
    path = shared / "golden" / "c4_align" / "weights.pkl"
    c4, c5 = narrow(16, weights=str(path)), narrow(32, weights=str(path))
    assert c4.roi_layers is not None
    assert torch.equal(
        c4.roi_layers.state_dict()["0.conv1.weight"], c5.trunk.state_dict()["res5.0.conv1.weight"]
    )
    assert c4.statistics == c5.statistics == MSRA
    without = narrow(16, weights=str(path), res5_on_rois=False)
    assert_same_state(without.trunk, c4.trunk)


def test_another_architecture_is_told_what_is_missing_and_what_is_left_over(tmp_path: Path) -> None:
    path = msra_file(tmp_path / "R-50.pkl", stages_of(narrow()))
    with pytest.raises(InputError) as error:
        resnet(stride=32, depth=101, width=8, stem_channels=8, weights=str(path))
    assert "has no tensor res4_6_branch2a_w (32, 128, 1, 1) (and" in str(error.value)
    deeper = resnet(stride=32, depth=101, width=8, stem_channels=8, stride_in_1x1=True)
    path = msra_file(tmp_path / "R-101.pkl", dict(deeper.trunk.state_dict()))
    with pytest.raises(InputError, match=r"nothing takes res4_6_branch2a"):
        narrow(weights=str(path))


def test_group_norm_is_not_filled_with_what_belongs_to_batch_norm(tmp_path: Path) -> None:
    path = msra_file(tmp_path / "R-50.pkl", stages_of(narrow()))
    with pytest.raises(InputError, match=r"nothing takes .*_bn_r"):
        narrow(weights=str(path), norm="group")


def test_a_classifier_is_no_detector(tmp_path: Path) -> None:
    path = msra_file(tmp_path / "R-50.pkl", stages_of(narrow()))
    with pytest.raises(InputError, match=r"holds a backbone alone: give it as backbone\.weights"):
        load_detector(detector(), open_weights(path))


def test_a_network_without_masks_does_not_drop_them_silently(shared: Path) -> None:
    file = open_weights(shared / "golden" / "c4_align" / "weights.pkl")
    with pytest.raises(InputError, match=r"nothing takes roi_heads\.mask_head"):
        load_detector(detector("mask=false"), file)


@pytest.mark.parametrize("setting", ["backbone.stride_in_1x1=false", "backbone.res5_stride=1"])
def test_what_no_shape_shows_is_compared_with_the_file(shared: Path, setting: str) -> None:
    weights = f"weights='{shared / 'golden' / 'c4_align' / 'weights.pkl'}'"
    with initialize_config_dir(version_base="1.3", config_dir=str(CONFIGS)):
        cfg = compose("train", overrides=["experiment=detectron2/r50_c4", weights, setting])
        cfg_open = compose(
            "train",
            overrides=["experiment=detectron2/r50_c4", weights, "backbone.stride_in_1x1=null"],
        )
    with pytest.raises(InputError, match="no shape shows") as error:
        with_structure(cfg)
    assert setting.split("=")[0] in str(error.value)
    assert with_structure(cfg_open).backbone.stride_in_1x1 is True


def test_dc5_is_res5_with_its_strides_turned_into_holes() -> None:
    dc5, c5 = narrow(16, res5_dilation=2), narrow(32)
    assert (dc5.roi_layers, dc5.stride, dc5.channels) == (None, 16, c5.channels)
    dc5.trunk.load_state_dict(randomised(c5.trunk).state_dict())
    first = c5.trunk.res5[0]
    first.shortcut.conv.stride = (1, 1)
    for block in c5.trunk.res5:
        block.conv2.stride, block.conv2.dilation, block.conv2.padding = (1, 1), (2, 2), (2, 2)
    assert features(dc5.trunk).shape[-2:] == (4, 6)
    assert torch.equal(features(dc5.trunk), features(c5.trunk))
    with pytest.raises(InputError, match=r"res5_dilation=2: choose 1, or 2 \(DC5\) at stride=16"):
        narrow(32, res5_dilation=2)


def _resnet18(weights: Path) -> nn.Module:
    network = resnet(stride=16, depth=18, weights=str(weights))
    assert network.roi_layers is not None
    return nn.ModuleDict({"trunk": network.trunk, "roi_layers": network.roi_layers})


@pytest.mark.parametrize("holder", ["state_dict", "model", "model_ema", "ema", None])
@pytest.mark.parametrize("prefix", ["", "module.", "model.module.", "_orig_mod.model."])
def test_wrapped_weights_are_the_weights(tmp_path: Path, prefix: str, holder: str | None) -> None:
    plain = tv_models.resnet18(weights=None).state_dict()
    wrapped = {f"{prefix}{name}": tensor for name, tensor in plain.items()}
    torch.save({holder: wrapped, "epoch": 3} if holder else wrapped, tmp_path / "wrapped.pth")
    torch.save(plain, tmp_path / "plain.pth")
    assert_same_state(*(_resnet18(tmp_path / f"{name}.pth") for name in ("wrapped", "plain")))


def test_safetensors_are_read(tmp_path: Path) -> None:
    plain = tv_models.resnet18(weights=None).state_dict()
    save_file(plain, tmp_path / "a.safetensors")
    torch.save(plain, tmp_path / "a.pth")
    assert_same_state(*(_resnet18(tmp_path / f"a{e}") for e in (".safetensors", ".pth")))
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "a.safetensors").read_bytes()[:5000])
    with pytest.raises(InputError, match=r"cut\.safetensors: is no file of weights, or is damaged"):
        _resnet18(tmp_path / "cut.safetensors")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["conv1.weight", "layer4.1.bn2.running_var"])
def test_numbers_that_are_not_finite_are_refused_by_name(
    tmp_path: Path, name: str, value: float
) -> None:
    state = tv_models.resnet18(weights=None).state_dict()
    state[name].view(-1)[-1] = value
    torch.save(state, tmp_path / "failed.pth")
    with pytest.raises(InputError, match=rf"failed\.pth: {name} holds not-a-number or infinity"):
        _resnet18(tmp_path / "failed.pth")
