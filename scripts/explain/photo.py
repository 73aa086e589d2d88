"""A box on a photograph: what each pooler reads of it, hands to the head, and what comes of it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from configuration import plain
from data.images import decode
from detector import Detector, load
from models.heads import RoIPooler
from ops.errors import InputError
from ops.masks import paste_masks
from ops.poolers import describe_pooler
from ops.structures import Sample, Target
from scripts.explain.canvas import Canvas, Item, Line, Picture, Rect, Text
from scripts.explain.drawing import (
    BOX,
    INK,
    MARGIN,
    MUTED,
    Frame,
    cell_numbers,
    coverage_cells,
    outlines,
    points,
    window,
)
from scripts.explain.figure import GAP, LEFT, finished, title
from scripts.explain.geometry import Box, Reading, Scene
from scripts.explain.poolers import DrawnPooler

MASK = "#e8590c"
CHANNELS = 4
COLUMN = 300.0


@dataclass(frozen=True)
class HeadView:
    """What one pooler makes of the box.

    Attributes:
        pooled: float ``[C, P, P]``, handed to the head.
        name, score: the best class and its probability.
        mask: ``[m, m]``, that class's probabilities over the box, or None without a mask branch.
    """

    pooled: Tensor
    name: str
    score: float
    mask: Tensor | None


def photo_figure(
    path: Path,
    box: Box,
    poolers: Sequence[DrawnPooler],
    *,
    stride: int,
    output_size: tuple[int, int],
    checkpoint: Path | None = None,
) -> Canvas:
    """Draw `box` (x1 y1 x2 y2, the photograph's pixels) as each pooler reads it.

    With a checkpoint the photograph is resized as in its run; stride and bins are the network's,
    and the features, the class and the mask are shown that each pooler leads to.

    Raises:
        InputError: an unreadable photograph or checkpoint, or a box that is not on it.
    """
    photo = decode(path)
    height, width = photo.shape[:2]
    scene = Scene(box, (height, width), stride, output_size)
    if box[0] >= width or box[1] >= height or box[2] <= 0 or box[3] <= 0:
        raise InputError(f"--box: {box} lies outside {path}, which is {width} x {height} pixels")
    views: list[HeadView] = []
    trained = ""
    if checkpoint is not None:
        detector = load(checkpoint, needs=("roi_heads",))
        seen, scene = as_seen(photo, scene, detector)
        scene, views = head_views(seen, scene, poolers, detector)
        photo = seen.permute(1, 2, 0).numpy()
        trained = _trained_with(describe_pooler(plain(detector.config.pooler))[0])
    return _figure(photo, [Reading(pooler, scene) for pooler in poolers], views, trained)


def _trained_with(trained: str) -> str:
    return f"weights trained with {trained}; other poolers put in its place untrained"


def as_seen(photo: np.ndarray, scene: Scene, detector: Detector) -> tuple[Tensor, Scene]:
    """The image uint8 ``[3, H, W]`` and the box as the network's evaluation sees them."""
    pixels = torch.from_numpy(np.ascontiguousarray(photo)).permute(2, 0, 1)
    target = Target(torch.tensor([scene.box]), torch.zeros(1, dtype=torch.int64))
    sample = detector.transform(Sample(pixels, target, 0, scene.image_size))
    box: Box = tuple(sample.target.boxes[0].tolist())
    size = sample.image.shape[1], sample.image.shape[2]
    return sample.image, Scene(box, size, detector.config.stride, scene.output_size)


@torch.no_grad()
def head_views(
    image: Tensor, scene: Scene, poolers: Sequence[DrawnPooler], detector: Detector
) -> tuple[Scene, list[HeadView]]:
    """Run the head once for each pooler on the same features; only the pooler is exchanged."""
    model, runtime = detector.model, detector.runtime
    assert model.roi_heads is not None
    head = model.roi_heads.head
    boxes = [torch.tensor([scene.box], device=runtime.device)]
    own, views = head.pooler, []
    try:
        with runtime.autocast():
            features = model.backbone(model.normalize([image.to(runtime.device)]))
            for pooler in poolers:
                head.pooler = RoIPooler(pooler.op, stride=scene.stride)
                output = head.predict_boxes(features, boxes)
                scores = output.class_logits.softmax(dim=1)[0, :-1]
                label = int(scores.argmax())
                mask = None
                if model.roi_heads.mask:
                    logits = head.predict_masks(features, boxes, output.maps)
                    mask = logits[0, label].float().sigmoid().cpu()
                pooled = head.pooler(features, boxes, head.pool_size)[0].float().cpu()
                name = detector.categories[label].name
                views.append(HeadView(pooled, name, float(scores[label]), mask))
    finally:
        head.pooler = own
    cells = features.shape[2], features.shape[3]
    bins = head.pool_size, head.pool_size
    return replace(scene, output_size=bins, cells=cells), views


def _figure(
    photo: np.ndarray, readings: Sequence[Reading], views: Sequence[HeadView], trained: str
) -> Canvas:
    shown, stride = window(readings), readings[0].scene.stride
    cell = min(COLUMN / (shown[2] - shown[0]), 420 / (shown[3] - shown[1]))
    items: list[Item] = []
    y = 0.0
    channels = strongest(views)
    for index, reading in enumerate(readings):
        x = LEFT + index * (COLUMN + GAP)
        frame = Frame(x, 96, cell, shown)
        items += [*title(x, 42, reading), *_overlay(frame, photo, reading)]
        y = 96 + frame.height
        if views:
            view = views[index]
            text = f"what the head gets, {view.pooled.shape[1]} × {view.pooled.shape[2]}"
            items.append(Text(x, y + 34, text, 14, INK, bold=True))
            items += _heat_maps(x, y + 46, channels, view, views)
            y += 46 + 2 * (COLUMN / 2) + 14
            items.append(Text(x, y + 20, f"{view.name} {view.score:.2f}", 16, INK, bold=True))
            y += 34
            if view.mask is not None:
                items += _masked(Frame(x, y, cell, shown), photo, reading.box, view.mask, stride)
                y += frame.height
    if trained:
        items.append(Text(LEFT, y + 28, trained, 12.5, MUTED))
        said = "the channels that vary most over the box; one scale for all poolers"
        items.append(Text(LEFT, y + 46, said, 12.5, MUTED))
        y += 42
    width = max(LEFT + MARGIN + len(readings) * (COLUMN + GAP) - GAP, 380.0)
    return finished(items, y + 16, readings, width)


def strongest(views: Sequence[HeadView]) -> list[int]:
    """The channels that vary most over the box, on the mean of all poolers."""
    if not views:
        return []
    spread = torch.stack([view.pooled.flatten(1).std(dim=1) for view in views]).mean(dim=0)
    return spread.topk(min(CHANNELS, len(spread))).indices.tolist()


def _photo(frame: Frame, photo: np.ndarray, stride: int) -> Picture:
    """The part of the photograph that lies under the window."""
    x1, y1, x2, y2 = (edge * stride for edge in frame.window)
    x2, y2 = min(x2, photo.shape[1]), min(y2, photo.shape[0])
    (px, py), (qx, qy) = frame.at(x1 / stride, y1 / stride), frame.at(x2 / stride, y2 / stride)
    return Picture(px, py, qx - px, qy - py, photo[y1:y2, x1:x2])


def _overlay(frame: Frame, photo: np.ndarray, reading: Reading) -> list[Item]:
    """The photograph under the grid, the coverage, the bins and the boxes."""
    items: list[Item] = [_photo(frame, photo, reading.scene.stride)]
    items += coverage_cells(frame, reading, strength=0.5)
    items += outlines(frame, reading, bins=frame.cell > 12)
    if reading.pooler.sampled:
        items += points(frame, reading)
    return items + cell_numbers(frame)


def _heat_maps(
    x: float, y: float, channels: Sequence[int], view: HeadView, views: Sequence[HeadView]
) -> list[Item]:
    """Two by two channels; a channel has one scale for all poolers, so they can be compared."""
    items: list[Item] = []
    side = COLUMN / 2 - 5
    for k, channel in enumerate(channels):
        every = torch.stack([v.pooled[channel] for v in views])
        low, high = every.min(), every.max()
        share = ((view.pooled[channel] - low) / (high - low).clamp(min=1e-12)).numpy()
        colours = cv2.applyColorMap((share * 255).round().astype(np.uint8), cv2.COLORMAP_VIRIDIS)
        at = x + k % 2 * (side + 10), y + k // 2 * (side + 10)
        pixels = cv2.cvtColor(colours, cv2.COLOR_BGR2RGB)
        items.append(Picture(*at, side, side, pixels, smooth=False))
        items.append(Rect(at[0] + 5, at[1] + 5, 30, 18, fill="#000000", opacity=0.55, radius=4))
        items.append(Text(at[0] + 20, at[1] + 18, str(channel), 12, "#ffffff", "middle"))
    return items


def _masked(frame: Frame, photo: np.ndarray, box: Box, mask: Tensor, stride: int) -> list[Item]:
    """The mask's probability over the photograph, and its outline at one half."""
    items: list[Item] = [_photo(frame, photo, stride)]
    # With a border of zeros, stretching is what pasting does: linear, and zero beyond the map.
    padded = np.pad(mask.numpy(), 1)
    fine = cv2.resize(padded, None, fx=8, fy=8, interpolation=cv2.INTER_LINEAR)
    tint = np.full((*fine.shape, 4), (*bytes.fromhex(MASK[1:]), 0), np.uint8)
    tint[..., 3] = (fine.clip(0, 1) * 190).astype(np.uint8)
    x1, y1, x2, y2 = box
    dx, dy = (x2 - x1) / mask.shape[1], (y2 - y1) / mask.shape[0]
    around = frame.rect((x1 - dx, y1 - dy, x2 + dx, y2 + dy))
    items.append(Picture(around.x, around.y, around.width, around.height, tint))
    in_pixels = torch.tensor([box]) * stride
    pasted = paste_masks(mask[None], in_pixels, (photo.shape[0], photo.shape[1]))[0].numpy()
    found, _ = cv2.findContours(pasted.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    for contour in found:
        # A pixel's place is its centre.
        line = [frame.at((px + 0.5) / stride, (py + 0.5) / stride) for px, py in contour[:, 0]]
        items.append(Line((*line, line[0]), "#ffffff", 3))
        items.append(Line((*line, line[0]), MASK, 1.6))
    return [*items, frame.rect(box, stroke=BOX, line=2)]
