"""Shared by the samplers over a `Denoise`: noise levels, the float64 state x, and known entries."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from jdm.diffusion.conditioning import Known
from jdm.diffusion.noise import Denoise
from jdm.errors import ConfigError


@dataclass(frozen=True)
class Part:
    """Consecutive levels of a longer schedule, for a sampler that takes only these steps."""

    sigmas: Tensor
    """(n + 1,), highest first."""
    schedule_steps: int
    """Steps of the whole schedule; settings that are divided among the steps, such as churn, are divided by this."""


Levels = Tensor | Part
"""Noise levels that a sampler steps through: a whole schedule (steps + 1,), or part of one."""


@dataclass(frozen=True)
class Run:
    """State and operations that every sampler needs at each step."""

    denoise: Denoise
    steps: list[tuple[float, float]]
    """(level, next level) of each step."""
    schedule_steps: int
    """Number of steps of the whole schedule, of which `steps` may be a part."""
    known: Known | None
    dtype: torch.dtype

    def predict(self, x: Tensor, sigma: float) -> Tensor:
        """Estimate of x0 from x at level sigma, float64."""
        levels = x.new_full((x.shape[0], 2), sigma)
        if self.known is not None:
            levels = self.known.levels(levels)
        return self.denoise(x.to(self.dtype), levels.to(self.dtype)).to(x)

    def draw(self, sigma: float) -> Tensor | None:
        """The known entries at level sigma; None if nothing is known."""
        return None if self.known is None else self.known.draw(sigma)

    def keep(self, x: Tensor, drawn: Tensor | None) -> Tensor:
        """x with its known entries taken from `drawn`."""
        return x if self.known is None or drawn is None else self.known.impose(x, drawn)

    def free(self, x: Tensor) -> Tensor:
        """x with its known entries set to zero, so that norms and directions are those of the unknown entries."""
        return x if self.known is None else x.masked_fill(self.known.where, 0.0)


def start(denoise: Denoise, noise: Tensor, sigmas: Levels, known: Known | None) -> tuple[Run, Tensor]:
    """The run, and x at the first level.

    Raises: ConfigError if there are fewer than two levels, they do not decrease, or one is negative.
    """
    part = sigmas if isinstance(sigmas, Part) else Part(sigmas, len(sigmas) - 1)
    levels = part.sigmas.to(torch.float64).tolist()
    if len(levels) < 2 or any(b >= a for a, b in itertools.pairwise(levels)) or levels[-1] < 0:
        raise ConfigError(
            f"sampling levels {levels} do not decrease; expected at least 2, highest first, none negative"
        )
    steps = list(itertools.pairwise(levels))
    x = steps[0][0] * noise.to(torch.float64)
    if known is not None:
        known = known.prepared(x)
    if known is not None:
        clean = known.mode == "exact"
        x = known.impose(x, known.values if clean else known.values + x)
    return Run(denoise, steps, part.schedule_steps, known, noise.dtype), x
