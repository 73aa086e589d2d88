"""The evaluation's benchmark compares like with like."""

import json
from pathlib import Path

import numpy as np
import pytest

from scripts import benchmark
from scripts.timing import evaluation
from scripts.timing.evaluation import CONTENDERS, Scale, made_up

TINY = Scale(images=6, objects=30, detections=120, categories=3)


def test_the_same_numbers_make_the_same_input() -> None:
    truth, results = made_up(TINY, seed=1)
    again = made_up(TINY, seed=1)
    assert truth == again[0] and list(results.entries()) == list(again[1].entries())
    assert list(results.entries()) != list(made_up(TINY, seed=2)[1].entries())
    assert len(truth["annotations"]) == 30 and len(results) == 120
    corners = np.array([annotation["bbox"] for annotation in truth["annotations"]])
    corners[:, 2:] += corners[:, :2]
    assert (corners >= 0).all() and (corners <= [640, 480, 640, 480]).all()


def test_all_contenders_find_the_same_figures() -> None:
    found = [prepare(*made_up(TINY, seed=1))() for prepare in CONTENDERS.values()]
    assert 5 < found[0]["segm/AP"] < 95
    assert all(figures == found[0] for figures in found[1:])


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads Linux's peak memory")
def test_measurements_are_printed_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(evaluation.SCALES, "small", TINY)
    monkeypatch.setattr(evaluation, "MASK_IMAGES", ((60, 80),))
    benchmark.main(["eval", "--repeats", "1", "--json", str(tmp_path / "measured.json")])
    printed = capsys.readouterr().out
    assert "| this project, with matches |" in printed and "| 80 x 60 |" in printed
    measured = json.loads((tmp_path / "measured.json").read_text())
    assert [row["name"] for row in measured["evaluation"]] == list(CONTENDERS)
    first = measured["evaluation"][0]
    for row in measured["evaluation"]:
        assert row["figures"] == first["figures"]
        assert row["ratio"] == pytest.approx(first["seconds"] / row["seconds"])
        assert row["peak_bytes"] > 1e6
