"""The mean of the mask given the image, in place of a sampled mask."""

from __future__ import annotations

import torch
from torch import Tensor

from jdm.diffusion.noise import Denoise

UNSEEN = 20.0
"""A noise level that hides a mask altogether, and that training still draws often enough."""


@torch.no_grad()
def estimated_mask(denoise: Denoise, x: Tensor, image_channels: int, level: float, noise: Tensor) -> Tensor:
    """x (B, C, *spatial) with its mask replaced by the mean given the image, E[mask | image, mask + level * noise].

    A sampled mask is one of many that fit the image, and is ragged where the image leaves it open. The mean of a binary
    or one-hot code decodes to the most probable class of each pixel. The mean of analog bits need not: between two
    probable classes it may decode to a third, improbable one. The higher the level, the less the result depends on the
    sampled mask.

    Args: level: above zero, in units of encoded intensity. noise: standard normal, like x.
    Returns: like x. One call of `denoise`, with the image known (level zero).
    """
    levels = x.new_tensor([0.0, level]).expand(len(x), 2)
    mask = x[:, image_channels:]
    noisy = torch.cat([x[:, :image_channels].clamp(-1, 1), mask + level * noise[:, image_channels:]], dim=1)
    return torch.cat([x[:, :image_channels], denoise(noisy, levels)[:, image_channels:]], dim=1)
