"""The denoiser of the default preset: a network with two noise levels, made to predict images and classes of pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jdm.diffusion.haar import Levels, band_stds, haar, inverse_haar
from jdm.diffusion.noise import level_positions

_LEAST_SHARE = 1e-4


class Denoiser(nn.Module):
    """A network as a `Denoise`: (x, sigma, condition) -> estimate of x0.

    The network works on Haar sub-bands (`jdm.diffusion.haar`), from which image and mask are predicted differently.

    Image: its channels are turned to their principal axes (colours are nearly equal; their differences are small), and
    preconditioned as by Karras et al. 2022 (Eq. 7 and Table 1, column "Ours"), each sub-band of each axis with its own
    sigma_data. In fine bands and differences of colours, whose standard deviation is a tenth or less of the
    brightness's coarsest one, that makes the network predict the image where noise hides them, not the noise.

    Mask: every pixel is one of K code words c_k, and its noise is independent of that of other pixels, so its posterior
    is exactly p(k | x) ~ p(x_i | c_k) p(k | all other values): the first factor is known, and the network gives the
    logits of the second. The estimate is the mean code word. A network of zeros says the classes' shares. A score from
    class probabilities: Dieleman et al. 2022 (arXiv:2211.15089), Eq. 6.

    A network of slices may also see the slice before, through noise whose level it is told, so that what earlier slices
    lack does not grow from slice to slice (conditioning augmentation, Ho et al. 2022, arXiv:2106.15282).

    A network of patches may be given the coordinates of each voxel in its volume, their means over the blocks of the
    wavelets: without them it does not know where a patch lies (coordinates as channels: Liu et al. 2018,
    arXiv:1807.03247).
    """

    image_mean: Tensor
    image_axes: Tensor
    image_bands: Tensor
    words: Tensor
    log_shares: Tensor

    def __init__(
        self, network: nn.Module, image_mean: Sequence[float], image_axes: Sequence[Sequence[float]],
        image_bands: Sequence[Sequence[float]], words: Tensor, shares: Sequence[float], haar_levels: Levels = 0,
        band_weight: float = 0.0, *, previous_at: int | None = None, position: bool = False,
    ) -> None:  # fmt: skip
        """Args:
        network: (bands of image and mask, (B, 2) level positions, condition) -> bands of image and class logits.
        image_mean: of each image channel.
        image_axes: (axes, channels), orthonormal rows: directions in which the image channels are predicted.
        image_bands: (axes, bands), standard deviation of each sub-band about its mean, those of `MOST_LEVELS` levels.
        words: (K, mask channels), encoded code words, all of one norm.
        shares: of the pixels, per class.
        previous_at: where the condition says whether the slice before is given, followed by the level of the noise on
            it; None: the network does not see that slice.
        position: whether the network is given coordinates.
        """
        super().__init__()
        self.network, self.haar_levels, self.band_weight = network, haar_levels, band_weight
        self.previous_at, self.position = previous_at, position
        dims = (len(image_bands[0]) - 1).bit_length() // 2
        bands = [band_stds(along, haar_levels, dims) for along in image_bands]
        likely = torch.tensor(shares, dtype=torch.float64).clamp(min=_LEAST_SHARE)
        self.register_buffer("image_mean", torch.tensor(image_mean, dtype=torch.float64), persistent=False)
        self.register_buffer("image_axes", torch.tensor(image_axes, dtype=torch.float64), persistent=False)
        self.register_buffer("image_bands", torch.tensor(bands, dtype=torch.float64).flatten(), persistent=False)
        self.register_buffer("words", words.double(), persistent=False)
        self.register_buffer("log_shares", (likely / likely.sum()).log(), persistent=False)
        parts = [max(share, _LEAST_SHARE) / sum(max(s, _LEAST_SHARE) for s in shares) for share in shares]
        self.entropy = -sum(part * math.log(part) for part in parts) or 1.0
        """Of the classes' shares, in nats; 1 where there is one class."""

    @property
    def image_channels(self) -> int:
        return len(self.image_mean)

    @property
    def channels(self) -> int:
        """Of image and mask."""
        return len(self.image_mean) + self.words.shape[1]

    def forward(self, x: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        """Estimate x0.

        Args:
            x: (B, C, *spatial), any floating type; the C channels of the slice before may follow, and coordinates must,
                if the network takes them.
            sigma: (B, 2), image level and mask level; an image or mask of level zero is returned unchanged.
            condition: (B, features), the augmentation in training and the class; None: neither. See `UNet.forward`.
        Returns: like x.
        """
        image, logits = self.predict(x, sigma, condition)
        words = torch.einsum("bk...,km->bm...", logits.softmax(1), self.words.to(x))
        mask = torch.where(_column(sigma[:, 1:], x) > 0, words, x[:, self.image_channels : self.channels])
        return torch.cat([image, mask, x[:, self.channels :]], dim=1)

    def predict(self, x: Tensor, sigma: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Estimated image (B, image channels, *spatial) and class logits (B, K, *spatial), like x."""
        image, mask = x[:, : self.image_channels], x[:, self.image_channels : self.channels]
        image_level, mask_level = _column(sigma[:, :1], x), _column(sigma[:, 1:], x)
        bands = self.bands(image - _row(self.image_mean, x))
        sd = _row(self.image_bands, x)
        variance = image_level**2 + sd**2
        # Of the code words about their mean; per band would gain nothing, since the mask's own noise is used exactly.
        mean, mask_sd = self.mask_moments
        inner = haar(mask - _row(mean, x), self.haar_levels) * (mask_level**2 + mask_sd**2).rsqrt()
        given = torch.cat([bands * variance.rsqrt(), inner], dim=1).float()
        if self.previous_at is not None:
            given = torch.cat([given, self._previous(x[:, self.channels :], condition, given)], dim=1)
        if self.position:
            places = F.interpolate(x[:, self.channels :].to(given), given.shape[2:], mode="area")
            given = torch.cat([given, places], dim=1)
        out = self.network(given, level_positions(sigma), condition).to(x.dtype)
        features, logits = out[:, : bands.shape[1]], out[:, bands.shape[1] :]
        # x0 - x, so that a known image comes back exactly: c_skip - 1 = -sigma^2 / variance
        change = image_level * sd * variance.rsqrt() * features - image_level**2 / variance * bands
        known = torch.where(mask_level > 0, mask_level, 1.0) ** -2 * (mask_level > 0)
        seen = torch.einsum("bm...,km->bk...", mask, self.words.to(x)) * known
        return (
            image + torch.einsum("ac,ba...->bc...", self.image_axes.to(x), inverse_haar(change, self.haar_levels)),
            inverse_haar(logits, self.haar_levels) + _row(self.log_shares, x) + seen,
        )

    def _previous(self, before: Tensor, condition: Tensor | None, like: Tensor) -> Tensor:
        """The slice before as the network sees it, like the slice itself; zeros if it is not given."""
        if condition is None or not before.shape[1]:
            return torch.zeros_like(like)
        assert self.previous_at is not None
        is_given, level = (
            _column(condition[:, at : at + 1], before) for at in (self.previous_at, self.previous_at + 1)
        )
        mean, mask_sd = self.mask_moments
        image = self.bands(before[:, : self.image_channels] - _row(self.image_mean, before))
        mask = haar(before[:, self.image_channels :] - _row(mean, before), self.haar_levels)
        parts = image * (level**2 + _row(self.image_bands, before) ** 2).rsqrt(), mask * (level**2 + mask_sd**2).rsqrt()
        return (torch.cat(parts, dim=1) * is_given).to(like)

    def bands(self, image: Tensor) -> Tensor:
        """Sub-bands of an image (B, channels, *spatial) without its mean, those of the first principal axis first."""
        return haar(torch.einsum("ac,bc...->ba...", self.image_axes.to(image), image), self.haar_levels)

    def image_weights(self, level: Tensor, bands: Tensor) -> Tensor:
        """Weight of each band in the loss, (B, bands, 1, ...); zero where the image is known (level (B, 1) is zero).

        It is 1 / c_out^2 (Karras et al. 2022, Eq. 8) times the band's variance to the power `band_weight`, over its
        mean. With 0 the many fine bands take nearly all of the gradient, and canvases lack a common light.
        """
        s, sd = _column(level, bands), _row(self.image_bands, bands)
        share = (sd**2 / (sd**2).mean()) ** self.band_weight
        return share / share.mean() * ((s**2 + sd**2) / (s * sd) ** 2).where(s > 0, 0.0)

    @property
    def mask_moments(self) -> tuple[Tensor, Tensor]:
        """Mean of each mask channel (M,), and the standard deviation about it over all of them."""
        shares = self.log_shares.exp()
        mean = shares @ self.words
        return mean, (shares @ (self.words - mean).square()).mean().sqrt()


def _column(values: Tensor, x: Tensor) -> Tensor:
    """(B, n) as (B, n, 1, ...) in the dtype of x."""
    return values.to(x.dtype).reshape(*values.shape, *[1] * (x.ndim - 2))


def _row(values: Tensor, x: Tensor) -> Tensor:
    """(n,) as (1, n, 1, ...) in the dtype of x."""
    return values.to(x.dtype).reshape(1, -1, *[1] * (x.ndim - 2))
