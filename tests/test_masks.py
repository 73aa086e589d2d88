"""Masks into RoIs and back: against full-size bitmaps, library kernels and real outlines."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from torch import Tensor
from torchvision.ops import roi_align

from ops.masks import encode_masks, mask_targets, paste_masks
from ops.structures import Bitmap, Polygons

STAR = Polygons(
    (
        np.array(
            [
                [50, 10],
                [61, 40],
                [92, 41],
                [67, 60],
                [76, 90],
                [50, 72],
                [24, 90],
                [33, 60],
                [8, 41],
            ],
            dtype=np.float64,
        ),
    )
)
SQUARE = Polygons((np.array([[10.0, 10.0], [30.0, 10.0], [30.0, 30.0], [10.0, 30.0]]),))


def _rasterised(mask: Polygons, size: tuple[int, int]) -> np.ndarray:
    rles = coco_mask.frPyObjects([ring.ravel().tolist() for ring in mask.rings], *size)
    return coco_mask.decode(coco_mask.merge(rles))


def _disc(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width] + 0.5
    disc = ((y / height - 0.5) ** 2 + (x / width - 0.4) ** 2) < 0.16
    return disc.astype(np.uint8)


def _iou(one: Tensor, other: Tensor) -> float:
    one, other = one.bool(), other.bool()
    return float((one & other).sum() / (one | other).sum())


# Targets from polygons


@pytest.mark.parametrize("box", [(8, 10, 92, 94), (30, 40, 60, 70), (20, 5, 76, 61)])
def test_a_polygon_in_a_roi_of_its_own_pixels_is_its_bitmap_cut_out(box: tuple[int, ...]) -> None:
    x1, y1, x2, y2 = box
    target = mask_targets([STAR], torch.tensor([box], dtype=torch.float32), x2 - x1)[0]
    cut_out = torch.from_numpy(_rasterised(STAR, (100, 100))[y1:y2, x1:x2]).float()
    assert target.dtype == torch.float32
    # COCO's rasteriser rounds towards zero, so left of and above the RoI an edge turns a little.
    assert (target != cut_out).sum() <= 2


@pytest.mark.parametrize("resolution", [14, 28])
@pytest.mark.parametrize("box", [(8, 10, 92, 90), (30.5, 20.25, 95.5, 70.75), (0, 0, 50, 100)])
def test_a_polygon_target_is_the_fine_bitmap_seen_at_its_cells(
    resolution: int, box: tuple[float, ...]
) -> None:
    x1, y1, x2, y2 = box
    fine = 16  # times the target's resolution
    scale = np.array([x2 - x1, y2 - y1]) / (resolution * fine)
    enlarged = Polygons(tuple((ring - [x1, y1]) / scale for ring in STAR.rings))
    bitmap = torch.from_numpy(_rasterised(enlarged, (resolution * fine,) * 2)).float()
    share = F.avg_pool2d(bitmap[None], fine)[0]
    target = mask_targets([STAR], torch.tensor([box], dtype=torch.float32), resolution)[0]
    assert (target[share == 1] == 1).float().mean() > 0.99
    assert (target[share == 0] == 0).float().mean() > 0.99
    assert _iou(target, share >= 0.5) > 0.93


def test_rings_are_united_not_subtracted() -> None:
    second = np.array([[25.0, 10.0], [40.0, 10.0], [40.0, 30.0], [25.0, 30.0]])
    target = mask_targets(
        [Polygons((SQUARE.rings[0], second))], torch.tensor([[10.0, 10.0, 40.0, 30.0]]), 14
    )
    assert (target == 1).all()


def test_a_roi_beside_the_object_sees_nothing_of_it() -> None:
    assert not mask_targets([SQUARE], torch.tensor([[40.0, 40.0, 60.0, 60.0]]), 14).any()


def test_half_of_a_roi_is_seen_where_half_overlaps() -> None:
    target = mask_targets([SQUARE], torch.tensor([[20.0, 10.0, 40.0, 30.0]]), 14)[0]
    assert (target[:, :7] == 1).all()
    assert (target[:, 7:] == 0).all()


def test_a_roi_without_extent_does_no_harm() -> None:
    assert mask_targets([SQUARE], torch.tensor([[15.0, 15.0, 15.0, 15.0]]), 14).shape == (1, 14, 14)


# Targets from bitmaps


@pytest.mark.parametrize("resolution", [14, 28])
@pytest.mark.parametrize(
    "box", [(12, 9, 52, 49), (5.5, 7.25, 40.75, 60.5), (30, 30, 33, 34), (0, 0, 64, 64)]
)
def test_a_bitmap_target_is_roi_align_of_the_whole_bitmap(
    resolution: int, box: tuple[float, ...]
) -> None:
    full = np.zeros((64, 64), np.uint8)
    full[10:50, 12:52] = _disc(40, 40)
    mask = Bitmap(np.ascontiguousarray(full[10:50, 12:52]), (12.0, 10.0, 52.0, 50.0))
    rois = [torch.tensor([box], dtype=torch.float32)]
    expected = roi_align(
        torch.from_numpy(full)[None, None].float(), rois, resolution, 1.0, 0, aligned=True
    )
    target = mask_targets([mask], rois[0], resolution)[0]
    assert target.any()
    assert torch.equal(target, (expected[0, 0] >= 0.5).float())


@pytest.mark.parametrize("scale", [(0.5, 0.5), (2.0, 2.0), (1.5, 0.75)])
def test_a_stretched_bitmap_is_read_at_its_source(scale: tuple[float, float]) -> None:
    disc = _disc(40, 48)
    stretch = np.array([*scale, *scale])
    box = np.array([10.0, 20.0, 58.0, 60.0])
    roi = np.array([15.0, 25.0, 50.0, 55.0])
    before = mask_targets([Bitmap(disc, tuple(box))], torch.from_numpy(roi).float()[None], 28)
    after = mask_targets(
        [Bitmap(disc, tuple(box * stretch))], torch.from_numpy(roi * stretch).float()[None], 28
    )
    assert _iou(before, after) > 0.995


def test_a_mirrored_bitmap_gives_the_mirrored_target() -> None:
    width = 100
    disc = _disc(40, 48)
    box, roi = (10.0, 20.0, 58.0, 60.0), (17.0, 25.0, 50.0, 55.0)

    def mirrored(b: tuple[float, ...]) -> tuple[float, float, float, float]:
        return (width - b[2], b[1], width - b[0], b[3])

    plain = mask_targets([Bitmap(disc, box)], torch.tensor([roi]), 28)
    flipped = mask_targets(
        [Bitmap(np.ascontiguousarray(disc[:, ::-1]), mirrored(box))],
        torch.tensor([mirrored(roi)]),
        28,
    )
    assert torch.equal(plain.flip(2), flipped)
    assert not torch.equal(plain, flipped)


def test_outside_the_crop_of_a_bitmap_there_is_no_object() -> None:
    solid = Bitmap(np.ones((10, 10), np.uint8), (10.0, 10.0, 20.0, 20.0))
    target = mask_targets([solid], torch.tensor([[0.0, 0.0, 30.0, 30.0]]), 30)[0]
    inside = torch.zeros(30, 30)
    inside[10:20, 10:20] = 1
    assert torch.equal(target, inside)


def test_polygon_and_bitmap_of_one_object_agree() -> None:
    bitmap = Bitmap(_rasterised(STAR, (100, 100)), (0.0, 0.0, 100.0, 100.0))
    box = torch.tensor([[8.0, 10.0, 92.0, 90.0]])
    assert _iou(mask_targets([STAR], box, 28), mask_targets([bitmap], box, 28)) > 0.9


def test_kinds_may_be_mixed_and_keep_their_order() -> None:
    bitmap = Bitmap(np.ones((4, 4), np.uint8), (10.0, 10.0, 30.0, 30.0))
    boxes = torch.tensor([[20.0, 10.0, 40.0, 30.0], [0.0, 10.0, 20.0, 30.0]])
    polygon_first = mask_targets([SQUARE, bitmap], boxes, 14)
    assert torch.equal(polygon_first, mask_targets([bitmap, SQUARE], boxes.flip(0), 14).flip(0))
    assert polygon_first[0, 7, 0] == 1
    assert polygon_first[0, 7, -1] == 0
    assert polygon_first[1, 7, 0] == 0


def test_no_masks_give_no_targets() -> None:
    assert mask_targets([], torch.zeros(0, 4), 28).shape == (0, 28, 28)


def test_masks_and_boxes_must_be_of_one_number() -> None:
    with pytest.raises(ValueError, match="2 boxes"):
        mask_targets([SQUARE], torch.zeros(2, 4), 14)


# Pasting


def _pasted_by_grid_sample(masks: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """The library's interpolation at every pixel of the image."""
    height, width = size
    y, x = torch.arange(height) + 0.5, torch.arange(width) + 0.5
    pasted = []
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.tolist(), strict=True):
        rows, columns = torch.meshgrid(
            (y - y1) / (y2 - y1) * 2 - 1, (x - x1) / (x2 - x1) * 2 - 1, indexing="ij"
        )
        where = torch.stack((columns, rows), dim=-1)[None]
        pasted.append(F.grid_sample(mask[None, None], where, align_corners=False)[0, 0])
    return torch.stack(pasted)


def test_pasting_is_bilinear_interpolation_at_pixel_centres() -> None:
    torch.manual_seed(0)
    boxes = torch.tensor(
        [
            [3.2, 4.7, 40.1, 30.9],
            [10.0, 10.0, 24.0, 24.0],
            [-8.0, -9.5, 20.0, 21.0],
            [45.0, 30.0, 90.0, 77.0],
            [20.0, 20.0, 21.5, 22.5],
        ]
    )
    masks = torch.rand(len(boxes), 14, 14)
    values = _pasted_by_grid_sample(masks, boxes, (48, 64))
    pasted = paste_masks(masks, boxes, (48, 64))
    assert pasted.dtype == torch.bool
    certain = (values - 0.5).abs() > 1e-4
    assert certain.float().mean() > 0.999
    assert torch.equal(pasted[certain], (values >= 0.5)[certain])


def test_a_full_mask_fills_its_box() -> None:
    pasted = paste_masks(torch.ones(1, 28, 28), torch.tensor([[10.0, 5.0, 30.0, 45.0]]), (50, 60))
    expected = torch.zeros(50, 60, dtype=torch.bool)
    expected[5:45, 10:30] = True
    assert torch.equal(pasted[0], expected)


@pytest.mark.parametrize(
    "box", [(5.0, 5.0, 5.0, 9.0), (5.0, 9.0, 12.0, 9.0), (70.0, 5.0, 90.0, 9.0)]
)
def test_a_box_that_covers_no_pixel_leaves_the_image_empty(box: tuple[float, ...]) -> None:
    pasted = paste_masks(torch.ones(1, 14, 14), torch.tensor([box]), (20, 60))
    assert pasted.shape == (1, 20, 60)
    assert not pasted.any()


def test_pasting_nothing_gives_nothing() -> None:
    assert paste_masks(torch.zeros(0, 14, 14), torch.zeros(0, 4), (7, 9)).shape == (0, 7, 9)


coordinates = st.floats(-20, 70, width=32)


@given(
    boxes=st.lists(st.tuples(*[coordinates] * 4), max_size=4),
    size=st.tuples(st.integers(1, 50), st.integers(1, 50)),
    seed=st.integers(0, 9),
)
def test_masks_are_encoded_as_pasted(
    boxes: list[tuple[float, ...]], size: tuple[int, int], seed: int
) -> None:
    where = torch.tensor(boxes).reshape(-1, 4)
    where = torch.cat([where[:, :2].minimum(where[:, 2:]), where[:, :2].maximum(where[:, 2:])], 1)
    masks = torch.rand(len(boxes), 7, 7, generator=torch.Generator().manual_seed(seed)).sqrt()
    pasted = paste_masks(masks, where, size).numpy().astype(np.uint8)
    expected = [coco_mask.encode(np.asfortranarray(mask)) for mask in pasted]
    assert encode_masks(masks, where, size) == [
        {"size": list(size), "counts": rle["counts"].decode()} for rle in expected
    ]


# There and back, on real outlines


def _coco_outlines(shared: Path) -> list[tuple[Polygons, tuple[int, int], Tensor]]:
    """Outline, image size and box of objects that fill more than the 28 x 28 of a mask."""
    file = shared / "coco-mini/annotations/instances_val2017.json"
    document = json.loads(file.read_text())
    sizes = {image["id"]: (image["height"], image["width"]) for image in document["images"]}
    outlines = []
    for annotation in document["annotations"]:
        if annotation["iscrowd"] or annotation["area"] < 1000:
            continue
        rings = tuple(np.array(r).reshape(-1, 2) for r in annotation["segmentation"])
        x, y, w, h = annotation["bbox"]
        box = torch.tensor([x, y, x + w, y + h])
        outlines.append((Polygons(rings), sizes[annotation["image_id"]], box))
    return outlines[:150]


@pytest.mark.parametrize(("kind", "least"), [("polygon", 0.94), ("bitmap", 0.95)])
def test_cropping_and_pasting_real_outlines_returns_them(
    shared: Path, kind: str, least: float
) -> None:
    overlaps = []
    for outline, size, box in _coco_outlines(shared):
        full = _rasterised(outline, size)
        whole = (0.0, 0.0, float(size[1]), float(size[0]))
        mask = outline if kind == "polygon" else Bitmap(full, whole)
        target = mask_targets([mask], box[None], 28)
        pasted = paste_masks(target, box[None], size)[0]
        overlaps.append(_iou(pasted, torch.from_numpy(full)))
    assert len(overlaps) >= 100
    assert np.mean(overlaps) > least
