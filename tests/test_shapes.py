"""The embedded data set: the same bytes for the same settings, and truthful annotations."""

import json
import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data import shapes
from data import shapes as drawing
from data.coco import CocoDataset
from data.shapes import OUTLINES, draw_image, prepare_shapes, shapes_data
from data.splits import check_images
from ops.errors import InputError
from ops.structures import Bitmap

SETTINGS: dict[str, Any] = {
    "train_images": 12,
    "val_images": 3,
    "image_size": 64,
    "objects_min": 2,
    "objects_max": 5,
    "radius_min": 6,
    "radius_max": 20,
    "seed": 0,
}


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_the_same_settings_give_the_same_bytes_and_others_do_not(tmp_path: Path) -> None:
    first = prepare_shapes(tmp_path / "a", **SETTINGS)
    second = prepare_shapes(tmp_path / "b", **SETTINGS)
    other = prepare_shapes(tmp_path / "a", **{**SETTINGS, "seed": 1})
    assert first.name == second.name != other.name
    assert contents(first) == contents(second) != contents(other)
    assert len(contents(first)) == 12 + 3 + 2 + 1
    assert [path.name for path in (tmp_path / "b").iterdir()] == [second.name]


def test_it_is_drawn_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = prepare_shapes(tmp_path, **SETTINGS)
    monkeypatch.setattr(shapes, "draw_image", None)
    assert prepare_shapes(tmp_path, **SETTINGS) == folder


def test_the_first_images_do_not_depend_on_how_many_there_are(tmp_path: Path) -> None:
    few = prepare_shapes(tmp_path, **{**SETTINGS, "train_images": 2})
    many = prepare_shapes(tmp_path, **SETTINGS)
    assert contents(few / "train").items() <= contents(many / "train").items()


def test_training_and_validation_share_no_image(tmp_path: Path) -> None:
    folder = prepare_shapes(tmp_path, **SETTINGS)
    train, val = contents(folder / "train").values(), contents(folder / "val").values()
    assert len({*train, *val}) == 15


def test_processes_that_race_leave_one_whole_data_set(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    racers = [
        context.Process(target=prepare_shapes, args=(tmp_path,), kwargs=SETTINGS) for _ in range(3)
    ]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert [racer.exitcode for racer in racers] == [0, 0, 0]
    (folder,) = tmp_path.iterdir()
    assert contents(folder) == contents(prepare_shapes(tmp_path / "alone", **SETTINGS))


def test_an_interrupted_drawing_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(shapes, "draw_image", interrupt)
    with pytest.raises(KeyboardInterrupt):
        prepare_shapes(tmp_path, **SETTINGS)
    assert list(tmp_path.iterdir()) == []


def test_without_a_root_the_cache_is_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = prepare_shapes(None, **{**SETTINGS, "train_images": 1, "val_images": 1})
    assert folder.parent == tmp_path / "roi-poolers"


def test_it_is_read_back_by_the_coco_reader(tmp_path: Path) -> None:
    splits = shapes_data(
        root=tmp_path,
        train_transform={"short_edges": [64], "long_edge": 64},
        eval_transform={"short_edge": 64},
        **SETTINGS,
    )
    assert [c.name for c in splits.train.categories] == list(OUTLINES)
    assert splits.train.categories == splits.val.categories
    assert (len(splits.train), len(splits.val)) == (12, 3)
    assert splits.train.problems.count() == 0
    check_images(splits.train)
    for index in range(12):
        target = splits.train.read(index).target
        for box, mask in zip(target.boxes.tolist(), target.masks, strict=True):
            assert isinstance(mask, Bitmap)
            assert mask.box == tuple(box)
            assert mask.pixels.any(axis=0)[[0, -1]].all()


def test_visible_parts_do_not_overlap_and_are_large_enough() -> None:
    left_out = 0
    for seed in range(30):
        pixels, labels, masks = draw_image(64, (6, 9), (6, 20), np.random.default_rng(seed))
        assert pixels.shape == (64, 64, 3) and pixels.dtype == np.uint8
        assert np.sum(masks, axis=0).max() == 1
        assert min(mask.sum() for mask in masks) >= drawing.MIN_PIXELS
        left_out += len(labels) < 6
    assert left_out > 0  # some were hidden too much


def test_objects_differ_from_the_ground_around_them() -> None:
    differences = []
    for seed in range(20):
        pixels, _, masks = draw_image(64, (2, 5), (6, 20), np.random.default_rng(seed))
        ground = ~np.any(masks, axis=0)
        for mask in masks:
            differences.append(np.abs(pixels[mask].mean(0) - pixels[ground].mean(0)).max())
    assert min(differences) > 15 and np.median(differences) > 60


def test_every_class_occurs_and_outlines_stay_in_the_unit_circle(tmp_path: Path) -> None:
    folder = prepare_shapes(tmp_path, **{**SETTINGS, "train_images": 60})
    dataset = CocoDataset(
        annotations=folder / "annotations/instances_train.json", images=folder / "train"
    )
    assert (dataset.objects_by_label > 10).all()
    generator = np.random.default_rng(0)
    for outline in OUTLINES.values():
        radii = np.linalg.norm(outline(generator), axis=1)
        assert 0.9 < radii.max() <= 1 + 1e-9


def test_settings_are_kept_beside_the_images(tmp_path: Path) -> None:
    folder = prepare_shapes(tmp_path, **SETTINGS)
    assert SETTINGS.items() <= json.loads((folder / "settings.json").read_text()).items()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"train_images": 0}, "data.train_images=0"),
        ({"objects_max": 1}, "data.objects_max=1"),
        ({"radius_min": 30}, "data.radius_min=30"),
        ({"image_size": 8}, "data.image_size=8"),
    ],
)
def test_bad_settings_are_refused_by_name(
    tmp_path: Path, change: dict[str, int], named: str
) -> None:
    with pytest.raises(InputError) as caught:
        prepare_shapes(tmp_path, **{**SETTINGS, **change})
    assert str(caught.value).startswith(named) and "\n" not in str(caught.value)


def test_a_cache_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write the data set there .*data\.root"):
        prepare_shapes(tmp_path / "file", **SETTINGS)
