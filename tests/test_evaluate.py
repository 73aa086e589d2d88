"""A run that has learned something: its checkpoint and its detections give its figures again."""

import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from short_runs import FIGURES, composed, short_run, words

from configuration import with_overrides
from data.shapes import prepare_shapes
from evaluate import evaluate_checkpoint, evaluate_detections
from ops.errors import InputError
from running.tracking import read_history
from train import train


def evaluated(overrides: list[str]) -> dict[str, float]:
    return evaluate_checkpoint(composed(*overrides, config="evaluate"), overrides)


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory, drawings: Path) -> Path:
    """A run that learned two images by heart, and is judged by them."""
    folder = tmp_path_factory.mktemp("runs") / "learned"
    settings = composed(*words(folder, drawings)).data
    names = ("image_size", "objects_min", "objects_max", "radius_min", "radius_max", "seed")
    images = prepare_shapes(
        drawings, train_images=2, val_images=1, **{name: settings[name] for name in names}
    )
    train(
        composed(
            "data=coco",
            f"data.root={images}",
            "data.train_annotations=annotations/instances_train.json",
            "data.train_folder=train",
            "data.val_on_train=true",
            "data.train_transform={short_edges: [128], flip: 0.0}",
            "data.eval_transform.short_edge=128",
            "backbone={blocks: [1, 2, 2, 2], width: 32, norm: group}",
            "roi={batch_per_image: 64, positive_fraction: 0.25}",
            "schedule=demo",
            "schedule.images_per_step=2",
            "schedule.steps=60",
            "schedule.warmup_steps=5",
            "schedule.lr=0.016",
            "schedule.log_every=1",
            "schedule.eval_every=60",
            "schedule.checkpoint_every=60",
            "evaluation.loss_images=2",
            "evaluation.pictures=0",
            f"run.dir={folder}",
            "run.progress=false",
        )
    )
    return folder


def test_two_images_are_learned_by_heart(learned: Path) -> None:
    history = read_history(learned / "metrics.jsonl")
    numbers = [record["train/loss"] or 0.0 for record in history if "train/loss" in record]
    assert len(numbers) == 60
    assert sum(numbers[-5:]) / 5 < sum(numbers[:3]) / 3 / 3
    metrics = json.loads((learned / "metrics.json").read_text())
    assert metrics["bbox/AP"] > 40
    assert metrics["segm/AP"] > 10


@pytest.mark.parametrize("given", ["", "checkpoints/last.pt", "checkpoints/best.pt"])
def test_evaluating_the_checkpoint_gives_the_same_numbers(
    learned: Path, tmp_path: Path, given: str
) -> None:
    metrics = evaluated([f"checkpoint={learned / given}", f"output={tmp_path / 'again'}"])
    trained = json.loads((learned / "metrics.json").read_text())
    assert metrics == {key: trained[key] for key in metrics}
    assert {"bbox/AP", "segm/AP", "val/loss"} <= set(metrics)
    assert json.loads((tmp_path / "again/metrics.json").read_text()) == metrics
    one, other = (folder / "detections.json" for folder in (learned, tmp_path / "again"))
    assert one.read_text() == other.read_text()
    assert len(json.loads(one.read_text())) > 0


def test_scoring_the_saved_detections_gives_the_same_numbers(learned: Path, tmp_path: Path) -> None:
    overrides = [f"detections={learned / 'detections.json'}", f"output={tmp_path}"]
    metrics = evaluate_detections(composed(*overrides, config="evaluate"), overrides)
    trained = json.loads((learned / "metrics.json").read_text())
    assert set(metrics) == {f"{kind}/{name}" for kind in ("bbox", "segm") for name in FIGURES}
    assert metrics == {key: trained[key] for key in metrics}


def test_saved_proposals_are_judged_by_their_recall(tmp_path: Path, drawings: Path) -> None:
    trained = train(short_run(tmp_path / "rpn", drawings, "proposals_only=true"))
    overrides = [f"detections={tmp_path / 'rpn/detections.json'}", f"output={tmp_path / 'again'}"]
    metrics = evaluate_detections(composed(*overrides, config="evaluate"), overrides)
    assert set(metrics) == {"proposals/AR100", "proposals/AR1000"}
    assert metrics == {key: trained[key] for key in metrics}
    assert metrics["proposals/AR1000"] > 0


def test_words_of_the_command_line_change_the_saved_settings(learned: Path, tmp_path: Path) -> None:
    overrides = [
        f"checkpoint={learned}",
        f"output={tmp_path}",
        "roi.detections_per_image=1",
        "evaluation.per_category=true",
        "evaluation.loss_images=0",
    ]
    metrics = evaluated(overrides)
    assert len(json.loads((tmp_path / "detections.json").read_text())) == 2
    assert any(key.startswith("bbox/AP/") for key in metrics)
    assert "val/loss" not in metrics


def test_a_setting_can_be_taken_back_to_nothing(learned: Path, tmp_path: Path) -> None:
    overrides = [
        f"checkpoint={learned}",
        f"output={tmp_path}",
        "data.eval_transform.long_edge=null",
    ]
    saved = OmegaConf.load(learned / "config.yaml")
    merged = with_overrides(saved, composed(*overrides, config="evaluate"), overrides)
    assert merged.data.eval_transform.long_edge is None


@pytest.mark.parametrize(
    "word", ["schedule=paper", "recipe=modern", "experiment=demo/pool_s16", "backbone=resnet18"]
)
def test_words_of_training_do_not_pass_a_checkpoint_in_silence(learned: Path, word: str) -> None:
    with pytest.raises(InputError, match=f"^{word}: says how a network is trained"):
        evaluated([f"checkpoint={learned}", word])
