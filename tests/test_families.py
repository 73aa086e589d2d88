"""The families of the ablation: their variants differ in nothing but the pooler."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from omegaconf import OmegaConf
from short_runs import CONFIGS, composed

from build import build_model
from running.run_folder import flatten
from train import run_name

ABLATIONS = sorted(file.stem for file in (CONFIGS / "ablation").glob("*.yaml"))
ON_COCO = ("table2c", "table2d", "vgg16")
# What may differ between the variants of a family; the RoIs of C5's head are those of its paper.
OF_A_CELL = ("pooler", "stride", "roi.batch_per_image", "expected")


@cache
def ablation(name: str) -> dict[str, Any]:
    return yaml.safe_load((CONFIGS / "ablation" / f"{name}.yaml").read_text())


@cache
def settings(experiment: str, *overrides: str) -> dict[str, Any]:
    """All settings of an experiment, by dotted name."""
    cfg = composed(f"experiment={experiment}", "data.root=somewhere", *overrides)
    return flatten(OmegaConf.to_container(cfg, resolve=True))


def of_a_cell(key: str) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in OF_A_CELL)


def variants_of(family: str) -> set[str]:
    files = (CONFIGS / "experiment" / family).glob("*.yaml")
    return {f"{family}/{file.stem}" for file in files} - {f"{family}/recipe", f"{family}/rpn"}


def test_there_is_an_ablation_for_every_scale() -> None:
    wanted = {"demo", "demo_quick", "table2c", "table2d", "vgg16", "minitrain", "nuclei"}
    assert wanted <= set(ABLATIONS)


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_names_experiments_of_its_family(name: str) -> None:
    told = ablation(name)
    assert set(told) == {"family", "rpn", "variants", "seeds"}
    assert told["rpn"] == f"{told['family']}/rpn"
    assert set(told["variants"]) <= variants_of(told["family"])
    assert len(told["seeds"]) == len(set(told["seeds"])) > 0
    assert f"scripts/ablation.py {name}" in (CONFIGS / "ablation" / f"{name}.yaml").read_text()


@pytest.mark.parametrize("family", sorted({ablation(name)["family"] for name in ABLATIONS}))
def test_every_cell_of_a_family_is_run_by_an_ablation(family: str) -> None:
    assert variants_of(family) == set(ablation(family)["variants"])


@pytest.mark.parametrize("name", ABLATIONS)
def test_nothing_but_pooling_and_stride_tells_the_cells_apart(name: str) -> None:
    variants = ablation(name)["variants"]
    shared = [{k: v for k, v in settings(c).items() if not of_a_cell(k)} for c in variants]
    assert all(other == shared[0] for other in shared)
    by_stride: dict[int, set[int]] = {}
    for variant in variants:
        told = settings(variant)
        by_stride.setdefault(told["stride"], set()).add(told["roi.batch_per_image"])
    assert all(len(counts) == 1 for counts in by_stride.values())


@pytest.mark.parametrize("name", ABLATIONS)
def test_the_cells_are_all_different(name: str) -> None:
    variants = ablation(name)["variants"]
    different = {
        tuple((k, str(v)) for k, v in settings(c).items() if of_a_cell(k)) for c in variants
    }
    assert len(different) == len(variants)


@pytest.mark.parametrize("name", ABLATIONS)
def test_cells_read_the_proposals_of_their_own_rpn(name: str) -> None:
    told = ablation(name)
    rpn = composed(f"experiment={told['rpn']}", "data.root=somewhere")
    folder = Path(rpn.run.root) / run_name(rpn, {"experiment": told["rpn"]}, []) / "proposals"
    alone = settings(told["rpn"])
    assert alone["proposals_only"] is True and alone["proposals.files"] is None
    for variant in map(settings, told["variants"]):
        assert variant["proposals_only"] is False
        assert variant["proposals.files.train"] == str(folder / "train.safetensors")
        assert variant["proposals.files.val"] == str(folder / "val.safetensors")
        # The file holds at least as many boxes as the variant uses.
        assert all(
            n <= m
            for n, m in zip(
                variant["proposals.rpn.post_nms"], alone["proposals.rpn.post_nms"], strict=True
            )
        )
        same = [k for k in alone if k.startswith(("backbone.", "data.", "proposals.anchors"))]
        assert {k: variant[k] for k in same} == {k: alone[k] for k in same}


@pytest.mark.parametrize("name", ON_COCO)
def test_cells_on_coco_are_the_papers_and_in_one_word_detectron2s(name: str) -> None:
    names = ("schedule.steps", "roi.nms_iou", "roi.batch_per_image")
    for variant in ablation(name)["variants"]:
        paper, modern = settings(variant), settings(variant, "recipe=modern")
        rois = 512 if name == "table2d" else 64
        assert [paper[k] for k in names] == [160000, 0.3, rois]
        assert [modern[k] for k in names] == [90000, 0.5, 512]
        assert paper["proposals.rpn.post_nms"][1] == 300
        assert modern["proposals.rpn.post_nms"][1] == 1000
        changed = {key for key in paper if paper[key] != modern[key]}
        assert not any(key.startswith(("pooler", "backbone", "data", "stride")) for key in changed)


@pytest.mark.parametrize("name", ON_COCO)
def test_modern_cells_build(name: str) -> None:
    for variant in ablation(name)["variants"]:
        cfg = composed(f"experiment={variant}", "data.root=somewhere", "recipe=modern")
        OmegaConf.update(cfg, "backbone.weights", None)
        with torch.device("meta"):
            model = build_model(cfg, 80)
        assert model.rpn is None
        assert model.roi_heads.head.pooler.scale == 1 / cfg.stride


@pytest.mark.parametrize("family", [*ON_COCO, "minitrain", "nuclei", "demo"])
def test_a_cell_states_its_cost_and_what_it_needs(family: str) -> None:
    for experiment in [*variants_of(family), f"{family}/rpn"]:
        text = (CONFIGS / "experiment" / f"{experiment}.yaml").read_text()
        comment = text.split("defaults:")[0]
        for word in ("# Cost: ", "# Hardware: "):
            assert word in comment, experiment
        expected = composed(f"experiment={experiment}", "data.root=somewhere").expected
        assert expected is not None or "# Expected: none published" in comment, experiment


def test_the_nuclei_family_shares_the_recipe_of_the_single_experiment() -> None:
    alone, variant = settings("nuclei"), settings("nuclei/align_s16")
    changed = {key for key in {**alone, **variant} if alone.get(key) != variant.get(key)}
    shorter = {"schedule.steps", "schedule.eval_every"}
    assert {key for key in changed if not key.startswith(("proposals.", "expected."))} == shorter
