"""The area of a training image that is most like a smaller sample: normalised cross-correlation at every offset."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import fft

_COARSER = 2
"""All training images are searched at blocks this much larger; only the most likely ones at full resolution."""
_CANDIDATES = 8
"""Groups whose most likely image is searched at full resolution."""


class Place(NamedTuple):
    """The best area of an image: correlation, and its first row and column in pixels of the full image."""

    likeness: float
    row: int
    column: int


class Areas:
    """Training images, reduced and transformed once, to be searched many times."""

    def __init__(self, factor: int) -> None:
        """Args: factor: sides of the blocks of pixels that are averaged."""
        self.factor = factor
        self._fine: list[list[_Phase]] = []
        self._coarse: list[_Phase] = []

    def __len__(self) -> int:
        return len(self._fine)

    def add(self, image: np.ndarray) -> None:
        """Add an image (channels, H, W). It is reduced from several first pixels, so that no offset is further than a
        quarter block from one."""
        firsts = (0,) if self.factor == 1 else (0, self.factor // 2)
        firsts = [(r, c) for r in firsts for c in firsts if r < image.shape[1] and c < image.shape[2]]
        phases = [_Phase(reduced(image[:, r:, c:], self.factor), (r, c)) for r, c in firsts]
        self._fine.append(phases)
        self._coarse.append(_Phase(reduced(image, _COARSER * self.factor), (0, 0)))

    def search(self, samples: Sequence[np.ndarray], groups: np.ndarray) -> dict[int, tuple[Place, int]]:
        """The best place in images, and the index of the sample that was found there.

        Args:
            samples: one sample (channels, h, w), already reduced by `factor`, in each of its symmetries.
            groups: (images,), number of the group of each image.
        Returns: by image; with many images, only the most likely one of each of the most likely groups.
        """
        templates = [_Template(sample) for sample in samples]
        chosen = self._candidates(samples, groups)
        found = {}
        for image in chosen:
            places = [
                (max(phase.best(template, self.factor) for phase in self._fine[image]), number)
                for number, template in enumerate(templates)
            ]
            found[image] = max(places)
        return found

    def _candidates(self, samples: Sequence[np.ndarray], groups: np.ndarray) -> list[int]:
        """The most likely image of each of the most likely groups; all images if there are few."""
        if len(self) <= _CANDIDATES:
            return list(range(len(self)))
        templates = [_Template(reduced(sample, _COARSER)) for sample in samples]
        likeness = np.array([max(phase.best(t, 1).likeness for t in templates) for phase in self._coarse])
        best: dict[int, int] = {}
        for image in np.argsort(-likeness).tolist():
            best.setdefault(int(groups[image]), image)
            if len(best) == _CANDIDATES:
                break
        return list(best.values())


class _Template:
    """A standardised sample (C, h, w) and its spectra."""

    def __init__(self, sample: np.ndarray) -> None:
        self._sample = sample
        self._spectra: dict[tuple[tuple[int, ...], tuple[int, ...]], np.ndarray] = {}

    def spectrum(self, box: tuple[int, ...], shape: tuple[int, ...]) -> np.ndarray:
        """Spectrum, padded to `shape`, of the central `box` of the sample."""
        if (box, shape) not in self._spectra:
            first = [(side - want) // 2 for side, want in zip(self._sample.shape[1:], box, strict=True)]
            part = self._sample[:, first[0] : first[0] + box[0], first[1] : first[1] + box[1]]
            self._spectra[box, shape] = np.asarray(fft.rfft2(standardised(part), shape)).conj()
        return self._spectra[box, shape]

    def box(self, area: tuple[int, ...]) -> tuple[int, ...]:
        """The sample's sides, at most those of an area."""
        return tuple(min(a, b) for a, b in zip(self._sample.shape[1:], area, strict=True))


class _Phase:
    """A reduced training image (C, H, W), float32, ready to be correlated with templates."""

    def __init__(self, area: np.ndarray, first: tuple[int, int]) -> None:
        """Args: first: row and column of the image at which it begins."""
        self.first = first
        self._area = area
        self._shape = tuple(int(fft.next_fast_len(side, real=True) or side) for side in area.shape[1:])
        self._spectrum = np.asarray(fft.rfft2(area, self._shape))
        self._norms: dict[tuple[int, ...], np.ndarray] = {}

    def best(self, template: _Template, factor: int) -> Place:
        """The place of highest correlation, mean over channels; of a larger template, its central part is compared."""
        box = template.box(self._area.shape[1:])
        norms = self._norm(box)
        shared = np.asarray(fft.irfft2(self._spectrum * template.spectrum(box, self._shape), self._shape))
        likeness = np.clip(shared[:, : norms.shape[1], : norms.shape[2]] / norms, -1, 1).mean(0)
        row, column = np.unravel_index(int(likeness.argmax()), likeness.shape)
        place = factor * int(row) + self.first[0], factor * int(column) + self.first[1]
        return Place(float(likeness[row, column]), *place)

    def _norm(self, box: tuple[int, ...]) -> np.ndarray:
        if box not in self._norms:
            sums, squares = (_box_sums(values.astype(np.float64), box) for values in (self._area, self._area**2))
            variance = squares - np.square(sums) / math.prod(box)
            self._norms[box] = np.sqrt(np.maximum(variance, 1e-6 * math.prod(box))).astype(np.float32)
        return self._norms[box]


def reduced(image: np.ndarray, factor: int) -> np.ndarray:
    """Means (C, H // factor, W // factor), float32, over blocks; what is left over at the end is dropped."""
    height, width = (max(1, side // factor) for side in image.shape[1:])
    rows, columns = (min(factor, side) for side in image.shape[1:])
    blocks = image[:, : height * rows, : width * columns].reshape(len(image), height, rows, width, columns)
    return blocks.mean((2, 4), dtype=np.float32)


def standardised(image: np.ndarray) -> np.ndarray:
    """The image (C, H, W) with mean 0 and norm 1 in every channel; zeros where one is constant."""
    values = image - image.mean((1, 2), keepdims=True)
    norms = np.sqrt(np.square(values).sum((1, 2), keepdims=True))
    return values / np.where(norms > 0, norms, 1)


def _box_sums(values: np.ndarray, box: tuple[int, ...]) -> np.ndarray:
    """Sums of (C, H, W) over every place of a box."""
    total = np.pad(values.cumsum(1).cumsum(2), [(0, 0), (1, 0), (1, 0)])
    h, w = box
    return total[:, h:, w:] - total[:, :-h, w:] - total[:, h:, :-w] + total[:, :-h, :-w]
