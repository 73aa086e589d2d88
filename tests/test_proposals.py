"""Files of proposals: each image gets what was written for it, and other files are refused."""

import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data import proposals as writing
from data.coco import CocoDataset, Selection
from data.loader import eval_loader, train_loader
from data.proposals import MappedBoxes, Record, WithProposals, open_proposals, write_proposals
from data.transforms import EvalTransform, TrainTransform
from ops.errors import InputError
from tests import small_coco

DETECTOR = "0123abcd"
# Best last, so that what comes out best first was sorted.
BOXES = {
    2: [[0.0, 0, 20, 30], [4, 4, 12, 12.5], [4, 4, 12, 12]],
    5: [[1.5, 2.25, 30, 20], [4, 4, 12, 12]],
}


def record(image_id: int) -> Record:
    boxes = np.array(BOXES[image_id], dtype=np.float32)
    return Record(image_id, boxes, np.linspace(-3, 2, len(boxes), dtype=np.float32))


def dumped(folder: Path, dataset: CocoDataset | None = None) -> Path:
    """A file of proposals of the two images, the later one first."""
    path = folder / "train.safetensors"
    dataset = small_coco.read(folder) if dataset is None else dataset
    write_proposals(path, dataset, map(record, (5, 2)), detector=DETECTOR)
    return path


def refusal(path: Path, dataset: CocoDataset, **options: Any) -> str:
    with pytest.raises(InputError) as error:
        WithProposals(dataset, path, per_image=10, **options)
    text = str(error.value)
    assert text.startswith(str(path)) and "\n" not in text
    return text


def test_each_image_gets_what_was_written_for_it_best_first(tmp_path: Path) -> None:
    dataset = small_coco.read(tmp_path)
    assert dataset.read(0).proposals is None
    dataset = WithProposals(dataset, dumped(tmp_path, dataset), per_image=10, detector=DETECTOR)
    for index, image_id in enumerate((2, 5)):
        found = dataset.read(index).proposals
        assert found is not None and found.dtype == torch.float32
        assert found.tolist() == BOXES[image_id][::-1]
    assert "the 10 best" in dataset.describe() and "not verified" not in dataset.describe()


def test_only_the_best_are_taken(tmp_path: Path) -> None:
    dataset = small_coco.read(tmp_path)
    dataset = WithProposals(dataset, dumped(tmp_path), per_image=1)
    assert [dataset.read(i).proposals.tolist() for i in (0, 1)] == [[[4, 4, 12, 12]]] * 2  # type: ignore[union-attr]


def test_the_file_names_its_detector_and_has_a_digest_per_image(tmp_path: Path) -> None:
    file = open_proposals(dumped(tmp_path))
    assert file.detector == DETECTOR
    assert file.digests is not None and file.digests.shape == (2, 8)


@given(st.lists(st.integers(0, 40), min_size=2, max_size=2), st.integers(0, 50))
@settings(max_examples=20, deadline=None)
def test_any_number_of_proposals_comes_back(
    tmp_path_factory: pytest.TempPathFactory, counts: list[int], per_image: int
) -> None:
    folder = tmp_path_factory.mktemp("any")
    dataset = small_coco.read(folder)
    generator = np.random.default_rng(sum(counts))
    records = []
    for image_id, count in zip((2, 5), counts, strict=True):
        boxes = generator.uniform(0, 9, (count, 4)).astype(np.float32)
        records.append(Record(image_id, boxes, -np.arange(count, dtype=np.float32)))
    path = folder / "a.safetensors"
    write_proposals(path, dataset, iter(records), detector=DETECTOR)
    file = open_proposals(path)
    for index, written in enumerate(records):
        found = file.for_image(written.image_id, dataset.entry(index).digest, per_image)
        assert np.array_equal(found.numpy(), written.boxes[:per_image])


def test_an_image_without_proposals_has_none_of_them(tmp_path: Path) -> None:
    dataset = small_coco.read(tmp_path)
    none = Record(5, np.zeros((0, 4), np.float32), np.zeros(0, np.float32))
    path = tmp_path / "a.safetensors"
    write_proposals(path, dataset, [record(2), none], detector=DETECTOR)
    dataset = WithProposals(dataset, path, per_image=10)
    found = dataset.read(1).proposals
    assert found is not None and found.shape == (0, 4)


def test_boxes_are_read_slice_by_slice_and_not_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = small_coco.read(tmp_path)
    taken: list[slice] = []

    def watched(self: MappedBoxes, rows: slice) -> np.ndarray:
        taken.append(rows)
        return original(self, rows)

    original = MappedBoxes.__getitem__
    monkeypatch.setattr(MappedBoxes, "__getitem__", watched)
    dataset = WithProposals(dataset, dumped(tmp_path), per_image=2)
    assert all(rows.start == rows.stop for rows in taken)  # opening the file reads no box
    taken.clear()
    dataset.read(0)
    dataset.read(1)
    assert taken == [slice(2, 4), slice(0, 2)]  # image 5 was written first


def test_proposals_are_not_copied_into_other_processes(tmp_path: Path) -> None:
    dataset = small_coco.read(tmp_path)
    path = tmp_path / "a.safetensors"
    many = np.tile(np.array([[1.0, 1, 5, 5]], np.float32), (50_000, 1))
    scores = np.zeros(50_000, np.float32)
    write_proposals(path, dataset, [Record(2, many, scores), record(5)], detector=DETECTOR)
    file = open_proposals(path)
    assert len(file.for_image(2, None, 50_000)) == 50_000
    packed = pickle.dumps(file)
    assert len(packed) < 5_000 < path.stat().st_size
    again = pickle.loads(packed).for_image(5, dataset.entry(1).digest, 10)
    assert torch.equal(again, file.for_image(5, dataset.entry(1).digest, 10))


def test_a_part_of_the_data_set_can_be_used(tmp_path: Path) -> None:
    path = dumped(tmp_path)
    content = small_coco.document()
    content["images"] = [i for i in content["images"] if i["id"] == 5]
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] == 5]
    part = small_coco.read(tmp_path, content)
    part = WithProposals(part, path, per_image=10)
    assert part.read(0).proposals.tolist() == BOXES[5][::-1]  # type: ignore[union-attr]
    selected = small_coco.read(tmp_path, select=Selection(count=1))
    selected = WithProposals(selected, path, per_image=10)
    assert selected.read(0).proposals.tolist() == BOXES[2][::-1]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "change",
    [
        lambda image, annotation: annotation.update(bbox=[4, 4, 8, 8.5]),
        lambda image, annotation: annotation.update(category_id=7),
        lambda image, annotation: image.update(height=21),
        lambda image, annotation: image.update(file_name="two.png"),
        lambda image, annotation: annotation.update(image_id=2),
    ],
)
def test_an_image_that_has_changed_is_refused_by_name(
    tmp_path: Path, change: Callable[[dict[str, Any], dict[str, Any]], None]
) -> None:
    path = dumped(tmp_path)
    content = small_coco.document()
    change(content["images"][0], content["annotations"][1])  # image 5 and its annotation
    text = refusal(path, small_coco.read(tmp_path, content))
    assert ("image 5 has changed" in text) != ("image 2 has changed" in text)
    assert "dump_proposals.py" in text


def test_digests_do_not_depend_on_order_and_outlines_of_annotations(tmp_path: Path) -> None:
    content = small_coco.document()
    second = {**content["annotations"][1], "id": 13, "bbox": [5, 5, 6, 6]}
    broken = {**second, "id": 14, "segmentation": [[1, 1, 2, 2]]}  # unusable as an outline
    content["annotations"] += [second, broken]
    whole = small_coco.read(tmp_path, content)
    boxes_alone = small_coco.read(tmp_path, content, masks=False)
    assert whole.problems.count() == 1 and boxes_alone.problems.count() == 0
    content["annotations"].reverse()
    reversed_ = small_coco.read(tmp_path, content)
    digests = [[data.entry(i).digest for i in (0, 1)] for data in (whole, boxes_alone, reversed_)]
    assert digests[0] == digests[1] == digests[2]
    WithProposals(boxes_alone, dumped(tmp_path, whole), per_image=10)


def test_a_missing_image_is_named(tmp_path: Path) -> None:
    path = dumped(tmp_path)
    content = small_coco.document()
    content["images"].append({**content["images"][0], "id": 8})
    text = refusal(path, small_coco.read(tmp_path, content))
    assert "no proposals of 1 of the 3 images" in text and "the first is 8" in text


def test_another_detector_is_refused(tmp_path: Path) -> None:
    path, dataset = dumped(tmp_path), small_coco.read(tmp_path)
    text = refusal(path, dataset, detector="fefe")
    assert DETECTOR in text and "not fefe" in text
    assert dataset.read(0).proposals is None


def test_a_file_that_is_replaced_while_in_use_is_refused(tmp_path: Path) -> None:
    dataset = small_coco.read(tmp_path)
    dataset = WithProposals(dataset, dumped(tmp_path), per_image=10)
    in_worker = pickle.loads(pickle.dumps(dataset))
    write_proposals(tmp_path / "train.safetensors", dataset, map(record, (2, 5)), detector=DETECTOR)
    with pytest.raises(InputError, match=r"train\.safetensors: was replaced while in use"):
        in_worker.read(0)


@pytest.mark.parametrize("share", [0, 4, 9, 60, "half", "all but one"])
def test_a_file_that_was_cut_short_is_refused(tmp_path: Path, share: int | str) -> None:
    path = dumped(tmp_path)
    content = path.read_bytes()
    length = {"half": len(content) // 2, "all but one": len(content) - 1}.get(str(share), share)
    path.write_bytes(content[: int(length)])
    text = refusal(path, small_coco.read(tmp_path))
    assert "is no file of proposals, or is damaged" in text


def test_files_of_other_kinds_are_refused(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    dataset = small_coco.read(tmp_path)
    save_file({"conv1.weight": np.zeros(3, np.float32)}, tmp_path / "weights.safetensors")
    text = refusal(tmp_path / "weights.safetensors", dataset)
    assert "holds no proposals" in text and "conv1.weight" in text
    (tmp_path / "text.txt").write_text("proposals: none\n")
    assert "is no file of proposals" in refusal(tmp_path / "text.txt", dataset)
    assert "no such file" in refusal(tmp_path / "none.safetensors", dataset)
    assert "is a folder" in refusal(tmp_path / "images", dataset)


@pytest.mark.parametrize("spoil", ["offsets", "ids"])
def test_arrays_that_do_not_fit_are_refused(tmp_path: Path, spoil: str) -> None:
    path = dumped(tmp_path)
    content = bytearray(path.read_bytes())
    old, new = {"offsets": ((0, 2, 5), (0, 2, 6)), "ids": ((5, 2), (2, 2))}[spoil]
    packed = struct.pack(f"<{len(old)}q", *old)
    assert content.count(packed) == 1
    path.write_bytes(content.replace(packed, struct.pack(f"<{len(new)}q", *new)))
    text = refusal(path, small_coco.read(tmp_path))
    assert ("offsets do not fit" if spoil == "offsets" else "image 2 occurs twice") in text


def test_a_file_has_the_permissions_of_other_files(tmp_path: Path) -> None:
    path = dumped(tmp_path)
    assert path.stat().st_mode == (tmp_path / "instances.json").stat().st_mode


@pytest.mark.parametrize("image_ids", [(2,), (2, 5, 5), (2, 8), ()])
def test_every_image_is_written_once(tmp_path: Path, image_ids: tuple[int, ...]) -> None:
    dataset = small_coco.read(tmp_path)
    path = tmp_path / "a.safetensors"
    records = [Record(i, np.zeros((1, 4), np.float32), np.zeros(1, np.float32)) for i in image_ids]
    with pytest.raises(ValueError, match="each once"):
        write_proposals(path, dataset, records, detector=DETECTOR)
    assert [p for p in tmp_path.iterdir() if "safetensors" in p.name] == []


def test_the_old_file_stays_until_the_new_one_is_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = dumped(tmp_path)
    before = path.read_bytes()

    def stops_in_the_middle() -> Any:
        yield record(5)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_proposals(path, small_coco.read(tmp_path), stops_in_the_middle(), detector=DETECTOR)

    def fails(arrays: Any, file: Path, metadata: Any) -> None:
        file.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(writing, "save_file", fails)
    with pytest.raises(OSError, match="disk full"):
        dumped(tmp_path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir() if "safetensors" in p.name] == [path.name]


def test_the_same_comes_out_of_any_number_of_workers(tmp_path: Path) -> None:
    dataset = small_coco.read(tmp_path)
    dataset = WithProposals(dataset, dumped(tmp_path), per_image=3)
    transform = TrainTransform(short_edges=[15, 25, 40], long_edge=80, crop=18, vertical_flip=0.5)
    found = []
    for workers in (0, 2):
        batches = train_loader(dataset, transform, batch_size=2, seed=3, workers=workers)
        given = [next(batches).proposals for _ in range(6)]
        given += [b.proposals for b in eval_loader(dataset, EvalTransform(40), workers=workers)]
        found.append([boxes for batch in given for boxes in batch or []])
    assert len(found[0]) == 14
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert found[0][-1].tolist() == [[8, 8, 24, 24], [3, 4.5, 60, 40]]


def test_proposals_of_photographs_stay_on_their_objects(tmp_path: Path, shared: Path) -> None:
    """The truth as proposals, which RPNs without masks may write and networks with masks read."""
    folder = shared / "coco-mini"
    names = {
        "annotations": folder / "annotations/instances_val2017.json",
        "images": folder / "val2017",
    }
    select = Selection(count=12)
    without, dataset = (CocoDataset(**names, masks=m, select=select) for m in (False, True))
    truth = [without.read(index).target.boxes.numpy() for index in range(len(without))]
    path = tmp_path / "val.safetensors"
    records = [
        Record(image_id, boxes, -np.arange(len(boxes), dtype=np.float32))
        for image_id, boxes in zip(without.image_ids, truth, strict=True)
    ]
    write_proposals(path, without, records, detector=DETECTOR)
    dataset = WithProposals(dataset, path, per_image=100, detector=DETECTOR)
    transform = TrainTransform(short_edges=[100, 150], long_edge=200, vertical_flip=0.5)
    batches = train_loader(dataset, transform, batch_size=4, seed=1, workers=0)
    for _ in range(3):
        batch = next(batches)
        assert batch.proposals is not None
        for proposals, target in zip(batch.proposals, batch.targets, strict=True):
            assert len(target.boxes) > 0 and torch.equal(proposals, target.boxes)
