"""The mask that a finished image asks for."""

from __future__ import annotations

import torch
from torch import Tensor

from jdm.diffusion.noise import Denoise

UNSEEN = 20.0
"""A level at which nothing of a mask is left to see, and which training still meets often enough."""


@torch.no_grad()
def estimated_mask(denoise: Denoise, x: Tensor, image_channels: int, level: float, noise: Tensor) -> Tensor:
    """x (B, C, *spatial) with the mean of its mask given its image, E[mask | image, mask + level * noise].

    A sampled mask is one of many that fit the image and is ragged where the image does not decide. Of a binary or
    one-hot code the mean decodes to the most probable class of each pixel; of analog bits it may decode to a class that
    is not probable at all, where two others are. The higher the level, the less of the sampled mask is left in it.
    One call of `denoise`, with the image known (level zero).

    Args: level: above zero, in units of encoded intensity. noise: standard normal, like x.
    """
    levels = x.new_tensor([0.0, level]).expand(len(x), 2)
    mask = x[:, image_channels:]
    noisy = torch.cat([x[:, :image_channels].clamp(-1, 1), mask + level * noise[:, image_channels:]], dim=1)
    return torch.cat([x[:, :image_channels], denoise(noisy, levels)[:, image_channels:]], dim=1)
