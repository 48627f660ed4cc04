"""A few numbers that distinguish a pair from noise: roughness of the image and raggedness of the mask.

They do not depend on the size of a pair, so crops, slices and whole images can be compared.
"""

from __future__ import annotations

import warnings

import numpy as np
from scipy import ndimage

NAMES = ("noise of the image", "fine detail of the image", "outline of the mask", "specks in the mask")
"""What each number of `likeness` measures."""
_SPECK = 12  # pixels


def likeness(image: np.ndarray, label: np.ndarray) -> np.ndarray:
    """The numbers of one pair, (4,), in the order of `NAMES`; the two of the mask are NaN without foreground.

    noise: noise standard deviation by Immerkaer's Laplacian (1996), relative to that of the image.
    fine detail: share of the spectral power above half the Nyquist frequency.
    outline: pixels at which the label changes, divided by the square root of the foreground, per object.
    specks: objects of less than 12 pixels, per 100 pixels of foreground.

    Args: image: (channels, H, W), or (channels, D, H, W), whose slices are averaged. label: without channels.
    """
    if label.ndim == 3:
        planes = [likeness(image[:, n], label[n]) for n in range(len(label)) if np.ptp(image[:, n]) > 0]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # no slice has foreground
            return np.nanmean(planes, axis=0) if planes else np.full(len(NAMES), np.nan)
    return np.array([_noise(image), _fine(image), *_mask(label)])


def _noise(image: np.ndarray) -> float:
    kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], dtype=np.float64)
    found = []
    for channel in image.astype(np.float64):
        response = np.abs(ndimage.convolve(channel, kernel, mode="reflect")).mean()
        found.append(np.sqrt(np.pi / 2) / 6 * response / max(float(channel.std()), 1e-9))
    return float(np.mean(found))


def _fine(image: np.ndarray) -> float:
    centred = image.astype(np.float64) - image.mean(axis=(1, 2), keepdims=True)
    window = np.outer(*(np.hanning(side + 2)[1:-1] for side in image.shape[1:]))
    power = np.abs(np.fft.rfft2(centred * window)) ** 2
    rows, columns = np.fft.fftfreq(image.shape[1]), np.fft.rfftfreq(image.shape[2])
    radius = np.hypot(rows[:, None], columns[None])
    return float(power[:, radius > 0.25].sum() / max(power.sum(), 1e-12))


def _mask(label: np.ndarray) -> tuple[float, float]:
    area = np.count_nonzero(label)
    if area == 0:
        return np.nan, np.nan
    numbers, count = ndimage.label(label > 0)  # pyright: ignore[reportGeneralTypeIssues]
    changes = sum(np.count_nonzero(np.diff(label.astype(np.int32), axis=axis)) for axis in range(2))
    small = int(np.count_nonzero(np.bincount(numbers.reshape(-1))[1:] < _SPECK))
    return changes / np.sqrt(area * count), 100 * small / area
