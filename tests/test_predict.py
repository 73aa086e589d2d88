"""scripts/predict.py: objects in images and videos."""

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from pycocotools.coco import COCO
from short_runs import short_run

from build import build_data, build_model
from data.shapes import OUTLINES
from data.sources import find_sources
from data.transforms import EvalTransform
from detector import load
from drawing.video import Video, reading_video, writing_video
from evaluate import evaluate
from files.atomic import write_json
from running.checkpoint import load_checkpoint, save_checkpoint
from scripts import predict as script
from scripts.predict import main, writing_list

CLASSES = tuple(OUTLINES)
ALL = "0.02"  # a network that has learned nothing gives each class about 0.14


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, drawings: Path) -> Path:
    """A run's folder with a checkpoint that has learned nothing yet, and `images/` of its data."""
    folder = tmp_path_factory.mktemp("run")
    few_of_each_class = ("roi.nms_iou=0.05", "roi.detections_per_image=20")
    cfg = short_run(folder, drawings, *few_of_each_class)
    data = build_data(cfg)
    torch.manual_seed(0)
    model = build_model(cfg, len(data.val.categories))
    save_checkpoint(
        folder / "checkpoints/last.pt",
        model=model,
        step=0,
        config_text=OmegaConf.to_yaml(cfg, resolve=True),
        categories=[{"id": c.id, "name": c.name} for c in data.val.categories],
    )
    (folder / "images").symlink_to(data.val.folder)
    return folder


def changed(run: Path, path: Path, **content: Any) -> Path:
    """The run's checkpoint with other content, as another file."""
    checkpoint = replace(load_checkpoint(run / "checkpoints/last.pt"), **content)
    model = torch.nn.Module()
    model.state_dict = lambda: checkpoint.model  # type: ignore[method-assign,assignment]
    save_checkpoint(
        path,
        model=model,
        step=0,
        config_text=checkpoint.config_text,
        categories=checkpoint.categories,
    )
    return path


def image(path: Path, shade: int = 120, size: tuple[int, int] = (64, 64)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((*size, 3), shade, np.uint8))
    return path


def video(path: Path, *, frames: int, size: tuple[int, int], rate: float) -> Path:
    """Motion JPEG; frame k is of the grey 20 k."""
    code = cv2.VideoWriter.fourcc(*"MJPG")
    writer = cv2.VideoWriter(str(path), cv2.CAP_OPENCV_MJPEG, code, rate, size[::-1])
    for k in range(frames):
        writer.write(np.full((*size, 3), 20 * k, np.uint8))
    writer.release()
    return path


def predict(run: Path, output: Path, inputs: Sequence[Path | str], *options: str) -> int:
    words = [*map(str, inputs), "--checkpoint", str(run), "--output", str(output)]
    return main([*words, *(options or ("--score", ALL))])


def entries(output: Path) -> list[dict[str, Any]]:
    return json.loads((output / "detections.json").read_text())


def described(output: Path) -> list[dict[str, Any]]:
    return json.loads((output / "images.json").read_text())["images"]


def test_predictions_are_those_of_the_evaluation(run: Path, tmp_path: Path) -> None:
    detector = load(run)
    data = build_data(detector.config)
    expected = evaluate(
        detector.model, data.val, data.eval_transform, detector.runtime, progress=False
    ).results
    assert predict(run, tmp_path, [run / "images"], "--score", "0.1") == 0
    files = {row["id"]: Path(row["file_name"]).stem for row in described(tmp_path)}
    found = [{**entry, "image_id": int(files[entry["image_id"]])} for entry in entries(tmp_path)]
    assert found == [entry for entry in expected.entries() if entry["score"] >= 0.1]
    assert len(found) > 4


def test_the_two_files_are_a_coco_data_set_with_results(run: Path, tmp_path: Path) -> None:
    predict(run, tmp_path, [run / "images"])
    results = COCO(tmp_path / "images.json").loadRes(str(tmp_path / "detections.json"))
    assert len(results.getAnnIds()) == len(entries(tmp_path)) > 0
    assert {c["name"] for c in results.dataset["categories"]} == set(CLASSES)
    first = results.loadAnns(results.getAnnIds())[0]
    assert results.annToMask(first).shape == (128, 128)


def test_each_image_is_drawn_under_its_own_name(run: Path, tmp_path: Path) -> None:
    predict(run, tmp_path, [run / "images"])
    for row in described(tmp_path):
        drawn = cv2.imread(str(tmp_path / row["drawn"]))
        assert row["drawn"] == Path(row["file_name"]).name
        assert drawn.shape == (640, 640, 3)
        plain = cv2.resize(cv2.imread(row["file_name"]), (640, 640), interpolation=cv2.INTER_CUBIC)
        assert (drawn != plain).any(axis=2).mean() > 0.01


def test_inputs_of_one_name_do_not_overwrite_one_another(run: Path, tmp_path: Path) -> None:
    inputs = [
        image(tmp_path / "in/a/x.png", 10),
        image(tmp_path / "in/b/X.png", 200),
        image(tmp_path / "in/b/x_2.png", 120),
    ]
    assert predict(run, tmp_path / "out", inputs, "--score", "1") == 0
    rows = described(tmp_path / "out")
    assert [row["drawn"] for row in rows] == ["x.png", "X_2.png", "x_2_2.png"]
    shades = [cv2.imread(str(tmp_path / "out" / row["drawn"]))[0, 0, 0] for row in rows]
    assert shades == [10, 200, 120]
    assert [Path(row["file_name"]) for row in rows] == inputs


def test_low_scores_are_left_out(run: Path, tmp_path: Path) -> None:
    predict(run, tmp_path / "all", [run / "images"])
    scores = sorted(entry["score"] for entry in entries(tmp_path / "all"))
    middle = scores[len(scores) // 2]
    predict(run, tmp_path / "half", [run / "images"], "--score", str(middle))
    left = [entry["score"] for entry in entries(tmp_path / "half")]
    assert sorted(left) == [score for score in scores if score >= middle]


def test_only_chosen_classes_are_kept(run: Path, tmp_path: Path) -> None:
    predict(run, tmp_path / "all", [run / "images"])
    ids = {entry["category_id"] for entry in entries(tmp_path / "all")}
    categories = {c.id: c.name for c in load(run).categories}
    names = {categories[id_] for id_ in ids}
    assert len(names) > 1
    wanted = sorted(names)[0]
    predict(
        run, tmp_path / "one", [run / "images"], "--score", ALL, "--classes", f"{wanted}, {wanted}"
    )
    expected = [e for e in entries(tmp_path / "all") if categories[e["category_id"]] == wanted]
    assert entries(tmp_path / "one") == expected


def refused(capsys: pytest.CaptureFixture[str], run: Path, output: Path, *words: object) -> str:
    """The one line of a command that ends with status 2."""
    with pytest.raises(SystemExit) as ended:
        main([*map(str, words), "--checkpoint", str(run), "--output", str(output)])
    assert ended.value.code == 2
    errors = capsys.readouterr().err.splitlines()
    assert errors[-1].startswith("error: ")
    return errors[-1]


def test_an_unknown_class_gets_the_most_similar_name(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = refused(capsys, run, tmp_path, run / "images", "--classes", "bar,cresent")
    assert "--classes cresent: unknown; choose from crescent" in error


@pytest.mark.parametrize(("size", "ending"), [((48, 64), ".mp4"), ((47, 65), ".avi")])
def test_a_video_keeps_its_size_rate_and_frames(
    run: Path, tmp_path: Path, size: tuple[int, int], ending: str
) -> None:
    clip = video(tmp_path / "clip.avi", frames=6, size=size, rate=10)
    assert predict(run, tmp_path / "out", [clip], "--score", "1") == 0
    with reading_video(tmp_path / f"out/clip{ending}") as drawn:
        assert (drawn.size, drawn.rate) == (size, 10)
        shades = [int(frame.mean()) for frame in drawn.frames]
    assert shades == pytest.approx([0, 20, 40, 60, 80, 100], abs=6)
    rows = described(tmp_path / "out")
    assert [(row["id"], row["frame"]) for row in rows] == [(k + 1, k) for k in range(6)]
    assert {(row["height"], row["width"]) for row in rows} == {size}


def test_the_frames_of_a_video_are_searched(run: Path, tmp_path: Path) -> None:
    clip = video(tmp_path / "clip.avi", frames=2, size=(64, 64), rate=10)
    predict(run, tmp_path / "out", [image(tmp_path / "still.png"), clip])
    assert {entry["image_id"] for entry in entries(tmp_path / "out")} == {1, 2, 3}


@pytest.mark.parametrize("rate", [12.5, 30000 / 1001, 60.0])
@pytest.mark.parametrize("name", ["a.mp4", "a.avi"])
def test_every_usual_rate_is_kept(tmp_path: Path, name: str, rate: float) -> None:
    with writing_video(tmp_path / name, size=(48, 64), rate=rate) as write:
        for _ in range(3):
            write(np.zeros((48, 64, 3), np.uint8))
    with reading_video(tmp_path / name) as video:
        assert video.rate == pytest.approx(rate, rel=1e-4)
        assert len(list(video.frames)) == 3


def test_what_is_interrupted_leaves_nothing(tmp_path: Path) -> None:
    def interrupted_video() -> None:
        with writing_video(tmp_path / "a.mp4", size=(48, 64), rate=10) as write:
            write(np.zeros((48, 64, 3), np.uint8))
            raise KeyboardInterrupt

    def interrupted_list() -> None:
        with writing_list(tmp_path / "a.json") as add:
            add({"score": 1.0})
            raise KeyboardInterrupt

    for interrupted in (interrupted_video, interrupted_list):
        with pytest.raises(KeyboardInterrupt):
            interrupted()
    assert list(tmp_path.iterdir()) == []


def _text(path: Path) -> None:
    path.write_text("no picture")


def _cut_short(path: Path) -> None:
    _, data = cv2.imencode(".jpg", np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    path.write_bytes(data.tobytes()[:500])


def _no_frames(path: Path) -> None:
    video(path, frames=0, size=(48, 64), rate=10)


BAD = [
    ("text.jpg", _text, "does not decode"),
    ("short.jpg", _cut_short, "does not decode"),
    ("notes.txt", _text, "neither an image nor a video"),
    ("nothing.mp4", Path.touch, "neither an image nor a video"),
    ("still.avi", _no_frames, "a video without a frame"),
    ("absent.png", None, "no such file"),
    ("absent/*.png", None, "matches nothing"),
    ("folder", Path.mkdir, "no image or video in this folder"),
]


@pytest.mark.parametrize(("name", "make", "message"), BAD, ids=[name for name, _, _ in BAD])
def test_a_bad_input_is_reported_and_left_out(
    run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str, make: Any, message: str
) -> None:
    bad = tmp_path / name
    if make:
        make(bad)
    assert predict(run, tmp_path / "out", [bad, image(tmp_path / "good.png")]) == 1
    lines = [line for line in capfd.readouterr().err.splitlines() if "predicting" not in line]
    assert len(lines) == 1
    assert lines[0].startswith(f"skipped: {bad}: ") and message in lines[0]
    assert [row["drawn"] for row in described(tmp_path / "out")] == ["good.png"]
    with pytest.raises(SystemExit) as ended:
        predict(run, tmp_path / "none", [bad])
    assert ended.value.code == 2
    assert not (tmp_path / "none/detections.json").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"categories": []}, "its classes have no names"),
        ({"model": {"roi_heads.x": torch.zeros(1)}}, "has no RPN"),
        ({"model": {"rpn.x": torch.zeros(1)}}, "has no second stage"),
        ({"model": {"rpn.x": torch.zeros(1), "roi_heads.x": torch.zeros(1)}}, "architecture"),
    ],
)
def test_a_checkpoint_that_cannot_detect_is_refused(
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    content: dict[str, Any],
    message: str,
) -> None:
    checkpoint = changed(run, tmp_path / "other.pt", **content)
    error = refused(capsys, checkpoint, tmp_path / "out", run / "images")
    assert message in error and str(checkpoint) in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "remedy"), [("absent.pt", "no such file"), ("r50.pkl", "scripts/import_weights.py")]
)
def test_what_is_no_checkpoint_is_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, remedy: str
) -> None:
    assert remedy in refused(capsys, tmp_path / name, tmp_path, run / "images")


def test_a_network_trained_in_float16_predicts_without_a_gpu(run: Path, tmp_path: Path) -> None:
    config = OmegaConf.create(load_checkpoint(run / "checkpoints/last.pt").config_text)
    config.precision = "float16"
    checkpoint = changed(run, tmp_path / "half.pt", config_text=OmegaConf.to_yaml(config))
    assert load(checkpoint, device="cpu").runtime.precision == "float32"


def test_settings_newer_than_a_checkpoint_get_defaults(run: Path, tmp_path: Path) -> None:
    config = OmegaConf.create(load_checkpoint(run / "checkpoints/last.pt").config_text)
    del config.proposals["files"], config["proposals_only"]  # version 0.1 had neither
    checkpoint = changed(run, tmp_path / "old.pt", config_text=OmegaConf.to_yaml(config))
    assert load(checkpoint).transform == EvalTransform(short_edge=128, long_edge=128)


def test_inputs_are_never_overwritten(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = image(tmp_path / "photo.png")
    before = photo.read_bytes()
    assert "write into another folder" in refused(capsys, run, tmp_path, photo)
    assert photo.read_bytes() == before


def test_results_within_a_searched_folder_are_not_searched_again(run: Path, tmp_path: Path) -> None:
    image(tmp_path / "deep/photo.png")
    for _ in range(2):
        assert predict(run, tmp_path / "out", [tmp_path]) == 0
        assert [row["drawn"] for row in described(tmp_path / "out")] == ["photo.png"]


def test_folders_and_patterns_give_their_files_once(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "deep/c.mp4", ".hidden/d.png", "notes.txt", "odd [1].png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    found, problems = find_sources(
        [tmp_path / "odd [1].png", f"{tmp_path}/*.png", tmp_path], exclude=tmp_path / "out"
    )
    names = [source.path.relative_to(tmp_path).as_posix() for source in found]
    assert names == ["odd [1].png", "b.png", "a.JPG", "deep/c.mp4"]
    assert [source.kind for source in found] == ["image", "image", "image", "video"]
    assert problems == []


def test_pictures_in_a_folder_are_known_by_content_and_none_is_lost(tmp_path: Path) -> None:
    for name in ("a.png", "b.jpg"):
        image(tmp_path / name)
    (tmp_path / "a.png").rename(tmp_path / "one.thing")
    (tmp_path / "b.jpg").rename(tmp_path / "two")
    (tmp_path / "heif.jpg").write_bytes(b"\0\0\0\x18ftypmif1" + bytes(40))
    (tmp_path / "drawing.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    (tmp_path / "long.jxl").write_bytes(b"\xff\x0a" + bytes(40))
    (tmp_path / "gone.png").symlink_to(tmp_path / "nothing")
    (tmp_path / "notes.md").write_text("no picture")
    elsewhere = tmp_path.parent / f"{tmp_path.name}_elsewhere"
    elsewhere.mkdir()
    (tmp_path / "linked").symlink_to(elsewhere)
    found, problems = find_sources([tmp_path], exclude=tmp_path / "out")
    assert [source.path.name for source in found] == ["one.thing", "two"]
    assert sorted(problem.partition(": ")[2].split(";")[0] for problem in problems) == [
        "a HEIC picture",
        "a JPEG XL picture",
        "a link to a folder is not followed",
        "a link to nothing",
        "an SVG picture",
    ]


def test_a_picture_that_nothing_decodes_is_no_video(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "IMG_1.HEIC"
    path.write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    image(tmp_path / "b.png")
    assert predict(run, tmp_path / "out", [path, tmp_path / "b.png"]) == 1
    assert [row["drawn"] for row in described(tmp_path / "out")] == ["b.png"]


def test_of_an_animation_the_first_picture_is_taken_with_a_word(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pages = [Image.new("RGB", (60, 40), colour) for colour in ("red", "green", "blue")]
    for name in ("moving.gif", "pages.tif"):
        pages[0].save(tmp_path / name, save_all=True, append_images=pages[1:])
    assert predict(run, tmp_path / "out", [tmp_path]) == 0
    notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
    assert len(notes) == 2 and all("holds 3 pictures; the first is taken" in n for n in notes)


def test_a_video_that_ends_early_is_named_and_what_there_is_is_kept(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextlib.contextmanager
    def cut(_: Path) -> Iterator[Video]:
        frames = (np.zeros((48, 64, 3), np.uint8) for _ in range(3))
        yield Video(size=(48, 64), rate=25.0, count=9, frames=frames)

    monkeypatch.setattr(script, "reading_video", cut)
    (tmp_path / "clip.mp4").touch()
    assert predict(run, tmp_path / "out", [tmp_path / "clip.mp4"]) == 1
    assert "ends after 3 of the 9 frames that it states" in capsys.readouterr().err
    assert [row["frame"] for row in described(tmp_path / "out")] == [0, 1, 2]


def test_an_image_of_an_unusual_ending_is_known_by_its_content(tmp_path: Path) -> None:
    image(tmp_path / "a.png").rename(tmp_path / "a.scan")
    found, _ = find_sources([tmp_path / "a.scan"], exclude=tmp_path)
    assert found[0].kind == "image"


def test_no_detections_are_an_empty_list(run: Path, tmp_path: Path) -> None:
    assert predict(run, tmp_path, [run / "images"], "--score", "1") == 0
    assert entries(tmp_path) == []
    write_json(tmp_path / "again.json", [])
    assert (tmp_path / "again.json").read_text() == (tmp_path / "detections.json").read_text()
