"""What a user is told at the command line: one line that names the mistake and its remedy."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import small_coco
from omegaconf import OmegaConf
from short_runs import composed, short_run

import configuration
from build import build_model
from configuration import command_line
from evaluate import evaluate_checkpoint, evaluate_detections
from ops.errors import InputError
from running.checkpoint import save_checkpoint
from train import train

PROJECT = Path(__file__).resolve().parent.parent
Action = Callable[[], object]


def assert_one_line_error(action: Action, *parts: str) -> str:
    """The message of the InputError that `action` raises: one line that holds all `parts`."""
    with pytest.raises(InputError) as error:
        action()
    text = str(error.value)
    assert "\n" not in text
    for part in parts:
        assert part in text
    return text


def evaluated(*overrides: str) -> object:
    return evaluate_checkpoint(composed(*overrides, config="evaluate"), overrides)


def rescored(*overrides: str) -> object:
    return evaluate_detections(composed(*overrides, config="evaluate"), overrides)


def coco_folder(folder: Path) -> list[str]:
    """The words that train on the two small images, for both splits, under COCO's own names."""
    small_coco.write(folder, small_coco.document())
    return [
        "data=coco",
        f"data.root={folder}",
        "data.train_annotations=instances.json",
        "data.val_annotations=instances.json",
        "data.train_folder=images",
        "data.val_folder=images",
        "schedule=smoke",
        f"run.dir={folder / 'run'}",
        "run.progress=false",
    ]


@pytest.fixture
def checkpoint(tmp_path: Path, drawings: Path) -> Path:
    """A checkpoint of the six drawn classes, as a run would leave it, without the run."""
    cfg = short_run(tmp_path / "run", drawings)
    path = tmp_path / "run/checkpoints/last.pt"
    names = ("ellipse", "bar", "triangle", "star", "cross", "crescent")
    save_checkpoint(
        path,
        model=build_model(cfg, len(names)),
        step=1,
        config_text=OmegaConf.to_yaml(cfg, resolve=True),
        categories=[{"id": k, "name": name} for k, name in enumerate(names, start=1)],
    )
    return path


# Data


def test_a_folder_of_data_that_was_not_given(tmp_path: Path) -> None:
    cfg = composed("data=coco", f"run.dir={tmp_path}")
    assert_one_line_error(lambda: train(cfg), "data.root", "is not set", "command line")


def test_a_folder_of_data_that_is_not_there(tmp_path: Path) -> None:
    cfg = composed("data=coco", "data.root=/nowhere/at/all", f"run.dir={tmp_path / 'run'}")
    assert_one_line_error(lambda: train(cfg), "/nowhere/at/all", "no such folder", "data.root")
    assert not (tmp_path / "run").exists()  # nothing was begun


def test_a_validation_set_without_images(tmp_path: Path) -> None:
    words = coco_folder(tmp_path)
    empty = {**small_coco.document(), "images": [], "annotations": []}
    (tmp_path / "empty.json").write_text(json.dumps(empty))
    cfg = composed(*words, "data.val_annotations=empty.json")
    assert_one_line_error(
        lambda: train(cfg), str(tmp_path / "empty.json"), "`images` is empty", "at least one"
    )


def test_a_validation_set_of_other_categories(tmp_path: Path) -> None:
    words = coco_folder(tmp_path)
    other = small_coco.document()
    other["categories"][0]["name"] = "mug"
    (tmp_path / "other.json").write_text(json.dumps(other))
    cfg = composed(*words, "data.val_annotations=other.json")
    assert_one_line_error(
        lambda: train(cfg), "other.json", "category 7", "mug", "cup", "give both files"
    )


def test_an_image_that_does_not_decode_is_found_before_training(tmp_path: Path) -> None:
    words = coco_folder(tmp_path)
    (tmp_path / "images/two.png").write_bytes(b"not a picture")
    assert_one_line_error(lambda: train(composed(*words)), "two.png")
    assert not (tmp_path / "run/checkpoints").exists()


def test_a_transforms_setting_that_does_not_exist(tmp_path: Path) -> None:
    cfg = composed(*coco_folder(tmp_path), "+data.train_transform.blur=2")
    assert_one_line_error(
        lambda: train(cfg), "data.train_transform.blur", "no such setting", "flip"
    )


# Settings


def test_a_stride_that_no_network_is_cut_at(tmp_path: Path, drawings: Path) -> None:
    cfg = short_run(tmp_path / "run", drawings, "stride=8")
    assert_one_line_error(lambda: train(cfg), "stride=8", "stride=16", "stride=32")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("backbone.weights=/nowhere.pth", ["/nowhere.pth", "no such file"]),
        ("backbone.norm=layer", ["backbone.norm=layer", "frozen, batch, group"]),
        ("precision=float8", ["precision=float8", "bfloat16"]),
        ("device=abacus", ["device=abacus"]),
        ("pooler.agg=median", ["agg", "median", "max"]),
        ("weights=/nowhere/last.pt", ["/nowhere/last.pt", "no such file"]),
        ("data.train_images=0", ["data.train_images=0", "at least 1"]),
    ],
)
def test_a_setting_without_sense(
    tmp_path: Path, drawings: Path, override: str, parts: list[str]
) -> None:
    assert_one_line_error(lambda: train(short_run(tmp_path / "run", drawings, override)), *parts)


# Checkpoints and detections


def test_a_checkpoint_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "nowhere/last.pt"
    assert_one_line_error(
        lambda: evaluated(f"checkpoint={path}"), str(path), "no such file", "last.pt"
    )


def test_a_runs_folder_without_checkpoint(tmp_path: Path) -> None:
    assert_one_line_error(
        lambda: evaluated(f"checkpoint={tmp_path}"), str(tmp_path), "no such file"
    )


def test_a_checkpoint_of_another_architecture(checkpoint: Path, drawings: Path) -> None:
    cfg = short_run(checkpoint.parents[2] / "other", drawings, "stride=32", f"weights={checkpoint}")
    assert_one_line_error(
        lambda: train(cfg), str(checkpoint), "shape", "choose the backbone, stride"
    )
    narrower = [f"checkpoint={checkpoint}", "backbone.width=8"]
    assert_one_line_error(lambda: evaluated(*narrower), str(checkpoint), "another architecture")


def test_a_checkpoint_of_other_categories(checkpoint: Path, tmp_path: Path) -> None:
    words = coco_folder(tmp_path / "coco")[:6]
    assert_one_line_error(
        lambda: evaluated(f"checkpoint={checkpoint}", *words),
        str(checkpoint),
        "trained on 6 categories",
        "has 2",
        "evaluate on the data set",
    )


def test_a_file_that_is_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    path.write_text("not one")
    assert_one_line_error(lambda: evaluated(f"checkpoint={path}"), str(path), "checkpoint")


def test_an_unknown_backend_is_refused_before_training(tmp_path: Path, drawings: Path) -> None:
    cfg = short_run(tmp_path / "run", drawings, "evaluation.backend=fast")
    assert_one_line_error(lambda: train(cfg), "evaluation.backend=fast", "hotcoco or pycocotools")
    assert not (tmp_path / "run").exists()


def test_detections_that_are_not_there(tmp_path: Path) -> None:
    path = tmp_path / "detections.json"
    assert_one_line_error(lambda: rescored(f"detections={path}"), str(path), "no such file")


def test_detections_of_an_unknown_image(tmp_path: Path, drawings: Path) -> None:
    path = tmp_path / "detections.json"
    entry = {"image_id": 999, "category_id": 1, "bbox": [0, 0, 5, 5], "score": 0.5}
    path.write_text(json.dumps([entry]))
    overrides = [f"detections={path}", f"data.root={drawings}", "mask=false"]
    overrides += ["data.train_images=4", "data.val_images=2"]
    assert_one_line_error(lambda: rescored(*overrides), "image 999", "annotations")


# The command line


def test_a_mistake_is_one_line_and_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    def action() -> None:
        raise InputError("data.root: mend it")

    with pytest.raises(SystemExit) as end:
        command_line(action)
    assert end.value.code == 2
    assert capsys.readouterr().err == "error: data.root: mend it\n"


def test_an_error_of_ours_keeps_its_traceback() -> None:
    def action() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        command_line(action)


def run(folder: Path, program: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(PROJECT / program), *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)


def test_train_py_prints_one_line(tmp_path: Path) -> None:
    done = run(tmp_path, "train.py", "stride=8", f"data.root={tmp_path}", "data.train_images=2")
    assert done.returncode == 2
    (line,) = [text for text in re.split(r"[\r\n]+", done.stderr) if text.startswith("error")]
    assert "stride=8: choose stride=16" in line
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize("program", ["train.py", "evaluate.py"])
def test_a_word_that_does_not_exist_is_one_line(tmp_path: Path, program: str) -> None:
    done = run(tmp_path, program, "shedule.steps=3", "stride=32")
    assert done.returncode == 2
    assert done.stderr == ("error: shedule.steps: no such setting; did you mean schedule.steps?\n")
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize(
    ("word", "answer"),
    [
        ("backbone.dept=50", "backbone.dept: no such setting; did you mean backbone.depth?"),
        ("colour=red", "colour: no such setting; --help lists what there is"),
        ("pooler=allign", "pooler=allign: no such choice; did you mean align?"),
        ("proposals=mine", "proposals=mine: no such choice; choose one of frozen, rpn"),
        (
            "experiment=demo/pol_s16",
            "experiment=demo/pol_s16: no such choice; did you mean demo/pool_s16?",
        ),
        ("seed", "Error parsing override 'seed' missing EQUAL at '<EOF>'"),
    ],
)
def test_a_wrong_word_is_answered_with_the_nearest(word: str, answer: str) -> None:
    words = ["backbone=resnet50", word]
    assert_one_line_error(lambda: configuration.composed("train", words))
    with pytest.raises(InputError) as error:
        configuration.composed("train", words)
    assert str(error.value) == answer


def test_evaluate_py_without_a_checkpoint_asks_for_one(tmp_path: Path) -> None:
    done = run(tmp_path, "evaluate.py")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "checkpoint" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_from_scratch_needs_a_norm_that_learns(drawings: Path, tmp_path: Path) -> None:
    words = ["backbone=resnet50", "backbone.weights=null"]
    assert_one_line_error(
        lambda: train(short_run(tmp_path, drawings, *words)), "backbone.norm=frozen", "norm=group"
    )


@pytest.mark.parametrize("script", ["browse.py", "import_weights.py SOURCE OUT.pt"])
def test_scripts_answer_an_unknown_word_in_one_line(script: str) -> None:
    command = [sys.executable, *f"scripts/{script} colour=red".split()]
    done = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "colour: no such setting" in done.stderr
