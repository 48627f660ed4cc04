"""Connected regions of labels: areas or volumes of one value whose pixels touch along sides."""

from __future__ import annotations

import numpy as np
from scipy import ndimage


def region_sizes(label: np.ndarray) -> np.ndarray:
    """Pixels of every connected region of one value, background included, of a label (*spatial)."""
    return np.concatenate([np.bincount(_numbered(label, value).ravel())[1:] for value in np.unique(label)])


def without_specks(label: np.ndarray, least: int) -> np.ndarray:
    """The label (*spatial) with regions of fewer than `least` pixels given the value of the nearest other region."""
    specks = np.zeros(label.shape, bool)
    for value in np.unique(label):
        numbers = _numbered(label, value)
        small = np.bincount(numbers.ravel()) < least
        small[0] = False  # the other values
        specks |= small[numbers]
    if not specks.any() or specks.all():
        return label
    nearest = ndimage.distance_transform_edt(specks, return_distances=False, return_indices=True)
    return label[tuple(np.asarray(nearest))]


def _numbered(label: np.ndarray, value: int) -> np.ndarray:
    """Number of the region of each pixel with that value; 0 elsewhere."""
    return np.asarray(ndimage.label(label == value)[0])  # pyright: ignore[reportIndexIssue]
