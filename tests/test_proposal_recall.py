"""Average recall of proposals, on boxes whose overlaps are known."""

from typing import Any

import pytest
import torch

from judging import proposal_recall as judging
from judging.proposal_recall import best_overlaps
from judging.results import Results


def truth(*boxes: list[float], crowd: tuple[int, ...] = ()) -> dict:
    return {
        "annotations": [
            {"image_id": 1, "bbox": box, "iscrowd": int(i in crowd)} for i, box in enumerate(boxes)
        ]
    }


def proposal(box: list[float], score: float, image: int = 1) -> dict:
    return {"image_id": image, "category_id": 1, "bbox": box, "score": score}


def proposal_recall(objects: dict, proposals: list[Any]) -> dict[str, float]:
    return judging.proposal_recall(objects, Results.from_entries(proposals))


def test_a_perfect_proposal_is_reached_at_every_threshold() -> None:
    found = proposal_recall(truth([0, 0, 10, 10]), [proposal([0, 0, 10, 10], 0.5)])
    assert found == {"proposals/AR100": 100.0, "proposals/AR1000": 100.0}


def test_recall_averages_over_thresholds_and_objects() -> None:
    # IoU 0.72: reached at .50 .55 .60 .65 .70, half of the thresholds; the other object never.
    objects = truth([0, 0, 100, 10], [500, 500, 10, 10])
    found = proposal_recall(objects, [proposal([0, 0, 72, 10], 0.5)])
    assert found["proposals/AR100"] == pytest.approx(25.0)


def test_only_the_best_hundred_count() -> None:
    misses = [proposal([50, 50, 5, 5], 1.0 - i / 1000) for i in range(100)]
    found = proposal_recall(truth([0, 0, 10, 10]), [*misses, proposal([0, 0, 10, 10], 0.01)])
    assert found == {"proposals/AR100": 0.0, "proposals/AR1000": 100.0}


def test_one_proposal_reaches_one_object() -> None:
    twice = truth([0, 0, 10, 10], [0, 0, 10, 10])
    assert proposal_recall(twice, [proposal([0, 0, 10, 10], 1.0)])["proposals/AR100"] == 50.0


def test_crowd_regions_and_other_images_do_not_count() -> None:
    objects = truth([0, 0, 10, 10], [0, 0, 90, 90], crowd=(1,))
    assert proposal_recall(objects, [proposal([0, 0, 10, 10], 1.0)])["proposals/AR100"] == 100.0
    assert proposal_recall(objects, [proposal([0, 0, 10, 10], 1.0, 2)])["proposals/AR100"] == 0.0
    assert proposal_recall(truth(), [])["proposals/AR100"] == 0.0


def test_the_pair_of_the_largest_iou_is_taken_first() -> None:
    overlaps = torch.tensor([[0.9, 0.8], [0.85, 0.1]])
    assert best_overlaps(overlaps).tolist() == pytest.approx([0.9, 0.1])
