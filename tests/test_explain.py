"""What the figures show of a box: numbers, points, weights, coverage, from the drawn data."""

import itertools
import math
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
import torch

from ops.errors import InputError
from ops.roi_align import pooled
from scripts.explain import article, hero
from scripts.explain.article_steps import SCENE, example
from scripts.explain.canvas import Canvas, Text, png, svg, write
from scripts.explain.drawing import facts
from scripts.explain.figure import Chosen, explain_figure
from scripts.explain.geometry import Reading, Scene, bump
from scripts.explain.poolers import WORDS, choose
from scripts.explain_pooling import main

PROJECT = Path(__file__).resolve().parent.parent
# On the grid, off it, over each border, smaller than a cell, at both strides.
SCENES = (
    SCENE,
    hero.SCENE,
    Scene((-40, 20, 130, 500), (512, 512), 32, (3, 2)),
    Scene((400, 380, 600, 640), (512, 512), 32, (2, 3)),
    Scene((100, 80, 330.5, 301), (480, 640), 16, (7, 7)),
    Scene((201, 199, 209, 213), (256, 256), 16, (2, 2)),
    Scene((64, 96, 192, 160), (256, 256), 32, (2, 2)),
)
EACH = [(word, scene) for word in WORDS for scene in SCENES]
EACH_NAMES = [f"{word}-{index}" for word in WORDS for index in range(len(SCENES))]


def block(columns: range, rows: range) -> set[tuple[int, int]]:
    return {(x, y) for x in columns for y in rows}


def read_by_the_op(reading: Reading) -> dict[tuple[int, int], float]:
    """Cells that change the output when they alone are one, and the output's sum then."""
    rows, columns = reading.scene.map_size
    single = torch.eye(rows * columns, dtype=torch.float64).view(1, -1, rows, columns)
    scale = 1 / reading.scene.stride
    output = reading.pooler.op(single, reading.scene.rois(), reading.scene.output_size, scale)
    total = output[0].sum(dim=(1, 2))
    return {
        (index % columns, index // columns): float(total[index])
        for index in total.nonzero().flatten().tolist()
    }


def touched_by_the_box(scene: Scene) -> set[tuple[int, int]]:
    """Cells whose pixels share some area with the box, looked for one by one."""
    x1, y1, x2, y2 = scene.box
    rows, columns = scene.map_size
    return {
        (x, y)
        for x in range(columns)
        for y in range(rows)
        if min(x2, (x + 1) * scene.stride) > max(x1, x * scene.stride)
        and min(y2, (y + 1) * scene.stride) > max(y1, y * scene.stride)
    }


def test_the_box_of_the_worked_example():
    reading = example()
    x1, y1, x2, y2 = reading.box
    assert (x1, y1, x2 - x1) == (9.25, 6, 6.25)
    assert f"{y2 - y1:.2f}" == "4.53"
    assert [f"{side:.2f}" for side in reading.bin_size] == ["2.08", "1.51"]


def test_the_36_points():
    xs = [9.944444, 10.638889, 12.027778, 12.722222, 14.111111, 14.805556]
    ys = [6.503472, 7.006944, 8.013889, 8.517361, 9.524306, 10.027778]
    drawn = sorted((p.x, p.y) for p in example().all_points)
    assert len(drawn) == 36
    np.testing.assert_allclose(drawn, sorted(itertools.product(xs, ys)), atol=1e-6)


def test_neighbours_and_weights_of_the_first_bins_points():
    left, right = [(9, 6), (10, 6), (9, 7), (10, 7)], [(10, 6), (11, 6), (10, 7), (11, 7)]
    points = example().points(0, 0)
    assert [list(point.cells) for point in points] == [left, right, left, right]
    np.testing.assert_allclose(
        [point.weights for point in points],
        [
            [0.553627, 0.442901, 0.001929, 0.001543],
            [0.858121, 0.138407, 0.002990, 0.000482],
            [0.273920, 0.219136, 0.281636, 0.225309],
            [0.424576, 0.068480, 0.436535, 0.070409],
        ],
        atol=1e-6,
    )


@pytest.mark.parametrize(
    ("word", "columns"), [("align_thirds", [11, 13, 15]), ("align", [15]), ("align_adaptive", [])]
)
def test_cells_without_a_point(word, columns):
    without = Reading(choose(word), SCENE).cells_without_point()
    assert without == {(x, y) for x in columns for y in range(6, 11)}


def test_the_articles_roipool_loses_in_two_ways():
    covered = Reading(choose("pool_floor"), SCENE).coverage
    assert covered.lost_mapping == block(range(15, 16), range(6, 11)) | block(
        range(9, 16), range(10, 11)
    )
    assert covered.lost_cutting == block(range(9, 15), range(9, 10))
    assert not covered.foreign


def test_the_articles_roiwarp_loses_one_column():
    covered = Reading(choose("warp_floor"), SCENE).coverage
    assert covered.lost_mapping == block(range(15, 16), range(6, 11))
    assert not covered.lost_cutting


def test_the_layers_roipool_loses_a_column_and_reads_a_foreign_row():
    covered = Reading(choose("pool"), hero.SCENE).coverage
    assert covered.lost_mapping == block(range(9, 10), range(6, 11))
    assert covered.foreign == block(range(10, 16), range(11, 12))
    assert not covered.lost_cutting


@pytest.mark.parametrize(("word", "scene"), EACH, ids=EACH_NAMES)
def test_coverage_is_what_the_op_reads(word, scene):
    reading = Reading(choose(word), scene)
    covered, inside = reading.coverage, touched_by_the_box(scene)
    read = set(read_by_the_op(reading))
    assert covered.inside == inside
    assert covered.read == read
    assert covered.foreign == read - inside
    assert covered.lost_mapping | covered.lost_cutting == inside - read
    assert not covered.lost_mapping & covered.lost_cutting


@pytest.mark.parametrize("word", [word for word in WORDS if choose(word).agg == "avg"])
@pytest.mark.parametrize("scene", SCENES)
def test_an_averages_weights_are_the_gradient_of_its_sum(word, scene):
    reading = Reading(choose(word), scene)
    weights = reading.weights()
    features = torch.zeros(1, 1, *scene.map_size, dtype=torch.float64, requires_grad=True)
    rois, scale = scene.rois(), 1 / scene.stride
    reading.pooler.op(features, rois, scene.output_size, scale).sum().backward()
    drawn = torch.zeros_like(features[0, 0])
    for (x, y), weight in weights.items():
        drawn[y, x] = weight
    assert features.grad is not None
    torch.testing.assert_close(drawn, features.grad[0, 0], rtol=0, atol=1e-9)


@pytest.mark.parametrize("word", ["pool", "pool_floor"])
@pytest.mark.parametrize("scene", SCENES)
def test_a_maximum_sends_its_gradient_only_to_cells_drawn_as_read(word, scene):
    reading = Reading(choose(word), scene)
    generator = torch.Generator().manual_seed(1)
    features = torch.rand(1, 40, *scene.map_size, generator=generator, dtype=torch.float64)
    features.requires_grad_()
    scale = 1 / scene.stride
    reading.pooler.op(features, scene.rois(), scene.output_size, scale).sum().backward()
    assert features.grad is not None
    reached = {(x, y) for y, x in features.grad.abs().sum(dim=(0, 1)).nonzero().tolist()}
    assert reached <= reading.coverage.read
    assert len(reached) > 0.8 * len(reading.coverage.read)


@pytest.mark.parametrize("agg", ["avg", "max"])
@pytest.mark.parametrize(
    ("word", "scene"),
    [pair for pair in EACH if pair[0].startswith(("warp", "align"))],
)
def test_the_points_values_make_the_ops_output(word, scene, agg):
    reading = Reading(choose(word, agg=agg), scene)
    features = bump(scene.map_size, reading.box)
    join = max if agg == "max" else (lambda values: sum(values) / len(values))
    rows, columns = scene.output_size
    drawn = [
        [join([p.value(features) for p in reading.points(i, j)]) for j in range(columns)]
        for i in range(rows)
    ]
    torch.testing.assert_close(torch.tensor(drawn, dtype=torch.float64), reading.values(features))


@pytest.mark.parametrize(("word", "scene"), EACH, ids=EACH_NAMES)
def test_the_plan_that_is_drawn_is_the_ops(word, scene):
    reading = Reading(choose(word), scene)
    features = bump(scene.map_size, reading.box)
    by_plan = pooled(features[None, None], reading.plan, reading.pooler.agg)[0, 0]
    torch.testing.assert_close(by_plan, reading.values(features), rtol=0, atol=1e-12)


def texts_of(document: str) -> list[str]:
    root = ElementTree.fromstring(document)
    return [node.text or "" for node in root.iter("{http://www.w3.org/2000/svg}text")]


@pytest.fixture(scope="module")
def figures() -> dict[str, Canvas]:
    """Every figure that is made without an argument."""
    readings = [Reading(choose(word), SCENE) for word in ("pool", "warp_mnc", "align", "prroi")]
    features = bump(SCENE.map_size, readings[0].box)
    return {
        **article.figures(),
        "hero": hero.hero(),
        "strip": hero.strip(),
        "explain": explain_figure(readings, features, Chosen(1, 2, 3)),
    }


def test_the_articles_figures_print_its_numbers(figures):
    printed = {name: texts_of(svg(canvas)) for name, canvas in figures.items()}
    assert {"9.25", "6", "6.25", "4.53", "200 × 145", "(296, 192)"} <= set(printed["1_map"])
    assert "2.08 × 1.51" in printed["2_bins"]
    assert "36 points, at one third and two thirds of a bin" in printed["2_bins"]
    assert {"(9.94, 6.50)", "(10.64, 6.50)", "(9.94, 7.01)", "(10.64, 7.01)"} <= set(
        printed["3_points"]
    )
    assert {"× 0.554", "× 0.443", "× 0.858", "(9.50, 6.50)", "(11.50, 7.50)"} <= set(
        printed["3_points"]
    )
    assert "3 × 3 × 512" in printed["4_values"]
    assert "lost 11 by mapping, 6 by cutting" in printed["5_coverage"]
    assert "cells of the box without a point: 15" in printed["5_coverage"]
    assert "lost 5 by mapping, 0 by cutting" in printed["6_roiwarp"]
    assert {"26.9", "31.8", "30.9", "36.4"} <= set(printed["7_results"])
    assert {"Fast R-CNN", "Faster R-CNN", "Mask R-CNN"} <= set(printed["8_interchangeable"])


def test_facts_state_the_coverage():
    said = facts(Reading(choose("pool"), hero.SCENE))
    assert "lost 5 by mapping, 0 by cutting" in said
    assert "read from outside: 6" in said


def _extent(text: Text) -> tuple[float, float, float, float]:
    """Where a line of text lies when it is set in the widest of the fonts."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    font = FontProperties(family="DejaVu Sans", weight="bold" if text.bold else "normal")
    width = TextPath((0, 0), text.text, size=text.size * 0.94, prop=font).get_extents().width
    x = text.x - {"start": 0, "middle": width / 2, "end": width}[text.anchor]
    return x, text.y - 0.72 * text.size, x + width, text.y


def test_no_text_leaves_its_figure_or_lies_on_another(figures):
    for name, canvas in figures.items():
        texts = [item for item in canvas.items if isinstance(item, Text) and item.text]
        extents = [_extent(text) for text in texts]
        for text, (x1, y1, x2, y2) in zip(texts, extents, strict=True):
            assert x1 >= 4 and y1 >= 4 and x2 <= canvas.width - 4 and y2 <= canvas.height - 4, (
                name,
                text.text,
            )
        for (a, p), (b, q) in itertools.combinations(zip(texts, extents, strict=True), 2):
            apart = p[2] <= q[0] or q[2] <= p[0] or p[3] <= q[1] or q[3] <= p[1]
            assert apart, (name, a.text, b.text)


def test_svg_is_well_formed_and_its_text_is_text(figures):
    for name, canvas in figures.items():
        assert texts_of(svg(canvas)) == canvas.texts(), name


def test_png_has_twice_the_size_and_shows_the_colours(figures):
    canvas = figures["strip"]
    picture = cv2.imdecode(np.frombuffer(png(canvas), np.uint8), cv2.IMREAD_UNCHANGED)
    assert picture.shape[:2] == (round(canvas.height) * 2, round(canvas.width) * 2)
    colours = {tuple(pixel) for pixel in picture[::4, ::4].reshape(-1, 4).tolist()}
    for red, green, blue in ((0x1F, 0x4E, 0x9C), (0x8F, 0xBD, 0xF2), (0xD9, 0x48, 0x0F)):
        assert (blue, green, red, 255) in colours


def test_the_figures_in_docs_are_what_the_code_draws(figures):
    folders = {"hero": "images", "strip": "images"}
    for name, canvas in figures.items():
        if name != "explain":
            file = PROJECT / "docs" / folders.get(name, "article") / f"{name}.svg"
            assert file.read_text(encoding="utf-8") == svg(canvas), f"{file} is out of date"


def test_the_notes_name_the_slips_with_computed_numbers():
    said = article.notes()
    assert "(9.44, 6.50) | (9.94, 6.50)" in said
    assert "bottom left | top right" in said
    assert "2015 and 2017" in said
    assert "then 5 cells" in " ".join(said.lower().split())


def test_the_command_line_writes_both_files(tmp_path, capsys):
    words = ["--pooler", "align", "prroi", "--stride", "16", "--box", "40", "60", "300", "210"]
    assert (
        main([*words, "--samples", "0", "--output-size", "2", "4", "--output", str(tmp_path)]) == 0
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "align_prroi.png",
        "align_prroi.svg",
    ]
    assert "output 2 × 4" in texts_of((tmp_path / "align_prroi.svg").read_text())
    assert capsys.readouterr().out.count(str(tmp_path)) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--box", "9", "9", "9", "20"], "has no area"),
        (["--output-size", "1", "2", "3"], "give one, or rows and columns"),
        (["--output-size", "0"], "at least 1 bin"),
        (["--point", "3", "0", "0"], "no bin (3, 0)"),
        (["--stride", "0"], "at least 1"),
        (["--pooler", "warp_mnc", "--samples", "0"], "at least 1"),
        (["--image", "no.jpg", "--box", "0", "0", "9", "9"], "no.jpg"),
        (["--image", "no.jpg"], "give x1 y1 x2 y2"),
    ],
)
def test_mistakes_are_one_line(words, said, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        main([*words, "--output", str(tmp_path)])
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert said in error
    assert not list(tmp_path.iterdir())


def test_unknown_poolers_and_aggregations_are_refused():
    with pytest.raises(InputError, match="choose pool,"):
        choose("pol")
    with pytest.raises(InputError, match="RoIPool always takes the max"):
        choose("pool", agg="avg")
    with pytest.raises(InputError, match="PrRoIPool always takes the avg"):
        choose("prroi", agg="max")


def test_text_is_escaped(tmp_path):
    write(Canvas(50, 20, (Text(2, 12, "a < b & $c$", 10, "#000000"),), "x > y"), tmp_path / "a.svg")
    assert texts_of((tmp_path / "a.svg").read_text()) == ["a < b & $c$"]
    assert math.isclose(50, float(ElementTree.parse(tmp_path / "a.svg").getroot().attrib["width"]))
