"""Crops of images and volumes: where they lie, how small images are padded, and the coordinates of their pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jdm.config.facts import Fingerprint

Window = tuple[slice, ...]
"""First index and end along each spatial axis; the end may lie outside the image."""


def random_window(shape: Sequence[int], size: Sequence[int], rng: np.random.Generator) -> Window:
    """A random window of this size that lies inside `shape`; along shorter axes it begins at 0 and reaches beyond."""
    starts = [int(rng.integers(0, max(side - want, 0) + 1)) for side, want in zip(shape, size, strict=True)]
    return tuple(slice(start, start + want) for start, want in zip(starts, size, strict=True))


def drawn_window(facts: Fingerprint, size: Sequence[int], rng: np.random.Generator) -> tuple[tuple[int, ...], Window]:
    """The size of a random training case, and a random window of it, as a training sample of `size` would be cut."""
    sizes = [shape for shape, _, cases in facts.sizes for _ in range(cases)]
    shape = sizes[int(rng.integers(len(sizes)))]
    return shape, random_window(shape, size, rng)


def cut(array: np.ndarray, window: Window) -> np.ndarray:
    """The window of (..., *spatial), padded symmetrically about its centre where the array ends before it."""
    part = array[(..., *window)]
    size, axes = tuple(along.stop - along.start for along in window), len(window)
    margins = centred_margins(part.shape[-axes:], size)
    if not any(before or after for before, after in margins):
        return part
    return np.pad(part, [(0, 0)] * (part.ndim - axes) + margins, mode="symmetric")


def coordinates(shape: Sequence[int], window: Window) -> np.ndarray:
    """Where the voxels of a window lie in a volume of `shape`: float32, (axes, *size of the window).

    Along each axis voxel i of n is at (2 i + 1) / n - 1, so that the faces of the volume are at -1 and 1. Where the
    window is padded (`cut`), it has the coordinates of what it mirrors.
    """
    along = [cut((2 * np.arange(side) + 1) / side - 1, (part,)) for side, part in zip(shape, window, strict=True)]
    return np.stack(np.meshgrid(*along, indexing="ij")).astype(np.float32)


def centred_margins(shape: Sequence[int], size: Sequence[int]) -> list[tuple[int, int]]:
    """Padding (before, after) per axis that centres `shape` in `size`; zero if it is not smaller."""
    missing = [max(want - side, 0) for side, want in zip(shape, size, strict=True)]
    return [(m // 2, m - m // 2) for m in missing]
