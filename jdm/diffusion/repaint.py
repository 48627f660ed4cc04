"""RePaint: replacement whose samples go back up in noise, so that what is sampled comes to agree with what is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from jdm.diffusion.conditioning import Known, Noise
from jdm.diffusion.noise import Denoise
from jdm.errors import ConfigError

Sample = Callable[[Denoise, Tensor, Tensor, Known | None], Tensor]
"""(denoise, noise, sigmas, known) -> the sample: `sample_heun`, or another with its settings bound."""


@dataclass(frozen=True)
class Resampling:
    """How often a sampler goes back (Lugmayr et al. 2022); the defaults are theirs, for 250 steps."""

    jump_length: int = 10
    """Steps that a jump goes back up in noise."""
    repetitions: int = 10
    """How often each stretch of so many steps is gone through in all; 1: no jumps."""

    def __post_init__(self) -> None:
        """Raises: ConfigError if a number is below 1."""
        if self.jump_length < 1 or self.repetitions < 1:
            raise ConfigError(
                f"resampling has jump length {self.jump_length} and {self.repetitions} repetitions; expected at least "
                "1 of each; correct it"
            )

    def stretches(self, steps: int) -> list[tuple[int, int]]:
        """The ways down, as (first, last) index into the levels 0 .. steps; a jump leads from each to the next.

        Counted from the last level above zero, every `jump_length`-th is jumped from while the jump stays within the
        levels; never from level zero.
        Raises: ConfigError if there are jumps to make, and no room for one.
        """
        if self.repetitions > 1 and self.jump_length >= steps:
            raise ConfigError(
                f"the jump length is {self.jump_length} of {steps} steps; expected less; shorten it, or take more steps"
            )
        ways, first = [], 0
        for low in reversed(range(0, steps - self.jump_length, self.jump_length)):
            for _ in range(self.repetitions - 1):
                ways.append((first, steps - 1 - low))
                first = steps - 1 - low - self.jump_length
        return [*ways, (first, steps)]


@torch.no_grad()
def sample_repaint(
    denoise: Denoise,
    noise: Tensor,
    sigmas: Tensor,
    known: Known,
    fresh: Noise,
    resampling: Resampling,
    sample: Sample,
) -> Tensor:
    """A sampler with `known` of mode "replacement", and jumps back that lessen the bias of replacement.

    A jump adds the noise that the steps took away, x + sqrt(high^2 - low^2) * fresh(), which is the paper's diffusion
    forward (Algorithm 1, line 10) for variance-exploding x. Without jumps, or if nothing is known, this is `sample`
    bit for bit. Samplers with a memory begin anew after each jump.

    Args:
        noise: standard normal (B, C, *spatial). fresh: more of it, for the jumps.
        sigmas: levels, highest first (steps + 1,), the last zero.
        sample: the sampler of each way down.
    Returns: x0, shaped like noise. (repetitions - 1) * jump_length more steps for each level jumped from.
    Raises: ConfigError if `known` is of mode "exact", which has no such bias, or jumps do not fit into the steps.
    Source: Lugmayr et al. 2022 (arXiv:2201.09865), Algorithm 1 and the schedule of its appendix.
    """
    if known.mode != "replacement":
        raise ConfigError("resampling got Known of mode 'exact'; expected mode 'replacement'; leave resampling out")
    ways = resampling.stretches(len(sigmas) - 1)
    kept = known.prepared(noise.to(torch.float64))
    if kept is None or len(ways) == 1:
        return sample(denoise, noise, sigmas, known)

    def denoise_in_dtype(x: Tensor, sigma: Tensor) -> Tensor:
        return denoise(x.to(noise.dtype), sigma.to(noise.dtype)).to(x)

    levels = sigmas.to(torch.float64).tolist()
    start = noise.to(torch.float64)
    x = start
    for number, (first, last) in enumerate(ways):
        if number > 0:
            low, high = levels[ways[number - 1][1]], levels[first]
            x = x + math.sqrt(high**2 - low**2) * fresh().to(x)
            # A sampler makes x from noise, and adds what is known to it.
            start = (x - torch.where(kept.where, kept.values, 0.0)) / high
        x = sample(denoise_in_dtype, start, sigmas[first : last + 1], known)
    return x.to(noise)
