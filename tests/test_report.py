"""The report of made-up runs: what it computes, how it is written, and which runs it refuses."""

import csv
import io
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from conftest import PROJECT
from made_up_runs import DEMO, edit_config, write_family, write_run
from short_runs import short_run

from judging.matches import average_precision, load_matches
from ops.poolers import colour, place
from reporting import paper
from reporting.formats import latex, markdown, rows_csv
from reporting.study import Study, study_family
from reporting.tables import (
    Table,
    aggregations,
    alignment,
    differences,
    incomplete,
    paper_layout,
    signed,
    sizes,
)
from reporting.writing import write_report
from running.tracking import describe_backbone, describe_pooler
from train import train

PAIR = {name: DEMO[name] for name in ("pool_s16", "align_avg_s16")}
FIGURES = [f"{kind}/{name}" for kind in ("segm", "bbox") for name in ("AP", "AP50", "AP75")]
PAGE_FILES = ("report.md", "report.html", "costs.csv")  # the machine's speed is in them


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_family(tmp_path_factory.mktemp("runs") / "demo")


@pytest.fixture(scope="module")
def study(family: Path) -> Study:
    return _studied(family, resamples=400)


@pytest.fixture(scope="module")
def written(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written")
    write_report(study, folder)
    return folder


def _studied(family: Path, resamples: int = 100, baseline: str | None = None) -> Study:
    return study_family(family, resamples=resamples, baseline=baseline, progress=False)


def _rows(text: str) -> dict[str, dict[str, str]]:
    return {row["variant"]: row for row in csv.DictReader(io.StringIO(text))}


def _metrics(family: Path, variant: str, figure: str) -> list[float]:
    files = sorted((family / variant).glob("seed*/metrics.json"))
    return [json.loads(file.read_text())[figure] for file in files]


def test_the_csv_has_a_row_a_cell_with_means_and_differences_of_the_metrics(
    written: Path, family: Path
) -> None:
    rows = _rows((written / "report.csv").read_text())
    assert rows.keys() == DEMO.keys()
    row = rows["align_avg_s16"]
    keys = ("pooler", "agg", "backbone", "stride", "seeds")
    assert [row[k] for k in keys] == ["RoIAlign", "avg", "ResNet-16 (width 32)", "16", "3"]
    for figure in FIGURES:
        own = np.mean(_metrics(family, "align_avg_s16", figure))
        gain = own - np.mean(_metrics(family, "pool_s16", figure))
        assert float(row[figure]) == pytest.approx(own, abs=1e-4)
        assert float(row[f"{figure}/delta"]) == pytest.approx(gain, abs=1e-4)
        assert float(row[f"{figure}/low"]) < gain < float(row[f"{figure}/high"])
    assert float(rows["align_s32"]["segm/AP/low"]) > 0


def test_the_baseline_differs_from_itself_by_nothing(written: Path) -> None:
    row = _rows((written / "report.csv").read_text())["pool_s32"]
    assert {row[f"{f}/{b}"] for f in FIGURES for b in ("delta", "low", "high")} == {"0.0000"}


def test_rows_and_their_order_are_the_papers(study: Study) -> None:
    table = paper_layout(study, ("ResNet-16 (width 32)", 16))
    assert [(row[0], *row[1:5]) for row in table.rows] == [
        ("RoIPool", "", "", "max", "3"),
        ("RoIWarp", "", "yes", "max", "3"),
        ("RoIWarp", "", "yes", "avg", "3"),
        ("RoIAlign", "yes", "yes", "max", "3"),
        ("RoIAlign", "yes", "yes", "avg", "3"),
    ]
    assert [r[0] for r in paper_layout(study, ("ResNet-16 (width 32)", 32)).rows] == [
        "RoIPool",
        "RoIWarp",
        "RoIAlign",
    ]


def test_the_papers_figures_stand_beside_ours(study: Study) -> None:
    rows = differences(study, ("ResNet-16 (width 32)", 32)).rows
    assert [row[-2:] for row in rows if row[:2] == ("RoIAlign avg", "mask AP75")] == [
        ("32.1", "+10.5")
    ]
    assert [row[-2:] for row in rows if row[:2] == ("RoIWarp avg", "box AP")] == [("–", "–")]
    rows = alignment(study).rows
    assert [row[-1] for row in rows if "RoIAlign avg" in row and "mask" in row] == ["+2.7", "+5.2"]


def test_the_papers_differences_are_those_it_prints() -> None:
    pool, align = ("RoIPool", "max"), ("RoIAlign", "avg")
    printed = [("segm", (7.3, 5.3, 10.5)), ("bbox", (5.8, 2.6, 9.5))]
    for kind, gains in printed:
        names = [f"{kind}/{name}" for name in paper.FIGURES]
        assert tuple(paper.difference(32, align, pool, name) for name in names) == gains


def test_average_is_compared_with_maximum(study: Study, family: Path) -> None:
    rows = aggregations(study).rows
    assert {row[1] for row in rows} == {"RoIWarp", "RoIAlign"} and len(rows) == 12
    (row,) = [row for row in rows if row[1:3] == ("RoIAlign", "mask AP75")]
    gain = np.mean(_metrics(family, "align_avg_s16", "segm/AP75"))
    gain -= np.mean(_metrics(family, "align_max_s16", "segm/AP75"))
    assert row[3] == signed(float(gain)) and row[-1] == "−0.3"


def test_sizes_are_the_metrics_own(study: Study, family: Path) -> None:
    (row,) = [r for r in sizes(study).rows if r[:2] == ("stride 32", "RoIPool max")]
    values = _metrics(family, "pool_s32", "segm/APs")
    assert row[2] == f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}"


def test_the_report_follows_from_the_files_alone(
    written: Path, family: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "demo"
    shutil.copytree(family, copy)
    for file in copy.glob("*/*/metrics.json"):  # another machine, and stopped in between
        file.write_text(json.dumps({**json.loads(file.read_text()), "train_seconds": 1.0}))
    again = tmp_path / "again"
    write_report(_studied(copy, resamples=400), again)
    names = {file.name for file in written.iterdir()}
    assert names == {file.name for file in again.iterdir()}
    assert len([name for name in names if name.endswith(".png")]) == 8
    for name in names - set(PAGE_FILES):
        assert (written / name).read_bytes() == (again / name).read_bytes(), name
    for name in ("report.md", "report.html"):
        texts = [(folder / name).read_text().split("Cost")[0] for folder in (written, again)]
        assert texts[0] == texts[1], name
    assert (written / "costs.csv").read_text() != (again / "costs.csv").read_text()


class _Tags(HTMLParser):
    """Checks that tags close in order; keeps what a page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [v or "" for k, v in attrs if k in ("src", "srcset", "href")]
        if tag not in ("meta", "img", "source"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_loads_nothing(written: Path) -> None:
    page = _Tags()
    page.feed((written / "report.html").read_text())
    assert page.open == []
    assert len(page.loads) == 16  # eight plots, light and dark
    assert all(load.startswith("data:image/png;base64,") for load in page.loads)


def test_pipes_and_signs_survive_every_format() -> None:
    table = Table("A & B", ("", "n"), (("a|b_1", "−1.0 ± 2"),), words=1, note="50 %")
    assert r"a\|b_1" in markdown(table)
    assert r"a|b\_1 & $-$1.0 $\pm$ 2 \\" in latex(table)
    assert r"\caption{A \& B. 50 \%}" in latex(table)


def test_cells_that_were_not_run_failed_or_stopped_are_shown_as_such(tmp_path: Path) -> None:
    family = write_family(tmp_path / "demo", PAIR, seeds=(0, 1))
    for variant, seed in (("align_avg_s16", 1), ("warp_avg_s16", 0)):
        folder = family / variant / f"seed{seed}"
        if not folder.exists():
            write_run(folder, DEMO[variant], seed)
        (folder / "metrics.json").unlink()
    (family / "warp_avg_s16/seed0/FAILED").write_text("loss is <nan>\nat step 3\n")
    study = _studied(family)
    status = {(row[0], row[3]): row[4] for row in paper_layout(study, study.groups[0]).rows}
    assert status == {
        ("RoIPool", "max"): "2",
        ("RoIWarp", "max"): "not run",
        ("RoIWarp", "avg"): "1 failed",
        ("RoIAlign", "max"): "not run",
        ("RoIAlign", "avg"): "1, 1 unfinished",
    }
    assert incomplete(study).rows == (
        ("align_avg_s16", "1", "unfinished", ""),
        ("warp_avg_s16", "0", "failed", "loss is <nan> at step 3"),
    )
    rows = _rows(rows_csv(study))
    assert rows["warp_avg_s16"]["segm/AP"] == "" and rows["warp_avg_s16"]["seeds"] == "0"
    write_report(study, tmp_path / "report")
    assert "loss is &lt;nan&gt;" in (tmp_path / "report" / "report.html").read_text()
    # RoIAlign has one seed left, and is compared with RoIPool's run of that seed alone.
    gain = (
        _metrics(family, "align_avg_s16", "segm/AP")[0] - _metrics(family, "pool_s16", "segm/AP")[0]
    )
    assert float(rows["align_avg_s16"]["segm/AP/delta"]) == pytest.approx(gain, abs=1e-4)
    assert study.to_baseline["align_avg_s16", "segm/AP"].verdict.endswith("(images alone)")


def test_a_family_in_which_nothing_is_finished_is_reported(tmp_path: Path) -> None:
    family = write_family(tmp_path / "demo", PAIR, seeds=(0,))
    for file in family.glob("*/*/metrics.json"):
        file.unlink()
    text = write_report(_studied(family), tmp_path / "report")
    assert "nothing yet: no run is finished" in text and "1 unfinished" in text


def test_boxes_without_masks_are_compared(tmp_path: Path) -> None:
    study = _studied(write_family(tmp_path / "demo", PAIR, seeds=(0, 1), kinds=("bbox",)))
    assert study.kinds == ("bbox",)
    row = _rows(rows_csv(study))["align_avg_s16"]
    assert row["segm/AP/delta"] == "" and float(row["bbox/AP/delta"]) > 0


def test_runs_side_by_side_are_put_together_by_their_names(tmp_path: Path) -> None:
    for name, variant in PAIR.items():
        for seed in (0, 1):
            write_run(tmp_path / "outputs" / f"shapes_{name}_seed{seed}", variant, seed)
    study = _studied(tmp_path / "outputs")
    assert [(s.variant.name, s.variant.seeds) for s in study.scored] == [
        ("shapes_pool_s16", (0, 1)),
        ("shapes_align_avg_s16", (0, 1)),
    ]


def test_an_rpn_is_no_row_but_costs_something(tmp_path: Path) -> None:
    family = write_family(tmp_path / "demo", PAIR, seeds=(0,))
    rpn = family / "rpn" / "seed0"
    write_run(rpn, DEMO["pool_s16"], 0)
    edit_config(rpn / "config.yaml", proposals_only=True, schedule={"steps": 5})
    (rpn / "matches.npz").unlink()
    study = _studied(family)
    assert [one.variant.name for one in study.scored] == ["pool_s16", "align_avg_s16"]
    text = write_report(study, tmp_path / "report")
    assert "\nrpn,0,100.0,600\n" in (tmp_path / "report" / "costs.csv").read_text()
    assert re.search(r"\| rpn +\| +0 \|", text)


def test_cells_of_one_pooler_are_told_apart(tmp_path: Path) -> None:
    variants = {**PAIR, "align_thirds": DEMO["align_avg_s16"]}
    study = _studied(write_family(tmp_path / "demo", variants, seeds=(0,)))
    assert [one.variant.label for one in study.scored] == [
        "RoIPool max",
        "RoIAlign avg (align_avg_s16)",
        "RoIAlign avg (align_thirds)",
    ]


def test_another_baseline_can_be_chosen(family: Path) -> None:
    study = _studied(family, baseline="warp avg")
    rows = _rows(rows_csv(study))
    assert rows["warp_avg_s16"]["segm/AP/delta"] == "0.0000"
    gain = float(rows["align_avg_s16"]["segm/AP"]) - float(rows["warp_avg_s16"]["segm/AP"])
    assert float(rows["align_avg_s16"]["segm/AP/delta"]) == pytest.approx(gain, abs=2e-4)


@pytest.mark.parametrize(
    ("backbone", "name"),
    [
        ({"_target_": "m.resnet", "depth": 50, "width": 64}, "ResNet-50"),
        ({"_target_": "m.resnet", "blocks": [3, 4, 6, 3], "bottleneck": True}, "ResNet-50"),
        ({"_target_": "m.resnet", "blocks": [3, 4, 23, 3], "bottleneck": True}, "ResNet-101"),
        ({"_target_": "m.resnet", "blocks": [2, 2, 2, 2], "width": 64}, "ResNet-18"),
        ({"_target_": "models.vgg.vgg16"}, "VGG16"),
    ],
)
def test_backbones_have_their_usual_names(backbone: dict[str, object], name: str) -> None:
    assert describe_backbone(backbone) == name


@pytest.mark.parametrize(
    ("pooler", "told"),
    [
        ({"_target_": "ops.roi_pool.roi_pool"}, ("RoIPool", "max")),
        ({"_target_": "ops.prroi_pool.prroi_pool"}, ("PrRoIPool", "avg")),
        (
            {"_target_": "ops.roi_warp.roi_warp", "mode": "mnc", "agg": "max"},
            ("RoIWarp (MNC)", "max"),
        ),
        ({"_target_": "mine.deform_pool", "agg": "avg"}, ("deform_pool", "avg")),
    ],
)
def test_poolers_have_their_papers_names(pooler: dict[str, object], told: tuple[str, str]) -> None:
    assert describe_pooler(pooler) == told


def test_rows_are_in_the_order_of_the_poolers_table_and_have_its_colours() -> None:
    titles = ["RoIPool", "RoIWarp", "RoIAlign", "PrRoIPool", "Crop and resize", "deform_pool"]
    assert [place(title) for title in titles] == list(range(len(titles)))
    assert place("RoIWarp (MNC)") == place("RoIWarp") < place("RoIAlign")
    assert colour("RoIWarp (MNC)") == colour("RoIWarp") != colour("deform_pool")


@pytest.mark.parametrize(
    ("value", "told"), [(1.26, "+1.3"), (-0.5, "−0.5"), (-0.04, "0.0"), (None, "–")]
)
def test_differences_carry_their_sign(value: float | None, told: str) -> None:
    assert signed(value) == told


def _run_script(*words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(PROJECT / "scripts" / "report.py"), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_command_line_tells_a_mistake_in_one_line(tmp_path: Path) -> None:
    done = _run_script(str(tmp_path), "--resamples", "7")
    assert done.returncode == 2 and done.stdout == ""
    assert re.fullmatch(r"error: --resamples 7: .*\n", done.stderr)


def test_the_command_line_writes_the_report_and_prints_the_tables(tmp_path: Path) -> None:
    family = write_family(tmp_path / "demo", PAIR, seeds=(0,))
    done = _run_script(str(family), "--resamples", "100")
    assert done.returncode == 0, done.stderr
    assert "laid out as table 2c" in done.stdout and "RoIAlign" in done.stdout
    assert (family / "report" / "report.html").is_file()


def test_a_trained_run_leaves_what_a_report_needs(tmp_path: Path, drawings: Path) -> None:
    folder = tmp_path / "demo" / "align_s16" / "seed0"
    metrics = train(short_run(folder, drawings))
    matches = load_matches(folder / "matches.npz")
    for kind in ("bbox", "segm"):
        ap = average_precision(matches[kind])
        assert 100 * np.nanmean(ap) == pytest.approx(metrics[f"{kind}/AP"], abs=1e-9)
    study = _studied(tmp_path / "demo")
    assert [one.variant.label for one in study.scored] == ["RoIAlign avg"]
    assert study.baselines == {}
