"""Anchors: detectron2's published example, and the order in which the RPN's outputs meet them."""

import pytest
import torch

from models.anchors import AnchorGenerator

# Sizes 32 and 64, ratios 1/4, 1 and 4, as detectron2's own test states them.
FIRST_CELL = torch.tensor(
    [
        [-32.0, -8.0, 32.0, 8.0],
        [-16.0, -16.0, 16.0, 16.0],
        [-8.0, -32.0, 8.0, 32.0],
        [-64.0, -16.0, 64.0, 16.0],
        [-32.0, -32.0, 32.0, 32.0],
        [-16.0, -64.0, 16.0, 64.0],
    ]
)


def _generator(offset: float = 0.0, stride: int = 4) -> AnchorGenerator:
    return AnchorGenerator(sizes=(32, 64), aspect_ratios=(0.25, 1, 4), stride=stride, offset=offset)


@pytest.mark.parametrize(("offset", "shift"), [(0.0, 0.0), (0.5, 2.0)])
def test_the_example_of_detectron2(offset: float, shift: float) -> None:
    generator = _generator(offset)
    first = FIRST_CELL + shift
    second = first + torch.tensor([4.0, 0.0, 4.0, 0.0])
    assert generator.per_cell == 6
    assert torch.allclose(generator(1, 2), torch.cat((first, second)))


def test_cells_follow_each_other_along_rows() -> None:
    anchors = _generator(stride=16)(3, 5).view(3, 5, 6, 4)
    centres = (anchors[..., :2] + anchors[..., 2:]) / 2
    assert centres[2, 4].tolist() == [[64.0, 32.0]] * 6
    assert torch.equal(anchors[1, 3], FIRST_CELL + torch.tensor([48.0, 16.0, 48.0, 16.0]))


@pytest.mark.parametrize("size", [16, 32, 512])
@pytest.mark.parametrize("ratio", [0.5, 1.0, 2.0])
def test_size_and_ratio_are_those_of_the_settings(size: int, ratio: float) -> None:
    ((x1, y1, x2, y2),) = AnchorGenerator(sizes=[size], aspect_ratios=[ratio], stride=16)(
        1, 1
    ).tolist()
    assert (x2 - x1) * (y2 - y1) == pytest.approx(size**2, rel=1e-5)
    assert (y2 - y1) / (x2 - x1) == pytest.approx(ratio, rel=1e-5)


def test_anchors_are_no_part_of_a_checkpoint() -> None:
    assert _generator().state_dict() == {}


def test_a_map_without_cells_has_no_anchors() -> None:
    assert _generator()(0, 7).shape == (0, 4)
