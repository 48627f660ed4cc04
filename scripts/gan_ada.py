"""Adaptive discriminator augmentation: augmentations with a probability that a measure of overfitting controls.

Source: Karras et al. 2020, "Training generative adversarial networks with limited data" (arXiv:2006.06676), section 3
and appendix B, of which pixel blitting (mirroring, shifts), geometry (scale, rotation) and colour (brightness,
contrast) are here; quarter turns are among the rotations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

TARGET = 0.6
"""r_t that the probability is to keep."""
_IMAGES = 500_000
"""Real images over which the probability can go from 0 to 1."""


@dataclass
class Augmentation:
    """The probability of each augmentation, and what it is controlled by."""

    probability: float = 0.0

    def control(self, overfitting: float, images: int) -> None:
        """Raise the probability where r_t exceeds its target, else lower it, by a fixed amount per real image.

        Args: overfitting: r_t = E[sign(D_real)], Eq. 1, of the last `images` real images.
        """
        step = math.copysign(images / _IMAGES, overfitting - TARGET)
        self.probability = min(max(self.probability + step, 0.0), 1.0)

    def __call__(self, x: Tensor) -> Tensor:
        """Augmented images (n, C, H, W), differentiable; each augmentation is drawn for each image by itself."""
        n, p = len(x), self.probability
        if p == 0:
            return x

        def chosen(values: Tensor, neutral: float) -> Tensor:
            return torch.where(torch.rand(n) < p, values, torch.full((n,), neutral))

        mirror = chosen(torch.randint(0, 2, (n,)) * 2.0 - 1, 1.0)
        scale = chosen(torch.exp2(0.2 * torch.randn(n)), 1.0)
        angle = chosen(math.pi * (2 * torch.rand(n) - 1), 0.0)
        shift = torch.stack([chosen(0.25 * (2 * torch.rand(n) - 1), 0.0) for _ in range(2)], 1)
        rows = torch.stack(
            [torch.stack([mirror * angle.cos(), -angle.sin()], 1), torch.stack([mirror * angle.sin(), angle.cos()], 1)],
            1,
        )
        theta = torch.cat([rows / scale[:, None, None], shift[:, :, None]], 2)
        grid = F.affine_grid(theta, list(x.shape), align_corners=False)
        x = F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)
        contrast, brightness = chosen(torch.exp2(0.5 * torch.randn(n)), 1.0), chosen(0.2 * torch.randn(n), 0.0)
        return x * contrast[:, None, None, None] + brightness[:, None, None, None]
