"""One or several processes: torchrun's group, agreement between its processes, and stop signals."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist

from jdm.errors import ConfigError, JdmError

T = TypeVar("T")


_LAUNCHED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT", "MASTER_ADDR")
"""Variables that torchrun sets."""


@dataclass(frozen=True)
class Launch:
    """This process's rank among those started by torchrun; without torchrun, a single process."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    """Rank on this machine."""


def launch() -> Launch:
    """Read torchrun's variables.

    Raises: ConfigError if some of them are missing or their numbers are inconsistent.
    """
    found = {name: os.environ[name] for name in _LAUNCHED if name in os.environ}
    if found.get("WORLD_SIZE", "1") == "1":
        return Launch()
    numbers = [int(found[name]) for name in _LAUNCHED[:4] if found.get(name, "").isdecimal()]
    if len(found) < len(_LAUNCHED) or len(numbers) < 4 or numbers[0] >= numbers[1]:
        missing = [name for name in _LAUNCHED if name not in found]
        raise ConfigError(
            f"the environment has {', '.join(f'{name}={value}' for name, value in found.items())}"
            f"{' without ' + ', '.join(missing) if missing else ''}; expected all as torchrun sets them; start with "
            f"torchrun --no-python, or type: unset {' '.join(found)}"
        )
    return Launch(*numbers[:3])


@contextlib.contextmanager
def processes() -> Iterator[torch.device]:
    """This process's device; joins torchrun's group, if there is one and it has not been joined yet.

    Raises: ConfigError as `launch`, or if there is no GPU for this process.
    """
    launched = launch()
    cuda = torch.cuda.is_available()
    if cuda and launched.local_rank >= torch.cuda.device_count():
        raise ConfigError(
            f"process {launched.local_rank} of this machine has no GPU; found {torch.cuda.device_count()}, "
            f"expected one per process; start with torchrun --nproc-per-node {torch.cuda.device_count()}"
        )
    device = torch.device("cuda", launched.local_rank) if cuda else torch.device("cpu")
    if dist.is_initialized() or launched.world_size == 1:
        yield device
        return
    if cuda:
        torch.cuda.set_device(device)
    if not dist.is_torchelastic_launched():  # variables of another program, or left over
        print(
            f"waiting at {os.environ['MASTER_ADDR']} for the {launched.world_size} processes in WORLD_SIZE; "
            f"if there is only this one, stop it and type: unset {' '.join(_LAUNCHED)}",
            file=sys.stderr,
            flush=True,
        )
    dist.init_process_group("nccl" if cuda else "gloo")
    try:
        yield device
    finally:
        dist.destroy_process_group()


def device_name() -> str:
    """Device for sampling: this process's GPU under torchrun, else the first; "cpu" without a GPU."""
    return f"cuda:{launch().local_rank}" if torch.cuda.is_available() else "cpu"


def rank() -> int:
    """This process's rank in the group; 0 without a group."""
    return dist.get_rank() if dist.is_initialized() else 0


def decided_by_first(decide: Callable[[], T]) -> T:
    """The first process's decision, in every process: measured step times differ, but plans must not.

    Raises: the first process's JdmError, in every process, because the others would wait for it forever.
    """
    if not dist.is_initialized():
        return decide()
    decided: list[T | JdmError | None] = [None]
    if rank() == 0:
        try:
            decided = [decide()]
        except JdmError as error:
            decided = [error]
    dist.broadcast_object_list(decided)
    (found,) = decided
    assert found is not None
    if isinstance(found, JdmError):
        raise found
    return found


def agreed(number: float, step: int) -> float:
    """The largest number of any process; exchanged only every tenth step, 0 in between."""
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
