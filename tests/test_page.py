"""The interactive page: its arithmetic is that of `ops`, and it does what hands and keys ask."""

import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ops.poolers import POOLERS
from ops.roi_align import roi_align
from ops.roi_pool import roi_pool
from ops.roi_warp import roi_warp
from scripts import explain_pooling
from scripts.explain.geometry import Reading, Scene
from scripts.explain.page import PARTS, page, write_page
from scripts.explain.poolers import choose
from tests.open_page import OpenPage, figures, follow, in_browser, state

MAP_SIZE = (13, 17)
BOXES = 500


# The file


def test_the_page_is_one_file_that_asks_for_nothing() -> None:
    html = page()
    assert not re.search(r"<link|\bsrc=|@import|url\(|https?://|fetch\(|import\(", html)
    for part in PARTS.iterdir():
        if part.suffix in (".js", ".css"):
            assert part.read_text(encoding="utf-8") in html


def test_writing_the_page_replaces_the_file(tmp_path: Path) -> None:
    path = tmp_path / "out.html"
    path.write_text("old")
    write_page(path)
    assert path.read_text(encoding="utf-8") == page()
    assert list(tmp_path.iterdir()) == [path]


def test_the_command_line_writes_the_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "pooling.html"
    assert explain_pooling.main(["--html", str(path)]) == 0
    assert path.read_text(encoding="utf-8") == page()
    assert capsys.readouterr().out == f"{path}\n"
    with pytest.raises(SystemExit, match="2"):
        explain_pooling.main(["--html", str(tmp_path / "none" / "pooling.html")])
    error = capsys.readouterr().err
    assert error.startswith("error: --html: ") and error.count("\n") == 1


# Its arithmetic

Op = Callable[[Tensor, Tensor, int, float], Tensor]


def _settings(**changed: Any) -> dict[str, Any]:
    start = {"rounding": "caffe", "mode": "paper", "placement": "uniform", "aligned": True}
    return {**start, "agg": "avg", "samples": 2, **changed}


def _cases() -> list[tuple[dict[str, Any], int, Op]]:
    """Settings of the page, bins, and the op they stand for."""
    cases: list[tuple[dict[str, Any], int, Op]] = []

    def add(bins: int, op: Callable[..., Tensor], options: dict[str, Any], **chosen: Any) -> None:
        def run(features: Tensor, rois: Tensor, size: int, scale: float) -> Tensor:
            return op(features, rois, size, scale, **options)

        cases.append((_settings(**chosen), bins, run))

    for rounding in ("caffe", "floor"):
        for bins in (2, 3, 7):
            add(bins, roi_pool, {"rounding": rounding}, pooler="pool", rounding=rounding)
    for word, pooler in POOLERS.items():  # each as its own YAML has it
        for bins in (2, 3, 7):
            add(bins, pooler.function, {}, pooler=word)
    samplings = {(2, 1): ["avg"], (3, 2): ["avg", "max"], (7, 2): ["avg"], (2, 3): ["max"]}
    samplings |= {(3, 0): ["avg", "max"]}
    for (bins, n), aggs in samplings.items():
        for agg in aggs:
            options: dict[str, Any] = {"sampling_ratio": n, "agg": agg}
            if n:
                mnc = {"mode": "mnc", **options}
                add(bins, roi_warp, mnc, pooler="warp", mode="mnc", samples=n, agg=agg)
            for aligned in (True, False):
                options = {"sampling_ratio": n, "agg": agg, "aligned": aligned}
                same: dict[str, Any] = {"samples": n, "agg": agg, "aligned": aligned}
                add(bins, roi_warp, options, pooler="warp", **same)
                for placement in ("uniform", "thirds"):
                    options = {**options, "placement": placement}
                    add(bins, roi_align, options, pooler="align", placement=placement, **same)
    return cases


def random_boxes(stride: int, seed: int) -> list[list[float]]:
    """Boxes in pixels: ordinary, at halves of a cell, off the map, tiny, reversed, of no size."""
    chance = random.Random(seed)
    width, height = MAP_SIZE[1] * stride, MAP_SIZE[0] * stride

    def ordinary() -> list[float]:
        x1, x2 = sorted(chance.uniform(0, width) for _ in range(2))
        y1, y2 = sorted(chance.uniform(0, height) for _ in range(2))
        return [x1, y1, x2, y2]

    def halves() -> list[float]:
        box = chance.choice([ordinary, beyond])()  # below 0, halves are rounded down
        return [round(v / (stride / 2)) * stride / 2 for v in box]

    def beyond() -> list[float]:
        x1, y1 = chance.uniform(-width, 1.5 * width), chance.uniform(-height, 1.5 * height)
        return [x1, y1, x1 + chance.uniform(0, width), y1 + chance.uniform(0, height)]

    def tiny() -> list[float]:
        x1, y1 = chance.uniform(-5, width + 5), chance.uniform(-5, height + 5)
        return [x1, y1, x1 + chance.uniform(0, 3), y1 + chance.uniform(0, 3)]

    def reversed_() -> list[float]:
        x1, y1, x2, y2 = ordinary()
        return chance.choice([[x2, y1, x1, y2], [x1, y2, x2, y1], [x2, y2, x1, y1]])

    def no_size() -> list[float]:
        x1, y1, x2, y2 = ordinary()
        return chance.choice([[x1, y1, x1, y2], [x1, y1, x2, y1], [x1, y1, x1, y1]])

    kinds = (ordinary, halves, beyond, tiny, reversed_, no_size)
    return [kinds[k % len(kinds)]() for k in range(BOXES)]


@in_browser
@pytest.mark.parametrize("stride", [16, 32])
def test_the_page_computes_what_the_ops_compute(opened: OpenPage, stride: int) -> None:
    browser = opened()
    generator = torch.Generator().manual_seed(stride)
    features = torch.rand(1, 1, *MAP_SIZE, generator=generator, dtype=torch.float64)
    boxes = random_boxes(stride, seed=stride)
    rois = torch.tensor([[0.0, *box] for box in boxes], dtype=torch.float64)
    browser.evaluate(
        f"void (window.testMap = {json.dumps(features[0, 0].tolist())},"
        f"window.testBoxes = {json.dumps(boxes)})"
    )
    for settings, bins, op in _cases():
        shown = {**settings, "bins": bins, "stride": stride}
        values = browser.evaluate(
            f"JSON.stringify(testBoxes.map(box => pooling.pooledValues(testMap, "
            f"pooling.poolingPlan(box, {list(MAP_SIZE)}, {json.dumps(shown)}))))"
        )
        got = torch.tensor(json.loads(values), dtype=torch.float64)
        expected = op(features, rois, bins, 1 / stride)[:, 0]
        worst = (got - expected).abs().flatten(1).amax(1)
        message = f"{shown}, box {boxes[int(worst.argmax())]}"
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-6, msg=message)


@in_browser
@pytest.mark.parametrize(
    ("word", "settings"),
    [
        ("pool", {"pooler": "pool"}),
        ("pool_floor", {"pooler": "pool", "rounding": "floor"}),
        ("warp", {"pooler": "warp"}),
        ("warp_mnc", {"pooler": "warp", "mode": "mnc"}),
        ("align", {"pooler": "align"}),
        ("align_thirds", {"pooler": "align", "placement": "thirds"}),
        ("align_adaptive", {"pooler": "align", "samples": 0}),
        ("prroi", {"pooler": "prroi"}),
    ],
)
def test_the_page_colours_the_cells_that_the_figures_colour(
    opened: OpenPage, word: str, settings: dict[str, Any]
) -> None:
    browser = opened()
    chance = random.Random(7)
    for stride, bins in [(16, 3), (32, 3), (32, 2), (16, 7)] * 8:
        x1, y1 = chance.randint(-40, 480), chance.randint(-40, 480)
        box = [x1, y1, x1 + chance.randint(1, 300), y1 + chance.randint(1, 300)]
        scene = Scene((box[0], box[1], box[2], box[3]), (512, 512), stride, (bins, bins))
        reading = Reading(choose(word), scene)
        shown = _settings(**settings, bins=bins, stride=stride)
        size = list(scene.map_size)
        kinds = browser.evaluate(
            f"pooling.coverage(pooling.poolingPlan({box}, {size}, {json.dumps(shown)})).kinds"
        )
        by_kind: dict[str, set[tuple[int, int]]] = {"mapped": set(), "cut": set(), "foreign": set()}
        for y, row in enumerate(kinds):
            for x, kind in enumerate(row):
                by_kind.setdefault(kind, set()).add((x, y))
        cover = reading.coverage
        assert by_kind["mapped"] == cover.lost_mapping, (box, stride, bins)
        assert by_kind["cut"] == cover.lost_cutting, (box, stride, bins)
        assert by_kind["foreign"] == cover.foreign, (box, stride, bins)


@in_browser
def test_it_opens_with_the_worked_example(opened: OpenPage) -> None:
    shown = figures(opened())
    assert shown["Box, cells across"] == "9.25 – 15.50"
    assert shown["Box, cells down"] == "6.00 – 10.53"
    assert shown["Its size"] == "6.25 × 4.53 cells"
    assert shown["A bin"] == "2.08 × 1.51 cells"
    assert shown["Points read"] == "36"
    assert shown["Shift of what is read"] == "none"


@in_browser
def test_the_numbers_of_rounding(opened: OpenPage) -> None:
    shown = figures(opened("pooler=pool&rounding=floor"))
    assert shown["Rounded to"] == "9 – 15 across, 6 – 10 down"
    assert shown["A bin"] == "2 × 1 cells"
    # Of 7 x 5 cells, the last column and row fall away by mapping, then the fourth row of six.
    assert shown["Lost: mapping, bins"] == "11 + 6"
    caffe = figures(opened("pooler=pool"))
    assert caffe["Rounded to"] == "9 – 17 across, 6 – 12 down"
    assert (caffe["Lost: mapping, bins"], caffe["Read from outside"]) == ("0 + 0", "7 cells")


@in_browser
def test_a_reading_lists_the_four_cells_and_their_weights(opened: OpenPage) -> None:
    browser = opened("placement=thirds&at=0,0,0,0")
    text = browser.evaluate("document.getElementById('reading').innerText")
    for part in ("column 9", "column 10", "row 6", "row 7", "0.554", "0.443", "0.002"):
        assert part in text
    assert "(9.94, 6.50)" in browser.evaluate("document.getElementById('sum').textContent")
    browser.click("#next")
    assert state(browser)["at"] == [0, 0, 0, 1]
    assert "(10.64, 6.50)" in browser.evaluate("document.getElementById('sum').textContent")
    browser.click("#previous")
    browser.click("#previous")
    assert state(browser)["at"] == [2, 2, 1, 1]


# What is kept, and how it looks


@in_browser
def test_the_address_holds_the_state(opened: OpenPage) -> None:
    browser = opened()
    for selector in ("#pooler-warp", "#mode-mnc", "#stride-16", "#bins-7"):
        browser.click(selector)
    browser.type("#x", "33")
    browser.click("#share")
    there = state(browser)
    hash_ = browser.evaluate("location.hash")
    browser = opened(hash_[1:])
    assert state(browser) == there
    assert there["box"] == [33, 192, 233, 337] and there["bins"] == 7
    browser.evaluate("location.hash = 'bins=5'")
    browser.settle()
    assert state(browser)["bins"] == 5 and state(browser)["pooler"] == "align"


@in_browser
def test_an_address_that_makes_no_sense_is_as_none(opened: OpenPage) -> None:
    browser = opened()
    start = state(browser)
    for hash_ in (
        "box=1,2,3&bins=9&pooler=x",
        "box=a,b,c,d&at=,&stride=8",
        "=&&%&pooler",
        "samples=-1&map=__proto__",
        "constructor=1&toString=2",
    ):
        follow(browser, "stride=16")
        follow(browser, hash_)
        assert state(browser) == start, hash_


@in_browser
def test_a_box_of_the_address_is_brought_into_reach(opened: OpenPage) -> None:
    assert state(opened("box=-900,500,-950,9000"))["box"] == [-48, 500, -47, 560]


@in_browser
@pytest.mark.parametrize("width", [320, 360, 800, 1400])
def test_nothing_sticks_out_of_the_window(opened: OpenPage, width: int) -> None:
    browser = opened(width=width)
    for hash_ in ("", "pooler=prroi&bins=2&stride=16", "pooler=pool&bins=14"):
        follow(browser, hash_)
        assert browser.evaluate("document.documentElement.scrollWidth") == width, hash_


@in_browser
def test_the_theme_follows_the_system_until_it_is_chosen(opened: OpenPage) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    light = opened().evaluate(paper)
    browser = opened(dark=True)
    dark = browser.evaluate(paper)
    assert light != dark
    browser.click("#theme")
    assert browser.evaluate(paper) == light


@in_browser
def test_the_cells_are_painted_in_the_colours_of_the_legend(opened: OpenPage) -> None:
    """Of RoIPool cut down: the last column is lost by mapping, the fourth row by cutting."""
    browser = opened("pooler=pool&rounding=floor&box=170,120,370,265&map=checker")

    def hue(x: float, y: float) -> list[int]:
        place = f"(({x} * 32 + 48) / 608 * c.width), (({y} * 32 + 48) / 608 * c.height)"
        script = f"(c => [...c.getContext('2d').getImageData({place}, 1, 1).data])"
        return list(browser.evaluate(f"{script}(document.getElementById('stage'))"))

    mapped, cut, kept = hue(11.7, 5.7), hue(6.7, 6.7), hue(6.7, 4.7)
    assert mapped[2] > mapped[0] + 60 and mapped[0] < 100  # dark blue
    assert cut[2] > cut[0] + 40 and cut[1] > 140  # light blue
    assert max(kept[:3]) - min(kept[:3]) < 25  # a shade of the map
    browser.click("#pooler-warp")
    browser.click("#reset")
    green = hue(12.7, 5.3)
    assert green[1] > green[0] + 40 and green[1] > green[2] + 20


@in_browser
def test_bins_glide_to_another_pooler_and_arrive(opened: OpenPage) -> None:
    """Where the box is rounded: the first edge goes from 9.25 to 9, by way of what lies between."""
    browser = opened(moving=True)
    browser.evaluate(
        "void (window.edges = [], glide(pooling.poolingPlan(state.box, [16, 16], state),"
        "pooling.poolingPlan(state.box, [16, 16], {...state, pooler: 'warp'}),"
        "plan => edges.push(plan.columns.bins[0].edges[0])))"
    )
    edges = browser.evaluate(
        "new Promise(arrived => { const wait = () => edges.at(-1) === 9 ? arrived(edges) :"
        "requestAnimationFrame(wait); wait(); })"
    )
    assert edges[0] == 9.25 and edges == sorted(edges, reverse=True)
    browser.click("#pooler-warp")
    stage = "document.getElementById('stage').toDataURL()"
    browser.evaluate("new Promise(arrived => setTimeout(arrived, 2 * GLIDE))")
    arrived = browser.evaluate(stage)
    still = opened("pooler=warp", moving=False)
    still.mouse("Moved", 0, 0)
    assert still.evaluate(stage) == arrived
