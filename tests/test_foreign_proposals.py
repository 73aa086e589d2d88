"""Files of proposals of detectron2 and Detectron are read, in all their layouts."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data.loader import eval_loader
from data.proposals import WithProposals
from data.transforms import EvalTransform
from ops.errors import InputError
from tests import small_coco

# In ascending order of scores, as no reader should expect.
TWO = np.array([[0, 0, 20, 30], [4, 4, 12, 12.5], [4, 4, 12, 12]], np.float32)
FIVE = np.array([[1.5, 2.25, 30, 20], [4, 4, 12, 12]], np.float32)


def xywh(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate((boxes[:, :2], boxes[:, 2:] - boxes[:, :2]), axis=1)


def content(**changes: Any) -> dict[str, Any]:
    return {
        "ids": [5, 2],
        "boxes": [FIVE, TWO],
        "objectness_logits": [np.array([-1, 4], np.float32), np.array([-9, 0, 3], np.float32)],
        "bbox_mode": 0,
        **changes,
    }


def written(folder: Path, value: Any, protocol: int = 4) -> Path:
    path = folder / "box_proposals.pkl"
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    return path


def refusal(path: Path, **options: Any) -> str:
    dataset = small_coco.read(path.parent)
    with pytest.raises(InputError) as error:
        WithProposals(dataset, path, per_image=10, **options)
    text = str(error.value)
    assert text.startswith(str(path)) and "\n" not in text
    assert dataset.read(0).proposals is None
    return text


def scores_of() -> list[np.ndarray]:
    return content()["objectness_logits"]


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize(
    "value",
    [
        content(),
        {name: column for name, column in content().items() if name != "bbox_mode"},
        content(bbox_mode=1, boxes=[xywh(FIVE), xywh(TWO)]),
        content(ids=["5", "2"]),
        content(ids=np.array([5, 2])),
        content(boxes=[FIVE.astype(np.float64), TWO.astype(np.float64)]),
        content(ids=[5, 2, 77], boxes=[FIVE, TWO, FIVE], objectness_logits=[*scores_of(), [1, 2]]),
        {"indexes": [5, 2], "boxes": [FIVE, TWO], "scores": scores_of()},
        {
            "ids": [5, 2],
            "boxes": [FIVE, TWO],
            "scores": [scores[:, None] for scores in scores_of()],
            "cfg": "MODEL: {}",
        },
    ],
)
def test_every_layout_gives_the_boxes_best_first(
    tmp_path: Path, value: dict[str, Any], protocol: int
) -> None:
    dataset = small_coco.read(tmp_path)
    dataset = WithProposals(dataset, written(tmp_path, value, protocol), per_image=2)
    for index, boxes in enumerate((TWO, FIVE)):
        found = dataset.read(index).proposals
        assert found is not None and found.dtype == torch.float32
        assert found.tolist() == boxes[::-1][:2].tolist()
    assert "not verified" in dataset.describe()


def test_an_image_may_have_none(tmp_path: Path) -> None:
    dataset = small_coco.read(tmp_path)
    value = content(boxes=[np.zeros((0, 4)), TWO], objectness_logits=[np.zeros(0), scores_of()[1]])
    dataset = WithProposals(dataset, written(tmp_path, value), per_image=10)
    found = dataset.read(1).proposals
    assert found is not None and found.shape == (0, 4)


def test_boxes_a_pixel_outside_are_clipped_and_the_empty_left_out(tmp_path: Path) -> None:
    over = np.array([[-1, -0.5, 31, 21], [30, 3, 31, 5], [7, 3, 7, 5]], np.float32)
    value = content(boxes=[over, TWO], objectness_logits=[np.array([3, 2, 1]), scores_of()[1]])
    dataset = small_coco.read(tmp_path)
    dataset = WithProposals(dataset, written(tmp_path, value), per_image=10)
    found = dataset.read(1).proposals
    assert found is not None and found.tolist() == [[0, 0, 30, 20]]


@pytest.mark.parametrize(
    "box",
    [[0, 0, 31.5, 9], [-1.5, 0, 9, 9], [0, 0, 9, 22], [9, 4, 5, 8], [0, 0, np.nan, 3]],
)
def test_boxes_that_lie_in_no_such_image_are_refused(tmp_path: Path, box: list[float]) -> None:
    boxes = [np.array([FIVE[0], box], np.float32), TWO]
    text = refusal(written(tmp_path, content(boxes=boxes)))
    assert "image 5 is no box" in text and "30 x 20 pixels" in text and "bbox_mode" in text


def test_a_wrong_bbox_mode_is_seen(tmp_path: Path) -> None:
    assert "bbox_mode" in refusal(written(tmp_path, content(bbox_mode=1)))
    relative = refusal(written(tmp_path, content(bbox_mode=2)))
    assert "bbox_mode=2" in relative


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (content(ids=[5]), "1 / 2 / 2 entries of ids / boxes / objectness_logits"),
        (content(ids=["five", 2]), "image 'five'"),
        (content(boxes=[FIVE, TWO[:2]]), r"image 2: boxes (2, 4), scores (3,)"),
        (content(boxes=[FIVE, np.zeros(3)]), r"image 2: boxes (3,), scores (3,)"),
        (content(ids=None), "no list `ids`"),
        ({"model": {}}, "no list `ids`"),
        ([1, 2], "a list"),
        (content(ids=[2, 2]), "image 2 occurs twice"),
        (content(ids=[5, 3]), "no proposals of 1 of the 2 images"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, value: Any, why: str) -> None:
    assert why in refusal(written(tmp_path, value))


class Calls:
    """Pickles as a call of `function`."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pickle_that_would_run_code_is_refused_without_running_it(
    tmp_path: Path, protocol: int
) -> None:
    mark = tmp_path / "ran"
    evil = content(cfg=Calls(os.mkdir, str(mark)))
    text = refusal(written(tmp_path, evil, protocol))
    assert "mkdir" in text and "refused" in text
    assert not mark.exists()


def test_a_pickle_that_was_cut_short_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, content())
    whole = path.read_bytes()
    for length in (0, 1, 5, 30, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert "is no file of proposals, or is damaged" in refusal(path)


def test_a_required_detector_must_be_named_by_the_file(tmp_path: Path) -> None:
    assert "does not name its detector" in refusal(written(tmp_path, content()), detector="0123")


def test_workers_share_what_was_read(tmp_path: Path) -> None:
    dataset = small_coco.read(tmp_path)
    dataset = WithProposals(dataset, written(tmp_path, content()), per_image=10)
    batches = eval_loader(dataset, EvalTransform(None), workers=2)
    found = [boxes for batch in batches for boxes in batch.proposals or []]
    assert [boxes.tolist() for boxes in found] == [TWO[::-1].tolist(), FIVE[::-1].tolist()]
