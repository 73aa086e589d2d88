"""Words of the command line: paths and names as people have them, and numbers without sense."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from short_runs import short_run

from configuration import RANGES, composed, quoted
from ops.errors import InputError
from train import LONGEST_NAME, _safe, run_name, train

PROJECT = Path(__file__).resolve().parent.parent
AWKWARD = [
    "a=b",
    "a,b",
    "a (1)",
    "#1",
    "a&b",
    "a{b}",
    "with space",
    "Üñ 行人",
    "it's",
    "back\\",
    "a:b",
]


@pytest.mark.parametrize("name", AWKWARD)
def test_paths_are_texts_whatever_they_hold(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    cfg = composed("train", ["data=coco", f"data.root={folder}", f"run.dir={folder}/run"])
    assert (cfg.data.root, cfg.run.dir) == (str(folder), f"{folder}/run")


LETTERS = st.characters(blacklist_categories=["Cs", "Cc"], blacklist_characters="$")


@given(st.text(LETTERS, min_size=1))
@settings(deadline=None, max_examples=40)
def test_any_name_comes_through(name: str) -> None:
    if name[0] not in "'\"~" and name != "null":  # quoted by their writer, home, no name
        assert composed("train", [f"run.name={name}"]).run.name == name


@pytest.mark.parametrize("name", ["2024_01_05", "007", "1e5", "true", "0x10", "[1]"])
def test_a_name_that_looks_like_a_number_stays_a_name(name: str) -> None:
    assert composed("train", [f"run.name={name}"]).run.name == name


def test_the_home_folder_is_expanded() -> None:
    assert composed("train", ["data.root=~/coco"]).data.root == str(Path.home() / "coco")


LEFT_ALONE = (
    *("pooler=align", "seed=0", "data.select={count: 8}", "schedule.milestones=[1, 2]"),
    *("weights=null", "run.name='quoted already'", "+expected.images=3", "~pooler"),
    *("--help", "-m"),
)


@pytest.mark.parametrize("word", LEFT_ALONE)
def test_other_words_are_left_as_they_are(word: str) -> None:
    assert quoted(word) == word


def test_lists_of_a_sweep_are_left_as_they_are() -> None:
    assert quoted("pooler=pool,warp", sweep=True) == "pooler=pool,warp"
    assert quoted("run.name=a,b", sweep=True) == "run.name=a,b"


def test_a_program_quotes_what_its_user_did_not(tmp_path: Path) -> None:
    folder = tmp_path / "my runs (1), a=b"
    command = [sys.executable, "evaluate.py", f"checkpoint={folder}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {folder}: no such file") and done.stderr.count("\n") == 1


def test_names_that_we_make_need_no_quotes_and_fit_every_file_system() -> None:
    choices = {"data": "coco", "backbone": "tiny", "pooler": "pool", "recipe": "demo"}
    choices |= {"schedule": "demo", "experiment": "null"}
    cfg = composed("train", ["data=coco"])
    given_words = [f"data.train_annotations=annotations/ü{k}=(1).json" for k in range(9)]
    name = run_name(cfg, choices, [quoted(word) for word in given_words])
    assert len(name.encode()) <= LONGEST_NAME
    assert quoted(f"checkpoint_={name}") == f"checkpoint_={name}"
    assert _safe("x" * 300) != _safe("x" * 299 + "y")


@pytest.mark.parametrize(
    ("word", "wanted"),
    [
        ("schedule.images_per_step=0", "a whole number from 1"),
        ("schedule.images_per_step=-2", "a whole number from 1"),
        ("schedule.steps=1.5", "a whole number from 1"),
        ("schedule.eval_every=0", "a whole number from 1"),
        ("workers=-1", "a whole number from 0"),
        ("seed=-1", "a whole number from 0"),
        ("seed=true", "a whole number from 0"),
        ("schedule.lr=-0.1", "a number from 0"),
        ("schedule.lr=nan", "a number from 0"),
        ("roi.nms_iou=1.5", "a number from 0 to 1"),
        ("proposals.rpn.post_nms=[100, 0]", "a whole number from 1"),
        ("schedule.warmup_factor=much", "a number from 0 to 1"),
    ],
)
def test_numbers_without_sense_are_one_line(
    drawings: Path, tmp_path: Path, word: str, wanted: str
) -> None:
    with pytest.raises(InputError) as error:
        train(short_run(tmp_path / "run", drawings, word))
    key = word.partition("=")[0]
    assert str(error.value).startswith(f"{key}=") and str(error.value).endswith(f"give {wanted}")
    assert not (tmp_path / "run").exists()


def test_the_ranges_name_settings_that_exist() -> None:
    cfg = composed("train", ["backbone=vgg16", "proposals=rpn"])
    names = {name for *_, keys in RANGES for name in keys} - {"backbone.dropout", "backbone.width"}
    for name in names:
        node = cfg
        for part in name.split("."):
            assert part in node, name
            node = node[part]


@pytest.mark.parametrize("place", ["a file", "below a file", "read only"])
def test_a_place_that_cannot_be_written_is_refused_before_the_work(
    drawings: Path, tmp_path: Path, place: str
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "locked").mkdir(mode=0o500)
    if place == "read only" and os.access(tmp_path / "locked", os.W_OK):
        pytest.skip("this user may write everywhere")
    name = {"a file": "file", "below a file": "file/run", "read only": "locked/run"}[place]
    with pytest.raises(InputError, match="cannot be used as a folder"):
        train(short_run(tmp_path / name, drawings))


def test_nobody_reading_on_is_no_error(tmp_path: Path) -> None:
    script = f"{sys.executable} scripts/validate_data.py --help | head -n 1"
    done = subprocess.run(
        script, shell=True, capture_output=True, text=True, cwd=PROJECT, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
