"""New samples from given ones: variations of a pair, the noise that a pair comes from, and interpolation of noise."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from jdm.diffusion.noise import Denoise
from jdm.diffusion.repaint import Sample
from jdm.errors import ConfigError


def vary(denoise: Denoise, values: Tensor, noise: Tensor, sigmas: Tensor, sample: Sample) -> Tensor:
    """Add noise of the first level to clean samples and denoise them again, image and mask together.

    Args:
        values: encoded clean samples (B, C, *spatial).
        noise: standard normal, like values.
        sigmas: levels, highest first (steps + 1,), the last zero. A lower first level keeps the results closer to
            `values`. This counts as the whole schedule for settings that are divided among the steps.
    Returns: like values.
    Source: Meng et al. 2022, SDEdit (arXiv:2108.01073), Algorithm 2 (variance exploding), with any sampler.
    """
    return sample(denoise, values / sigmas[0].item() + noise, sigmas, None)


@torch.no_grad()
def invert_heun(denoise: Denoise, values: Tensor, sigmas: Tensor) -> Tensor:
    """The noise from which `sample_heun` produces given clean samples, by Heun steps up the probability flow ODE.

    It starts with `values` at the last level above zero, where the ODE's x differs from them by an error of the order
    of the level squared. The error of the steps is of second order.

    Args:
        values: encoded clean samples (B, C, *spatial), floating point.
        sigmas: levels as for `sample_heun`, highest first, the last zero (steps + 1,).
    Returns: like values, about standard normal. 2 * (steps - 1) calls of `denoise`.
    Raises: ConfigError if there are fewer than three levels, or they do not decrease to zero.
    Source: Song et al. 2021 (DDIM, arXiv:2010.02502) for the idea; Karras et al. 2022 (arXiv:2206.00364),
        Algorithm 1, for the step.
    """
    levels = sigmas.to(torch.float64).tolist()
    if len(levels) < 3 or any(b >= a for a, b in itertools.pairwise(levels)) or levels[-1] != 0:
        raise ConfigError(f"levels to invert over are {levels}; expected at least 3, decreasing, the last zero")

    def slope(x: Tensor, sigma: float) -> Tensor:
        estimate = denoise(x.to(values.dtype), values.new_full((len(x), 2), sigma))
        return (x - estimate.to(x)) / sigma

    x = values.to(torch.float64)
    for sigma, higher in itertools.pairwise(reversed(levels[:-1])):
        here = slope(x, sigma)
        there = slope(x + (higher - sigma) * here, higher)
        x = x + (higher - sigma) * (here + there) / 2
    return (x / levels[0]).to(values)


def slerp(first: Tensor, second: Tensor, share: float) -> Tensor:
    """Spherical interpolation between noises, along the great circle through both.

    Between two independent standard normal noises the result is also standard normal. Linear interpolation would reduce
    its variance.

    Args:
        first, second: (B, C, *spatial); each case is one vector.
        share: 0 gives `first` and 1 gives `second`, both exactly.
    Returns: like first.
    Source: Song et al. 2021 (DDIM, arXiv:2010.02502), interpolation in the latent space; Shoemake 1985.
    """
    if share in (0, 1):
        return second if share else first
    a, b = first.to(torch.float64).flatten(1), second.to(torch.float64).flatten(1)
    norms = a.norm(dim=1) * b.norm(dim=1)
    cosine = ((a * b).sum(1) / norms.clamp_min(torch.finfo(a.dtype).tiny)).clamp(-1, 1)
    angle = torch.arccos(cosine)
    sine = torch.sin(angle)
    straight = sine < 1e-6  # the same or opposite directions define no great circle: interpolate linearly
    divisor = torch.where(straight, torch.ones_like(sine), sine)
    weight_a = torch.where(straight, torch.full_like(sine, 1 - share), torch.sin((1 - share) * angle) / divisor)
    weight_b = torch.where(straight, torch.full_like(sine, share), torch.sin(share * angle) / divisor)
    return (weight_a[:, None] * a + weight_b[:, None] * b).reshape(first.shape).to(first)
