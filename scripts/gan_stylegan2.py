"""StyleGAN2 with adaptive augmentation, compact enough for a CPU, conditional on the class.

Source: Karras et al. 2020 (arXiv:1912.04958): modulated convolutions with demodulation (Eq. 1 to 3), a generator with
skips and a residual discriminator (section 4.1), lazy R1. Conditioning and the average of weights follow Karras et al.
2020 (arXiv:2006.06676). No path length regularisation, which their setting for CIFAR-10 leaves out too.
"""

from __future__ import annotations

import copy
import itertools
import math
from typing import Any

import torch
import torch.nn.functional as F
from gan_ada import Augmentation
from torch import Tensor, nn

LATENT = 64
_SIZES = (4, 8, 16, 32, 64)
_R1_EVERY, _CONTROL_EVERY = 16, 4


def modulated(x: Tensor, weight: Tensor, style: Tensor, demodulate: bool = True) -> Tensor:
    """Convolution (n, out, H, W) of x (n, in, H, W) by weights (out, in, k, k) that each image's style (n, in) scales.

    Scaling the input, then the output, gives what scaling each image's weights would (Eq. 1 and 3).
    """
    y = F.conv2d(x * style[:, :, None, None], weight, padding=weight.shape[2] // 2)
    if not demodulate:
        return y
    squared = style.square() @ weight.square().sum((2, 3)).T
    return y * torch.rsqrt(squared + 1e-8)[:, :, None, None]


def spread_over_batch(x: Tensor, group: int = 4) -> Tensor:
    """x (n, C, H, W) with a channel more: the standard deviation over groups of images, averaged over all else.

    Source: Karras et al. 2018 (arXiv:1710.10196), section 3. Image i is in group i modulo n / group; if `group` does
    not divide n, all images are one group.
    """
    n, _, height, width = x.shape
    group = group if n % group == 0 else n
    split = x.reshape(group, n // group, -1)
    spread = (split.var(0, unbiased=False) + 1e-8).sqrt().mean(1)
    return torch.cat([x, spread.repeat(group).reshape(n, 1, 1, 1).expand(n, 1, height, width)], 1)


def r1(scores: Tensor, images: Tensor) -> Tensor:
    """Squared norm of the gradient of each image's score, (n,). Source: Mescheder et al. 2018 (arXiv:1801.04406)."""
    (gradient,) = torch.autograd.grad(scores.sum(), images, create_graph=True)
    return gradient.square().sum((1, 2, 3))


def _active(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2) * math.sqrt(2)


class Linear(nn.Module):
    """A linear layer whose weights are scaled at run time, so that all learn equally fast."""

    def __init__(self, inputs: int, outputs: int, bias: float = 0.0, rate: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = nn.Parameter(torch.full((outputs,), bias / rate))
        self._gain, self._rate = rate / math.sqrt(inputs), rate

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self._gain, self.bias * self._rate)


class Conv(nn.Module):
    """A convolution whose weights are scaled likewise."""

    def __init__(self, inputs: int, outputs: int, kernel: int, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self._gain = 1 / math.sqrt(inputs * kernel**2)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self._gain, self.bias, padding=self.weight.shape[2] // 2)


class Styled(nn.Module):
    """A modulated convolution, noise and bias; doubles the size first where `up`."""

    def __init__(self, inputs: int, outputs: int, up: bool) -> None:
        super().__init__()
        self.style = Linear(LATENT, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.noise = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self._up = up

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        x = modulated(_doubled(x) if self._up else x, self.weight, self.style(w))
        return _active(x + self.noise * torch.randn_like(x[:, :1]) + self.bias[:, None, None])


class Generator(nn.Module):
    """Latents (n, LATENT) and classes (n,) -> images (n, channels, 64, 64)."""

    def __init__(self, channels: int, classes: int, width: int) -> None:
        super().__init__()
        self.embed = Linear(classes, LATENT)
        self.mapping = nn.ModuleList([Linear(2 * LATENT, LATENT, rate=0.01), Linear(LATENT, LATENT, rate=0.01)])
        widths = _widths(width)
        self.constant = nn.Parameter(torch.randn(1, widths[0], 4, 4))
        self.first = nn.ModuleList([Styled(a, b, up=True) for a, b in itertools.pairwise(widths)])
        self.second = nn.ModuleList([Styled(a, a, up=False) for a in widths])
        self.tint_style = nn.ModuleList([Linear(LATENT, a, bias=1.0) for a in widths])
        self.tint = nn.ParameterList([nn.Parameter(torch.randn(channels, a, 1, 1)) for a in widths])
        self.tint_bias = nn.ParameterList([nn.Parameter(torch.zeros(channels, 1, 1)) for _ in widths])
        self.classes = classes

    def forward(self, z: Tensor, classes: Tensor) -> Tensor:
        label = self.embed(F.one_hot(classes, self.classes).float())
        w = torch.cat([_normed(z), _normed(label)], 1)
        for layer in self.mapping:
            w = _active(layer(w))
        x, image = self.constant.expand(len(z), -1, -1, -1), torch.zeros(())
        for n in range(len(_SIZES)):
            x = self.first[n - 1](x, w) if n else x
            x = self.second[n](x, w)
            style = self.tint_style[n](w) / math.sqrt(x.shape[1])
            added = modulated(x, self.tint[n], style, demodulate=False) + self.tint_bias[n]
            image = added + (_doubled(image) if n else 0)
        return image


class Discriminator(nn.Module):
    """Images (n, channels, 64, 64) and classes (n,) -> scores (n,): the projection of features on the class."""

    def __init__(self, channels: int, classes: int, width: int) -> None:
        super().__init__()
        widths = _widths(width)[::-1]
        self.stem = Conv(channels, widths[0], 1)
        self.first = nn.ModuleList([Conv(a, a, 3) for a in widths[:-1]])
        self.second = nn.ModuleList([Conv(a, b, 3) for a, b in itertools.pairwise(widths)])
        self.skip = nn.ModuleList([Conv(a, b, 1, bias=False) for a, b in itertools.pairwise(widths)])
        self.last = Conv(widths[-1] + 1, widths[-1], 3)
        self.features, self.embed = Linear(widths[-1] * 16, LATENT), Linear(classes, LATENT)
        self.classes = classes

    def forward(self, x: Tensor, classes: Tensor) -> Tensor:
        x = _active(self.stem(x))
        for first, second, skip in zip(self.first, self.second, self.skip, strict=True):
            x = (_active(_halved(second(_active(first(x))))) + skip(_halved(x))) / math.sqrt(2)
        x = _active(self.last(spread_over_batch(x)))
        features = self.features(x.flatten(1))
        label = _normed(self.embed(F.one_hot(classes, self.classes).float()))
        return (features * label).sum(1) / math.sqrt(LATENT)


class StyleGAN2:
    """Both networks, the average of the generator's weights, optimisers and augmentation. Images lie in -1 to 1."""

    def __init__(self, channels: int, classes: int, width: int = 64) -> None:
        """Args: width: channels of the smallest sizes."""
        self.generator, self.discriminator = (part(channels, classes, width) for part in (Generator, Discriminator))
        self.average = copy.deepcopy(self.generator).requires_grad_(False)
        late = _R1_EVERY / (_R1_EVERY + 1)  # the optimiser's share of lazy regularisation, appendix B of 1912.04958
        self._optimizers = [
            torch.optim.Adam(self.generator.parameters(), lr=2e-3, betas=(0.0, 0.99), eps=1e-8),
            torch.optim.Adam(self.discriminator.parameters(), lr=2e-3 * late, betas=(0.0, 0.99**late), eps=1e-8),
        ]
        self.augmentation, self._updates, self._seen, self._signs = Augmentation(), 0, 0, 0.0

    def update(self, real: Tensor, classes: Tensor) -> dict[str, float]:
        """One update of each network on real images (n, channels, 64, 64) with classes (n,). Returns: their losses."""
        of_generator, of_discriminator = self._optimizers
        made = self.generator(torch.randn(len(real), LATENT), classes)
        self.discriminator.requires_grad_(False)
        fooled = F.softplus(-self.discriminator(self.augmentation(made), classes)).mean()
        of_generator.zero_grad()
        fooled.backward()
        of_generator.step()
        self.discriminator.requires_grad_(True)
        regular = self._updates % _R1_EVERY == 0
        shown = self.augmentation(real).detach().requires_grad_(regular)
        scores = self.discriminator(shown, classes)
        lost = F.softplus(self.discriminator(self.augmentation(made.detach()), classes)).mean()
        lost = lost + F.softplus(-scores).mean()
        if regular:  # appendix D of 2006.06676: 0.0002 times pixels over the batch size
            gamma = 0.0002 * real.shape[2] ** 2 / len(real)
            lost = lost + gamma / 2 * _R1_EVERY * r1(scores, shown).mean()
        of_discriminator.zero_grad()
        lost.backward()
        of_discriminator.step()
        self._after(scores.detach())
        return {"discriminator": lost.item(), "generator": fooled.item(), "augmentation": self.augmentation.probability}

    def _after(self, scores: Tensor) -> None:
        self._updates += 1
        self._seen, self._signs = self._seen + len(scores), self._signs + float(scores.sign().sum())
        if self._updates % _CONTROL_EVERY == 0:
            self.augmentation.control(self._signs / self._seen, self._seen)
            self._seen, self._signs = 0, 0.0
        decay = min(0.5 ** (len(scores) / 10_000), self._updates / (self._updates + 9))
        with torch.no_grad():
            for kept, new in zip(self.average.parameters(), self.generator.parameters(), strict=True):
                kept.lerp_(new, 1 - decay)

    @torch.no_grad()
    def sample(self, classes: Tensor) -> Tensor:
        """Images (n, channels, 64, 64) of the average generator."""
        return self.average(torch.randn(len(classes), LATENT), classes)

    def state(self) -> dict[str, Any]:
        counts = (self.augmentation.probability, self._updates, self._seen, self._signs)
        return {**{str(n): part.state_dict() for n, part in enumerate(self._parts())}, "counts": list(counts)}

    def load(self, state: dict[str, Any]) -> None:
        for n, part in enumerate(self._parts()):
            part.load_state_dict(state[str(n)])
        self.augmentation.probability, self._updates, self._seen, self._signs = state["counts"]

    def _parts(self) -> tuple[Any, ...]:
        return self.generator, self.discriminator, self.average, *self._optimizers


def _widths(width: int) -> list[int]:
    """Channels at each of `_SIZES`: halved at 32 and at 64 pixels."""
    return [width, width, width, width // 2, width // 4]


def _normed(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-8)


def _doubled(x: Tensor) -> Tensor:
    """Twice the size by the filter 1 3 3 1, which is bilinear interpolation."""
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


def _halved(x: Tensor) -> Tensor:
    """Half the size by the same filter."""
    line = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    kernel = torch.outer(line, line).expand(x.shape[1], 1, 4, 4)
    return F.conv2d(x, kernel, stride=2, padding=1, groups=x.shape[1])
