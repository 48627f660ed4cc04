"""Denoising loss of the default preset."""

from __future__ import annotations

from torch import Tensor

from jdm.diffusion.noise import Denoise, per_channel


def denoising_loss(
    denoise: Denoise,
    x0: Tensor,
    sigma: Tensor,
    noise: Tensor,
    image_channels: int,
    sigma_data: tuple[float, float],
) -> Tensor:
    """Weighted squared error of the denoised sample, unreduced.

    The weight (sigma^2 + sigma_data^2) / (sigma sigma_data)^2 gives a network that returns zero a loss of one at every
    level; a known side (level zero) has none.

    Args:
        x0: (B, C, *spatial) clean samples; sigma: (B, 2); noise: standard normal, like x0.
    Returns: like x0.
    Source: Karras et al. 2022, Eq. 2 and 8, per channel group.
    """
    s = per_channel(sigma, image_channels, x0)
    sd = per_channel(sigma.new_tensor([sigma_data]).expand_as(sigma), image_channels, x0)
    weight = ((s**2 + sd**2) / (s * sd) ** 2).where(s > 0, 0)
    return weight * (denoise(x0 + s * noise, sigma) - x0) ** 2
