"""How often a sampler asks the network, counted at the network, and the steps that fit a number of evaluations."""

from __future__ import annotations

import dataclasses
from bisect import bisect_right
from collections.abc import Sequence
from functools import cache

import torch
from jdm.draw.export_drawer import PairDrawer
from torch import Tensor, nn

from jdm.diffusion.noise import Denoiser
from jdm.diffusion.vp import VPDenoiser
from jdm.export.request import ExportRequest
from jdm.train.checkpoint import Checkpoint

_LEAST_STEPS = 2


def counted(denoiser: Denoiser | VPDenoiser) -> list[int]:
    """A list to which every call of the network from now on appends its number of samples."""
    calls: list[int] = []
    denoiser.network.register_forward_pre_hook(lambda _, arguments: calls.append(len(arguments[0])))
    return calls


def steps_by_evaluations(
    checkpoint: Checkpoint, request: ExportRequest, wanted: Sequence[int], most_steps: int = 1000
) -> dict[int, int]:
    """The largest number of steps of the request's sampler that takes no more than each wanted number of evaluations.

    Counted on one sample of a network that does no work. Left out are numbers that the sampler cannot do. A sampler
    that chooses its steps itself has one entry, of the request's steps.

    Returns: steps by wanted number of evaluations.
    """
    drawer = PairDrawer(checkpoint, request, "cpu")
    drawer.denoiser.network = _Idle(isinstance(drawer.denoiser, VPDenoiser))
    calls = counted(drawer.denoiser)

    @cache
    def evaluations(steps: int) -> int:
        calls.clear()
        drawer.request = dataclasses.replace(request, steps=steps)
        drawer.samples([0])
        return len(calls)

    least = evaluations(_LEAST_STEPS)
    if least == evaluations(10 * _LEAST_STEPS):
        return {least: request.steps}
    found = {}
    for number in sorted(wanted):
        steps = range(_LEAST_STEPS, max(_LEAST_STEPS, min(number, most_steps)) + 1)  # a step asks once at least
        fitting = bisect_right(steps, number, key=evaluations)
        if fitting:
            found[number] = steps[fitting - 1]
    return found


class _Idle(nn.Module):
    """Makes a denoiser that of normal data, without work: for counting only."""

    def __init__(self, learned_variance: bool) -> None:
        super().__init__()
        self.learned_variance = learned_variance

    def forward(self, x: Tensor, levels: Tensor, condition: Tensor | None = None) -> Tensor:
        return torch.cat([x, torch.zeros_like(x)], 1) if self.learned_variance else torch.zeros_like(x)
