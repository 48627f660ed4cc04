"""New samples out of given ones: variations of a pair, the noise a pair comes from, and what lies between two."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from jdm.diffusion.noise import Denoise
from jdm.diffusion.repaint import Sample
from jdm.errors import ConfigError


def vary(denoise: Denoise, values: Tensor, noise: Tensor, sigmas: Tensor, sample: Sample) -> Tensor:
    """Noise clean samples to the first of the levels and denoise them again, image and mask together.

    Args:
        values: encoded clean samples (B, C, *spatial).
        noise: standard normal like values.
        sigmas: levels (steps + 1,), the first how far to go, the last zero.
        sample: the sampler.
    Returns: samples like values; the lower the first level, the closer to them.
    Source: Meng et al. 2022, SDEdit (arXiv:2108.01073), Algorithm 2 (variance exploding), with any sampler.
    """
    return sample(denoise, values / sigmas[0].item() + noise, sigmas, None)


@torch.no_grad()
def invert_heun(denoise: Denoise, values: Tensor, sigmas: Tensor) -> Tensor:
    """The noise from which `sample_heun` makes clean samples: the probability flow ODE upwards, Heun's steps.

    At the last level above zero the sample is taken to be `values` itself, from which the ODE has
    moved by the order of that level squared; from there on the error is of second order in the steps.

    Args:
        values: encoded clean samples (B, C, *spatial), floating point.
        sigmas: levels as for `sample_heun`, highest first, the last zero (steps + 1,).
    Returns: like values, about standard normal. 2 * (steps - 1) calls of `denoise`.
    Raises: ConfigError if the levels do not decrease to zero.
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
    """Spherical interpolation of noises: along the great circle through both, so that the norm stays that of noise.

    Of two independent standard normal noises it gives standard normal noise, which linear interpolation does not.

    Args:
        first, second: (B, C, *spatial); each case is one vector.
        share: 0 gives first, 1 gives second, both exactly.
    Source: Song et al. 2021 (DDIM, arXiv:2010.02502), interpolation in the latent space; Shoemake 1985.
    """
    a, b = first.to(torch.float64).flatten(1), second.to(torch.float64).flatten(1)
    norms = a.norm(dim=1) * b.norm(dim=1)
    cosine = ((a * b).sum(1) / norms.clamp_min(torch.finfo(a.dtype).tiny)).clamp(-1, 1)
    angle = torch.arccos(cosine)
    sine = torch.sin(angle)
    straight = sine < 1e-6  # the same direction, or opposite ones, between which no great circle is the shortest
    divisor = torch.where(straight, torch.ones_like(sine), sine)
    weight_a = torch.where(straight, torch.full_like(sine, 1 - share), torch.sin((1 - share) * angle) / divisor)
    weight_b = torch.where(straight, torch.full_like(sine, share), torch.sin(share * angle) / divisor)
    if share in (0, 1):
        return second if share else first
    return (weight_a[:, None] * a + weight_b[:, None] * b).reshape(first.shape).to(first)
