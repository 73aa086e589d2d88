"""The order of batches, that it does not depend on processes, and errors in workers."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import small_coco
import torch

from data.coco import CocoDataset
from data.loader import eval_loader, train_loader, training_order
from data.transforms import EvalTransform, TrainTransform
from ops.errors import InputError
from ops.structures import Batch

TRANSFORM = TrainTransform(short_edges=(16, 20, 24), long_edge=64, brightness=0.3)


def make_dataset(folder: Path, tall: int = 5, wide: int = 8) -> CocoDataset:
    """A data set of `tall` images 20 x 30 and `wide` images 30 x 20, each with another grey."""
    content = small_coco.document()
    small_coco.write(folder, content)
    originals = {image["id"]: image for image in content["images"]}
    content["images"] = []
    content["annotations"] = [content["annotations"][0]]
    for id_ in range(1, tall + wide + 1):
        image = originals[2 if id_ <= tall else 5]
        content["images"].append({**image, "id": id_})
    content["annotations"][0]["image_id"] = 1
    return small_coco.read(folder, content)


def take(count: int, dataset: CocoDataset, **options: int) -> list[Batch]:
    chosen = {"batch_size": 3, "seed": 7, "workers": 0, **options}
    return list(itertools.islice(train_loader(dataset, TRANSFORM, **chosen), count))


def assert_same(batch: Batch, expected: Batch) -> None:
    for a, b in zip(batch.samples, expected.samples, strict=True):
        assert a.image_id == b.image_id
        assert torch.equal(a.image, b.image)
        assert torch.equal(a.target.boxes, b.target.boxes)


def test_order_is_a_function_of_the_seed_and_batches_are_of_one_orientation() -> None:
    ratios = np.array([0.5] * 5 + [1.5] * 8)

    def first(seed: int) -> list[tuple[tuple[int, int], ...]]:
        order = training_order(ratios, batch_size=4, seed=seed)
        return list(itertools.islice(order, 13))

    assert first(1) == first(1) != first(2)
    for draws in first(1):
        assert len({ratios[index] > 1 for _, index in draws}) == 1


def test_every_image_is_drawn_equally_often() -> None:
    ratios = np.array([0.5] * 6 + [1.5] * 8)
    order = training_order(ratios, batch_size=2, seed=0)
    draws = list(itertools.chain.from_iterable(itertools.islice(order, 7 * 20)))
    assert sorted(draws) == [(epoch, index) for epoch in range(20) for index in range(14)]
    epochs = [[index for e, index in draws if e == epoch] for epoch in range(20)]
    assert len(set(map(tuple, epochs))) == 20


def test_fewer_images_than_a_batch_still_fill_it() -> None:
    draws = next(training_order(np.array([2.0, 2.0, 2.0]), batch_size=8, seed=0))
    assert [epoch for epoch, _ in draws] == [0, 0, 0, 1, 1, 1, 2, 2]


def test_workers_change_nothing(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path)
    expected = take(6, dataset)
    for expected_batch, batch in zip(expected, take(6, dataset, workers=2), strict=True):
        assert_same(batch, expected_batch)
    assert len({tuple(s.image.shape) for b in expected for s in b.samples}) > 2


def test_the_same_image_is_augmented_differently_in_each_epoch(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, tall=1, wide=0)
    (batch,) = take(1, dataset, batch_size=6)
    assert len({s.image.sum().item() for s in batch.samples}) > 3


def test_a_resumed_run_gets_the_same_batches(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path)
    whole = take(12, dataset)
    for start in (1, 7, 11):
        (resumed,) = take(1, dataset, start=start)
        assert_same(resumed, whole[start])


def test_ranks_share_the_batches_of_a_single_process(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path)
    whole = take(5, dataset, batch_size=4)
    shares = [take(5, dataset, batch_size=2, rank=rank, world_size=2) for rank in (0, 1)]
    for batch, left, right in zip(whole, *shares, strict=True):
        assert_same(batch, Batch(left.samples + right.samples))


@pytest.mark.parametrize(("world_size", "batch_size"), [(1, 1), (2, 1), (3, 4), (20, 2)])
def test_evaluation_sees_each_image_once(tmp_path: Path, world_size: int, batch_size: int) -> None:
    dataset = make_dataset(tmp_path)
    seen = []
    for rank in range(world_size):
        loader = eval_loader(
            dataset, EvalTransform(20), batch_size=batch_size, rank=rank, world_size=world_size
        )
        batches = list(loader)
        assert len(batches) == len(loader)
        assert len(list(loader)) == len(loader)  # it can be iterated again
        seen += [sample.image_id for batch in batches for sample in batch.samples]
    assert seen == dataset.image_ids


def test_evaluation_with_workers_equals_that_without(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path)
    loaders = [eval_loader(dataset, EvalTransform(20), workers=workers) for workers in (0, 2)]
    for _ in range(2):
        for batch, other in zip(*loaders, strict=True):
            assert_same(batch, other)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image_raises_an_error_of_one_line(tmp_path: Path, workers: int) -> None:
    dataset = make_dataset(tmp_path)
    (tmp_path / "images/two.png").write_text("no image")
    loaders = (
        train_loader(dataset, TRANSFORM, batch_size=13, seed=0, workers=workers),
        eval_loader(dataset, EvalTransform(20), workers=workers),
    )
    for loader in loaders:
        with pytest.raises(InputError) as caught:
            list(itertools.islice(loader, 20))
        text = str(caught.value)
        assert "two.png: does not decode" in text and "\n" not in text
