"""Noise levels of the default preset (Karras et al. 2022, arXiv:2206.00364).

A sample has two noise levels, one for the image channels and one for the mask channels. With equal levels it is the
joint model of Zhou 2023; a level of zero means that the image, or the mask, is known.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from jdm.config.settings import NoiseConfig

Denoise = Callable[[Tensor, Tensor], Tensor]
"""(x, sigma) -> estimate of x0, with x (B, C, *spatial) = x0 + sigma * noise and sigma (B, 2)."""

_KNOWN_LEVEL = 1e-3
"""Used in place of level zero, which has no logarithm. Below every other level: "known" has its own embedding."""


def per_channel(sigma: Tensor, image_channels: int, x: Tensor) -> Tensor:
    """The level (B, 2) of each channel of x (B, C, *spatial): (B, C, 1, ...)."""
    counts = torch.tensor([image_channels, x.shape[1] - image_channels], device=sigma.device)
    spread = torch.repeat_interleave(sigma, counts, dim=1, output_size=x.shape[1])
    return spread.reshape(*spread.shape, *[1] * (x.ndim - 2))


def level_positions(sigma: Tensor) -> Tensor:
    """Positions for the network's sinusoids: 100 times c_noise = ln(sigma) / 4 (Karras et al. 2022, Table 1).

    The factor spreads the levels of training over about 200 radians of the fastest sinusoid.
    """
    return 25 * sigma.float().clamp(min=_KNOWN_LEVEL).log()


def draw_sigmas(noise: NoiseConfig, count: int, generator: torch.Generator) -> Tensor:
    """Noise levels of a training batch.

    Each sample is of one of four kinds, with the probabilities in `noise`: equal levels, independent levels, mask
    known, or image known. ln(sigma) is normal (Karras et al. 2022, Table 1).
    Returns: (count, 2), on the generator's device.
    """
    device = generator.device
    logs = noise.log_mean + noise.log_std * torch.randn(count, 2, generator=generator, device=device)
    sigma = logs.exp()
    shares = torch.tensor([noise.equal, noise.independent, noise.known_mask, noise.known_image], device=device)
    kind = torch.multinomial(shares, count, replacement=True, generator=generator)
    sigma[kind == 0, 1] = sigma[kind == 0, 0]
    sigma[kind == 2, 1] = 0
    sigma[kind == 3, 0] = 0
    return sigma
