"""Time the project's operators beside torchvision's: ``python scripts/benchmark.py ops``.

Prints a Markdown table. Each cell is the median of several runs, both libraries in the same
process, interleaved; "limit" is the time that the machine's own copying of the bytes a pass must
move at least once would take. torchvision reads the layout it is made for (NCHW), ours its own
(channels-last); gradients arrive in the layout of each result.
"""

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor
from torchvision import ops as torchvision_ops

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from files.atomic import write_json
from ops.poolers import POOLERS
from scripts.timing import evaluation

STRIDE = 16
SAMPLES = 2
Pass = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Shape:
    """One map ``[1, channels, height, width]``, and RoIs pooled to ``size x size``."""

    rois: int
    size: int
    channels: int
    height: int
    width: int

    def __str__(self) -> str:
        map_size = f"{self.channels} x {self.height} x {self.width}"
        return f"{self.rois} RoIs {self.size} x {self.size}, map {map_size}"

    def bytes_moved(self, backward: bool) -> int:
        """Least traffic in float32: read the map, write the result; the other way round, too."""
        moved = 4 * self.channels * (self.height * self.width + self.rois * self.size**2)
        return 2 * moved if backward else moved


SHAPES = {
    "c4": Shape(128, 14, 1024, 50, 68),
    "c5": Shape(512, 7, 512, 50, 68),
    "narrow7": Shape(256, 7, 128, 16, 16),
    "narrow14": Shape(256, 14, 128, 16, 16),
}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    ops = commands.add_parser("ops", help="the poolers against torchvision's")
    ops.add_argument("--shapes", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    ops.add_argument("--repeats", type=int, default=7, help="runs of each, at least 5")
    ops.add_argument("--threads", type=int, default=None, help="default: torch's own choice")
    ops.add_argument("--seed", type=int, default=0)
    add_eval_command(commands)
    options = parser.parse_args(arguments)
    if options.command == "eval":
        benchmark_eval(options.scale, options.repeats, options.seed, options.json)
        return
    if options.repeats < 5:
        parser.error("--repeats: give at least 5, a median of fewer says little")
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    benchmark_ops([SHAPES[name] for name in options.shapes], options.repeats, options.seed)


def add_eval_command(commands: Any) -> None:
    """What `benchmark.py eval` takes."""
    command = commands.add_parser("eval", help="COCO's evaluation against bare pycocotools")
    command.add_argument("--scale", choices=list(evaluation.SCALES), default="small")
    command.add_argument("--repeats", type=int, default=3, help="runs of each, in turn")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--json", type=Path, help="file to write the measurements to")


def benchmark_eval(scale: str, repeats: int, seed: int, file: Path | None) -> None:
    """Print, and write to `file`, how long evaluation takes."""
    measured = {
        "machine": machine(),
        "scale": scale,
        "evaluation": evaluation.measure_evaluation(evaluation.SCALES[scale], repeats, seed),
        "masks": evaluation.measure_masks(repeats, seed),
    }
    print(f"{measured['machine']}; median of {repeats}; ", end="")
    print(evaluation.tables(measured["evaluation"], measured["masks"], evaluation.SCALES[scale]))
    if file is not None:
        write_json(file, measured)


def benchmark_ops(shapes: list[Shape], repeats: int, seed: int) -> None:
    """Print the table of all poolers on `shapes`."""
    bandwidth = copy_bandwidth()
    print(
        f"{machine()}; torch {torch.__version__}, torchvision {torchvision.__version__}, "
        f"{torch.get_num_threads()} threads; float32, {SAMPLES} x {SAMPLES} samples per bin, "
        f"median of {repeats}; copying {bandwidth / 1e9:.1f} GB/s read + written.\n"
    )
    print("| pooler | pass | ours, ms | torchvision, ms | ratio | MB to move | of the limit |")
    print("|---|---|--:|--:|--:|--:|--:|")
    for shape in shapes:
        print(f"| **{shape}** | | | | | | |")
        for name, backward, ours, peer in rows(shape, repeats, seed):
            moved = shape.bytes_moved(backward)
            limit = moved / bandwidth
            print(
                f"| {name} | {'fwd+bwd' if backward else 'fwd'} | {1e3 * ours:.1f} "
                f"| {_compared(ours, peer)} | {moved / 1e6:.0f} "
                f"| {100 * limit / ours:.0f} % |",
                flush=True,
            )


def _compared(seconds: float, peer: float | None) -> str:
    return "– | –" if peer is None else f"{1e3 * peer:.1f} | {peer / seconds:.1f}"


def rows(shape: Shape, repeats: int, seed: int) -> Iterator[tuple[str, bool, float, float | None]]:
    """Pooler, whether the backward pass is included, its seconds, torchvision's (None: no such)."""
    torch.manual_seed(seed)
    rois = random_rois(shape)
    features = torch.randn(1, shape.channels, shape.height, shape.width)
    for name, (ours, peer) in pairs(shape.size).items():
        for backward in (False, True):
            channels_last = features.to(memory_format=torch.channels_last)
            runs = [timed_pass(ours, channels_last, rois, backward)]
            if peer is not None:
                runs.append(timed_pass(peer, features, rois, backward))
            seconds = [[run() for run in runs] for _ in range(repeats + 1)][1:]  # one to warm up
            medians = [statistics.median(column) for column in zip(*seconds, strict=True)]
            yield name, backward, medians[0], medians[1] if peer is not None else None


def pairs(size: int) -> dict[str, tuple[Pass, Pass | None]]:
    """Every pooler with each of its aggregations, beside the nearest that torchvision can do.

    RoIWarp is torchvision's RoIAlign on rounded boxes; a maximum is composed of one-sample bins.
    """
    scale = 1 / STRIDE
    given = {"output_size": size, "spatial_scale": scale}
    average = partial(torchvision_ops.roi_align, **given, sampling_ratio=SAMPLES, aligned=True)

    def rounded(boxes: Tensor) -> Tensor:
        return torch.cat((boxes[:, :1], (boxes[:, 1:] * scale).round() / scale), dim=1)

    def largest(features: Tensor, boxes: Tensor) -> Tensor:
        fine = torchvision_ops.roi_align(features, boxes, size * SAMPLES, scale, 1, True)
        return F.max_pool2d(fine, SAMPLES)

    peers: dict[tuple[str, str], Pass] = {
        ("align", "avg"): average,
        ("align", "max"): largest,
        ("warp", "avg"): lambda f, b: average(f, rounded(b)),
        ("warp", "max"): lambda f, b: largest(f, rounded(b)),
        ("pool", "max"): partial(torchvision_ops.roi_pool, **given),
    }
    found: dict[str, tuple[Pass, Pass | None]] = {}
    for word, pooler in POOLERS.items():
        for agg in (pooler.agg,) if pooler.agg else ("avg", "max"):
            ours = partial(pooler.function, **given, **({} if pooler.agg else {"agg": agg}))
            name = pooler.title + ("" if pooler.agg else f" {agg}")
            found[name] = (ours, peers.get((word, agg)))
    return found


def random_rois(shape: Shape) -> Tensor:
    """RoIs ``[K, 5]`` within the image, sides log-uniform from 16 to at most 512 pixels."""
    size = torch.tensor([shape.width, shape.height]) * float(STRIDE)  # x, y
    largest = size.clamp(max=512)
    sides = 16 * (largest / 16) ** torch.rand(shape.rois, 2)
    corner = torch.rand(shape.rois, 2) * (size - sides)
    return torch.cat((torch.zeros(shape.rois, 1), corner, corner + sides), dim=1)


def timed_pass(pooler: Pass, features: Tensor, rois: Tensor, backward: bool) -> Callable[[], float]:
    """A function that runs one pass and returns its seconds."""
    features = features.clone(memory_format=torch.preserve_format).requires_grad_(backward)
    grad = torch.randn_like(pooler(features, rois).detach())

    def run() -> float:
        features.grad = None
        start = time.perf_counter()
        pooled = pooler(features, rois)
        if backward:
            pooled.backward(grad)
        return time.perf_counter() - start

    return run


def copy_bandwidth(megabytes: int = 256, repeats: int = 7) -> float:
    """Bytes read plus written per second by a copy between two resident buffers."""
    source = torch.ones(megabytes << 18)
    target = torch.zeros_like(source)
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        target.copy_(source)
        seconds.append(time.perf_counter() - start)
    return 2 * source.nbytes / statistics.median(seconds)


def machine() -> str:
    """The processor's name and its number of cores."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores"


if __name__ == "__main__":
    main()
