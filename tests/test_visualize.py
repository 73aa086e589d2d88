"""Objects drawn over images: positions, colours, labels."""

import numpy as np
import pytest
import torch

from drawing.visualize import (
    caption,
    class_colours,
    draw_detections,
    draw_objects,
    draw_target,
    truth_beside_prediction,
)
from ops.structures import Detections, Polygons, Sample, Target

NAMES = ["disc", "bar"]
BOX = [100.0, 150.0, 300.0, 350.0]


def _grey(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), 128, np.uint8)


def _changed(picture: np.ndarray) -> np.ndarray:
    """Where a picture drawn over grey differs from grey: bool [H, W]."""
    return (picture != 128).any(axis=2)


def test_the_colour_of_a_class_depends_only_on_its_name() -> None:
    few, many = ["cat", "dog"], ["zebra", "dog", "cat"]
    assert class_colours(many)[1:] == class_colours(few)[::-1]


def test_eighty_classes_have_eighty_colours_none_dark() -> None:
    colours = class_colours([f"class {k}" for k in range(80)])
    assert len(set(colours)) == 80
    assert min(max(colour) for colour in colours) > 150


def test_more_classes_than_colours_get_colours() -> None:
    assert len(class_colours([f"class {k}" for k in range(300)])) == 300


def test_a_box_is_drawn_around_its_pixels_in_its_classs_colour() -> None:
    picture = draw_objects(_grey(480, 640), [BOX], [1], NAMES)
    assert picture.shape == (480, 640, 3)
    colour = class_colours(NAMES)[1]
    for row, column in [(250, 100), (250, 299), (349, 200)]:
        assert tuple(picture[row, column]) == colour
    assert not _changed(picture)[200:320, 160:280].any()
    assert not _changed(picture)[:, :90].any() and not _changed(picture)[:, 310:].any()


def test_the_image_itself_is_not_drawn_on() -> None:
    image = _grey(480, 640)
    draw_objects(image, [BOX], [0], NAMES)
    assert (image == 128).all()


def test_a_mask_is_translucent() -> None:
    masks = torch.zeros(1, 28, 28)
    masks[0, :14] = 1  # the upper half of the box
    picture = draw_objects(_grey(480, 640), [BOX], [0], NAMES, masks=masks)
    expected = 0.65 * 128 + 0.35 * np.array(class_colours(NAMES)[0])
    assert picture[220, 200] == pytest.approx(expected, abs=1)
    assert not _changed(picture)[260:340, 110:290].any()


def test_the_name_is_legible_on_white_black_and_colour() -> None:
    """Letters are white with dark around them, whatever lies beneath."""
    for shade in (0, 128, 255):
        image = np.full((480, 640, 3), shade, np.uint8)
        label = draw_objects(image, [BOX], [0], NAMES, scores=[0.9])[125:149, 100:200].astype(int)
        assert (label.min(axis=2) > 230).sum() > 20
        assert (label.max(axis=2) < 60).sum() > 100


def test_a_small_image_is_enlarged_before_it_is_drawn_on() -> None:
    picture = draw_objects(_grey(128, 96), [[32, 32, 64, 64]], [0], NAMES)
    assert picture.shape == (640, 480, 3)
    assert tuple(picture[240, 160]) == class_colours(NAMES)[0]


def test_a_large_photograph_keeps_its_size() -> None:
    assert draw_objects(_grey(700, 1000), [BOX], [0], NAMES).shape == (700, 1000, 3)


def test_no_objects_leave_the_image_unchanged() -> None:
    empty = draw_objects(
        _grey(480, 640), torch.zeros(0, 4), [], NAMES, scores=[], masks=torch.zeros(0, 28, 28)
    )
    assert not _changed(empty).any()


@pytest.mark.parametrize(
    "box", [[-50, -50, 30, 30], [600, 440, 700, 520], [0, 0, 640, 480], [5, 5, 5, 5]]
)
def test_boxes_at_and_beyond_the_border_are_cut(box: list[float]) -> None:
    assert draw_objects(_grey(480, 640), [box], [0], NAMES).shape == (480, 640, 3)


def test_one_name_is_not_written_over_another() -> None:
    """Of ten objects in one place, four are named, at four corners of the box."""
    pictures = [
        _changed(draw_objects(_grey(480, 640), [BOX] * n, [0] * n, NAMES, scores=[0.9] * n))
        for n in (0, 1, 4, 10)
    ]
    bare = _changed(draw_objects(_grey(480, 640), [BOX], [0], ["disc"]))
    none, one, four, ten = ((p & ~bare).sum() for p in pictures)
    assert none == 0
    assert 3 < four / one < 4.5
    assert ten == four


def test_the_only_class_needs_no_name() -> None:
    drawn = _changed(draw_objects(_grey(480, 640), [BOX], [0], ["nucleus"]))
    assert not drawn[:145].any()


def _sample(scale: float) -> tuple[Sample, Detections]:
    """A square in a 100 x 200 file, seen by the network at `scale`, and its perfect detection."""
    box = torch.tensor([[20.0, 30.0, 80.0, 90.0]])
    ring = scale * np.array([[20.0, 30.0], [80.0, 30.0], [80.0, 90.0], [20.0, 90.0]])
    height, width = round(100 * scale), round(200 * scale)
    image = torch.full((3, height, width), 128, dtype=torch.uint8)
    target = Target(box * scale, torch.tensor([0]), (Polygons((ring,)),))
    found = Detections(box, torch.tensor([0.8]), torch.tensor([0]), torch.ones(1, 28, 28))
    return Sample(image, target, 7, (100, 200)), found


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools'
@pytest.mark.parametrize("scale", [1.0, 2.0, 8.0])
def test_truth_and_prediction_lie_at_the_same_place_at_every_scale(scale: float) -> None:
    sample, found = _sample(scale)
    picture = truth_beside_prediction(sample, found, NAMES)
    width = (picture.shape[1] - 8) // 2
    assert width in (400, 600, 640)
    top = picture.shape[0] - width // 2
    left, right = picture[top:, :width], picture[top:, width + 8 :]
    unit = width / 200
    for x, y in [(50, 60), (24, 60), (50, 86)]:
        row, column = round(y * unit), round(x * unit)
        assert _changed(left)[row, column] and _changed(right)[row, column]
    for x, y in [(12, 60), (90, 60), (50, 96)]:
        row, column = round(y * unit), round(x * unit)
        assert not _changed(left)[row, column] and not _changed(right)[row, column]


def test_detections_of_low_score_are_left_out() -> None:
    _, found = _sample(1.0)
    image = _grey(100, 200)
    assert not _changed(draw_detections(image, found, NAMES, min_score=0.9)).any()
    assert _changed(draw_detections(image, found, NAMES, min_score=0.7)).any()


def test_boxes_without_masks_and_images_without_objects_are_drawn() -> None:
    image = _grey(480, 640)
    empty = Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    assert not _changed(draw_target(image, empty, NAMES)).any()
    boxes_only = Target(torch.tensor([BOX]), torch.tensor([0]))
    assert not _changed(draw_target(image, boxes_only, NAMES))[200:320, 160:280].any()


def test_a_caption_is_a_white_strip_above_the_picture() -> None:
    picture = caption(_grey(100, 300), "image 1")
    assert (picture[-100:] == 128).all()
    strip = picture[:-100]
    assert (strip[0] == 255).all() and strip.min() < 100


def test_a_caption_too_long_is_made_smaller_until_it_fits() -> None:
    strip = caption(_grey(10, 300), "a caption of many words that " * 2)[:-10]
    assert strip.min() < 150 and (strip[:, -3:] == 255).all()
