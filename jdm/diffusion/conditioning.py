"""Known parts of a sample, and how a sampler keeps them.

A `Known` says which entries of x are given and what they are. A sampler asks it three things: the levels to
tell the denoiser, what the given entries look like at a noise level, and to put them into x.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from jdm.errors import ConfigError

Noise = Callable[[], Tensor]
"""Source of standard normal noise of the shape of x; each call gives a new draw."""


@dataclass(frozen=True)
class Known:
    """Entries of a sample that are given.

    `mode = "exact"`: the given entries stay clean all the way and the denoiser is told level zero for them.
    Each of the two channel groups, image and mask, is given whole or not at all, per case.
    `mode = "replacement"`: after each step the given entries are replaced by themselves forward-noised to the
    level the step arrived at, so they are clean after the last step. Any entries can be given.

    Source of the replacement: thesis, Algorithm 2, lines 6 to 8, at the level those lines give, t - 1.
    """

    where: Tensor
    """bool, broadcastable to x (B, C, *spatial): True where the value is given."""
    values: Tensor
    """Encoded clean values, broadcastable to x; ignored where `where` is False."""
    image_channels: int
    """The first so many channels of x are the image, the others the mask."""
    mode: Literal["exact", "replacement"] = "exact"
    fresh: Noise | None = None
    """Noise of the replacement; not needed for `exact`."""

    def __post_init__(self) -> None:
        """Raises: ConfigError if `where` is not bool, or replacement has no source of noise."""
        if self.where.dtype != torch.bool:
            raise ConfigError(f"Known.where has dtype {self.where.dtype}; expected torch.bool; pass a bool mask")
        if self.mode == "replacement" and self.fresh is None:
            raise ConfigError("Known of mode 'replacement' has no noise source; pass fresh=, such as a CaseNoise")

    def prepared(self, x: Tensor) -> Known | None:
        """This, expanded to x (B, C, *spatial) and in its dtype; None if nothing is given.

        Raises: ConfigError if `exact` and a channel group is given in part.
        """
        where = self.where.to(x.device).expand(x.shape)
        if not where.any():
            return None
        # Whatever stands where nothing is given, NaN included, must not reach x.
        values = torch.where(where, self.values.to(x).expand(x.shape), 0.0)
        known = Known(where, values, self.image_channels, self.mode, self.fresh)
        if self.mode == "exact":
            groups = known._groups()
            if any(bool((g.any(1) != g.all(1)).any()) for g in groups):
                raise ConfigError(
                    "Known of mode 'exact' gives part of a channel group; expected all or none of the image"
                    " and of the mask; use mode 'replacement'"
                )
        return known

    def _groups(self) -> list[Tensor]:
        """`where` of the image and of the mask, each (B, entries)."""
        return [g.flatten(1) for g in (self.where[:, : self.image_channels], self.where[:, self.image_channels :])]

    def levels(self, sigma: Tensor) -> Tensor:
        """`sigma` (B, 2), with zero for the groups that are given clean. Expects a prepared Known."""
        if self.mode == "replacement":
            return sigma
        given = torch.stack([g.any(1) for g in self._groups()], dim=1)
        return torch.where(given, torch.zeros_like(sigma), sigma)

    def draw(self, sigma: float) -> Tensor:
        """The given values as they look at level `sigma`, shaped like x. Expects a prepared Known."""
        if self.mode == "exact" or sigma == 0:
            return self.values
        assert self.fresh is not None  # __post_init__ saw to it
        return self.values + sigma * self.fresh().to(self.values)

    def impose(self, x: Tensor, drawn: Tensor) -> Tensor:
        """x with its given entries taken from `drawn`."""
        return torch.where(self.where, drawn, x)


def known_channels(
    values: Tensor, channels: Sequence[int], image_channels: int, fresh: Noise, *, levels: int = 2
) -> Known:
    """Whole channels of a sample as known: one modality for another, the mask for the image, the image for the mask.

    Args:
        values: encoded clean values, (B, C, *spatial); ignored in the other channels.
        channels: those known, 0 .. C - 1; the image's come first.
        Others: see `fitting_known`.
    Raises: ConfigError if a channel is not there.
    """
    count = values.shape[1]
    if outside := sorted({c for c in channels if not 0 <= c < count}):
        raise ConfigError(f"known channels are {outside}; expected some of 0 to {count - 1}; correct them")
    where = torch.zeros(1, count, *[1] * (values.ndim - 2), dtype=torch.bool)
    where[:, list(channels)] = True
    return fitting_known(where, values, image_channels, fresh, levels=levels)


def fitting_known(where: Tensor, values: Tensor, image_channels: int, fresh: Noise, *, levels: int = 2) -> Known:
    """A `Known` that is exact where that is possible, and by replacement where it is not.

    Exact needs a network with two levels, and the image and the mask each given whole or not at all, per case.

    Args:
        where: bool, (B or 1, C, *spatial or ones). values: encoded clean values, broadcastable to x.
        fresh: noise of the replacement.
        levels: noise levels that the network is told: 2, or 1 with preset thesis.
    """
    groups = (where[:, :image_channels].flatten(1), where[:, image_channels:].flatten(1))
    whole = all(bool((group.any(1) == group.all(1)).all()) for group in groups)
    return Known(where, values, image_channels, "exact" if whole and levels == 2 else "replacement", fresh)
