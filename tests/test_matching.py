"""Assignment of ground truth to boxes, and the drawing of those that enter a loss."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.matching import IGNORED, NEGATIVE, POSITIVE, Assignment, match, subsample

# Two ground truths and five boxes.
OVERLAP = torch.tensor(
    [
        [0.9, 0.2, 0.5, 0.3, 0.7],
        [0.1, 0.25, 0.4, 0.0, 0.1],
    ]
)


def _match(overlap: Tensor, *, allow_low_quality: bool) -> Assignment:
    return match(
        overlap, negative_below=0.3, positive_from=0.7, allow_low_quality=allow_low_quality
    )


def test_thresholds_give_the_label_and_the_larger_overlap_the_object() -> None:
    matches = _match(OVERLAP, allow_low_quality=False)
    assert matches.index.tolist() == [0, 1, 0, 0, 0]
    # 0.7 is positive ("from"), 0.3 is ignored (not "below" it).
    assert matches.label.tolist() == [POSITIVE, NEGATIVE, IGNORED, IGNORED, POSITIVE]


def test_the_best_box_of_an_object_without_positives_is_positive() -> None:
    matches = _match(OVERLAP, allow_low_quality=True)
    assert matches.label.tolist() == [POSITIVE, NEGATIVE, POSITIVE, IGNORED, POSITIVE]
    # It is assigned to the object that it overlaps most, which may be another one.
    assert matches.index[2] == 0


def test_equally_good_best_boxes_are_all_positive() -> None:
    overlap = torch.tensor([[0.2, 0.4, 0.4, 0.1]])
    labels = _match(overlap, allow_low_quality=True).label.tolist()
    assert labels == [NEGATIVE, POSITIVE, POSITIVE, NEGATIVE]


def test_one_threshold_leaves_none_ignored() -> None:
    matches = match(OVERLAP, negative_below=0.5, positive_from=0.5, allow_low_quality=False)
    assert matches.label.tolist() == [POSITIVE, NEGATIVE, POSITIVE, NEGATIVE, POSITIVE]


@pytest.mark.parametrize("allow_low_quality", [True, False])
def test_without_ground_truth_all_is_background(allow_low_quality: bool) -> None:
    matches = _match(torch.zeros(0, 4), allow_low_quality=allow_low_quality)
    assert matches.label.tolist() == [NEGATIVE] * 4
    assert matches.index.tolist() == [0] * 4
    assert matches.index.dtype == torch.int64


def test_without_boxes_there_is_nothing_to_match() -> None:
    assert _match(torch.zeros(3, 0), allow_low_quality=False).label.shape == (0,)


def _labels(positives: int, negatives: int, ignored: int) -> Tensor:
    label = torch.tensor([POSITIVE] * positives + [NEGATIVE] * negatives + [IGNORED] * ignored)
    return label[torch.randperm(len(label))].to(torch.int8)


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 5), st.integers(1, 32))
@settings(deadline=None)
def test_numbers_and_labels_of_the_sample(
    positives: int, negatives: int, ignored: int, count: int
) -> None:
    label = _labels(positives, negatives, ignored)
    positive, negative = subsample(label, count=count, positive_fraction=0.25)
    assert len(positive) == min(positives, int(count * 0.25))
    assert len(negative) == min(negatives, count - len(positive))
    assert (label[positive] == POSITIVE).all()
    assert (label[negative] == NEGATIVE).all()
    drawn = torch.cat((positive, negative))
    assert len(drawn.unique()) == len(drawn)


def test_a_seed_gives_the_same_sample_and_another_seed_another() -> None:
    label = _labels(50, 50, 0)

    def sample(seed: int) -> list[int]:
        torch.manual_seed(seed)
        return torch.cat(subsample(label, count=20, positive_fraction=0.5)).tolist()

    assert sample(3) == sample(3) != sample(4)


def test_every_box_can_be_sampled() -> None:
    label = torch.tensor([NEGATIVE] * 8, dtype=torch.int8)
    drawn = {int(subsample(label, count=1, positive_fraction=0.5)[1]) for _ in range(300)}
    assert drawn == set(range(8))
