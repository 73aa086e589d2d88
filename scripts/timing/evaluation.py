"""Seconds and memory of COCO's evaluation beside bare pycocotools, and of a mask's way into run
lengths beside torchvision and pycocotools."""

import contextlib
import io
import multiprocessing
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor
from torchvision.models.detection.roi_heads import paste_masks_in_image
from tqdm import tqdm

from judging.coco_eval import FIGURES, coco_metrics
from judging.matching import match_results
from judging.results import Results
from ops.masks import encode_masks

KINDS = ("bbox", "segm")
IMAGE = (480, 640)  # height and width of the made-up images
MASK_IMAGES = (IMAGE, (800, 1333))
MASKS, MASK_EDGE = 100, 28  # Mask R-CNN's most for an image, and its head's resolution
Found = dict[str, float]


@dataclass(frozen=True)
class Scale:
    """How many of each are made up."""

    images: int
    objects: int
    detections: int
    categories: int = 80


SCALES = {"small": Scale(1000, 7384, 100_000), "val2017": Scale(5000, 36_781, 500_000)}


def made_up(scale: Scale, seed: int) -> tuple[dict[str, Any], Results]:
    """Ellipses as annotations; a third of the detections lie near one, the others anywhere."""
    draw = np.random.default_rng(seed)
    height, width = IMAGE

    def anywhere(count: int) -> np.ndarray:
        sides = np.exp(draw.uniform(np.log(8), np.log(300), (count, 2)))
        return np.hstack([draw.uniform(0, 1, (count, 2)) * ([width, height] - sides), sides])

    def chosen(count: int) -> tuple[np.ndarray, np.ndarray]:
        often = 1 / np.arange(1, scale.categories + 1)
        categories = draw.choice(scale.categories, count, p=often / often.sum()) + 1
        return draw.integers(1, scale.images + 1, count), categories

    boxes = anywhere(scale.objects)
    images, categories = chosen(scale.objects)
    annotations = [
        {
            "id": number,
            "image_id": image,
            "category_id": category,
            "bbox": box,
            "area": np.pi / 4 * box[2] * box[3],
            "iscrowd": int(number % 100 == 0),
            "segmentation": [ring],
        }
        for number, (image, category, box, ring) in enumerate(
            zip(*(a.tolist() for a in (images, categories, boxes, ellipses(boxes))), strict=True), 1
        )
    ]
    truth = {
        "images": [{"id": k, "height": height, "width": width} for k in range(1, scale.images + 1)],
        "categories": [{"id": k, "name": str(k)} for k in range(1, scale.categories + 1)],
        "annotations": annotations,
    }
    count = scale.detections
    source = draw.integers(0, scale.objects, count)
    near = draw.random(count) < 1 / 3
    moved = boxes[source] + draw.normal(0, 0.1, (count, 4)) * np.tile(boxes[source, 2:], 2)
    found = np.where(near[:, None], moved.clip([-np.inf, -np.inf, 2, 2]), anywhere(count))
    others = chosen(count)
    size = [height, width]
    masks = [
        {"size": size, "counts": coco_mask.frPyObjects([ring], *size)[0]["counts"].decode()}
        for ring in tqdm(ellipses(found).tolist(), "making masks up", leave=False, disable=None)
    ]
    return truth, Results(
        np.where(near, images[source], others[0]),
        np.where(near, categories[source], others[1]),
        found.round(3),
        draw.random(count),
        masks,
    )


def ellipses(boxes_xywh: np.ndarray, points: int = 20) -> np.ndarray:
    """The outline of the ellipse in each box [n, 4] as x, y, x, y ...: ``[n, 2 * points]``."""
    angles = np.linspace(0, 2 * np.pi, points, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    corners, sides = boxes_xywh[:, None, :2], boxes_xywh[:, None, 2:]
    return (corners + sides * (1 + circle) / 2).reshape(len(boxes_xywh), -1)


def by_pycocotools(truth: dict[str, Any], results: Results) -> Callable[[], Found]:
    """The work of pycocotools alone, its input made beforehand."""
    inputs = {kind: (truth["annotations"], list(results.entries())) for kind in KINDS}
    inputs = {kind: ([dict(a) for a in some], found) for kind, (some, found) in inputs.items()}
    for entry in inputs["segm"][1]:
        del entry["bbox"]  # a mask's size is the mask's area

    def work() -> Found:
        figures = {}
        for kind in KINDS:
            annotations, entries = inputs[kind]
            with contextlib.redirect_stdout(io.StringIO()):
                coco = COCO()
                coco.dataset = {**truth, "annotations": annotations}
                coco.createIndex()
                evaluation = COCOeval(coco, coco.loadRes(entries), kind)
                evaluation.evaluate()
                evaluation.accumulate()
                evaluation.summarize()
            percent = (100 * evaluation.stats).tolist()
            figures |= {f"{kind}/{name}": p for name, p in zip(FIGURES, percent, strict=True)}
        return figures

    return work


def by_this_project(truth: dict[str, Any], results: Results) -> Callable[[], Found]:
    """The figures alone."""
    return lambda: coco_metrics(truth, results)


def by_this_project_with_matches(truth: dict[str, Any], results: Results) -> Callable[[], Found]:
    """The figures, and the fate of each detection."""

    def work() -> Found:
        figures = coco_metrics(truth, results)
        for kind in KINDS:
            match_results(truth, results, kind)
        return figures

    return work


CONTENDERS = {
    "pycocotools": by_pycocotools,
    "this project": by_this_project,
    "this project, with matches": by_this_project_with_matches,
}


def measure_evaluation(scale: Scale, repeats: int, seed: int) -> list[dict[str, Any]]:
    """One row a contender: name, median seconds, peak bytes of its process, figures, how many times
    faster than pycocotools. They take turns, each in a process by itself, on the same input."""
    runs: dict[str, list[tuple[float, int, Found]]] = {name: [] for name in CONTENDERS}
    for _ in tqdm(range(repeats), "evaluating", leave=False, disable=None, unit="round"):
        for name in CONTENDERS:
            runs[name].append(_in_a_process(name, scale, seed))
    rows = [
        {
            "name": name,
            "seconds": statistics.median(seconds for seconds, _, _ in of_one),
            "peak_bytes": max(peak for _, peak, _ in of_one),
            "figures": of_one[0][2],
        }
        for name, of_one in runs.items()
    ]
    return [{**row, "ratio": rows[0]["seconds"] / row["seconds"]} for row in rows]


def _in_a_process(name: str, scale: Scale, seed: int) -> tuple[float, int, Found]:
    """Seconds, peak bytes and figures of one contender, in a process started for it."""
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(send, name, scale, seed))
    process.start()
    send.close()
    try:
        return receive.recv()
    finally:
        process.join()


def _work(send: Connection, name: str, scale: Scale, seed: int) -> None:
    CONTENDERS[name](*made_up(Scale(1, 1, 1, 1), seed))()  # to warm up
    work = CONTENDERS[name](*made_up(scale, seed))
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    start = time.perf_counter()
    figures = work()
    seconds = time.perf_counter() - start
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    send.send((seconds, 1024 * int(status["VmHWM"].split()[0]), figures))


def measure_masks(repeats: int, seed: int) -> list[dict[str, Any]]:
    """One row an image size: median seconds from 100 masks to their run lengths."""
    rows = []
    for size in MASK_IMAGES:
        masks, boxes = _random_masks(size, seed)
        works = [partial(work, masks, boxes, size) for work in (_pasted_whole, encode_masks)]
        seconds = [[_seconds(work) for work in works] for _ in range(repeats + 1)][1:]
        theirs, ours = (statistics.median(column) for column in zip(*seconds, strict=True))
        rows.append({"size": size, "torchvision": theirs, "seconds": ours, "ratio": theirs / ours})
    return rows


def _random_masks(size: tuple[int, int], seed: int) -> tuple[Tensor, Tensor]:
    """Uneven discs, in boxes whose sides are log-uniform from 8 pixels to most of the image."""
    draw = torch.Generator().manual_seed(seed)
    width_height = torch.tensor([size[1], size[0]])
    sides = 8 * (0.9 * min(size) / 8) ** torch.rand(MASKS, 2, generator=draw)
    corners = torch.rand(MASKS, 2, generator=draw) * (width_height - sides)
    places = torch.linspace(-1, 1, MASK_EDGE)
    disc = 8 * (1 - places[:, None] ** 2 - places**2)
    noise = torch.randn(MASKS, MASK_EDGE, MASK_EDGE, generator=draw)
    return (disc + 0.7 * noise).sigmoid(), torch.cat([corners, corners + sides], dim=1)


def _pasted_whole(masks: Tensor, boxes: Tensor, size: tuple[int, int]) -> Any:
    pasted = paste_masks_in_image(masks[:, None], boxes, size)[:, 0] >= 0.5  # [D, H, W]
    return coco_mask.encode(np.asfortranarray(pasted.numpy().view(np.uint8).transpose(1, 2, 0)))


def _seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def tables(evaluation: list[dict[str, Any]], masks: list[dict[str, Any]], scale: Scale) -> str:
    """Both measurements in Markdown."""
    lines = [
        f"{scale.images} images, {scale.objects} objects, {scale.detections} detections; boxes and "
        "masks.\n",
        "| evaluation | s | times as fast | peak, GB |",
        "|---|--:|--:|--:|",
        *(
            f"| {row['name']} | {row['seconds']:.2f} | {row['ratio']:.1f} "
            f"| {row['peak_bytes'] / 1e9:.2f} |"
            for row in evaluation
        ),
        f"\n| {MASKS} masks pasted and encoded | this project, ms | torchvision, ms | ratio |",
        "|---|--:|--:|--:|",
        *(
            f"| {row['size'][1]} x {row['size'][0]} | {1e3 * row['seconds']:.1f} "
            f"| {1e3 * row['torchvision']:.1f} | {row['ratio']:.1f} |"
            for row in masks
        ),
    ]
    return "\n".join(lines)
