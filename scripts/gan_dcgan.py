"""DCGAN at 64 pixels: strided convolutions, batch normalisation, no pooling.

Source: Radford et al. 2016 (arXiv:1511.06434), section 3, with the hyper-parameters of section 4: Adam with a learning
rate of 0.0002 and a momentum of 0.5, weights from N(0, 0.02^2), slope 0.2. At a width of 64 it has the sizes of
Rossetti and Garg's (github.com/rossettisimone/AUGMENTATION_GAN), who also mirror the images.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LATENT = 100


class DCGAN:
    """A generator of images of one class and its discriminator, with their optimisers. Images lie in -1 to 1."""

    def __init__(self, channels: int, classes: int, width: int = 64) -> None:
        """Args: classes: must be 1. width: channels of the layer before the image."""
        assert classes == 1
        sizes = [8 * width, 4 * width, 2 * width, width]
        up: list[nn.Module] = [
            nn.ConvTranspose2d(LATENT, sizes[0] * 2, 4, bias=False),
            *_normed(sizes[0] * 2, nn.ReLU()),
        ]
        down: list[nn.Module] = [nn.Conv2d(channels, 2 * width, 4, 2, 1, bias=False), nn.LeakyReLU(0.2)]
        for size in sizes[:3]:
            up += [nn.ConvTranspose2d(2 * size, size, 4, 2, 1, bias=False), *_normed(size, nn.ReLU())]
        for size in sizes[2::-1]:
            down += [nn.Conv2d(size, 2 * size, 4, 2, 1, bias=False), *_normed(2 * size, nn.LeakyReLU(0.2))]
        self.generator = nn.Sequential(*up, nn.ConvTranspose2d(2 * width, channels, 4, 2, 1, bias=False), nn.Tanh())
        self.discriminator = nn.Sequential(*down, nn.Conv2d(16 * width, 1, 4, bias=False), nn.Flatten(0))
        for network in (self.generator, self.discriminator):
            network.apply(_initialise)
        self._optimizers = [
            torch.optim.Adam(network.parameters(), lr=2e-4, betas=(0.5, 0.999))
            for network in (self.generator, self.discriminator)
        ]

    def update(self, real: Tensor, classes: Tensor) -> dict[str, float]:
        """One update of each network on real images (n, channels, 64, 64). Returns: their losses."""
        mirrored = torch.rand(len(real), 1, 1, 1) < 0.5
        real = torch.where(mirrored, real.flip(3), real)
        made = self.generator(torch.randn(len(real), LATENT, 1, 1))
        of_generator, of_discriminator = self._optimizers
        lost = F.softplus(-self.discriminator(real)).mean() + F.softplus(self.discriminator(made.detach())).mean()
        of_discriminator.zero_grad()
        lost.backward()
        of_discriminator.step()
        fooled = F.softplus(-self.discriminator(made)).mean()
        of_generator.zero_grad()
        fooled.backward()
        of_generator.step()
        return {"discriminator": lost.item(), "generator": fooled.item()}

    @torch.no_grad()
    def sample(self, classes: Tensor) -> Tensor:
        """Images (n, channels, 64, 64).

        By statistics of their own batch, as in training: running means lag behind a network that changes fast.
        """
        return self.generator(torch.randn(len(classes), LATENT, 1, 1))

    def state(self) -> dict[str, Any]:
        parts = (self.generator, self.discriminator, *self._optimizers)
        return {str(n): part.state_dict() for n, part in enumerate(parts)}

    def load(self, state: dict[str, Any]) -> None:
        for n, part in enumerate((self.generator, self.discriminator, *self._optimizers)):
            part.load_state_dict(state[str(n)])


def _normed(channels: int, activation: nn.Module) -> list[nn.Module]:
    return [nn.BatchNorm2d(channels), activation]


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
