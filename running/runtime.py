"""Where a run computes: device, number format, ranks, seeds. Works unchanged in one process."""

import os
import random
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist

from ops.errors import InputError

T = TypeVar("T")

PRECISIONS = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


@dataclass(frozen=True)
class Runtime:
    """One process of a run.

    Attributes:
        device: where this process computes.
        rank: its number, ``0 .. world_size - 1``; rank 0 alone writes files.
        world_size: how many processes share the run.
        precision: "float32", "bfloat16" or "float16".
    """

    device: torch.device
    rank: int = 0
    world_size: int = 1
    precision: str = "float32"

    @property
    def is_main(self) -> bool:
        """True in the one process that writes files and prints."""
        return self.rank == 0

    def autocast(self) -> AbstractContextManager[Any]:
        """Context of the forward pass: automatic mixed precision, or nothing for float32."""
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=PRECISIONS[self.precision])

    def grad_scaler(self) -> torch.amp.GradScaler:
        """Loss scaling (Mixed Precision Training, section 3.2); does nothing but for float16."""
        return torch.amp.GradScaler(self.device.type, enabled=self.precision == "float16")

    def gather_objects(self, items: Sequence[T]) -> list[T]:
        """The items of all ranks in one list, in rank order, the same on every rank."""
        if self.world_size == 1:
            return list(items)
        per_rank: list[Any] = [None] * self.world_size
        dist.all_gather_object(per_rank, list(items))
        return [item for part in per_rank for item in part]

    def broadcast(self, value: T) -> T:
        """Rank 0's `value`, on every rank."""
        if self.world_size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def average(self, values: Mapping[str, float]) -> dict[str, float]:
        """Each value's mean over the ranks; every rank must bring the same names."""
        everyones = self.gather_objects([dict(values)])
        return {name: sum(v[name] for v in everyones) / len(everyones) for name in values}

    def barrier(self) -> None:
        """Wait until every rank has come here."""
        if self.world_size > 1:
            dist.barrier()

    def close(self) -> None:
        """Leave the group of ranks; the last thing a process does."""
        if self.world_size > 1 and dist.is_initialized():
            dist.destroy_process_group()


def start_runtime(
    *,
    device: str = "auto",
    precision: str = "float32",
    threads: int | None = None,
    deterministic: bool = False,
) -> Runtime:
    """Choose the device, join the other ranks where torchrun started several, set torch's switches.

    Args:
        device: "auto" (CUDA where there is one), "cpu", "cuda", "cuda:1", ...
        precision: "float32", "bfloat16", "float16" (CUDA only), or "auto": bfloat16 on a CPU that
            computes it natively, float32 elsewhere.
        threads: CPU threads of one operation; None leaves PyTorch's own choice.
        deterministic: allow only operations that give the same bits every time.

    Raises:
        InputError: a setting that is unknown or that this machine cannot honour.
    """
    world_size, rank, local_rank = _ranks()
    chosen = _device(device, local_rank if world_size > 1 else None)
    precision = _precision(precision, chosen)
    if threads is not None:
        if threads < 1:
            raise InputError(f"threads={threads}: give 1 or more, or null for PyTorch's choice")
        torch.set_num_threads(threads)
    _set_determinism(deterministic)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if world_size > 1 and not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo")
    return Runtime(chosen, rank, world_size, precision)


def _ranks() -> tuple[int, int, int]:
    """(world size, rank, rank on this machine) from torchrun's environment; (1, 0, 0) without."""
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1:
        return 1, 0, 0
    needed = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    missing = [name for name in needed if name not in os.environ]
    if missing:
        raise InputError(
            f"WORLD_SIZE={world_size} is set but {', '.join(missing)} not: start several processes "
            "with torchrun, or unset WORLD_SIZE"
        )
    return world_size, int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])


def _device(wanted: str, local_rank: int | None) -> torch.device:
    """The device named, or found; with several ranks, each takes the CUDA device of its number."""
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(wanted)
    except RuntimeError as error:
        raise InputError(f"device={wanted}: unknown; choose auto, cpu, cuda or cuda:N") from error
    if device.type != "cuda":
        return device
    if not torch.cuda.is_available():
        raise InputError(f"device={wanted}: PyTorch sees no CUDA device; choose device=cpu or auto")
    index = device.index if local_rank is None else local_rank
    index = index or 0
    if index >= torch.cuda.device_count():
        raise InputError(
            f"device={wanted}: CUDA device {index} is asked for and there are "
            f"{torch.cuda.device_count()}; choose a smaller number or start fewer processes"
        )
    return torch.device("cuda", index)


def _precision(wanted: str, device: torch.device) -> str:
    """The number format named, or the quickest that loses nothing that matters."""
    if wanted == "auto":
        # Emulated bfloat16 is far slower than float32, so the CPU must have instructions for it.
        native = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
        return "bfloat16" if device.type == "cpu" and native() else "float32"
    if wanted not in PRECISIONS:
        raise InputError(
            f"precision={wanted}: unknown; choose one of {', '.join(('auto', *PRECISIONS))}"
        )
    if wanted == "float16" and device.type != "cuda":
        raise InputError(
            f"precision=float16: not for device {device.type}; choose bfloat16 or float32"
        )
    return wanted


def _set_determinism(deterministic: bool) -> None:
    """Set the switches both ways: jobs of a sweep may follow one another in one process."""
    if deterministic:
        # cuBLAS reads this when its first handle is made, so it must stand before any CUDA work.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.deterministic = deterministic


def seed_everything(seed: int, rank: int = 0) -> None:
    """Seed Python, NumPy and PyTorch; each (seed, rank) has a stream of its own."""
    # A plain sum would make rank 1 of seed 0 repeat rank 0 of seed 1.
    numbers = np.random.SeedSequence([seed, rank]).generate_state(3).tolist()
    random.seed(numbers[0])
    np.random.seed(numbers[1])  # noqa: NPY002 - the global stream is what libraries draw from
    torch.manual_seed(numbers[2])


def rng_state() -> dict[str, Any]:
    """The state of every global random stream of this process, as tensors and plain values.

    A run that is resumed with it (`set_rng_state`) draws what the uninterrupted run would have
    drawn.
    """
    name, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002
    return {
        "python": random.getstate(),
        "numpy": (str(name), torch.tensor(keys, dtype=torch.int64), position, has_gauss, cached),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_rng_state(state: Mapping[str, Any]) -> None:
    """Put back what `rng_state` took. CUDA streams only where there are as many devices."""
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
