"""Known parts of a sample, and how a sampler keeps them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from jdm.errors import ConfigError

Noise = Callable[[], Tensor]
"""Source of standard normal noise shaped like x; each call returns a new draw."""


@dataclass(frozen=True)
class Known:
    """Given entries of a sample.

    `mode = "exact"`: the given entries stay clean throughout, and the denoiser gets noise level zero for them. In each
    case, the image must be given completely or not at all, and likewise the mask. The other entries are sampled from
    their conditional distribution, up to the sampler's own error.
    `mode = "replacement"`: after each step the given entries are overwritten by their clean values with noise of the
    level that the step arrived at, so they are clean after the last step. Any entries can be given.

    Replacement is biased: the given entries affect the others too little. Example: an image and a mask entry,
    jointly Gaussian with standard deviations 0.5 and correlation 0.8, the mask given, with the exact denoiser over the
    levels 80 to 0.002. The image entry gets this share of the shift of its conditional mean, and this multiple of its
    conditional variance:

        heun (18 steps)                             46 %    1.9
        heun-stochastic (25)                        61 %    1.7
        ancestral (250, over its process's levels)  62 %    1.3

    With heun it is 36 % and 1.2 at correlation 0.3, and 59 % and 3.6 at 0.95. More heun steps do not reduce the bias;
    `sample_repaint` does.

    Source of the replacement: thesis, Algorithm 2, lines 6 to 8, at the level those lines give, t - 1.
    """

    where: Tensor
    """bool, broadcastable to x (B, C, *spatial): True where the value is given."""
    values: Tensor
    """Encoded clean values, broadcastable to x; ignored where `where` is False."""
    image_channels: int
    """Number of image channels, the first ones of x; the others are the mask."""
    mode: Literal["exact", "replacement"] = "exact"
    fresh: Noise | None = None
    """Source of noise for mode "replacement"."""

    def __post_init__(self) -> None:
        """Raises: ConfigError if `where` is not bool, or replacement has no source of noise."""
        if self.where.dtype != torch.bool:
            raise ConfigError(f"Known.where has dtype {self.where.dtype}; expected torch.bool; pass a bool mask")
        if self.mode == "replacement" and self.fresh is None:
            raise ConfigError("Known of mode 'replacement' has no noise source; pass fresh=, such as a CaseNoise")

    def prepared(self, x: Tensor) -> Known | None:
        """A copy expanded to the shape of x (B, C, *spatial) and in its dtype; None if nothing is given.

        Raises: ConfigError if the mode is "exact" and the image or the mask of a case is given in part.
        """
        where = self.where.to(x.device).expand(x.shape)
        if not where.any():
            return None
        if self.mode == "exact" and not _whole(where, self.image_channels):
            raise ConfigError(
                "Known of mode 'exact' gives part of an image or mask; expected all or none of the image, and of the"
                " mask; use mode 'replacement'"
            )
        # Values of entries that are not given may be anything, NaN included, and must not reach x.
        values = torch.where(where, self.values.to(x).expand(x.shape), 0.0)
        return Known(where, values, self.image_channels, self.mode, self.fresh)

    def levels(self, sigma: Tensor) -> Tensor:
        """`sigma` (B, 2), with zeros for an image or mask given exactly. Call it on a prepared Known."""
        if self.mode == "replacement":
            return sigma
        given = torch.stack([group.any(1) for group in _groups(self.where, self.image_channels)], dim=1)
        return torch.where(given, torch.zeros_like(sigma), sigma)

    def draw(self, sigma: float) -> Tensor:
        """The given values at level `sigma`, like x; mode "exact" adds no noise. Call it on a prepared Known."""
        if self.mode == "exact" or sigma == 0:
            return self.values
        assert self.fresh is not None  # see __post_init__
        return self.values + sigma * self.fresh().to(self.values)

    def impose(self, x: Tensor, drawn: Tensor) -> Tensor:
        """x with its given entries taken from `drawn`."""
        return torch.where(self.where, drawn, x)


def fitting_known(where: Tensor, values: Tensor, image_channels: int, fresh: Noise, *, levels: int = 2) -> Known:
    """A `Known` of mode "exact" if possible, otherwise of mode "replacement".

    "exact" needs a network with two noise levels, and in each case a complete image or none, and likewise for the mask.

    Args:
        where: bool, (B or 1, C, *spatial or ones). values: encoded clean values, broadcastable to x.
        fresh: source of noise for mode "replacement".
        levels: noise levels that the network takes: 2, or 1 with preset thesis.
    """
    exact = levels == 2 and _whole(where, image_channels)
    return Known(where, values, image_channels, "exact" if exact else "replacement", fresh)


def _groups(where: Tensor, image_channels: int) -> list[Tensor]:
    """`where` of the image and of the mask, each (B, entries)."""
    return [group.flatten(1) for group in (where[:, :image_channels], where[:, image_channels:])]


def _whole(where: Tensor, image_channels: int) -> bool:
    """Whether in each case the image is given completely or not at all, and likewise the mask."""
    return all(bool((group.any(1) == group.all(1)).all()) for group in _groups(where, image_channels))
