"""A run's folder: new, unfinished, finished, another's, in use."""

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from files.atomic import read_json, replacing, write_json
from ops.errors import InputError
from running.run_folder import RunFolder

CONFIG = "seed: 0\npooler:\n  name: align\n  sampling_ratio: 2\nrun:\n  overwrite: false\n"
OTHER = CONFIG.replace("align", "pool").replace("seed: 0", "seed: 1")


def _begin(path: Path, config: str = CONFIG, **settings: bool) -> RunFolder:
    """Open and let go at once."""
    with RunFolder.open(path, config, **settings) as folder:
        return folder


def test_an_absent_folder_is_made_with_its_configuration(tmp_path: Path) -> None:
    folder = _begin(tmp_path / "outputs" / "demo")
    assert folder.state == "new"
    assert folder.config.read_text() == CONFIG


def test_an_empty_folder_or_one_with_hydras_record_is_new(tmp_path: Path) -> None:
    (tmp_path / ".hydra").mkdir()
    (tmp_path / "train.log").write_text("")
    assert _begin(tmp_path).state == "new"


def test_the_same_run_is_unfinished_until_its_metrics_are_written(tmp_path: Path) -> None:
    _begin(tmp_path)
    with RunFolder.open(tmp_path, CONFIG) as folder:
        assert folder.state == "unfinished"
        folder.write_metrics({"segm/AP": 30.5, "val/loss": float("nan")})
    again = _begin(tmp_path)
    assert again.state == "finished"
    assert again.read_metrics() == {"segm/AP": 30.5, "val/loss": None}


def test_another_configuration_is_refused_with_what_differs(tmp_path: Path) -> None:
    _begin(tmp_path)
    with pytest.raises(InputError) as caught:
        _begin(tmp_path, OTHER)
    assert str(caught.value) == (
        f"{tmp_path}: holds a run of another configuration (seed: 0 there, 1 now; pooler.name: "
        "align there, pool now); give seed=0 pooler.name=align to go on with it, choose another "
        "run.name or set run.overwrite=true"
    )


def test_a_setting_more_or_less_is_a_difference(tmp_path: Path) -> None:
    _begin(tmp_path)
    with pytest.raises(InputError, match=r"mask: \(not set\) there, True now"):
        _begin(tmp_path, CONFIG + "mask: true\n")


def test_the_wish_to_overwrite_makes_no_other_run(tmp_path: Path) -> None:
    _begin(tmp_path, CONFIG.replace("overwrite: false", "overwrite: true"), overwrite=True)
    assert _begin(tmp_path).state == "unfinished"


def test_settings_to_be_ignored_are_named_alone_or_by_group(tmp_path: Path) -> None:
    _begin(tmp_path)
    RunFolder.open(tmp_path, OTHER, ignore=("seed", "pooler")).close()
    with pytest.raises(InputError, match=r"pooler\.name"):
        RunFolder.open(tmp_path, OTHER, ignore=("seed", "pool"))


def test_layout_and_comments_make_no_other_run(tmp_path: Path) -> None:
    _begin(tmp_path)
    text = "# the demo\nrun: {overwrite: false}\npooler: {sampling_ratio: 2, name: align}\nseed: 0"
    assert _begin(tmp_path, text).state == "unfinished"


def test_overwriting_removes_the_runs_files_and_no_others(tmp_path: Path) -> None:
    folder = _begin(tmp_path)
    folder.checkpoints.mkdir()
    own = [
        folder.metrics,
        folder.failed,
        folder.detections,
        folder.history,
        folder.last_checkpoint,
        folder.checkpoints / "step_00000010.pt",
        tmp_path / "events.out.tfevents.1.host.2.0",
    ]
    for file in own:
        file.write_text("{}")
    (tmp_path / "notes.txt").write_text("mine")
    (folder.checkpoints / "notes.txt").write_text("mine too")
    again = _begin(tmp_path, OTHER, overwrite=True)
    assert again.state == "new"
    assert again.config.read_text() == OTHER
    assert not any(file.exists() for file in own)
    assert (tmp_path / "notes.txt").exists() and (folder.checkpoints / "notes.txt").exists()


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_is_no_runs_is_never_touched(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(InputError, match=r"no run's folder .*thesis\.tex"):
        _begin(tmp_path, overwrite=overwrite)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".lock", "thesis.tex"]


def test_a_file_in_the_folders_place(tmp_path: Path) -> None:
    (tmp_path / "demo").write_text("")
    with pytest.raises(InputError, match="cannot be used as a folder"):
        _begin(tmp_path / "demo")


def test_a_damaged_configuration(tmp_path: Path) -> None:
    _begin(tmp_path).config.write_text("a: [1")
    with pytest.raises(InputError, match=r"config\.yaml: is not readable YAML") as caught:
        _begin(tmp_path)
    assert "\n" not in str(caught.value)


@contextlib.contextmanager
def _held_by_another(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that keeps the folder open for as long as its input is."""
    program = (
        "import sys\nfrom pathlib import Path\nfrom running.run_folder import RunFolder\n"
        "folder = RunFolder.open(Path(sys.argv[1]), sys.argv[2])\nprint('open', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path), CONFIG],
        cwd=Path(__file__).resolve().parent.parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == "open\n"
        yield other


def test_two_processes_cannot_write_one_run(tmp_path: Path) -> None:
    with _held_by_another(tmp_path) as other:
        with pytest.raises(InputError, match=rf"another process \(pid {other.pid}\) is writing"):
            _begin(tmp_path)
        other.kill()
        other.wait()
        assert _begin(tmp_path).state == "unfinished"


def test_a_process_may_wait_for_the_one_that_writes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with _held_by_another(tmp_path) as other:
        ending = threading.Timer(0.3, other.kill)
        ending.start()
        assert _begin(tmp_path, wait=True).state == "unfinished"
        assert other.wait() != 0  # it was still there when the waiting began
        ending.join()
    assert f"waits for process {other.pid}" in capsys.readouterr().out


def _fail(path: Path, error: BaseException) -> RunFolder:
    with pytest.raises(type(error)), RunFolder.open(path, CONFIG) as folder:
        raise error
    return folder


def test_an_error_that_ends_the_run_stays_in_its_folder_in_one_line(tmp_path: Path) -> None:
    assert _fail(tmp_path / "a", RuntimeError("out of\nmemory")).failed.read_text() == (
        "RuntimeError: out of memory\n"
    )
    told = _fail(tmp_path / "b", InputError("data.root: mend it")).failed
    assert told.read_text() == "data.root: mend it\n"


def test_an_interruption_is_no_failure(tmp_path: Path) -> None:
    assert not _fail(tmp_path, KeyboardInterrupt()).failed.exists()


def test_a_run_that_is_started_again_has_not_failed(tmp_path: Path) -> None:
    failed = _fail(tmp_path, RuntimeError("once")).failed
    with pytest.raises(InputError, match="another configuration"):
        _begin(tmp_path, OTHER)
    assert failed.exists()  # that was another run
    assert _begin(tmp_path).state == "unfinished"
    assert not failed.exists()


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    write_json(path, {"a": 1})

    def write_half() -> None:
        with replacing(path) as temporary:
            temporary.write_text('{"a"')
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert json.loads(path.read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.json"]


def test_reading_json_tells_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.json: no such file; make it"):
        read_json(tmp_path / "a.json", "make it")
    (tmp_path / "a.json").write_text('{"a":\n')
    with pytest.raises(InputError, match=r"a\.json: broken JSON .*; mend it") as caught:
        read_json(tmp_path / "a.json", "mend it")
    assert "\n" not in str(caught.value)


def test_a_finished_run_is_accepted_under_settings_of_the_machine(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path, CONFIG) as folder:
        folder.write_metrics({"bbox/AP": 1.0})
    other = CONFIG + "threads: 2\n"
    with RunFolder.open(tmp_path, other, ignore_finished=("threads",)) as again:
        assert again.state == "finished"


def test_an_unfinished_run_keeps_the_settings_of_its_machine(tmp_path: Path) -> None:
    _begin(tmp_path, CONFIG + "threads: 1\n")
    with pytest.raises(InputError, match="give threads=1 to go on with it"):
        RunFolder.open(tmp_path, CONFIG + "threads: 2\n", ignore_finished=("threads",))
