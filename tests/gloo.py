"""Runs a function in two gloo processes and brings its results back: the tests' stand-in for two GPUs."""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def _worker(rank: int, world_size: int, port: int, folder: str, fn: Callable[..., Any], args: tuple[Any, ...]) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE=str(world_size))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=world_size)
    try:
        torch.save(fn(rank, world_size, *args), Path(folder) / f"{rank}.pt")
        dist.barrier()
    finally:
        dist.destroy_process_group()


def run_two(fn: Callable[..., Any], *args: Any) -> list[Any]:
    """Calls `fn(rank, 2, *args)` in two gloo processes; returns [result of rank 0, result of rank 1].

    `fn` must live at module level, and its results be plain: tensors, numbers, strings, dicts and lists of these.
    """
    with TemporaryDirectory() as folder:
        mp.spawn(_worker, args=(2, free_port(), folder, fn, args), nprocs=2, join=True)
        return [torch.load(Path(folder) / f"{rank}.pt", weights_only=True) for rank in range(2)]
