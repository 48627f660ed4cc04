"""Perceptual hashes: 64 bits that survive scaling, compression and changes of brightness or contrast."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.fft import dctn

_BITS = 8


def perceptual_hash(grey: np.ndarray) -> np.ndarray:
    """Signs (64,), 1 or -1, of the low frequencies of a square grey image against their median.

    Source: the DCT hash of the library pHash, `ph_dct_imagehash`, without its smoothing: of an image reduced to
    32 x 32, coefficients 1 to 8 along each axis.
    """
    side = len(grey) // 32
    reduced = grey[: 32 * side, : 32 * side].reshape(32, side, 32, side).mean((1, 3))
    low = np.asarray(dctn(reduced, norm="ortho"))[1 : _BITS + 1, 1 : _BITS + 1].ravel()
    return np.where(low > np.median(low), 1, -1).astype(np.float32)


def nearest_bits(samples: Sequence[np.ndarray], training: Sequence[np.ndarray]) -> np.ndarray:
    """Bits (n,), 0 to 64, in which the hash of each grey image, over flips and quarter turns, differs from the nearest
    one of the training images; 32 is chance for a single pair."""
    known = np.stack([perceptual_hash(image) for image in training])
    most = np.full(len(samples), -np.inf)
    for flip in (False, True):
        for turns in range(4):
            turned = [np.rot90(image[:, ::-1] if flip else image, turns) for image in samples]
            most = np.maximum(most, (np.stack([perceptual_hash(image) for image in turned]) @ known.T).max(1))
    return (_BITS**2 - most) / 2
