"""One process or several: torchrun's group, what its processes agree on, and signals to stop."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")


@contextlib.contextmanager
def processes() -> Iterator[torch.device]:
    """This process's device; joins the group that torchrun started, if it did and nobody has yet."""
    ranked = int(os.environ.get("WORLD_SIZE", "1")) > 1
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if cuda else torch.device("cpu")
    if dist.is_initialized() or not ranked:
        yield device
        return
    if cuda:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if cuda else "gloo")
    try:
        yield device
    finally:
        dist.destroy_process_group()


def device_name() -> str:
    """Where this process samples: its own GPU under torchrun, else the first; "cpu" where there is none."""
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"


def rank() -> int:
    """This process's place in the group, 0 where there is none."""
    return dist.get_rank() if dist.is_initialized() else 0


def decided_by_first(decide: Callable[[], T]) -> T:
    """What the first process decides, in every process: measured step times differ, plans must not."""
    if not dist.is_initialized():
        return decide()
    decided: list[T | None] = [decide() if rank() == 0 else None]
    dist.broadcast_object_list(decided)
    assert decided[0] is not None
    return decided[0]


def agreed(number: float, step: int) -> float:
    """The largest number of any process; asked of the others every tenth step only, 0 in between."""
    if not dist.is_initialized():
        return number
    if step % 10:
        return 0
    shared = torch.tensor(float(number), device="cuda" if dist.get_backend() == "nccl" else "cpu")
    dist.all_reduce(shared, dist.ReduceOp.MAX)
    return float(shared)


@contextlib.contextmanager
def stop_signals() -> Iterator[list[int]]:
    """A list that receives SIGTERM or SIGINT, so that the loop can save before it ends."""
    received: list[int] = []
    try:
        previous = {
            s: signal.signal(s, lambda number, _: received.append(number)) for s in (signal.SIGTERM, signal.SIGINT)
        }
    except ValueError:  # not in the main thread
        previous = {}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
