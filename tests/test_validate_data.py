"""The command that checks a data set."""

from collections.abc import Callable
from pathlib import Path

import pytest
import small_coco

from scripts.validate_data import main


def arguments(folder: Path) -> list[str]:
    return [str(folder / "instances.json"), str(folder / "images")]


def test_a_sound_data_set_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small_coco.write(tmp_path, small_coco.document())
    assert main(arguments(tmp_path)) == 0
    out = capsys.readouterr().out
    assert "2 images, 2 objects" in out and "every image is sound" in out
    assert any(line.split() == ["3", "cat", "1", "objects"] for line in out.splitlines())


def test_every_broken_image_is_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small_coco.write(tmp_path, small_coco.document())
    for name in ("two.png", "five.png"):
        (tmp_path / "images" / name).write_text("no image")
    assert main(arguments(tmp_path)) == 1
    captured = capsys.readouterr()
    assert "two.png: does not decode" in captured.err and "five.png: does not" in captured.err
    assert "2 of 2 images broken" in captured.out


def test_every_id_of_a_bad_annotation_is_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = small_coco.document()
    bad = {**content["annotations"][0], "bbox": [0, 0, 0, 0]}
    content["annotations"] += [{**bad, "id": id_} for id_ in range(100, 110)]
    small_coco.write(tmp_path, content)
    assert main([*arguments(tmp_path), "--headers"]) == 0
    assert "10 with a box of no size (ids 100, " in (out := capsys.readouterr().out)
    assert "109)" in out


def test_a_refused_data_set_ends_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small_coco.write(tmp_path, "{")
    assert main(arguments(tmp_path)) == 1
    err = capsys.readouterr().err
    assert "broken JSON at line 1" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("change", "warned"),
    [
        (lambda x, y, w, h: [x, y, x + w, y + h], True),
        (lambda x, y, w, h: [y, x, h, w], True),
        (lambda x, y, w, h: [x / 8, y / 8, w / 8, h / 8], True),
        (lambda x, y, w, h: [x + 0.5, y - 0.5, w, h], False),
    ],
)
def test_boxes_unlike_their_outlines_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Callable[..., list], warned: bool
) -> None:
    content = small_coco.document()
    for annotation in content["annotations"]:
        x, y, w, h = annotation["bbox"] = [3.0, 6.0, 8.0, 5.0]
        annotation["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
        annotation["bbox"] = change(x, y, w, h)
    small_coco.write(tmp_path, content)
    assert main(arguments(tmp_path)) == 0
    assert ("boxes differ from their outlines (annotations 11" in capsys.readouterr().err) is warned
