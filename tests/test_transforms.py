"""Pixels and targets move together."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from data.transforms import (
    EvalTransform,
    TrainTransform,
    crop,
    cut_mask,
    horizontal_flip,
    jitter_colour,
    random_crop,
    resize,
    resize_shortest_edge,
    resized_shape,
    vertical_flip,
)
from ops.errors import InputError
from ops.masks import mask_targets
from ops.structures import Batch, Bitmap, Polygons, Sample, Target


def bright_boxes(height: int = 40, width: int = 60) -> Sample:
    """A dark image with one bright rectangle, twice in the target: as polygon and as bitmap."""
    image = torch.zeros((3, height, width), dtype=torch.uint8)
    image[:, 8:20, 12:36] = 240
    box = (12.0, 8.0, 36.0, 20.0)
    ring = np.array([[12.0, 8], [36, 8], [36, 20], [12, 20]])
    return Sample(
        image=image,
        target=Target(
            boxes=torch.tensor([box, box]),
            labels=torch.tensor([1, 2]),
            masks=(Polygons((ring,)), Bitmap(np.ones((12, 24), np.uint8), box)),
        ),
        image_id=3,
        original_size=(height, width),
    )


def check_target_is_where_the_pixels_are(sample: Sample) -> None:
    """Boxes, polygon and bitmap agree with the bright pixels to within half a pixel."""
    bright = sample.image[0].numpy() > 120
    rows, columns = np.flatnonzero(bright.any(axis=1)), np.flatnonzero(bright.any(axis=0))
    found = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    polygon, bitmap = sample.target.masks
    assert isinstance(polygon, Polygons) and isinstance(bitmap, Bitmap)
    ring = polygon.rings[0]
    for box in (*sample.target.boxes.tolist(), bitmap.box, [*ring.min(0), *ring.max(0)]):
        assert np.abs(np.array(box) - found).max() <= 0.51
    assert sample.original_size == (40, 60) and sample.image_id == 3


@pytest.mark.parametrize(
    "move",
    [
        horizontal_flip,
        vertical_flip,
        lambda s: resize(s, (80, 90)),
        lambda s: resize(s, (27, 33)),
        lambda s: horizontal_flip(resize(vertical_flip(s), (100, 77))),
        lambda s: crop(s, (5, 3, 50, 30)),
        lambda s: vertical_flip(crop(resize(s, (60, 120)), (10, 7, 100, 50))),
    ],
)
def test_target_stays_where_the_pixels_are(move: Callable[[Sample], Sample]) -> None:
    check_target_is_where_the_pixels_are(move(bright_boxes()))


@pytest.mark.parametrize("flip", [horizontal_flip, vertical_flip])
def test_flipping_twice_gives_the_same_sample(flip: Callable[[Sample], Sample]) -> None:
    sample = bright_boxes()
    twice = flip(flip(sample))
    assert torch.equal(twice.image, sample.image)
    assert torch.equal(twice.target.boxes, sample.target.boxes)
    assert np.array_equal(twice.target.masks[0].rings, sample.target.masks[0].rings)  # type: ignore


def test_an_uneven_bitmap_is_mirrored_with_its_image() -> None:
    pixels = np.zeros((12, 24), np.uint8)
    pixels[:6, :5] = 1
    box = (12.0, 8.0, 36.0, 20.0)
    sample = bright_boxes()
    masked = Target(sample.target.boxes[:1], sample.target.labels[:1], (Bitmap(pixels, box),))
    sample = Sample(sample.image, masked, 3, (40, 60))
    flipped = horizontal_flip(sample).target
    whole = mask_targets(masked.masks, masked.boxes, 12)
    assert 0 < whole.sum() < 72
    assert torch.equal(mask_targets(flipped.masks, flipped.boxes, 12), whole.flip(-1))
    flipped = vertical_flip(sample).target
    assert torch.equal(mask_targets(flipped.masks, flipped.boxes, 12), whole.flip(-2))


def test_resizing_leaves_what_a_roi_sees_of_a_bitmap_unchanged() -> None:
    generator = np.random.default_rng(0)
    mask = Bitmap(generator.integers(0, 2, (12, 24)).astype(np.uint8), (12.0, 8.0, 36.0, 20.0))
    sample = bright_boxes()
    target = Target(sample.target.boxes[:1], sample.target.labels[:1], (mask,))
    small = resize(Sample(sample.image, target, 3, (40, 60)), (20, 30)).target
    expected = mask_targets(target.masks, target.boxes, 14)
    assert torch.equal(mask_targets(small.masks, small.boxes, 14), expected)


@pytest.mark.parametrize(
    ("size", "edges", "expected"),
    [
        ((480, 640), (800, 1333), (800, 1067)),  # 1066.67 rounds up
        ((427, 640), (800, 1333), (800, 1199)),
        ((640, 427), (800, 1333), (1199, 800)),
        ((300, 640), (800, 1333), (625, 1333)),  # the longer edge decides
        ((128, 128), (128, 128), (128, 128)),
    ],
)
def test_sizes_are_those_of_detectron2(
    size: tuple[int, int], edges: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert resized_shape(size, *edges) == expected


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 900), st.integers(1, 1500))
def test_no_size_exceeds_the_longer_edge(height: int, width: int, short: int, long: int) -> None:
    new = resized_shape((height, width), short, long)
    assert max(new) <= max(long, short) and min(new) <= short


def test_very_long_images_keep_a_pixel() -> None:
    assert resized_shape((1, 3000), 800, 1333)[0] >= 1
    assert resize_shortest_edge(bright_boxes(), 1, 1).image.shape == (3, 1, 1)


def test_cropping_drops_what_is_outside_and_cuts_what_is_not() -> None:
    outside = crop(bright_boxes(), (40, 0, 60, 40)).target
    assert outside.boxes.shape == (0, 4) and outside.masks == () and len(outside.labels) == 0
    cut = crop(bright_boxes(), (20, 10, 60, 40))
    assert cut.target.boxes.tolist() == [[0, 0, 16, 10]] * 2
    bitmap = cut.target.masks[1]
    assert isinstance(bitmap, Bitmap)
    assert bitmap.box == (0, 0, 16, 10) and bitmap.pixels.shape == (10, 16)


def test_cropping_draws_the_box_tight_around_what_is_left_of_a_bitmap() -> None:
    pixels = np.zeros((12, 24), np.uint8)
    pixels[2:4, :10] = 1
    pixels[:, 20:] = 1
    sample = bright_boxes()
    mask = Bitmap(pixels, (12.0, 8.0, 36.0, 20.0))
    target = Target(sample.target.boxes[:1], sample.target.labels[:1], (mask,))
    cut = crop(Sample(sample.image, target, 3, (40, 60)), (0, 0, 30, 40)).target
    assert cut.boxes.tolist() == [[12, 10, 22, 12]]
    gone = crop(Sample(sample.image, target, 3, (40, 60)), (24, 13, 30, 40)).target
    assert len(gone.boxes) == len(gone.masks) == 0


def test_cropping_cuts_polygons_and_drops_those_of_which_only_the_box_is_inside() -> None:
    triangle = np.array([[10.0, 10], [30, 10], [10, 30]])
    sample = bright_boxes()
    target = Target(
        torch.tensor([[10.0, 10, 30, 30]]), sample.target.labels[:1], (Polygons((triangle,)),)
    )
    sample = Sample(sample.image, target, 3, (40, 60))
    cut = crop(sample, (0, 0, 20, 40)).target
    assert cut.boxes.tolist() == [[10, 10, 20, 30]]
    (mask,) = cut.masks
    assert isinstance(mask, Polygons)
    corners = {tuple(point) for point in mask.rings[0].tolist()}
    assert corners == {(10, 10), (20, 10), (20, 20), (10, 30)}
    assert len(crop(sample, (22, 22, 60, 40)).target.boxes) == 0
    whole = crop(sample, (0, 0, 60, 40)).target
    assert torch.equal(whole.boxes, target.boxes)


def pixels_inside(rings: tuple[np.ndarray, ...], size: int) -> np.ndarray:
    """Which pixel centres of a square lie inside the rings, by counting edges to their right."""
    y, x = np.mgrid[:size, :size] + 0.5
    inside = np.zeros((size, size), dtype=bool)
    for ring in rings:
        for (x1, y1), (x2, y2) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
            if y1 != y2:
                spans = (y1 > y) != (y2 > y)
                inside ^= spans & (x < x1 + (y - y1) / (y2 - y1) * (x2 - x1))
    return inside


@given(st.integers(0, 2**32 - 1))
def test_a_cut_polygon_covers_what_the_whole_one_covers_inside(seed: int) -> None:
    generator = np.random.default_rng(seed)
    ring = generator.uniform(-20, 52, (generator.integers(3, 9), 2))
    part = cut_mask(Polygons((ring,)), (32, 32))
    seen = pixels_inside((ring,), 32)
    if part is None:
        assert not seen.any()
        return
    mask, (x1, y1, x2, y2) = part
    assert isinstance(mask, Polygons)
    assert np.array_equal(pixels_inside(mask.rings, 32), seen)
    assert 0 <= x1 < x2 <= 32 and 0 <= y1 < y2 <= 32


def test_boxes_without_masks_are_clipped() -> None:
    sample = bright_boxes()
    boxes_only = Target(sample.target.boxes, sample.target.labels)
    cut = crop(Sample(sample.image, boxes_only, 3, (40, 60)), (20, 10, 60, 40)).target
    assert cut.boxes.tolist() == [[0, 0, 16, 10]] * 2 and cut.masks == ()


def test_cropping_drops_slivers_but_not_small_objects() -> None:
    sample = bright_boxes()
    boxes = torch.tensor([[12.0, 8, 36, 20], [30.0, 10, 30.5, 11]])
    sample = Sample(sample.image, Target(boxes, torch.tensor([1, 2])), 3, (40, 60))
    assert len(crop(sample, (35, 0, 60, 40)).target.boxes) == 1
    moved = Target(boxes - 0.5, sample.target.labels)
    sliver = crop(Sample(sample.image, moved, 3, (40, 60)), (35, 0, 60, 40)).target
    assert len(sliver.boxes) == 0
    assert crop(sample, (28, 0, 60, 40)).target.labels.tolist() == [1, 2]


def test_random_crops_lie_inside_and_differ() -> None:
    shapes, sums = set(), set()
    for seed in range(20):
        cut = random_crop(bright_boxes(), 30, np.random.default_rng(seed))
        shapes.add(tuple(cut.image.shape))
        sums.add(int(cut.image.sum()))
    assert shapes == {(3, 30, 30)} and len(sums) > 5
    whole = random_crop(bright_boxes(), 50, np.random.default_rng(0))
    assert whole.image.shape == (3, 40, 50)


def test_colour_jitter_scales_light_and_leaves_the_target() -> None:
    sample = bright_boxes()
    generator = np.random.default_rng(0)
    factor = np.random.default_rng(0).uniform(0.5, 1.5)
    lit = jitter_colour(sample, 0.5, 0, 0, generator)
    assert int(lit.image.max()) == min(round(240 * factor), 255)
    assert lit.target is sample.target
    unchanged = jitter_colour(sample, 0, 0, 0, generator)
    assert torch.equal(unchanged.image, sample.image)


def test_contrast_keeps_the_mean_and_saturation_keeps_greys() -> None:
    sample = bright_boxes()
    assert torch.equal(
        jitter_colour(sample, 0, 0, 0.9, np.random.default_rng(1)).image, sample.image
    )
    flat = jitter_colour(sample, 0, 0.5, 0, np.random.default_rng(3)).image.float()
    assert flat.std() != sample.image.float().std()


def test_training_transform_is_a_function_of_image_and_generator() -> None:
    transform = TrainTransform(
        short_edges=(20, 30, 40), long_edge=70, flip=0.5, vertical_flip=0.5, crop=35, brightness=0.2
    )
    seen = set()
    for seed in range(12):
        first, second = (transform(bright_boxes(), np.random.default_rng(seed)) for _ in range(2))
        assert torch.equal(first.image, second.image)
        assert torch.equal(first.target.boxes, second.target.boxes)
        seen.add((first.image.shape, int(first.image.sum())))
    assert len(seen) > 6


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_flip_probability_is_kept(flip: float) -> None:
    transform = TrainTransform(short_edges=[40], long_edge=60, flip=flip)
    for seed in range(5):
        x1 = transform(bright_boxes(), np.random.default_rng(seed)).target.boxes[0, 0]
        assert x1 == (24 if flip else 12)


def test_evaluation_resizes_to_an_edge_or_by_a_factor() -> None:
    assert EvalTransform(20, 1000)(bright_boxes()).image.shape == (3, 20, 30)
    assert EvalTransform(None, scale=2.0)(bright_boxes()).image.shape == (3, 80, 120)
    assert EvalTransform(None, 60, scale=2.0)(bright_boxes()).image.shape == (3, 40, 60)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"short_edges": []}, "data.train_transform.short_edges"),
        ({"short_edges": 800}, "data.train_transform.short_edges=800"),
        ({"short_edges": [0]}, "data.train_transform.short_edges=0"),
        ({"long_edge": 0}, "data.train_transform.long_edge=0"),
        ({"crop": 0}, "data.train_transform.crop=0"),
        ({"flip": 1.5}, "data.train_transform.flip=1.5"),
        ({"brightness": -1}, "data.train_transform.brightness=-1"),
    ],
)
def test_bad_settings_are_refused_by_name(settings: dict, named: str) -> None:
    with pytest.raises(InputError) as caught:
        TrainTransform(**{"short_edges": [40], "long_edge": 60, **settings})
    assert str(caught.value).startswith(named) and "give" in str(caught.value)
    with pytest.raises(InputError, match=r"data\.eval_transform\.scale=0"):
        EvalTransform(None, scale=0)


def with_proposals(*boxes: list[float]) -> Sample:
    """`bright_boxes` with its own rectangle as the best proposal, then `boxes`."""
    sample = bright_boxes()
    proposals = torch.tensor([sample.target.boxes[0].tolist(), *boxes], dtype=torch.float32)
    return replace(sample, proposals=proposals)


@pytest.mark.parametrize(
    "move",
    [
        horizontal_flip,
        vertical_flip,
        lambda s: resize(s, (80, 90)),
        lambda s: horizontal_flip(resize(vertical_flip(s), (100, 77))),
        lambda s: crop(s, (5, 3, 50, 30)),
        lambda s: vertical_flip(crop(resize(s, (60, 120)), (10, 7, 100, 50))),
        lambda s: EvalTransform(short_edge=33)(s),
        lambda s: TrainTransform(short_edges=[30, 50], long_edge=90)(s, np.random.default_rng(3)),
    ],
)
def test_proposals_go_where_the_boxes_of_the_target_go(move: Callable[[Sample], Sample]) -> None:
    moved = move(with_proposals([13.5, 9, 20, 16.25]))
    assert moved.proposals is not None and moved.proposals.dtype == torch.float32
    assert torch.equal(moved.proposals[0], moved.target.boxes[0])
    x1, y1, x2, y2 = moved.proposals[1].tolist()
    assert 0 <= x1 < x2 <= moved.image.shape[2] and 0 <= y1 < y2 <= moved.image.shape[1]
    assert move(bright_boxes()).proposals is None


def test_cropping_clips_proposals_drops_the_empty_and_keeps_the_order() -> None:
    sample = with_proposals([0, 0, 10, 40], [0, 0, 60, 40], [58, 10, 60, 20])
    cut = crop(sample, (20, 10, 50, 40)).proposals
    assert cut is not None
    assert cut.tolist() == [[0, 0, 16, 10], [0, 0, 30, 30]]
    gone = crop(sample, (10, 30, 11, 31)).proposals
    assert gone is not None and gone.tolist() == [[0, 0, 1, 1]]


def test_a_batch_has_proposals_where_its_samples_have() -> None:
    some, none = with_proposals(), bright_boxes()
    empty = replace(none, proposals=torch.zeros(0, 4))
    assert Batch.collate([none, none]).proposals is None
    given = Batch.collate([some, empty]).to("cpu").proposals
    assert given is not None and [p.shape for p in given] == [(1, 4), (0, 4)]
    elsewhere = Batch.collate([some]).to("meta").proposals
    assert elsewhere is not None and elsewhere[0].device.type == "meta"
