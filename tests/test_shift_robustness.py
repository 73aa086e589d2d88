"""The shift probe: shifted images, the jumps of poolers, and what is written."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from short_runs import composed, short_run

from build import build_data, build_model
from data.proposals import Record, write_proposals
from data.transforms import pad_with_mean
from models.heads import RoIPooler
from ops.boxes import iou
from ops.errors import InputError
from ops.roi_align import roi_align
from ops.roi_pool import roi_pool
from ops.roi_warp import roi_warp
from ops.structures import Bitmap, Polygons, Sample, Target
from scripts.shift.measuring import (
    ShiftedRun,
    default_shifts,
    measure,
    open_run,
    positions_read,
    run_shifted,
    shifted,
)
from scripts.shift.writing import ShiftedVariant, Spread, as_csv, as_markdown
from scripts.shift_robustness import finished_runs, main, probe, variants_of
from train import train

STRIDE = 16
BOXES = torch.tensor([[20.0, 33.0, 61.0, 70.0], [3.5, 8.0, 90.0, 45.25], [50.0, 50.0, 58.0, 99.0]])


def _sample(size: tuple[int, int] = (96, 112)) -> Sample:
    image = torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=torch.Generator())
    ring = np.array([[4.0, 5.0], [20.0, 5.0], [20.0, 30.5]])
    bitmap = Bitmap(np.ones((4, 3), np.uint8), (10.0, 12.0, 13.0, 16.0))
    masks = (Polygons((ring,)), bitmap)
    boxes = torch.tensor([[4.0, 5.0, 20.0, 30.5], [10.0, 12.0, 13.0, 16.0]])
    target = Target(boxes, torch.tensor([0, 1]), masks)
    return Sample(image, target, 7, size, proposals=boxes + 0.5)


# Shifting


def test_everything_moves_with_the_image_and_nothing_is_cut() -> None:
    sample = _sample()
    moved = pad_with_mean(sample, (150, 170), (30, 41))
    assert moved.image.shape == (3, 150, 170)
    assert torch.equal(moved.image[:, 41:137, 30:142], sample.image)
    move = torch.tensor([30.0, 41.0, 30.0, 41.0])
    assert torch.equal(moved.target.boxes, sample.target.boxes + move)
    assert moved.proposals is not None and sample.proposals is not None
    assert torch.equal(moved.proposals, sample.proposals + move)
    polygons, bitmap = moved.target.masks
    assert isinstance(polygons, Polygons) and isinstance(bitmap, Bitmap)
    assert polygons.rings[0].tolist() == [[34.0, 46.0], [50.0, 46.0], [50.0, 71.5]]
    assert bitmap.box == (40.0, 53.0, 43.0, 57.0)


def test_the_padding_has_the_images_mean_colour() -> None:
    sample = replace(_sample(), image=torch.tensor([10, 20, 33], dtype=torch.uint8)[:, None, None])
    moved = pad_with_mean(sample, (5, 5), (2, 2))
    assert torch.equal(moved.image, sample.image.expand(3, 5, 5))


def test_an_image_that_would_be_cut_is_refused() -> None:
    with pytest.raises(ValueError, match="not within"):
        pad_with_mean(_sample(), (100, 112), (0, 5))


@pytest.mark.parametrize("stride", [16, 32])
def test_the_padded_size_is_the_same_at_every_shift_with_a_stride_around(stride: int) -> None:
    sample = _sample((90, 112))
    for shift in range(stride + 1):
        moved, offset = shifted(sample, shift, stride)
        height, width = moved.image.shape[1:]
        assert (height, width) == (96 + 3 * stride, (112 if stride == 16 else 128) + 3 * stride)
        assert offset == stride + shift
        assert offset + 112 + stride <= width and offset + 90 + stride <= height


def test_a_shift_by_the_whole_stride_leaves_features_of_the_interior_unchanged() -> None:
    """Far from the border, beyond the reach of the backbone's padding."""
    torch.manual_seed(0)
    for stride in (16, 32):
        model = build_model(composed(f"stride={stride}", "pooler=pool"), 6).eval()
        sample = _sample((480, 480)) if stride == 16 else _sample((896, 896))
        middle = sample.image.shape[1] / 2
        boxes = torch.tensor([[middle - 20, middle - 11, middle + 17, middle + 23]])
        pooled = []
        for shift in (0, stride // 2, stride):
            moved, offset = shifted(sample, shift, stride)
            with torch.no_grad():
                features = model.backbone(model.normalize([moved.image]))
                pooled.append(model.roi_heads.head.pooler(features, [boxes + offset], 7))
        scale = pooled[0].abs().mean()
        assert scale > 0.01
        assert (pooled[2] - pooled[0]).abs().max() < 1e-4 * scale
        assert (pooled[1] - pooled[0]).abs().mean() > 0.05 * scale  # a half stride does change


# The pooler only


def _jump(op, shift: int, **settings) -> float:  # type: ignore[no-untyped-def]
    pooler = RoIPooler(lambda *arguments: op(*arguments, **settings), stride=STRIDE)
    positions = [
        positions_read(pooler, BOXES + STRIDE + s, (12, 12), 7, STRIDE, STRIDE + s)
        for s in (0, shift)
    ]
    return float((positions[1] - positions[0]).norm(dim=1).mean())


def test_roi_align_reads_the_same_position_of_the_object_at_every_shift() -> None:
    for shift in range(STRIDE + 1):
        assert _jump(roi_align, shift) < 1e-9
        assert _jump(roi_align, shift, agg="max") < 1e-9


def test_roi_align_reads_the_centre_of_each_bin() -> None:
    pooler = RoIPooler(roi_align, stride=STRIDE)
    positions = positions_read(pooler, BOXES + STRIDE, (12, 12), 7, STRIDE, STRIDE)
    x1, y1, x2, y2 = BOXES.double().T[:, :, None]
    bins = (torch.arange(7) + 0.5) / 7
    assert torch.allclose(positions[:, 0], (x1 + bins * (x2 - x1))[:, None, :].expand(3, 7, 7))
    assert torch.allclose(positions[:, 1], (y1 + bins * (y2 - y1))[:, :, None].expand(3, 7, 7))


@pytest.mark.parametrize("op", [roi_pool, roi_warp])
def test_poolers_that_round_jump_by_pixels_except_at_a_whole_stride(op) -> None:  # type: ignore[no-untyped-def]
    jumps = [_jump(op, shift) for shift in range(1, STRIDE)]
    assert max(jumps) > 3
    assert all(jump > 100 * _jump(roi_align, shift) for shift, jump in enumerate(jumps, start=1))
    assert _jump(op, STRIDE) < 1e-9


# Trained runs


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory, drawings: Path) -> Path:
    """RoIPool with two seeds and RoIAlign with one, two steps each."""
    folder = tmp_path_factory.mktemp("outputs") / "family"
    for variant, seed in (("pool", 0), ("pool", 1), ("align", 0)):
        run = folder / f"{variant}_s16/seed{seed}"
        train(
            short_run(run, drawings, f"pooler={variant}", f"seed={seed}", "roi.score_threshold=0")
        )
    (folder / "pool_s16/seed2").mkdir()  # begun and not finished
    (folder / "pool_s16/seed2/config.yaml").write_text("seed: 2\n")
    return folder


def test_a_run_gives_figures_at_every_shift(family: Path) -> None:
    run = measure(family / "pool_s16/seed0", images=1, shifts=[5, 16, 20], progress=False)
    assert list(run.figures) == [0, 5, 16]  # 20 is beyond the stride
    assert run.images == 1
    names = {f"{kind}/{name}" for kind in ("bbox", "segm") for name in ("AP", "AP50", "AP75")}
    assert set(run.figures[5]) == {*names, "feature_change", "jump"}
    assert run.figures[0]["feature_change"] == run.figures[0]["jump"] == 0
    assert run.figures[5]["feature_change"] > run.figures[16]["feature_change"]
    assert run.figures[5]["jump"] > 1 and run.figures[16]["jump"] < 1e-6
    assert all(0 <= value <= 100 for s in run.figures for value in run.figures[s].values())


def test_a_family_becomes_a_table_a_page_and_a_plot(family: Path) -> None:
    paths = probe([family], images=1, shifts=[0, 5], progress=False)
    assert paths == [family / f"shift/shift.{form}" for form in ("csv", "md", "png")]
    with paths[0].open() as file:
        rows = list(csv.DictReader(file))
    listed = [(r["variant"], r["pooler"], r["agg"], r["seeds"], r["shift"]) for r in rows]
    assert listed == [
        (variant, pooler, agg, seeds, shift)
        for variant, pooler, agg, seeds in (
            ("pool_s16", "RoIPool", "max", "2"),
            ("align_s16", "RoIAlign", "avg", "1"),
        )
        for shift in ("0", "5")
    ]
    pool, align = rows[1], rows[3]
    assert float(align["jump"]) < 1e-6 < 1 < float(pool["jump"])
    assert align["feature_change/sd"] == "" and float(pool["feature_change/sd"]) > 0
    assert paths[2].read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in paths[0].parent.iterdir()} == {path.name for path in paths}


def test_the_command_prints_its_table(family: Path, tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    words = [str(family / "align_s16/seed0"), "--images", "1", "--shifts", "8"]
    main([*words, "--output", str(tmp_path / "out")])
    assert "| RoIAlign avg | align_s16 | 1 | masks |" in capsys.readouterr().out
    assert (tmp_path / "out/shift.png").is_file()


def test_proposals_from_a_file_move_with_the_image(tmp_path: Path, drawings: Path) -> None:
    data = build_data(short_run(tmp_path, drawings))
    files = []
    for split in (data.train, data.val):
        boxes = [split.read(index).target.boxes.numpy() for index in range(len(split))]
        records = [
            Record(image_id, of_image, np.ones(len(of_image), np.float32))
            for image_id, of_image in zip(split.image_ids, boxes, strict=True)
        ]
        files.append(tmp_path / f"{len(files)}.safetensors")
        write_proposals(files[-1], split, records, detector="none")
    words = [f"proposals.files.train={files[0]}", f"proposals.files.val={files[1]}"]
    # As many detections as classes and true boxes: none falls outside the image.
    words += ["proposals=frozen", "roi.score_threshold=0", "roi.nms_iou=1"]
    train(short_run(tmp_path / "run", drawings, *words))
    trained = open_run(tmp_path / "run")
    truth = data.val.read(0).target.boxes
    for shift in (0, 7):
        results, pooled, _ = run_shifted(*trained, 0, shift)
        assert len(pooled) == len(truth) and len(results) == 6 * len(truth)
        boxes = torch.from_numpy(results.boxes_xywh)
        boxes[:, 2:] += boxes[:, :2]
        # Two steps of training move a box but little away from its proposal.
        assert iou(truth, boxes.float()).amax(dim=1).min() > 0.8


def test_unfinished_runs_are_left_out(family: Path) -> None:
    names = [run.relative_to(family).as_posix() for run in finished_runs(family)]
    assert names == ["align_s16/seed0", "pool_s16/seed0", "pool_s16/seed1"]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--shifts", "17"], "--shifts 17: give pixels from 0 to the stride, 16"),
        (["--shifts", "-1"], "--shifts -1"),
        (["--images", "-2"], "--images -2: give 0 (all) or more"),
    ],
)
def test_impossible_settings_are_refused(
    family: Path, words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main([str(family), *words])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {complaint}") and error.count("\n") == 1


def test_a_folder_without_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no finished run"):
        probe([tmp_path])


def test_runs_on_other_data_are_refused(family: Path, tmp_path: Path) -> None:
    run = family / "pool_s16/seed0"
    other = tmp_path / "other"
    other.mkdir()
    text = (run / "config.yaml").read_text()
    (other / "config.yaml").write_text(text.replace("val_images: 2", "val_images: 3"))
    (other / "metrics.json").write_text("{}")
    with pytest.raises(InputError, match="its `data` is not that of"):
        probe([run, other])


# Tables


def _run(variant: str, seed: int, aps: list[float]) -> ShiftedRun:
    settings = {"pooler": "RoIPool", "agg": "max", "backbone": "vgg16", "stride": 16, "seed": seed}
    figures = {
        shift: {"bbox/AP": ap, "feature_change": 2.0 * shift, "jump": float(shift)}
        for shift, ap in zip((0, 4, 8, 16), aps, strict=True)
    }
    return ShiftedRun(Path(variant) / f"seed{seed}", settings, 10, figures)


def test_seeds_are_averaged_and_the_whole_stride_counts_as_control() -> None:
    runs = [_run("pool", 0, [40, 30, 34, 40]), _run("pool", 1, [44, 34, 42, 44])]
    (variant,) = variants_of(runs, Path.cwd())
    assert variant.at(0, "bbox/AP") == Spread(42.0, pytest.approx(np.sqrt(8)))
    assert variant.over_shifts("bbox/AP", np.mean) == Spread(35.0, pytest.approx(np.sqrt(18)))
    (row,) = [line for line in as_markdown([variant], 10).splitlines() if "| pool |" in line]
    assert row == (
        "| RoIPool max | pool | 2 | boxes | 42.00 ± 2.83 | 35.00 ± 4.24 | 6.00 ± 2.83 "
        "| 12.00 ± 0.00 | 32.00 ± 0.00 | 6.00 ± 0.00 |"
    )


def test_a_figure_that_a_variant_lacks_is_an_empty_field() -> None:
    with_masks = _run("a", 0, [40, 30, 34, 40])
    for values in with_masks.figures.values():
        values["segm/AP"] = 30.0
    variants = [
        ShiftedVariant("a", (with_masks,)),
        ShiftedVariant("b", (_run("b", 0, [1, 2, 3, 4]),)),
    ]
    rows = list(csv.DictReader(as_csv(variants).splitlines()))
    assert [row["segm/AP"] for row in rows] == ["30"] * 4 + [""] * 4
    assert [row["bbox/AP"] for row in rows] == ["40", "30", "34", "40", "1", "2", "3", "4"]


def test_shifts_reach_the_stride_in_eighths() -> None:
    assert default_shifts(32) == [0, 4, 8, 12, 16, 20, 24, 28, 32]
