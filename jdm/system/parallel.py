"""Runs one small network on several CPU cores by splitting the batch.

PyTorch's own threads split each operation, but operations of a small network are too short for that. On two cores,
running two half batches in parallel takes two thirds of the time.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")
Function = Callable[[Tensor, Tensor], Tensor]
"""Function of a batch x (B, ...) and its levels, such as a `Denoise`."""

_LEAST_PART = 4
"""Minimum number of samples per core; with fewer, operations are too short."""


def parts_of(x: Tensor) -> list[slice]:
    """Equal parts of the batch x (B, ...), one per core; on devices other than a CPU, a single part."""
    most = torch.get_num_threads() if x.device.type == "cpu" else 1
    count = max(1, min(most, len(x) // _LEAST_PART))
    ends = [round(len(x) * k / count) for k in range(count + 1)]
    return [slice(a, b) for a, b in itertools.pairwise(ends)]


def side_by_side(work: Callable[[slice], Result], parts: list[slice]) -> list[Result]:
    """Run `work` on each part in its own thread, with an equal share of the cores; results in order."""
    if len(parts) == 1:
        return [work(parts[0])]
    threads, grad = torch.get_num_threads(), torch.is_grad_enabled()

    def alone(part: slice) -> Result:
        torch.set_num_threads(max(1, threads // len(parts)))  # applies to this thread
        with torch.set_grad_enabled(grad):
            return work(part)

    try:
        with ThreadPoolExecutor(len(parts)) as pool:
            return list(pool.map(alone, parts))
    finally:
        torch.set_num_threads(threads)


def on_all_cores(denoise: Function) -> Function:
    """The same denoiser, with the batch split over the cores."""

    def denoise_parts(x: Tensor, sigma: Tensor) -> Tensor:
        return torch.cat(side_by_side(lambda part: denoise(x[part], sigma[part]), parts_of(x)))

    return denoise_parts
