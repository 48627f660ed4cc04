"""What the samplers over a `Denoise` share: the levels, the float64 state, and the known entries."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from jdm.diffusion.conditioning import Known
from jdm.diffusion.noise import Denoise
from jdm.errors import ConfigError


@dataclass(frozen=True)
class Run:
    """What every sampler needs at each step."""

    denoise: Denoise
    steps: list[tuple[float, float]]
    """(level, next level) of each step."""
    known: Known | None
    dtype: torch.dtype

    def predict(self, x: Tensor, sigma: float) -> Tensor:
        """Estimate of x0 in float64 from x at level sigma."""
        levels = x.new_full((x.shape[0], 2), sigma)
        if self.known is not None:
            levels = self.known.levels(levels)
        return self.denoise(x.to(self.dtype), levels.to(self.dtype)).to(x)

    def draw(self, sigma: float) -> Tensor | None:
        return None if self.known is None else self.known.draw(sigma)

    def keep(self, x: Tensor, drawn: Tensor | None) -> Tensor:
        """x with what is known put in."""
        return x if self.known is None or drawn is None else self.known.impose(x, drawn)

    def free(self, x: Tensor) -> Tensor:
        """x with zeros where entries are known: for directions and norms, which are those of the others."""
        return x if self.known is None else x.masked_fill(self.known.where, 0.0)


def start(denoise: Denoise, noise: Tensor, sigmas: Tensor, known: Known | None) -> tuple[Run, Tensor]:
    """The run and the state x at the first level."""
    steps = pairs_of_levels(sigmas)
    x = steps[0][0] * noise.to(torch.float64)
    if known is not None:
        known = known.prepared(x)
    if known is not None:
        clean = known.mode == "exact"
        x = known.impose(x, known.values if clean else known.values + x)
    return Run(denoise, steps, known, noise.dtype), x


def pairs_of_levels(sigmas: Tensor) -> list[tuple[float, float]]:
    """(level, next level) of each step.

    Raises: ConfigError if there are fewer than two levels, or they do not decrease, or one is negative.
    """
    levels = sigmas.to(torch.float64).tolist()
    if len(levels) < 2 or any(b >= a for a, b in itertools.pairwise(levels)) or levels[-1] < 0:
        raise ConfigError(
            f"sampling levels {levels} do not decrease; expected at least 2, highest first, none negative"
        )
    return list(itertools.pairwise(levels))
