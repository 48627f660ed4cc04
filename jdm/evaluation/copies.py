"""Finds copies of training images among samples: the nearest training image over all offsets, flips and turns.

Distances are between images with every channel standardised, so that brightness and contrast hide no copy. 0 is a copy,
sqrt(2) is unrelated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import fft

from jdm.errors import DataError
from jdm.evaluation.audit import area_weights

SIDE = 32
"""Pixels a side to which images are reduced for the search."""
_WHOLE = 0.75
"""Samples with sides of at least this share of the training images' are compared with whole images."""
_BLOCK = 256


@dataclass(frozen=True)
class Matches:
    """The nearest training image of each of n samples, every array (n,)."""

    index: np.ndarray
    distance: np.ndarray
    second: np.ndarray
    """Distance to the nearest training image of another group; inf if there is none."""
    symmetry: np.ndarray
    """Flip and turn of the training image, see `audit.transformed`."""
    start: np.ndarray
    """(n, 2): first row and column of the area of the training image that the sample is compared with; 0 if whole."""

    @property
    def ratio(self) -> np.ndarray:
        """Distance over the second: near 0 for a copy, near 1 for a sample that is like many; NaN without a second."""
        return np.where(np.isinf(self.second), np.nan, self.distance / np.maximum(self.second, 1e-6))


class Search:
    """Training images, reduced once, to be searched many times."""

    def __init__(self, images: Sequence[np.ndarray], groups: Sequence[str], shapes: Sequence[tuple[int, ...]]) -> None:
        """Args:
            images: (channels, H, W) each. groups: of each image; a patient or a case. shapes: (H, W) of the samples;
                their median decides whether they are compared with whole images or with areas of them.
        Raises: DataError if there are no images or they differ in channels.
        """
        if not images or len({len(image) for image in images}) > 1:
            raise DataError(
                f"{len(images)} training images with {sorted({len(image) for image in images})} channels; expected at "
                "least one, all with the same channels; check the dataset"
            )
        sides = np.median([image.shape[1:] for image in images], axis=0)
        usual, largest = np.median(shapes, axis=0), int(np.max(shapes))
        self.whole = bool((usual >= _WHOLE * sides).all())
        self._groups = np.unique(np.asarray(groups), return_inverse=True)[1]
        self.factor = 1 if self.whole else max(1, round(usual.max() / SIDE))
        if self.whole:
            self._vectors = np.stack([_vector(image) for image in images])
        else:
            least = math.ceil(largest / self.factor)
            self._phases = [_phases(image, self.factor, least) for image in images]

    def nearest(self, samples: Sequence[np.ndarray], groups: Sequence[int] | None = None) -> Matches:
        """The nearest training image of each sample (channels, H, W).

        Args: groups: numbers of groups to leave out, one per sample; None: leave none out.
        """
        blocks = [range(n, min(n + _BLOCK, len(samples))) for n in range(0, len(samples), _BLOCK)]
        found = [self._block([samples[n] for n in block]) for block in blocks]
        likeness, symmetry, start = (np.concatenate([part[k] for part in found]) for k in range(3))
        if groups is not None:
            likeness = np.where(np.asarray(groups)[:, None] == self._groups, -np.inf, likeness)
        rows, index = np.arange(len(likeness)), likeness.argmax(1)
        others = np.where(self._groups[index][:, None] == self._groups, -np.inf, likeness).max(1)
        return Matches(
            index, _distance(likeness[rows, index]), _distance(others), symmetry[rows, index], start[rows, index]
        )

    def own(self, images: Sequence[np.ndarray]) -> Matches:
        """The nearest image of another group, for the training images themselves or some of their areas.

        Args: images: as many as the training images and in their order.
        """
        return self.nearest(images, self._groups.tolist())

    def _block(self, samples: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Likeness and symmetry (n, images), and start (n, images, 2)."""
        count = len(self._groups)
        best, symmetry = np.full((len(samples), count), -np.inf), np.zeros((len(samples), count), np.int64)
        start = np.zeros((len(samples), count, 2), np.int64)
        for number in range(8):
            if self.whole:
                # turning the sample back is turning the training image
                likeness = np.stack([_vector(_turned_back(sample, number)) for sample in samples]) @ self._vectors.T
                place = np.zeros((1, 1, 2), np.int64)
            else:
                pairs = [self._search(_turned_back(sample, number)) for sample in samples]
                likeness, place = (np.stack(part) for part in zip(*pairs, strict=True))
            better = likeness > best
            symmetry[better] = number
            start = np.where(better[..., None], place, start)
            best = np.maximum(best, likeness)
        return best, symmetry, start

    def _search(self, sample: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Highest correlation with an area of each image, and the first row and column of that area."""
        template = _standardised(_reduced(sample.astype(np.float32), self.factor))
        best, places = np.full(len(self._groups), -np.inf), np.zeros((len(self._groups), 2), np.int64)
        for number, phases in enumerate(self._phases):
            for phase in phases:
                likeness = phase.correlation(template)
                at = np.unravel_index(int(likeness.argmax()), likeness.shape)
                if likeness[at] > best[number]:
                    best[number] = likeness[at]
                    places[number] = self.factor * np.array(at) + phase.first
        return best, places


class _Phase:
    """A reduced training image (C, H, W), float32, ready to be correlated with templates."""

    def __init__(self, reduced: np.ndarray, first: tuple[int, int], least: int) -> None:
        """Args: first: row and column of the image at which it begins. least: sides it is padded to, mirrored."""
        self.first = first
        missing = [(0, max(least - side, 0)) for side in reduced.shape[1:]]
        self._area = np.pad(reduced, [(0, 0), *missing], mode="symmetric")
        self._shape = [fft.next_fast_len(side, real=True) for side in self._area.shape[1:]]
        self._spectrum = np.asarray(fft.rfft2(self._area, self._shape))
        self._norms: dict[tuple[int, ...], np.ndarray] = {}

    def correlation(self, template: np.ndarray) -> np.ndarray:
        """Correlation of a standardised template (C, h, w) with every place in the image, mean over channels."""
        box = template.shape[1:]
        if box not in self._norms:
            sums, squares = (_box_sums(values.astype(np.float64), box) for values in (self._area, self._area**2))
            variance = squares - np.square(sums) / math.prod(box)
            self._norms[box] = np.sqrt(np.maximum(variance, 1e-6 * math.prod(box)))
        norms = self._norms[box]
        product = self._spectrum * np.asarray(fft.rfft2(template, self._shape)).conj()
        shared = np.asarray(fft.irfft2(product, self._shape))
        return np.clip(shared[:, : norms.shape[1], : norms.shape[2]] / norms, -1, 1).mean(0)


def _distance(correlation: np.ndarray) -> np.ndarray:
    return np.sqrt(np.maximum(2 * (1 - correlation), 0))


def _turned_back(sample: np.ndarray, number: int) -> np.ndarray:
    """The sample (C, H, W) with a symmetry undone."""
    turned = np.rot90(sample, -(number % 4), axes=(-2, -1))
    return turned[..., ::-1] if number >= 4 else turned


def _vector(image: np.ndarray) -> np.ndarray:
    """Standardised float32 vector of an image (C, H, W) stretched to SIDE a side."""
    rows, columns = (area_weights(side, SIDE) for side in image.shape[1:])
    values = np.matmul(np.matmul(rows, image.astype(np.float64)), columns.T)
    return (_standardised(values) / math.sqrt(len(image))).ravel().astype(np.float32)


def _standardised(image: np.ndarray) -> np.ndarray:
    """The image (C, H, W) with mean 0 and norm 1 in every channel; zeros where one is constant."""
    values = image - image.mean((1, 2), keepdims=True)
    norms = np.sqrt(np.square(values).sum((1, 2), keepdims=True))
    return values / np.where(norms > 0, norms, 1)


def _reduced(image: np.ndarray, factor: int) -> np.ndarray:
    """Means over blocks of factor a side; what is left over at the end is dropped."""
    height, width = (side // factor * factor for side in image.shape[1:])
    blocks = image[:, :height, :width].reshape(len(image), height // factor, factor, width // factor, factor)
    return blocks.mean((2, 4))


def _phases(image: np.ndarray, factor: int, least: int) -> list[_Phase]:
    """The image reduced from several first pixels, so that no offset is further than a quarter block from one."""
    firsts = (0,) if factor == 1 else (0, factor // 2)
    image = image.astype(np.float32)
    return [_Phase(_reduced(image[:, r:, c:], factor), (r, c), least) for r in firsts for c in firsts]


def _box_sums(values: np.ndarray, box: Sequence[int]) -> np.ndarray:
    """Sums of (C, H, W) over every place of a box."""
    total = np.pad(values.cumsum(1).cumsum(2), [(0, 0), (1, 0), (1, 0)])
    h, w = box
    return total[:, h:, w:] - total[:, :-h, w:] - total[:, h:, :-w] + total[:, :-h, :-w]
