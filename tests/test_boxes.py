"""Overlap, deltas, clipping and rescaling of boxes: known answers, inverses and invariances."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import box_iou

from ops.boxes import area, clip, decode, encode, iou, is_nonempty, rescale, with_image_index
from ops.structures import Detections

UNIT = (1.0, 1.0, 1.0, 1.0)
CASCADE_ORDER = (5.0, 5.0, 10.0, 10.0)
SECOND_STAGE = (10.0, 10.0, 5.0, 5.0)

corner = st.floats(-200, 200, width=32)
length = st.floats(1, 300, width=32)
box = st.tuples(corner, corner, length, length).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)
some_boxes = st.lists(box, min_size=1, max_size=6).map(torch.tensor)


def test_area_is_width_times_height_without_a_pixel_more() -> None:
    assert area(torch.tensor([[1.0, 2.0, 4.0, 6.0], [5.0, 5.0, 5.0, 9.0]])).tolist() == [12, 0]


def test_iou_of_boxes_that_can_be_counted() -> None:
    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
    others = torch.tensor(
        [
            [0.0, 0.0, 2.0, 2.0],  # itself
            [1.0, 1.0, 3.0, 3.0],  # one cell of seven
            [2.0, 0.0, 4.0, 2.0],  # touching
            [0.0, 0.0, 1.0, 2.0],  # its half
            [9.0, 9.0, 9.0, 9.0],  # nothing
        ]
    )
    assert torch.allclose(iou(boxes, others), torch.tensor([[1, 1 / 7, 0, 0.5, 0]]))


def test_iou_with_nothing_has_no_pairs() -> None:
    assert iou(torch.zeros(0, 4), torch.ones(3, 4)).shape == (0, 3)
    assert iou(torch.ones(3, 4), torch.zeros(0, 4)).shape == (3, 0)


def test_iou_of_two_empty_boxes_is_zero_not_undefined() -> None:
    point = torch.tensor([[3.0, 3.0, 3.0, 3.0]])
    assert iou(point, point).tolist() == [[0.0]]


@given(some_boxes, some_boxes)
@settings(deadline=None)
def test_iou_agrees_with_torchvision_and_is_symmetric(boxes: Tensor, others: Tensor) -> None:
    overlap = iou(boxes, others)
    assert torch.allclose(overlap, box_iou(boxes, others), atol=1e-6)
    assert torch.equal(overlap, iou(others, boxes).T)
    assert ((overlap >= 0) & (overlap <= 1 + 1e-6)).all()


def test_iou_leaves_its_arguments_alone() -> None:
    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
    before = boxes.clone()
    iou(boxes, boxes)
    assert torch.equal(boxes, before)


def test_deltas_of_a_box_that_can_be_computed_by_hand() -> None:
    anchor = torch.tensor([[0.0, 0.0, 10.0, 20.0]])
    truth = torch.tensor([[5.0, 10.0, 25.0, 20.0]])  # centre (15, 15), 20 x 10
    expected = torch.tensor([[1.0, 0.25, math.log(2), math.log(0.5)]])
    assert torch.allclose(encode(truth, anchor, UNIT), expected)
    assert torch.allclose(
        encode(truth, anchor, SECOND_STAGE), expected * torch.tensor(SECOND_STAGE)
    )


@pytest.mark.parametrize("weights", [UNIT, CASCADE_ORDER, SECOND_STAGE])
@given(pairs=st.lists(st.tuples(box, box), min_size=1, max_size=6))
@settings(deadline=None, max_examples=40)
def test_decoding_undoes_encoding(
    weights: tuple[float, float, float, float],
    pairs: list[tuple[tuple[float, ...], tuple[float, ...]]],
) -> None:
    anchors = torch.tensor([anchor for anchor, _ in pairs])
    # Within the factor of 62.5 that one step may grow a box by.
    boxes = torch.tensor([truth for _, truth in pairs])
    size = anchors[:, 2:] - anchors[:, :2]
    boxes[:, 2:] = torch.minimum(boxes[:, 2:], boxes[:, :2] + 60 * size)
    recovered = decode(encode(boxes, anchors, weights), anchors, weights)
    assert torch.allclose(recovered, boxes, rtol=1e-4, atol=1e-2)


def test_no_deltas_give_the_anchor_for_each_of_several_classes() -> None:
    anchors = torch.tensor([[1.0, 2.0, 4.0, 9.0], [0.0, 0.0, 8.0, 8.0]])
    assert torch.equal(decode(torch.zeros(2, 12), anchors, SECOND_STAGE), anchors.repeat(1, 3))


def test_classes_are_decoded_each_with_its_own_deltas() -> None:
    anchor = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    deltas = torch.tensor([[0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]])
    assert decode(deltas, anchor, UNIT).tolist() == [[0, 0, 10, 10, 10, 0, 20, 10]]


def test_growth_in_one_step_is_limited() -> None:
    anchor = torch.tensor([[0.0, 0.0, 16.0, 16.0]])
    x1, y1, x2, y2 = decode(torch.tensor([[0.0, 0.0, 1e4, 1e4]]), anchor, UNIT)[0].tolist()
    assert x2 - x1 == pytest.approx(1000, rel=1e-5)
    assert y2 - y1 == pytest.approx(1000, rel=1e-5)


def test_half_precision_deltas_are_decoded_in_float32() -> None:
    anchors = torch.tensor([[1000.0, 1000.0, 1001.0, 1001.0]])
    decoded = decode(torch.zeros(1, 4, dtype=torch.bfloat16), anchors, UNIT)
    assert decoded.dtype == torch.float32
    assert torch.equal(decoded, anchors)


def test_clipping_cuts_at_the_images_edges() -> None:
    boxes = torch.tensor([[-5.0, -6.0, 500.0, 600.0], [3.0, 4.0, 5.0, 6.0], [70.0, 0.0, 80.0, 9.0]])
    clipped = clip(boxes, (40, 60))  # height, width
    assert clipped.tolist() == [[0, 0, 60, 40], [3, 4, 5, 6], [60, 0, 60, 9]]
    assert is_nonempty(clipped).tolist() == [True, True, False]


def test_clipping_keeps_further_dimensions() -> None:
    boxes = torch.full((2, 3, 4), 99.0)
    assert clip(boxes, (10, 20)).tolist() == [[[20, 10, 20, 10]] * 3] * 2


def test_rois_carry_the_index_of_their_image() -> None:
    boxes = [torch.ones(2, 4), torch.zeros(0, 4), 2 * torch.ones(1, 4)]
    assert with_image_index(boxes).tolist() == [[0, 1, 1, 1, 1], [0, 1, 1, 1, 1], [2, 2, 2, 2, 2]]
    assert with_image_index([torch.zeros(0, 4)]).shape == (0, 5)


def _detections(boxes: list[list[float]], *, masks: bool = True) -> Detections:
    count = len(boxes)
    return Detections(
        boxes=torch.tensor(boxes).reshape(-1, 4),
        scores=torch.arange(count, 0, -1).float() / 10,
        labels=torch.arange(count),
        masks=torch.rand(count, 14, 14) if masks else None,
    )


def test_rescaling_stretches_each_axis_and_clips() -> None:
    found = _detections([[10.0, 10.0, 20.0, 30.0], [90.0, 0.0, 140.0, 50.0]])
    scaled = rescale(found, (50, 100), (100, 50))
    assert scaled.boxes.tolist() == [[5, 20, 10, 60], [45, 0, 50, 100]]
    assert scaled.masks is found.masks or torch.equal(scaled.masks, found.masks)


def test_rescaling_drops_what_vanishes_with_all_that_belongs_to_it() -> None:
    found = _detections([[0.0, 0.0, 9.0, 9.0], [30.0, 0.0, 40.0, 9.0], [1.0, 1.0, 5.0, 5.0]])
    scaled = rescale(found, (20, 20), (20, 20))
    assert scaled.labels.tolist() == [0, 2]
    assert torch.allclose(scaled.scores, found.scores[[0, 2]])
    assert torch.equal(scaled.masks, found.masks[[0, 2]])


def test_rescaling_nothing_gives_nothing() -> None:
    assert len(rescale(_detections([], masks=False), (5, 5), (9, 9))) == 0


@given(some_boxes, st.integers(10, 400), st.integers(10, 400))
@settings(deadline=None, max_examples=40)
def test_rescaling_there_and_back_is_the_clipped_box(
    boxes: Tensor, height: int, width: int
) -> None:
    inside = clip(boxes, (300, 300))
    inside = inside[(inside[:, 2:] - inside[:, :2]).min(dim=1).values > 1]
    found = Detections(inside, torch.ones(len(inside)), torch.zeros(len(inside)).long())
    back = rescale(rescale(found, (300, 300), (height, width)), (height, width), (300, 300))
    assert torch.allclose(back.boxes, inside, atol=1e-2)
