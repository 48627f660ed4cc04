"""Exactly invertible encoding of (image, label) as model channels."""

from __future__ import annotations

import numpy as np

from jdm.config.settings import Config
from jdm.data.case_io import label_dtype
from jdm.errors import DataError

ZERO_GAP = 0.1
"""Gap in the encoded range [-1, 1] between exact zeros and all other values, in datasets with zero borders."""


class PairCodec:
    """Encodes images to [-1, 1] per channel and labels to channels of +-amplitude, and decodes them.

    Every label value has a code word of signs. Decoding selects the value whose code word correlates best with the mask
    channels: the sign for a single channel, the largest channel for one-hot. Analog bits: Chen et al. 2022
    (arXiv:2208.04202).
    """

    def __init__(self, config: Config) -> None:
        self.codec, self.facts = config.codec, config.facts
        self.image_channels, self.mask_channels = config.image_channels, config.mask_channels
        self.words = np.array(config.code_words, np.int8)  # (classes, mask channels), +-1
        self.span = 2.0 - (ZERO_GAP if config.facts.zero_border else 0.0)
        """Width in the encoded range of the interval from low to high."""
        self._dtype = np.dtype(config.facts.dtype)
        self._low = np.array(config.facts.low, dtype=np.float64)
        self._high = np.array(config.facts.high, dtype=np.float64)

    def encode(self, image: np.ndarray, label: np.ndarray) -> np.ndarray:
        """Model channels of a pair.

        Args:
            image: (image_channels, *spatial), stored intensities, clipped to [low, high]. In datasets with zero
                borders, pixels that are zero in every channel are encoded a gap below all others, so that the model
                learns where they are.
            label: (*spatial), values 0 .. classes - 1.
        Returns: float32, (image_channels + mask_channels, *spatial).
        Raises: DataError for a wrong number of channels, unequal sizes, or a label outside the classes.
        """
        if image.shape[0] != self.image_channels or image.shape[1:] != label.shape:
            raise DataError(
                f"a pair of image {image.shape} and label {label.shape} does not fit the model; expected "
                f"{self.image_channels} channels and equal sizes; use the checkpoint of this dataset"
            )
        if label.size and (label.min() < 0 or label.max() >= len(self.words)):
            found = sorted(set(np.unique(label).tolist()) - set(range(len(self.words))))
            raise DataError(
                f"label values {found} found; expected 0 to {len(self.words) - 1}; map them when converting"
            )
        low, high = self._column(self._low, image.ndim), self._column(self._high, image.ndim)
        scaled = (np.clip(image, low, high) - low) * (self.span / (high - low)) + (1 - self.span)
        if self.facts.zero_border:
            scaled = np.where((image == 0).all(axis=0), -1.0, scaled)
        mask = self.codec.mask_amplitude * np.moveaxis(self.words[label], -1, 0)
        return np.concatenate([scaled, mask]).astype(np.float32)

    def decode(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Decode `x` to intensities in the stored type and uint8 or uint16 label values.

        Borders become exactly zero again, because nnU-Net crops and masks by exact zeros.

        Args:
            x: (image_channels + mask_channels, *spatial), any floating type.
        """
        low, high = self._column(self._low, x.ndim), self._column(self._high, x.ndim)
        encoded = x[: self.image_channels].astype(np.float64)
        image = (np.clip(encoded, 1 - self.span, 1) - (1 - self.span)) * ((high - low) / self.span) + low
        if self._dtype.kind in "iu":
            limits = np.iinfo(self._dtype)
            image = np.rint(image).clip(limits.min, limits.max)
        likeness = np.tensordot(self.words.astype(np.float32), x[self.image_channels :].astype(np.float32), axes=1)
        label = likeness.argmax(axis=0).astype(label_dtype(len(self.words)))
        return image.astype(self._dtype), label

    def probabilities(self, mean: np.ndarray) -> np.ndarray:
        """Probability of each label value per pixel, float32 (classes, *spatial), from the mean of the mask channels.

        Args: mean: (mask_channels, *spatial), any floating type.
        Raises: ValueError for analog bits, whose mean does not determine the probabilities.
        """
        if self.codec.mask_code == "bits":
            raise ValueError("the mean of analog bits does not determine the probabilities of labels")
        up = np.clip((mean.astype(np.float32) / self.codec.mask_amplitude + 1) / 2, 1e-6, 1 - 1e-6)
        shares = up if self.codec.mask_code == "one-hot" else np.concatenate([1 - up, up])
        return shares / shares.sum(axis=0)

    @staticmethod
    def _column(values: np.ndarray, ndim: int) -> np.ndarray:
        return values.reshape(-1, *[1] * (ndim - 1))
