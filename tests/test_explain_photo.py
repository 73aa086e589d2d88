"""A box on a photograph: the overlay, what each pooler hands to the head, and the mask."""

from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from short_runs import composed

from build import build_model
from detector import Detector, load
from ops.errors import InputError
from running.checkpoint import save_checkpoint
from scripts.explain.canvas import Canvas, Picture, svg
from scripts.explain.geometry import Scene
from scripts.explain.photo import as_seen, head_views, photo_figure
from scripts.explain.poolers import choose
from scripts.explain_pooling import main

BOX = (41.0, 30.0, 128.5, 99.0)
CLASSES = ("disc", "cross")
POOLERS = [choose(word) for word in ("pool", "warp", "align")]


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn photograph, 200 wide and 140 high, in a format that keeps its pixels."""
    y, x = np.mgrid[:140, :200]
    pixels = np.stack([x, y, (x + y) % 200], axis=2).astype(np.uint8)
    cv2.circle(pixels, (85, 65), 34, (240, 60, 20), -1)
    path = tmp_path_factory.mktemp("photo") / "disc.png"
    cv2.imwrite(str(path), pixels)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run whose network has learned nothing yet."""
    folder = tmp_path_factory.mktemp("run")
    cfg = composed("schedule=smoke", "precision=float32", "pooler=align")
    torch.manual_seed(3)
    model = build_model(cfg, len(CLASSES))
    with torch.no_grad():  # firm opinions, if wrong ones
        assert model.roi_heads is not None
        model.roi_heads.head.box_predictor.classes.weight.mul_(60)
    save_checkpoint(
        folder / "checkpoints/last.pt",
        model=model,
        step=0,
        config_text=OmegaConf.to_yaml(cfg, resolve=True),
        categories=[{"id": k + 1, "name": name} for k, name in enumerate(CLASSES)],
    )
    return folder


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """A run may set how many threads there are; the other tests keep theirs."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def detector(run: Path) -> Detector:
    return load(run, device="cpu")


def pictures(canvas: Canvas) -> list[Picture]:
    return [item for item in canvas.items if isinstance(item, Picture)]


def scene_of(photo: Path) -> tuple[np.ndarray, Scene]:
    pixels = cv2.cvtColor(cv2.imread(str(photo)), cv2.COLOR_BGR2RGB)
    return pixels, Scene(BOX, (140, 200), 16, (7, 7))


def test_the_photograph_lies_under_the_grid_it_belongs_to(photo):
    canvas = photo_figure(photo, BOX, POOLERS, stride=16, output_size=(3, 3))
    pixels, _ = scene_of(photo)
    shown = pictures(canvas)
    assert len(shown) == 3
    # The box covers cells 2 .. 8 and 1 .. 6, RoIPool reads to row 6 and RoIAlign to row 6: one cell
    # of margin around them, cut at the photograph's own border.
    for picture in shown:
        assert np.array_equal(picture.pixels, pixels[0:128, 16:160])
        assert picture.width / picture.pixels.shape[1] == pytest.approx(
            picture.height / picture.pixels.shape[0]
        )
    assert {"RoIPool", "RoIWarp", "RoIAlign"} <= set(canvas.texts())


def test_the_head_gets_what_the_op_gives(photo, detector):
    pixels, scene = scene_of(photo)
    image, scene = as_seen(pixels, scene, detector)
    own = detector.model.roi_heads.head.pooler
    scene, views = head_views(image, scene, POOLERS, detector)
    head = detector.model.roi_heads.head
    assert head.pooler is own, "the network is left as it was"
    with torch.no_grad():
        features = detector.model.backbone(detector.model.normalize([image]))
        assert scene.map_size == tuple(features.shape[2:])
        rois = torch.tensor([[0.0, *scene.box]])
        for pooler, view in zip(POOLERS, views, strict=True):
            given = pooler.op(features, rois, head.pool_size, 1 / detector.config.stride)[0]
            torch.testing.assert_close(view.pooled, given)
        by_itself = head.predict_boxes(features, [rois[:, 1:]]).class_logits.softmax(dim=1)
    assert views[2].score == pytest.approx(float(by_itself[0, :-1].max()), rel=1e-5)
    assert views[2].name == CLASSES[int(by_itself[0, :-1].argmax())]
    assert views[0].score != views[2].score


def test_the_box_moves_with_the_photograph_into_the_networks_size(photo, detector):
    pixels, scene = scene_of(photo)
    image, seen = as_seen(pixels, scene, detector)
    assert image.shape == (3, 90, 128), "its longer edge at the run's limit"
    expected = np.array(BOX) * [128 / 200, 90 / 140, 128 / 200, 90 / 140]
    np.testing.assert_allclose(seen.box, expected, rtol=1e-5)


def test_with_a_checkpoint_features_class_and_mask_are_shown(photo, run):
    canvas = photo_figure(photo, BOX, POOLERS, stride=32, output_size=(3, 3), checkpoint=run)
    texts = canvas.texts()
    assert texts.count("what the head gets, 7 × 7") == 3
    assert sum(text.split()[0] in CLASSES for text in texts) == 3
    assert any(text.startswith("weights trained with RoIAlign") for text in texts)
    maps = [picture for picture in pictures(canvas) if picture.pixels.shape == (7, 7, 3)]
    assert len(maps) == 12
    tints = [picture for picture in pictures(canvas) if picture.pixels.shape[2] == 4]
    assert len(tints) == 3
    assert len({tint.pixels.tobytes() for tint in tints}) == 3, "each pooler has its own mask"
    root = ElementTree.fromstring(svg(canvas))
    assert len(root.findall("{http://www.w3.org/2000/svg}image")) == len(pictures(canvas))


def test_a_box_that_is_not_on_the_photograph_is_refused(photo):
    with pytest.raises(InputError, match="which is 200 x 140 pixels"):
        photo_figure(photo, (300, 0, 400, 90), POOLERS, stride=16, output_size=(3, 3))


def test_the_command_line_draws_a_photograph(photo, tmp_path, capsys):
    words = ["--image", str(photo), "--box", *map(str, BOX), "--stride", "16", "--pooler", "pool"]
    assert main([*words, "--output", str(tmp_path / "seen.svg")]) == 0
    assert "RoIPool" in (tmp_path / "seen.svg").read_text()
    with pytest.raises(SystemExit, match="2"):
        main([*words, "--checkpoint", str(tmp_path / "none.pt")])
    assert "none.pt: no such file" in capsys.readouterr().err
