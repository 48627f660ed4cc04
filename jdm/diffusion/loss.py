"""Denoising loss of the default preset."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from jdm.diffusion.denoiser import Denoiser
from jdm.diffusion.noise import per_channel


def denoising_losses(
    denoiser: Denoiser,
    x0: Tensor,
    sigma: Tensor,
    noise: Tensor,
    condition: Tensor | None = None,
    beside: Tensor | None = None,
) -> Tensor:
    """Losses of image and mask of each sample, (B, 2): about one for a network of zeros that sees only noise.

    Image: mean squared error over sub-bands, weighted so that a network of zeros has a loss of one at every level
    (Karras et al. 2022, Eq. 2; `Denoiser.image_weights`). Mask: cross-entropy of the classes, over the entropy of their
    shares. What is known (level zero) has loss zero.

    Args:
        x0: clean samples (B, C, *spatial). sigma: (B, 2). noise: standard normal, like x0.
        beside: what the network is given beside the samples, (B, channels, *spatial), such as the slices before as it
            may see them; None: nothing.
    """
    channels = denoiser.image_channels
    x = x0 + per_channel(sigma, channels, x0) * noise
    x = x if beside is None else torch.cat([x, beside], dim=1)
    image, logits = denoiser.predict(x, sigma, condition)
    error = denoiser.bands(image - x0[:, :channels])
    image_loss = (denoiser.image_weights(sigma[:, :1], error) * error**2).flatten(1).mean(1)
    label = torch.einsum("bm...,km->bk...", x0[:, channels:], denoiser.words.to(x0)).argmax(1)
    mask_loss = F.cross_entropy(logits, label, reduction="none").flatten(1).mean(1) / denoiser.entropy
    return torch.stack([image_loss, mask_loss.where(sigma[:, 1] > 0, 0.0)], dim=1)
