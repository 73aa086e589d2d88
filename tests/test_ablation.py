"""The ablation from nothing to the report: its commands, a failing variant, a kill."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from ops.errors import InputError
from scripts.ablation import main, read_ablation, settled, shown, variants_command, word

PROJECT = Path(__file__).resolve().parent.parent
OF_BOTH = """
data: {train_images: 4, val_images: 2}
schedule: {steps: 3, eval_every: 3, checkpoint_every: 1}
precision: float32
"""
RECIPE = f"""# @package _global_
defaults:
  - override /schedule: smoke
  - override /proposals: frozen
proposals:
  files:
    train: ${{run.root}}/mini/rpn/seed0/proposals/train.safetensors
    val: ${{run.root}}/mini/rpn/seed0/proposals/val.safetensors
{OF_BOTH}"""
RPN = f"""# @package _global_
defaults:
  - override /schedule: smoke
proposals_only: true
{OF_BOTH}"""
CELL = """# @package _global_
defaults:
  - mini/recipe
  - override /pooler: {pooler}
"""


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of configurations with a family of three variants, one of which cannot pool."""
    folder = tmp_path_factory.mktemp("configs") / "experiment/mini"
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(RECIPE)
    (folder / "rpn.yaml").write_text(RPN)
    for pooler in ("pool", "align"):
        (folder / f"{pooler}.yaml").write_text(CELL.format(pooler=pooler))
    broken = CELL.format(pooler="warp") + "pooler: {sampling_ratio: two}\n"
    (folder / "broken.yaml").write_text(broken)
    return folder.parent.parent


def command(family: Path, drawings: Path, root: Path, variants: str, *more: str) -> list[str]:
    """The command line of a miniature ablation; `variants` such as "pool,align"."""
    root.mkdir(parents=True, exist_ok=True)
    file = root / "mini.yaml"
    told = {
        "family": "mini",
        "rpn": "mini/rpn",
        "variants": [f"mini/{variant}" for variant in variants.split(",")],
        "seeds": [0],
    }
    OmegaConf.save(OmegaConf.create(told), file)
    return [
        *(sys.executable, str(PROJECT / "scripts/ablation.py"), str(file), *more),
        *(f"hydra.searchpath=[file://{family}]", f"data.root={drawings}", f"run.root={root}"),
        "threads=1",
    ]


def run(words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "HOME": str(folder), "RAY_USAGE_STATS_ENABLED": "0"}
    return subprocess.run(words, capture_output=True, text=True, cwd=folder, env=env, check=False)


def failure_is_told(done: subprocess.CompletedProcess[str], root: Path) -> None:
    """The broken variant failed, says so everywhere, and the others are there."""
    assert done.returncode == 1, done.stdout + done.stderr
    broken = root / "mini/broken/seed0"
    reason = (broken / "FAILED").read_text()
    assert "Error: " in reason and reason.count("\n") == 1
    assert f"not finished: {broken}: {reason}" in done.stdout
    assert not (broken / "metrics.json").exists()
    for variant in ("pool", "align"):
        assert (root / f"mini/{variant}/seed0/metrics.json").exists()
    report = (root / "mini/report/report.md").read_text()
    assert "failed" in report and reason.strip() in report


def test_from_nothing_to_the_report_past_a_failing_cell(
    family: Path,
    drawings: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    words = command(family, drawings, tmp_path, "broken,pool,align", "--launcher", "basic")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", words[1:])
    status = main()
    done = subprocess.CompletedProcess(words, status, *capfd.readouterr())
    failure_is_told(done, tmp_path)
    for title in ("1/4 RPN: took", "2/4 proposals: took", "4/4 report: took", "RoIAlign"):
        assert title in done.stdout
    assert not (tmp_path / "outputs").exists()


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "ray"])
def test_a_launcher_runs_variants_at_once_past_a_failing_one(
    family: Path, drawings: Path, tmp_path: Path, launcher: str
) -> None:
    pytest.importorskip(launcher)
    more = ("--launcher", launcher, "--jobs", "2")
    done = run(command(family, drawings, tmp_path, "broken,pool,align", *more), tmp_path)
    failure_is_told(done, tmp_path)
    assert "3 runs, 2 at once" in done.stdout


# Interruptions


def killed_when(words: list[str], folder: Path, moment: Callable[[], bool], whole: bool) -> None:
    """Start the command and send SIGKILL at `moment`: to all its processes, or to it alone."""
    with (
        (folder / "killed.log").open("a") as log,
        subprocess.Popen(
            words, stdout=log, stderr=log, cwd=folder, start_new_session=True
        ) as process,
    ):
        deadline = time.monotonic() + 300
        while not moment():
            assert process.poll() is None, (folder / "killed.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        if whole:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()


@pytest.mark.slow
def test_killed_three_times_it_ends_in_the_same_report(
    family: Path, drawings: Path, tmp_path: Path
) -> None:
    through, halting = tmp_path / "through", tmp_path / "halting"
    assert run(command(family, drawings, through, "pool,align"), through).returncode == 0

    words = command(family, drawings, halting, "pool,align")
    runs = halting / "mini"
    rpn_begun = (runs / "rpn/seed0/checkpoints/last.pt").exists
    dump_begun = (runs / "rpn/seed0/proposals").is_dir
    killed_when(words, halting, rpn_begun, whole=False)
    assert not dump_begun()
    killed_when(words, halting, dump_begun, whole=True)
    cell_begun = [runs / f"{variant}/seed0/checkpoints/last.pt" for variant in ("pool", "align")]
    killed_when(words, halting, lambda: any(file.exists() for file in cell_begun), whole=False)
    assert not (runs / "report").exists()

    done = run(words, halting)
    assert done.returncode == 0, done.stdout + done.stderr
    report = "mini/report/report.csv"
    assert (halting / report).read_bytes() == (through / report).read_bytes()
    assert not list(runs.rglob("FAILED"))
    assert not list(runs.rglob(".*.tmp"))


# The commands


def test_the_variants_are_one_multirun() -> None:
    ablation, own = settled(read_ablation("demo"), ["data.root=/d"], "joblib", 2)
    text = shown(variants_command(ablation, own))
    assert text.count("train.py -m experiment=demo/pool_s16,demo/warp_max_s16,") == 1
    assert "seed=0,1,2 hydra/launcher=joblib hydra.launcher.n_jobs=2" in text
    assert text.endswith("data.root=/d")
    assert ablation.run("demo/rpn", 0) == Path("outputs/demo/rpn/seed0")
    assert Path("outputs/demo/align_s32/seed2") in ablation.runs
    assert len(ablation.runs) == 24


def test_jobs_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    quick = read_ablation("demo_quick")
    assert settled(quick, ["device=cpu"], "joblib", 2)[1] == ["threads=4"]
    alone, own = settled(quick, ["device=cpu"], "basic", 4)
    assert (alone.jobs, own) == (1, ["threads=8"])
    ablation, own = settled(quick, ["device=cpu"], "joblib", None)
    assert (ablation.jobs, own) == (8, ["threads=1"])
    assert settled(quick, ["device=cpu", "threads=3"], "joblib", 2)[1] == []
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    ablation, own = settled(quick, ["device=cpu"], "joblib", None)  # not two, and one left over
    assert (ablation.jobs, own) == (3, ["threads=1"])


def test_other_settings_make_other_tables() -> None:
    ablation, own = settled(read_ablation("demo_quick"), ["schedule.steps=7"], "joblib", 2)
    assert ablation.folder == Path("outputs/schedule.steps-7/demo")
    file = ablation.proposals / "train.safetensors"
    assert f"proposals.files.train={file}" in own
    text = shown(variants_command(ablation, own))
    assert "proposals.files.train=choice(" in text  # unknown until an experiment is chosen
    assert "schedule.steps=7 run.root=outputs/schedule.steps-7" in text


def test_where_the_data_lie_makes_no_other_tables() -> None:
    words = ["data.root=/d", "workers=2", "device=cpu"]
    assert settled(read_ablation("demo"), words, "joblib", 2)[0].root == Path("outputs")


def test_files_of_proposals_take_the_rpns_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["proposals.files.train=a.pkl", "proposals.files.val=b.pkl", "data.root=/d"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["ablation.py", "table2c", "--show", *words])
    assert main() == 0
    sweep, report = capsys.readouterr().out.splitlines()
    assert "train.py -m experiment=table2c/pool,table2c/warp_max," in sweep
    assert "'proposals.files.train=choice(a.pkl)'" in sweep
    assert report.endswith("scripts/report.py outputs/table2c")
    assert list(tmp_path.iterdir()) == []  # shown, not run


def test_a_path_is_quoted_where_hydra_would_read_it_otherwise() -> None:
    assert word("checkpoint", Path("a/b-1.x")) == "checkpoint=a/b-1.x"
    assert word("checkpoint", Path("a/lr=2")) == "checkpoint='a/lr=2'"


@pytest.mark.parametrize(
    ("name", "words", "answer"),
    [
        ("dmo", [], "dmo: no such ablation; choose one of demo, demo_quick, "),
        ("nowhere.yaml", [], "nowhere.yaml: no such ablation"),
        ("demo", ["shedule.steps=3"], "did you mean schedule.steps?"),
        ("demo", ["seed=4"], "seed=4: is the ablation's own setting; use --seeds"),
        ("demo", ["experiment=nuclei"], "experiment=nuclei: is the ablation's own setting"),
    ],
)
def test_a_mistake_is_told_before_anything_runs(name: str, words: list[str], answer: str) -> None:
    with pytest.raises(InputError) as error:
        settled(read_ablation(name), words, "joblib", 2)
    assert answer in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_ablation(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("family: demo\ncell: [demo/pool_s16]\n")
    with pytest.raises(InputError, match=r"mine\.yaml: has to name family, rpn, seeds, variants"):
        read_ablation(str(tmp_path / "mine.yaml"))
