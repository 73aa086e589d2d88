"""A data set as the network receives it, on files or on a page."""

import json
import re
from pathlib import Path
from typing import Any

import cv2
import four_images
import numpy as np
import pytest
import torch
from short_runs import composed

from data.coco import CocoDataset
from data.loader import train_loader
from data.transforms import EvalTransform, TrainTransform
from drawing.visualize import class_colours, draw_target
from ops.errors import InputError
from ops.structures import Polygons, Target
from scripts.browse import mask_resolution
from scripts.gallery.views import View, choose, view

KEEP = EvalTransform(short_edge=360)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four images: polygons, RLE of both kinds, a crowd beside an object, and nothing."""
    folder = tmp_path_factory.mktemp("coco")
    four_images.write(folder)
    return folder


@pytest.fixture(scope="module")
def dataset(root: Path) -> CocoDataset:
    return CocoDataset(annotations=root / "all.json", images=root / "images")


def seen(
    dataset: CocoDataset, index: int, transform: Any = KEEP, *, epoch: int = 0, m: int = 28
) -> View:
    return view(dataset, index, transform, seed=0, epoch=epoch, mask_resolution=m)


def test_an_image_is_the_one_that_training_gets(dataset: CocoDataset) -> None:
    transform = TrainTransform(
        short_edges=[340, 360, 420], long_edge=800, flip=0.5, crop=350, brightness=0.4
    )
    batches = train_loader(dataset, transform, batch_size=1, seed=0, workers=0)
    empty = dataset.image_ids.index(4)
    sizes = set()
    for epoch in range(3):  # an epoch is every image once
        samples = [next(batches).samples[0] for _ in range(len(dataset))]
        sample = next(sample for sample in samples if sample.image_id == 4)
        shown = seen(dataset, empty, transform, epoch=epoch)
        assert (shown.picture == sample.image.permute(1, 2, 0).numpy()).all()
        sizes.add(shown.size)
    assert len(sizes) > 1


def test_an_image_without_objects_is_shown_bare(dataset: CocoDataset) -> None:
    shown = seen(dataset, 3)
    assert shown.objects == () and shown.crowds == 0 and not shown.sizes
    assert (shown.picture == dataset.read(3).image.permute(1, 2, 0).numpy()).all()


@pytest.mark.parametrize(
    ("index", "inside", "outside"), [(0, (175, 200), (290, 200)), (1, (90, 110), (140, 110))]
)
def test_outlines_of_every_kind_are_filled(
    dataset: CocoDataset, index: int, inside: tuple[int, int], outside: tuple[int, int]
) -> None:
    shown = seen(dataset, index)
    plain = dataset.read(index).image.permute(1, 2, 0).numpy()
    colour = class_colours(four_images.NAMES)[1 if index == 0 else 0]
    mixed = 0.65 * plain[inside] + 0.35 * np.array(colour)
    assert shown.picture[inside] == pytest.approx(mixed, abs=1)
    assert (shown.picture[outside] == plain[outside]).all()


def test_masks_are_shown_at_the_resolution_that_is_learned() -> None:
    """A triangle fills its half of the box; at 2 x 2 cells, a cell more or less."""
    ring = np.array([[50.0, 50.0], [350.0, 350.0], [50.0, 350.0]])
    target = Target(
        torch.tensor([[50.0, 50.0, 350.0, 350.0]]), torch.tensor([0]), (Polygons((ring,)),)
    )
    blank = np.zeros((400, 400, 3), np.uint8)
    fine, coarse = (
        draw_target(blank, target, ["x"], resolution=m).any(axis=2)[60:340, 60:340] for m in (56, 2)
    )
    rows, columns = np.indices(fine.shape)
    far = abs(rows - columns) > 15
    assert (fine == (rows > columns))[far].all()
    assert (coarse != (rows > columns))[far].sum() > 2000


def test_the_masks_resolution_is_that_of_the_network(root: Path) -> None:
    for more, expected in (
        (("backbone=resnet50", "stride=16"), 14),
        (("backbone=resnet50", "stride=32"), 28),
        (("backbone=vgg16", "stride=16"), 28),
    ):
        assert (
            mask_resolution(composed(*four_images.words(root, *more), config="browse"), 2)
            == expected
        )


def _hatched(picture: np.ndarray, area: np.ndarray) -> bool:
    """Whether dark stripes and stripes of the cat's colour take turns in an area."""
    dark = (area.max(axis=2) < 40).mean()
    bright = (abs(area.astype(int) - class_colours(four_images.NAMES)[0]).max(axis=2) < 3).mean()
    bare = ((area >= 90) & (area < 110)).all(axis=2).mean()
    return 0.1 < dark < 0.4 and 0.1 < bright < 0.4 and 0.4 < bare < 0.8


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_a_crowd_is_hatched_where_it_lies_and_is_no_object(
    dataset: CocoDataset, flip: float
) -> None:
    shown = seen(dataset, 2, TrainTransform(short_edges=[360], long_edge=800, flip=flip))
    picture = shown.picture[:, ::-1] if flip else shown.picture
    assert _hatched(picture, picture[80:190, 20:120])
    assert not _hatched(picture, picture[230:290, 210:250])  # the object
    assert not _hatched(picture, picture[210:390, 10:190])  # nothing
    assert (shown.objects, shown.crowds) == (("cat",), 1)


def test_boxes_alone_are_shown_where_masks_are_not_read(root: Path) -> None:
    boxes = CocoDataset(annotations=root / "all.json", images=root / "images", masks=False)
    picture = seen(boxes, 2).picture
    plain = boxes.read(2).image.permute(1, 2, 0).numpy()
    assert (picture[80:190, 20:120] == plain[80:190, 20:120]).all()
    assert (picture[39:42, 60:120] != plain[39:42, 60:120]).any()


def test_the_files_are_pictures_plots_and_figures(root: Path, tmp_path: Path) -> None:
    folder = four_images.browsed(root, "split=val", f"output={tmp_path / 'out'}")
    assert sorted(path.name for path in folder.iterdir()) == [
        *(f"{image:012d}.jpg" for image in range(1, 5)),
        "categories.png",
        "objects_per_image.png",
        "sizes.png",
        "statistics.json",
    ]
    assert cv2.imread(str(folder / "000000000001.jpg")).shape == (*four_images.SIZE, 3)
    assert json.loads((folder / "statistics.json").read_text())["objects"] == 4


def test_training_leaves_images_without_objects_out_unless_told(root: Path, tmp_path: Path) -> None:
    word = ("ids=[4]", f"output={tmp_path}")
    with pytest.raises(InputError, match="left out of training"):
        four_images.browsed(root, *word)
    four_images.browsed(root, "data.keep_empty=true", *word)
    assert (tmp_path / "000000000004.jpg").is_file()


def test_images_can_be_chosen(dataset: CocoDataset) -> None:
    every = {"count": 9, "only": None, "ids": None}
    assert choose(dataset, **every) == [0, 1, 2, 3]
    assert choose(dataset, **{**every, "count": 2}) == [0, 3]
    assert choose(dataset, **{**every, "only": "crowd"}) == [2]
    assert choose(dataset, **{**every, "only": "empty"}) == [3]
    assert choose(dataset, **{**every, "ids": [3, 1]}) == [2, 0]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("split=test", "split=test: unknown"),
        ("only=large", "only=large: unknown"),
        ("count=0", "count=0: give 1 or more"),
        ("ids=[1,77]", "ids=77: no image"),
        ("only=empty", "data.keep_empty=true"),
    ],
)
def test_a_setting_without_sense_is_refused(root: Path, word: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        four_images.browsed(root, word)


def test_cocos_crowds_and_microscopys_run_lengths_are_drawn(shared: Path, tmp_path: Path) -> None:
    coco = CocoDataset(
        annotations=shared / "coco-mini/annotations/instances_val2017.json",
        images=shared / "coco-mini/val2017",
    )
    crowd = choose(coco, count=1, only="crowd", ids=None)[0]
    plain = coco.read(crowd).image.permute(1, 2, 0).numpy()
    keep = EvalTransform(short_edge=min(plain.shape[:2]))
    assert (seen(coco, crowd, keep).picture != plain).any(axis=2).mean() > 0.01
    assert seen(coco, crowd, keep).crowds >= 1
    empty = choose(coco, count=1, only="empty", ids=None)[0]
    bare = coco.read(empty).image.permute(1, 2, 0).numpy()
    keep = EvalTransform(short_edge=min(bare.shape[:2]))
    assert (seen(coco, empty, keep).picture == bare).all()
    nuclei = CocoDataset(
        annotations=shared / "nuclei/annotations/instances_val.json", images=shared / "nuclei/val"
    )
    shown = seen(nuclei, 0, EvalTransform(short_edge=None, scale=2.0))
    assert len(shown.objects) == len(nuclei.entry(0).objects) > 0
