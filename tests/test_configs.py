"""Every configuration composes, builds, and derives what must agree from one word."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from hydra.errors import ConfigCompositionException
from omegaconf import DictConfig, OmegaConf

from build import build_data, build_model, instantiate
from data.splits import DataSplits
from models.mask_rcnn import MaskRCNN
from ops.errors import InputError
from running.optim import lr_factor

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
STRIDES = (16, 32)


def choices(group: str) -> list[str]:
    files = (CONFIGS / group).rglob("*.yaml")
    return sorted(file.relative_to(CONFIGS / group).with_suffix("").as_posix() for file in files)


@pytest.fixture(scope="module", autouse=True)
def _configs() -> Iterator[None]:
    with initialize_config_dir(version_base="1.3", config_dir=str(CONFIGS)):
        yield


def composed(*overrides: str, config: str = "train") -> DictConfig:
    return compose(config, overrides=list(overrides))


def built(cfg: DictConfig, num_classes: int = 80) -> MaskRCNN:
    """The network without memory for its weights, none of them loaded."""
    OmegaConf.update(cfg, "backbone.weights", None)
    with torch.device("meta"):
        return build_model(cfg, num_classes)


def channels_of(model: MaskRCNN) -> int:
    with torch.device("meta"):
        return model.backbone(torch.zeros(1, 3, 64, 64)).shape[1]


def test_the_groups_are_not_empty() -> None:
    assert {"pool", "warp", "align"} <= set(choices("pooler"))
    assert {"resnet18", "resnet34", "resnet50", "resnet101", "vgg16", "tiny"} <= set(
        choices("backbone")
    )
    assert {"shapes", "coco", "nuclei"} <= set(choices("data"))
    assert {"paper", "modern", "demo", "smoke"} <= set(choices("schedule"))
    assert {"paper", "modern", "demo"} <= set(choices("recipe"))


@pytest.mark.parametrize("data", choices("data"))
def test_no_combination_of_words_mixes_data_sets(data: str) -> None:
    """Anchors, sizes and crops are those of the data set, whatever is chosen beside it."""
    belonging = ("data", "proposals.anchors")
    wanted = {k: OmegaConf.select(composed(f"data={data}"), k) for k in belonging}
    for recipe in choices("recipe"):
        for schedule in choices("schedule"):
            for backbone in choices("backbone"):
                words = (f"recipe={recipe}", f"schedule={schedule}", f"backbone={backbone}")
                for source in ((), ("stride=32", "pooler=warp", "proposals=frozen")):
                    cfg = composed(f"data={data}", *words, *source)
                    assert {k: OmegaConf.select(cfg, k) for k in belonging} == wanted, words


@pytest.mark.parametrize("recipe", ["paper", "modern"])
def test_one_word_chooses_the_whole_of_a_published_recipe(recipe: str) -> None:
    cfg = composed(f"recipe={recipe}", "data.root=somewhere")
    assert (cfg.data._target_, cfg.backbone.depth) == ("data.coco.coco_data", 50)
    assert cfg.schedule == composed(f"schedule={recipe}").schedule
    assert cfg.proposals.anchors.sizes == [32, 64, 128, 256, 512]
    assert cfg.roi.batch_per_image == {"paper": 64, "modern": 512}[recipe]
    assert composed(f"recipe={recipe}", "backbone=vgg16").backbone._target_ == "models.vgg.vgg16"


@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize("backbone", choices("backbone"))
def test_every_backbone_builds_at_every_stride_with_every_pooler(
    backbone: str, stride: int
) -> None:
    for pooler in choices("pooler"):
        cfg = composed(f"backbone={backbone}", f"stride={stride}", f"pooler={pooler}")
        model = built(cfg)
        head = model.roi_heads.head
        assert head.pooler.scale == 1 / stride
        assert head.pooler.op.func.__name__ == cfg.pooler._target_.rpartition(".")[-1]
        assert model.rpn is not None
        assert model.rpn.anchors.stride == stride
        assert model.rpn.head.conv.in_channels == channels_of(model)


@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize("backbone", choices("backbone"))
def test_the_head_fits_the_features_of_its_backbone(backbone: str, stride: int) -> None:
    model = built(composed(f"backbone={backbone}", f"stride={stride}"), num_classes=7)
    head = model.roi_heads.head
    with torch.device("meta"):
        pooled = torch.zeros(2, channels_of(model), head.pool_size, head.pool_size)
        head.pooler.forward = lambda *_: pooled  # type: ignore[method-assign]
        output = head.predict_boxes(torch.zeros(0), [])
    assert output.class_logits.shape == (2, 8)
    assert output.deltas.shape == (2, 28)


@pytest.mark.parametrize("mask", ["true", "false"])
def test_classes_are_those_of_the_data_set(mask: str) -> None:
    model = built(composed(f"mask={mask}"), num_classes=3)
    assert model.roi_heads.num_classes == 3
    assert model.roi_heads.mask is (mask == "true")
    names = dict(model.named_parameters())
    assert names["roi_heads.head.box_predictor.classes.weight"].shape[0] == 4
    assert any("mask" in name for name in names) is (mask == "true")


@pytest.mark.parametrize("schedule", choices("schedule"))
def test_every_schedule_has_an_optimizer_and_a_learning_rate_throughout(schedule: str) -> None:
    cfg = composed(f"schedule={schedule}").schedule
    weight = torch.nn.Parameter(torch.zeros(2))
    optimizer = instantiate(cfg.optimizer)([weight], lr=cfg.lr)
    assert isinstance(optimizer, torch.optim.Optimizer)
    shape = ("steps", "warmup_steps", "warmup_factor", "milestones", "gamma", "shape")
    settings = {key: cfg[key] for key in shape}
    for step in (0, cfg.warmup_steps, cfg.steps // 2, cfg.steps - 1):
        assert 0 <= lr_factor(step, **settings) <= 1
    assert cfg.images_per_step % cfg.accumulate == 0


@pytest.mark.parametrize("proposals", choices("proposals"))
def test_every_source_of_proposals_builds(proposals: str) -> None:
    cfg = composed(f"proposals={proposals}")
    assert (built(cfg).rpn is None) is (cfg.proposals.files is not None)


@pytest.mark.parametrize("experiment", choices("experiment"))
def test_every_experiment_composes_and_builds(experiment: str) -> None:
    cfg = composed(f"experiment={experiment}", "data.root=somewhere")
    built(cfg)
    assert not OmegaConf.missing_keys(cfg)


RUNS = [name for name in choices("experiment") if not name.endswith("/recipe")]


@pytest.mark.parametrize("experiment", RUNS)
def test_every_experiment_opens_with_its_command_and_what_to_expect(experiment: str) -> None:
    text = (CONFIGS / "experiment" / f"{experiment}.yaml").read_text().lower()
    comment = text.split("defaults:")[0]
    assert f"experiment={experiment}" in comment
    assert "expected" in text


def _built_data(*overrides: str) -> DataSplits:
    return build_data(composed(*overrides))


def test_the_embedded_data_set_builds(tmp_path: Path) -> None:
    splits = _built_data(
        "data=shapes", f"data.root={tmp_path}", "data.train_images=2", "data.val_images=1"
    )
    assert (len(splits.train), len(splits.val)) == (2, 1)


@pytest.mark.parametrize(("data", "folder"), [("coco", "coco-mini"), ("nuclei", "nuclei")])
def test_data_sets_of_files_build(shared: Path, data: str, folder: str) -> None:
    splits = _built_data(f"data={data}", f"data.root={shared / folder}")
    assert len(splits.train) > 100
    sample = splits.train_transform(splits.train.read(0), np.random.default_rng(0))
    assert sample.image.shape[0] == 3


def test_evaluation_knows_every_setting_of_training() -> None:
    training, evaluation = composed(), composed(config="evaluate")
    assert set(evaluation) == {*training, "checkpoint", "detections", "output"}


def test_defaults_are_the_demo() -> None:
    cfg = composed()
    assert cfg.backbone == composed("backbone=tiny").backbone
    assert cfg.pooler._target_ == "ops.roi_align.roi_align"
    assert cfg.data._target_ == "data.shapes.shapes_data"
    assert (cfg.stride, cfg.mask, cfg.backbone.weights) == (16, True, None)


@pytest.mark.parametrize(
    "override", ["colour=red", "backbone.colour=red", "schedule.lrr=1", "pooler=squeeze"]
)
def test_a_word_that_does_not_exist_is_refused_by_name(override: str) -> None:
    with pytest.raises(ConfigCompositionException) as error:
        composed(override)
    told = f"{error.value} {error.value.__cause__}"
    assert override.rpartition("=")[0].rpartition(".")[-1] in told


def test_a_setting_that_a_pooler_does_not_have_is_refused() -> None:
    with pytest.raises(ConfigCompositionException):
        composed("pooler=pool", "pooler.sampling_ratio=2")


def test_stride_8_is_refused_in_one_line() -> None:
    for backbone in choices("backbone"):
        with pytest.raises(InputError, match=r"^stride=8: choose stride=16 .*stride=32") as error:
            built(composed(f"backbone={backbone}", "stride=8"))
        assert "\n" not in str(error.value)


def _leaves(text: str) -> Iterator[tuple[str, Any]]:
    """Lines that state a value, without those that only point at code."""
    for line in text.splitlines():
        content = line.split("#")[0].strip()
        if ":" in content and not content.startswith(("_", "-", "override")):
            parsed = yaml.safe_load(content.replace("???", "0"))
            if isinstance(parsed, dict) and list(parsed.values()) != [None]:
                yield line, parsed


@pytest.mark.parametrize("group", ["backbone", "pooler", "proposals", "data"])
def test_every_setting_of_a_choice_has_its_comment(group: str) -> None:
    for choice in choices(group):
        for line, _ in _leaves((CONFIGS / group / f"{choice}.yaml").read_text()):
            assert "#" in line, f"{group}/{choice}.yaml: {line}"
