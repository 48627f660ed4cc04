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

    With the weight (sigma^2 + sigma_data^2) / (sigma sigma_data)^2 a network that returns zero has a loss of one at
    every level. A known image or mask (level zero) has weight zero.

    Args: x0: clean samples (B, C, *spatial). sigma: (B, 2). noise: standard normal, like x0.
    Returns: like x0.
    Source: Karras et al. 2022, Eq. 2 and 8, with sigma and sigma_data of the image or mask.
    """
    s = per_channel(sigma, image_channels, x0)
    sd = per_channel(sigma.new_tensor([sigma_data]).expand_as(sigma), image_channels, x0)
    weight = ((s**2 + sd**2) / (s * sd) ** 2).where(s > 0, 0)
    return weight * (denoise(x0 + s * noise, sigma) - x0) ** 2
