"""Finds copies of training images among samples: the nearest training image over all offsets, flips and turns.

Distances are between images with every channel standardised, so that brightness and contrast hide no copy. 0 is a copy,
sqrt(2) is unrelated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jdm.errors import DataError
from jdm.evaluation.areas import Areas, reduced, standardised
from jdm.evaluation.audit import area_weights

SIDE = 32
"""Pixels a side to which images are reduced for the search."""
UNRELATED = math.sqrt(2)
"""Distance of images that have nothing in common."""
_TWIN = 0.2
"""Training images of two groups are twins if their distance is below this share of the median over all groups."""
_WHOLE = 0.75
"""Samples with sides of at least this share of the training images' are compared with whole images."""
_BLOCK = 256


@dataclass(frozen=True)
class Scale:
    """How samples and training images are reduced before they are compared."""

    whole: bool
    """Whether whole images are compared, else samples with areas of the training images."""
    factor: int
    """Sides of the blocks of pixels that are averaged, where areas are compared."""

    @classmethod
    def of(cls, training: Sequence[tuple[int, ...]], samples: Sequence[tuple[int, ...]]) -> Scale:
        """Args: training, samples: sides (H, W) of some of each; their medians decide."""
        sides, usual = (np.median(shapes, axis=0) for shapes in (training, samples))
        whole = bool((usual >= _WHOLE * sides).all())
        return cls(whole, 1 if whole else max(1, round(usual.max() / SIDE)))

    def image(self, image: np.ndarray) -> np.ndarray:
        """A sample (C, H, W), reduced, float32: (C, SIDE, SIDE) where whole images are compared."""
        if not self.whole:
            return reduced(image, self.factor)
        rows, columns = (area_weights(side, SIDE) for side in image.shape[1:])
        return np.matmul(np.matmul(rows, image.astype(np.float64)), columns.T).astype(np.float32)

    def label(self, label: np.ndarray) -> np.ndarray:
        """A label (H, W), reduced likewise by taking the pixel at the middle of each block."""
        parts = [SIDE if self.whole else max(1, side // self.factor) for side in label.shape]
        rows, columns = ((np.arange(n) + 0.5) * side / n for n, side in zip(parts, label.shape, strict=True))
        return label[np.ix_(rows.astype(int), columns.astype(int))]


@dataclass(frozen=True)
class Matches:
    """The nearest training image of each of n samples, every array (n,)."""

    index: np.ndarray
    distance: np.ndarray
    second: np.ndarray
    """Distance to the nearest training image of another group that is no twin of the nearest; `UNRELATED` if there is
    none."""
    symmetry: np.ndarray
    """Flip and turn of the training image, see `audit.transformed`."""
    start: np.ndarray
    """(n, 2): first row and column of the area of the training image that the sample is compared with; 0 if whole."""

    @property
    def ratio(self) -> np.ndarray:
        """Distance over the second: near 0 for a copy, near 1 for a sample that is like many."""
        return self.distance / np.maximum(self.second, 1e-6)


class Search:
    """Training images, reduced once, to be searched many times. Memory: some kilobytes per image.

    Near-duplicates among the training images would hide copies of them: nearest and second nearest would be equally
    near. So the groups of an image's twins do not count as second (after `compare`).
    """

    def __init__(self, scale: Scale) -> None:
        self.scale = scale
        self._vectors: list[np.ndarray] = []
        self._areas = Areas(scale.factor)
        self._groups: list[str] = []
        self._twins: list[np.ndarray] = []
        self._numbers = np.zeros(0, np.int64)
        self._known = np.zeros((0, 0), np.float32)

    def add(self, image: np.ndarray, group: str) -> None:
        """Add a training image (channels, H, W) of a patient or case."""
        if self.scale.whole:
            self._vectors.append(_vector(self.scale.image(image)))
        else:
            self._areas.add(image.astype(np.float32))
        self._groups.append(group)

    def compare(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Compare the training images with each other: finds twins.

        Args: images: the training images, or an area of each, reduced by `scale.image`, in the order of `add`.
        Returns: (images,) distance to the nearest image of another group that is no twin; NaN if there is none.
        """
        codes, own = self._codes(), []
        self._twins = []
        for first in range(0, len(images), _BLOCK):
            likeness, _, _ = self._block(images[first : first + _BLOCK])
            distance = _distance(self._by_group(likeness))
            rows = np.arange(len(distance))
            distance[rows, codes[first : first + len(rows)]] = np.nan
            counted = np.where(np.isfinite(distance), distance, np.nan)
            for others in counted:
                known = others[~np.isnan(others)]
                twins = others < _TWIN * np.median(known) if len(known) else np.zeros(len(others), bool)
                self._twins.append(np.flatnonzero(twins))
                left = others[~twins & ~np.isnan(others)]
                own.append(left.min() if len(left) else math.nan)
        return np.array(own)

    def nearest(self, samples: Sequence[np.ndarray]) -> Matches:
        """The nearest training image of each sample, reduced by `scale.image`. Raises: DataError without images."""
        blocks = [self._nearest(samples[n : n + _BLOCK]) for n in range(0, len(samples), _BLOCK)]
        return Matches(*(np.concatenate([block[k] for block in blocks]) for k in range(5)))

    def _nearest(self, samples: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        likeness, symmetry, start = self._block(samples)
        rows, index = np.arange(len(likeness)), likeness.argmax(1)
        others, codes = self._by_group(likeness), self._codes()
        others[rows, codes[index]] = -np.inf
        for row, image in enumerate(index.tolist()):
            if self._twins:
                others[row, self._twins[image]] = -np.inf
        second = others.max(1)
        second = np.where(np.isfinite(second), _distance(second), UNRELATED)
        return index, _distance(likeness[rows, index]), second, symmetry[rows, index], start[rows, index]

    def _codes(self) -> np.ndarray:
        """(images,): number of the group of each image."""
        if len(self._numbers) != len(self._groups):
            self._numbers = np.unique(self._groups, return_inverse=True)[1]
        return self._numbers

    def _matrix(self) -> np.ndarray:
        """(images, features): the whole images."""
        if len(self._known) != len(self._vectors):
            self._known = np.stack(self._vectors)
            self._vectors = list(self._known)  # views: the images are held once
        return self._known

    def _by_group(self, likeness: np.ndarray) -> np.ndarray:
        """Highest likeness (n, groups) of the images of each group."""
        codes = self._codes()
        order = np.argsort(codes, kind="stable")
        firsts = np.searchsorted(codes[order], np.arange(codes.max() + 1))
        return np.maximum.reduceat(likeness[:, order], firsts, axis=1)

    def _block(self, samples: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Likeness and symmetry (n, images), and start (n, images, 2); likeness is -inf where nothing was compared."""
        if not self._groups:
            raise DataError("there are no training images that are not constant; expected some; check the dataset")
        count = len(self._groups)
        best = np.full((len(samples), count), -np.inf, np.float32)
        symmetry, start = np.zeros(best.shape, np.int8), np.zeros((*best.shape, 2), np.int32)
        if not self.scale.whole:
            codes = self._codes()
            for n, sample in enumerate(samples):
                turned = [_turned_back(sample, number) for number in range(8)]
                for image, (place, number) in self._areas.search(turned, codes).items():
                    best[n, image], symmetry[n, image], start[n, image] = place[0], number, place[1:]
            return best, symmetry, start
        known = self._matrix()
        for number in range(8):  # turning the sample back is turning the training image
            likeness = np.stack([_vector(_turned_back(sample, number)) for sample in samples]) @ known.T
            symmetry[likeness > best] = number
            np.maximum(best, likeness, out=best)
        return best, symmetry, start


def _distance(correlation: np.ndarray) -> np.ndarray:
    """Of standardised images; inf where nothing was compared."""
    return np.sqrt(np.maximum(2 * (1 - correlation.astype(np.float64)), 0))


def _turned_back(sample: np.ndarray, number: int) -> np.ndarray:
    """The sample (C, H, W) with a symmetry undone."""
    turned = np.rot90(sample, -(number % 4), axes=(-2, -1))
    return turned[..., ::-1] if number >= 4 else turned


def _vector(image: np.ndarray) -> np.ndarray:
    """Standardised float32 vector of a reduced image."""
    return (standardised(image) / math.sqrt(len(image))).ravel()
