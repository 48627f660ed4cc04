"""(image, label) <-> model channels, exactly invertible."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jdm.config.settings import CodecConfig
from jdm.data.case_io import label_dtype
from jdm.errors import DataError


class PairCodec:
    """Images to [-1, 1] per channel, labels to channels of +-amplitude, and back.

    Every label value has a code word of signs; decoding takes the value whose code word correlates best with the
    mask channels, which for one channel is the sign and for one-hot the largest channel. Analog bits: Chen et al.
    2022 (arXiv:2208.04202).
    """

    def __init__(self, codec: CodecConfig) -> None:
        self.codec = codec
        self.image_channels = len(codec.low)
        self.words = _words(codec.mask_code, codec.classes)  # (classes, mask channels), +-1
        self.mask_channels = self.words.shape[1]
        self._dtype = np.dtype(codec.image_dtype)
        self._low = np.array(codec.low, dtype=np.float64)
        self._high = np.array(codec.high, dtype=np.float64)

    def encode(self, image: np.ndarray, label: np.ndarray) -> np.ndarray:
        """Model channels of a pair.

        Args:
            image: (image_channels, *spatial), stored intensities; what lies outside [low, high] is clipped.
            label: (*spatial), values 0 .. classes - 1.
        Returns: float32, (image_channels + mask_channels, *spatial).
        Raises: DataError on another number of channels, unequal sizes, or a label outside the classes.
        """
        if image.shape[0] != self.image_channels or image.shape[1:] != label.shape:
            raise DataError(
                f"a pair of image {image.shape} and label {label.shape} does not fit the codec; expected "
                f"{self.image_channels} channels and equal sizes; use the checkpoint of this dataset"
            )
        if label.size and (label.min() < 0 or label.max() >= len(self.words)):
            found = sorted(set(np.unique(label).tolist()) - set(range(len(self.words))))
            raise DataError(
                f"label values {found} found; expected 0 to {len(self.words) - 1}; map them when converting"
            )
        low, high = self._column(self._low, image.ndim), self._column(self._high, image.ndim)
        scaled = (np.clip(image, low, high) - low) * (2 / (high - low)) - 1
        mask = self.codec.mask_amplitude * np.moveaxis(self.words[label], -1, 0)
        return np.concatenate([scaled, mask]).astype(np.float32)

    def decode(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The pair that `x` stands for: stored intensities in the stored type, and uint8 or uint16 label values.

        Args:
            x: (image_channels + mask_channels, *spatial), any floating type.
        """
        low, high = self._column(self._low, x.ndim), self._column(self._high, x.ndim)
        image = (np.clip(x[: self.image_channels].astype(np.float64), -1, 1) + 1) * ((high - low) / 2) + low
        if self._dtype.kind in "iu":
            limits = np.iinfo(self._dtype)
            image = np.rint(image).clip(limits.min, limits.max)
        likeness = np.tensordot(self.words.astype(np.float32), x[self.image_channels :].astype(np.float32), axes=1)
        label = likeness.argmax(axis=0).astype(label_dtype(len(self.words)))
        return image.astype(self._dtype), label

    def probabilities(self, mean: np.ndarray) -> np.ndarray:
        """Probability of each label value per pixel, float32 (classes, *spatial), that an expected mask stands for.

        Args: mean: of the mask channels, (mask_channels, *spatial), any floating type.
        Raises: ValueError for analog bits, whose mean does not tell.
        """
        if self.codec.mask_code == "bits":
            raise ValueError("the mean of analog bits does not tell the probabilities of labels")
        up = np.clip((mean.astype(np.float32) / self.codec.mask_amplitude + 1) / 2, 1e-6, 1 - 1e-6)
        shares = up if self.codec.mask_code == "one-hot" else np.concatenate([1 - up, up])
        return shares / shares.sum(axis=0)

    def mask_moments(self, class_shares: Sequence[float]) -> tuple[list[float], float]:
        """Mean of each encoded mask channel, and the standard deviation about it over all of them.

        Args: class_shares: share of the pixels per label value; they sum to 1.
        """
        words, shares = self.codec.mask_amplitude * self.words, np.asarray(class_shares)
        mean = shares @ words
        return mean.tolist(), float(np.sqrt(np.mean(shares @ words**2 - mean**2)))

    @staticmethod
    def _column(values: np.ndarray, ndim: int) -> np.ndarray:
        return values.reshape(-1, *[1] * (ndim - 1))


def _words(code: str, classes: int) -> np.ndarray:
    """Code words: int8 signs, (classes, channels)."""
    if code == "one-hot":
        bits = np.eye(classes, dtype=np.int8)
    else:  # binary is analog bits of two classes
        width = max(1, (classes - 1).bit_length())
        bits = (np.arange(classes)[:, None] >> np.arange(width)) & 1
    return (2 * bits - 1).astype(np.int8)
