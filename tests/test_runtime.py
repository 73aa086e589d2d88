"""Device, precision, seeds and ranks."""

import os
import random
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp

from ops.errors import InputError
from running.runtime import rng_state, seed_everything, set_rng_state, start_runtime

RANK_VARIABLES = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test inherits ranks; none leaves its switches behind."""
    for name in RANK_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


def test_one_process_needs_no_group() -> None:
    runtime = start_runtime(device="cpu")
    assert (runtime.rank, runtime.world_size, runtime.is_main) == (0, 1, True)
    assert runtime.gather_objects([1, 2]) == [1, 2]
    assert runtime.average({"loss": 3.0}) == {"loss": 3.0}
    assert runtime.broadcast("a") == "a"
    runtime.barrier()
    runtime.close()


def test_auto_takes_cuda_only_where_there_is_one() -> None:
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert start_runtime(device="auto").device.type == expected


def test_bfloat16_computes_matrix_products_in_bfloat16_and_float32_does_not() -> None:
    a = torch.ones(2, 2)
    with start_runtime(device="cpu", precision="bfloat16").autocast():
        assert (a @ a).dtype == torch.bfloat16
    with start_runtime(device="cpu", precision="float32").autocast():
        assert (a @ a).dtype == torch.float32


def test_gradients_are_not_scaled_but_in_float16() -> None:
    assert not start_runtime(device="cpu", precision="bfloat16").grad_scaler().is_enabled()


def test_threads_and_determinism_are_set_both_ways() -> None:
    start_runtime(device="cpu", threads=1, deterministic=True)
    assert torch.get_num_threads() == 1
    assert torch.are_deterministic_algorithms_enabled()
    start_runtime(device="cpu", deterministic=False)
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"device": "cpu", "precision": "float16"}, "precision=float16: not for device cpu"),
        ({"device": "cpu", "precision": "half"}, "precision=half: unknown"),
        ({"device": "gpu"}, "device=gpu: unknown"),
        ({"device": "cpu", "threads": 0}, "threads=0"),
    ],
)
def test_a_setting_that_cannot_be_honoured_is_named(settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        start_runtime(**settings)
    assert "\n" not in str(caught.value)


def test_cuda_asked_for_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="device=cuda: PyTorch sees no CUDA device; choose"):
        start_runtime(device="cuda")


def test_more_ranks_than_cuda_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for name, value in zip(RANK_VARIABLES, ("2", "1", "1", "localhost", "1"), strict=True):
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match="CUDA device 1 is asked for and there are 1"):
        start_runtime(device="cuda")


def test_half_an_environment_of_torchrun_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(InputError, match="LOCAL_RANK, MASTER_ADDR, MASTER_PORT not: start"):
        start_runtime(device="cpu")


def _draw() -> tuple[float, float, float]:
    return random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002


def test_the_same_seed_and_rank_draw_the_same_and_others_do_not() -> None:
    draws = {}
    for seed, rank in [(0, 0), (0, 1), (1, 0), (0, 0)]:
        seed_everything(seed, rank)
        drawn = _draw()
        assert draws.setdefault((seed, rank), drawn) == drawn
    assert len({number for drawn in draws.values() for number in drawn}) == 9


def test_streams_go_on_where_they_were_after_a_trip_through_a_file(tmp_path: Path) -> None:
    seed_everything(3)
    random.gauss(0, 1)
    np.random.standard_normal()  # noqa: NPY002 - leaves a cached second value, part of the state
    torch.save(rng_state(), tmp_path / "rng.pt")
    expected = [_draw(), random.gauss(0, 1), np.random.standard_normal()]  # noqa: NPY002
    seed_everything(4)
    set_rng_state(torch.load(tmp_path / "rng.pt", weights_only=True))
    assert [_draw(), random.gauss(0, 1), np.random.standard_normal()] == expected  # noqa: NPY002


def _one_of_two(rank: int, port: int, folder: str) -> None:
    values = ("2", str(rank), str(rank), "127.0.0.1", str(port))
    os.environ.update(zip(RANK_VARIABLES, values, strict=True))
    runtime = start_runtime(device="cpu", threads=1)
    seen = {
        "main": runtime.is_main,
        "gathered": runtime.gather_objects([{"rank": rank}] * (rank + 1)),
        "average": runtime.average({"loss": float(rank), "lr": 0.5}),
        "broadcast": runtime.broadcast(f"from {rank}"),
    }
    runtime.barrier()
    runtime.close()
    torch.save(seen, Path(folder) / f"{rank}.pt")


def test_two_processes_share_what_they_have(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(_one_of_two, args=(port, str(tmp_path)), nprocs=2)
    for rank in (0, 1):
        assert torch.load(tmp_path / f"{rank}.pt", weights_only=True) == {
            "main": rank == 0,
            "gathered": [{"rank": 0}, {"rank": 1}, {"rank": 1}],
            "average": {"loss": 0.5, "lr": 0.5},
            "broadcast": "from 0",
        }


def test_auto_precision_is_bfloat16_only_where_the_cpu_has_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for native, precision in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(
            torch.cpu, "_is_avx512_bf16_supported", lambda n=native: n, raising=False
        )
        assert start_runtime(device="cpu", precision="auto").precision == precision
