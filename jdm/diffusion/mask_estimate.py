"""The mean of the mask given the image, in place of a sampled mask."""

from __future__ import annotations

import torch
from torch import Tensor

from jdm.diffusion.noise import Denoise

UNSEEN = 20.0
"""A noise level that hides a mask completely, but is still frequent in training."""


@torch.no_grad()
def estimated_mask(denoise: Denoise, x: Tensor, image_channels: int, level: float, noise: Tensor) -> Tensor:
    """x (B, C, *spatial) with its mask replaced by the mean given the image, E[mask | image, mask + level * noise].

    A sampled mask is one of many that fit the image, and is ragged where the image is ambiguous. The mean of a binary
    or one-hot code decodes to the most probable class of each pixel. The mean of analog bits may not: between two
    probable classes it can decode to an improbable third one. At higher levels the result depends less on the sampled
    mask.

    Args: level: above zero, in units of encoded intensity. noise: standard normal, like x.
    Returns: like x. One call of `denoise`, with the image known (level zero).
    """
    levels = x.new_tensor([0.0, level]).expand(len(x), 2)
    mask = x[:, image_channels:]
    noisy = torch.cat([x[:, :image_channels].clamp(-1, 1), mask + level * noise[:, image_channels:]], dim=1)
    return torch.cat([x[:, :image_channels], denoise(noisy, levels)[:, image_channels:]], dim=1)
