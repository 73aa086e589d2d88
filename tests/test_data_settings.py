"""Each data set's settings build it, and a wrong setting is refused by its name."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_coco
from hydra.utils import instantiate
from omegaconf import OmegaConf

from data.splits import DataSplits, from_settings
from data.transforms import EvalTransform, TrainTransform
from ops.errors import InputError

CONFIGS = Path(__file__).resolve().parent.parent / "configs/data"
SMALL = {
    "train_annotations": "instances.json",
    "train_folder": "images",
    "val_annotations": "instances.json",
    "val_folder": "images",
}


def build(name: str, **changes: Any) -> DataSplits:
    return instantiate(OmegaConf.merge(OmegaConf.load(CONFIGS / f"{name}.yaml").data, changes))


def test_shapes_builds(tmp_path: Path) -> None:
    data = build("shapes", root=str(tmp_path), train_images=3, val_images=2)
    assert (len(data.train), len(data.val)) == (3, 2)
    sample = data.train_transform(data.train.read(0), np.random.default_rng(0))
    assert sample.image.shape == (3, 128, 128)


@pytest.mark.parametrize("name", ["coco", "nuclei"])
def test_a_data_set_in_coco_s_form_builds(tmp_path: Path, name: str) -> None:
    small_coco.write(tmp_path, small_coco.document())
    data = build(name, root=str(tmp_path), **SMALL)
    assert data.train.image_ids == data.val.image_ids == [2, 5]
    assert isinstance(data.train_transform, TrainTransform)
    assert isinstance(data.eval_transform, EvalTransform)
    assert data.train.read(0).target.masks != ()
    boxes = build(name, root=str(tmp_path), masks=False, **SMALL)
    assert boxes.train.read(0).target.masks == boxes.val.read(0).target.masks == ()


def test_nuclei_are_magnified_alike_in_training_and_evaluation(shared: Path) -> None:
    data = build("nuclei", root=str(shared / "nuclei"))
    for index in range(0, len(data.val), 40):
        height, width = data.val.entry(index).size
        assert data.eval_transform(data.val.read(index)).image.shape == (3, 2 * height, 2 * width)
    scales = []
    for seed in range(12):
        sample = data.train.read(seed)
        image = data.train_transform(sample, np.random.default_rng(seed)).image
        scales.append(min(image.shape[1:]) / 256)
    assert {1.75, 2.0, 2.25} == set(scales)


def test_a_selection_is_used_for_training_and_validation(tmp_path: Path) -> None:
    small_coco.write(tmp_path, small_coco.document())
    select = {"count": 1, "min_objects": 1, "max_objects": 3, "min_area": 32.0}
    data = build("coco", root=str(tmp_path), select=select, val_on_train=True, **SMALL)
    assert data.val is data.train and data.train.image_ids == [2]


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        ("coco", {"select": {"cout": 8}}, ("data.select.cout", "choose among count,")),
        ("coco", {"train_transform": {"flp": 1}}, ("data.train_transform.flp", "flip")),
        ("coco", {"eval_transform": {"edge": 1}}, ("data.eval_transform.edge", "short_edge")),
        ("coco", {"train_transform": {"flip": "x"}}, ("data.train_transform", "correct")),
        ("shapes", {"image_sise": 8}, ("data.image_sise", "image_size")),
    ],
)
def test_a_wrong_setting_is_refused_by_its_name(
    tmp_path: Path, name: str, changes: dict[str, Any], expected: tuple[str, ...]
) -> None:
    small_coco.write(tmp_path, small_coco.document())
    places = SMALL if name == "coco" else {}
    with pytest.raises(Exception, match=r"data\.") as caught:
        build(name, root=str(tmp_path), **places, **changes)
    refusal = caught.value.__cause__  # Hydra wraps what a builder raises
    assert isinstance(refusal, InputError)
    for part in expected:
        assert part in str(refusal)


def test_a_setting_that_is_missing_is_refused() -> None:
    with pytest.raises(InputError, match=r"data\.train_transform: .*'long_edge'"):
        from_settings(TrainTransform, "data.train_transform", {"short_edges": [8]})
