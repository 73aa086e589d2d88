"""What TensorBoard itself makes of a family's event files, asked over HTTP."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import ProxyHandler, Request, build_opener

import numpy as np
import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata as hparams

from running.tracking import Tracker, hyperparameters, pr_curves, write_family_board

# Mask AP of each variant's two seeds.
MASK_AP = {"pool": (20.0, 24.0), "align": (30.0, 31.0)}
RUNS = [f"{variant}/seed{seed}" for variant in MASK_AP for seed in (0, 1)]
REPORT = "| pooler | AP |\n|---|---|\n| RoIAlign | 30.5 |\n"
PATIENCE = 120  # seconds until TensorBoard must have read everything; normally about ten


def _config(op: str, seed: int, **pooler: str) -> dict[str, Any]:
    return {
        "backbone": {"_target_": "models.resnet.resnet", "depth": 50},
        "pooler": {"_target_": f"ops.{op}.{op}", "_partial_": True, **pooler},
        "stride": 16,
        "schedule": {"lr": 0.02, "images_per_step": 16, "steps": 90},
        "seed": seed,
    }


def _precision() -> dict[str, np.ndarray]:
    """Falls from 1 to 0 with recall; the second of three classes has no objects."""
    falling = np.linspace(1, 0, 101)[None, :, None] * np.ones((10, 1, 3))
    falling[5:] /= 2
    falling[:, :, 1] = -1
    return {"bbox": falling, "segm": falling}


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two variants of two seeds, written as training writes them, and their board."""
    folder = tmp_path_factory.mktemp("outputs") / "demo"
    for variant, figures in MASK_AP.items():
        for seed, figure in enumerate(figures):
            run = folder / variant / f"seed{seed}"
            run.mkdir(parents=True)
            agg = {"agg": "avg"} if variant == "align" else {}
            config = _config(f"roi_{variant}", seed, **agg)
            (run / "config.yaml").write_text(yaml.safe_dump(config))
            with Tracker(run) as tracker:
                tracker.session(hyperparameters(config), f"demo/{variant}")
                tracker.text("config", "a configuration")
                for step in (45, 90):
                    early = (90 - step) / 9
                    tracker.scalars({"train/loss": 1 + early, "val/loss": 2 + early}, step)
                    tracker.scalars({"segm/AP": figure - early, "segm/APl": -1.0}, step)
                    tracker.pr_curves(_precision(), step)
                    tracker.images("val", [np.full((8, 8, 3), 90, np.uint8)], step)
                tracker.finish()
    write_family_board(folder, "an older report")
    write_family_board(folder, REPORT)
    return folder


class _Board:
    """A running TensorBoard."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._open = build_opener(ProxyHandler({})).open  # it is on this machine

    def __call__(self, path: str, body: object = None, **query: str) -> Any:
        url = f"{self._address}data/plugin/{path}?{urlencode(query)}"
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} if data else {}
        with self._open(Request(url, data, headers), timeout=PATIENCE) as answer:
            return json.loads(answer.read())

    def groups(self) -> list[dict[str, Any]]:
        """The rows of the table of hyperparameters, each an average over a variant's seeds."""
        tags = ("segm/AP", "segm/APl")
        request = {
            "experimentName": "",
            "allowedStatuses": ["STATUS_SUCCESS"],
            "colParams": [{"metric": {"group": "", "tag": tag}} for tag in tags],
            "aggregationType": "AGGREGATION_AVG",
            "startIndex": 0,
            "sliceSize": 100,
        }
        return self("hparams/session_groups", request).get("sessionGroups", [])


@pytest.fixture(scope="module")
def board(family: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Board]:
    """TensorBoard on the family's folder, once it has read every run."""
    log = tmp_path_factory.mktemp("tensorboard") / "log"
    words = ["--logdir", str(family), "--host", "127.0.0.1", "--port", "0", "--load_fast=false"]
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tensorboard.main", *words],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    try:
        yield _read(log, process)
    finally:
        process.terminate()
        process.wait(PATIENCE)


def _read(log: Path, process: subprocess.Popen[bytes]) -> _Board:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None:
        address = re.search(r"http://127\.0\.0\.1:\d+/", log.read_text())
        try:
            if address and len((board := _Board(address[0])).groups()) == len(MASK_AP):
                texts = board("text/tags")
                if set(texts) == {*RUNS, "_summary"}:
                    return board
        except URLError:
            pass  # it is not listening yet
        time.sleep(0.2)
    pytest.fail(f"TensorBoard did not read the family: {log.read_text()[-2000:]}")


def test_the_experiment_names_settings_with_their_values_and_figures(board: _Board) -> None:
    experiment = board("hparams/experiment", {"experimentName": ""})
    domains = {h["name"]: h["domainDiscrete"] for h in experiment["hparamInfos"]}
    assert domains["pooler"] == ["RoIAlign", "RoIPool"]
    assert domains["agg"] == ["avg", "max"]
    assert domains["seed"] == [0, 1]
    assert domains["backbone"] == ["ResNet-50"]
    assert {"stride", "lr", "images per step", "steps"} < set(domains)
    figures = [m["name"]["tag"] for m in experiment["metricInfos"]]
    names = ("AP", "AP50", "AP75", "APs", "APm", "APl")
    assert figures == [f"{kind}/{name}" for kind in ("segm", "bbox") for name in names]


def test_the_seeds_of_a_cell_are_one_row_with_averaged_figures(board: _Board) -> None:
    groups = {group["name"]: group for group in board.groups()}
    assert set(groups) == {"demo/pool", "demo/align"}
    for variant, figures in MASK_AP.items():
        group = groups[f"demo/{variant}"]
        values = {m["name"]["tag"]: m["value"] for m in group["metricValues"]}
        assert values == {"segm/AP": pytest.approx(np.mean(figures))}  # none for no objects
        sessions = {session["name"]: session for session in group["sessions"]}
        assert set(sessions) == {f"{variant}/seed0", f"{variant}/seed1"}
        assert {session["status"] for session in sessions.values()} == {"STATUS_SUCCESS"}


def test_the_charts_lay_the_same_figure_of_all_runs_over_one_another(board: _Board) -> None:
    categories = {c["title"]: c["chart"] for c in board("custom_scalars/layout")["category"]}
    assert list(categories) == ["Box", "Mask", "Losses", "Validation loss"]
    patterns = {chart["multiline"]["tag"][0] for chart in categories["Mask"]}
    assert "^segm/AP$" in patterns
    for run in RUNS:
        answer = board("custom_scalars/scalars", run=run, tag="^segm/AP$")
        assert answer["regex_valid"]
        assert [event[1] for event in answer["tag_to_events"]["segm/AP"]] == [45, 90]


def test_every_run_has_its_curves_pictures_and_texts(board: _Board) -> None:
    curves, images, texts = (board(f"{p}/tags") for p in ("pr_curves", "images", "text"))
    names = {f"pr/{kind}/IoU{iou}" for kind in ("bbox", "segm") for iou in (50, 75)}
    for run in RUNS:
        assert set(curves[run]) == names
        assert set(images[run]) == {"val/0"}
        assert texts[run] == ["config/text_summary"]


def test_a_curve_is_the_mean_over_the_classes_that_have_objects(board: _Board) -> None:
    run = RUNS[0]
    at50, at75 = (
        board("pr_curves/pr_curves", run=run, tag=f"pr/segm/IoU{iou}")[run] for iou in (50, 75)
    )
    assert [entry["step"] for entry in at50] == [45, 90]
    recall = np.array(at50[0]["recall"])
    assert np.allclose(recall, np.linspace(1, 0.01, 100))  # TensorBoard leaves out recall 0
    assert np.allclose(at50[0]["precision"], 1 - recall, atol=1e-6)
    assert np.allclose(at75[0]["precision"], (1 - recall) / 2, atol=1e-6)


def test_the_newest_report_is_the_boards_text(board: _Board) -> None:
    assert board("text/tags")["_summary"] == ["report"]
    (entry,) = board("text/text", run="_summary", tag="report")
    assert "<td>RoIAlign</td>" in entry["text"]


# Without TensorBoard's server


def test_a_kind_without_any_object_has_no_curve() -> None:
    assert len(pr_curves({"segm": np.full((10, 101, 2), -1.0)}).value) == 0


@pytest.mark.parametrize(
    ("op", "settings", "pooler", "agg"),
    [
        ("roi_pool", {"rounding": "caffe"}, "RoIPool", "max"),
        ("roi_warp", {"mode": "paper", "agg": "avg"}, "RoIWarp", "avg"),
        ("roi_warp", {"mode": "mnc", "agg": "max"}, "RoIWarp (MNC)", "max"),
        ("roi_align", {"agg": "max"}, "RoIAlign", "max"),
        ("prroi_pool", {}, "PrRoIPool", "avg"),
        ("my_pool", {}, "my_pool", ""),
    ],
)
def test_a_pooler_has_the_papers_name(op: str, settings: dict, pooler: str, agg: str) -> None:
    values = hyperparameters(_config(op, 0, **settings))
    assert (values["pooler"], values["agg"]) == (pooler, agg)


def test_a_run_of_proposals_alone_names_no_pooler() -> None:
    values = hyperparameters({**_config("roi_align", 0), "proposals_only": True})
    assert "pooler" not in values and "agg" not in values


def _ending(folder: Path) -> int | None:
    record = EventAccumulator(str(folder)).Reload()
    contents = record.PluginTagToContent(hparams.PLUGIN_NAME)
    content = contents.get(hparams.SESSION_END_INFO_TAG)
    return None if content is None else hparams.parse_session_end_info_plugin_data(content).status


def test_a_run_that_fails_is_marked_until_it_goes_on(tmp_path: Path) -> None:
    def failing() -> None:
        with Tracker(tmp_path) as tracker:
            tracker.session({"seed": 0}, "variant")
            tracker.scalars({"train/loss": 1.0}, 1)
            raise RuntimeError("the loss is not finite")

    with pytest.raises(RuntimeError, match="not finite"):
        failing()
    assert _ending(tmp_path) == 2  # STATUS_FAILURE
    with Tracker(tmp_path, start_step=1) as tracker:
        tracker.session({"seed": 0}, "variant")
        assert _ending(tmp_path) is None
        tracker.finish()
    assert _ending(tmp_path) == 1  # STATUS_SUCCESS
    assert list(tmp_path.glob("*.failed")) == []


def test_what_goes_wrong_after_a_run_has_finished_does_not_mark_it_failed(tmp_path: Path) -> None:
    def late() -> None:
        with Tracker(tmp_path) as tracker:
            tracker.session({"seed": 0}, "variant")
            tracker.finish()
            raise RuntimeError("too late")

    with pytest.raises(RuntimeError, match="too late"):
        late()
    assert _ending(tmp_path) == 1


def test_writing_a_board_again_leaves_one_file(family: Path) -> None:
    assert len(list((family / "_summary").iterdir())) == 1
