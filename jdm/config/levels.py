"""Where the network of volumes halves which axes, and how far its kernels reach; thick slices as in nnU-Net."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_LEAST_SIDE = 4
"""Sides are halved to this at least, as in nnU-Net's U-Net."""


@dataclass(frozen=True)
class Level:
    """One resolution of the network."""

    kernel: tuple[int, ...]
    """Taps of its convolutions along each axis, 1 or 3."""
    stride: tuple[int, ...]
    """How it is reduced to the next level: 2 for an axis that is halved, else 1; unused at the last level."""


def even_levels(axes: int, halvings: int) -> tuple[Level, ...]:
    """The levels of a network that halves every axis at every level."""
    return (Level((3,) * axes, (2,) * axes),) * halvings + (Level((3,) * axes, (1,) * axes),)


def levels_of(spacing: Sequence[float], sides: Sequence[int], halvings: int) -> tuple[Level, ...]:
    """The levels of a network for samples of these sides, `halvings` + 1.

    An axis is halved while its voxels are less than twice as long as the shortest ones of the axes that are large
    enough to be halved; kernels reach along it from the level on where they are less than twice as long as the
    shortest, and always at the last. So slices five times as thick as their pixels are first halved within the slice
    alone, until voxels are nearly even.
    Source: Isensee et al. 2021, and nnU-Net's get_pool_and_conv_props (network_topology.py of 2.8.1).
    """
    length, left, kernel, levels = list(spacing), list(sides), [1] * len(spacing), []
    for _ in range(halvings):
        shortest = min(length)
        kernel = [3 if taps == 3 or size < 2 * shortest else 1 for taps, size in zip(kernel, length, strict=True)]
        large = [axis for axis, side in enumerate(left) if side >= 2 * _LEAST_SIDE]
        least = min((length[axis] for axis in large), default=0.0)
        stride = [2 if axis in large and size < 2 * least else 1 for axis, size in enumerate(length)]
        levels.append(Level(tuple(kernel), tuple(stride)))
        length = [size * step for size, step in zip(length, stride, strict=True)]
        left = [-(-side // step) for side, step in zip(left, stride, strict=True)]
    return (*levels, Level((3,) * len(spacing), (1,) * len(spacing)))


def multiples(levels: Sequence[Level]) -> tuple[int, ...]:
    """What each side of a sample must be a multiple of."""
    found = [1] * len(levels[0].stride)
    for level in levels:
        found = [number * step for number, step in zip(found, level.stride, strict=True)]
    return tuple(found)


def padded(spacing: Sequence[float] | None, sides: Sequence[int], halvings: int) -> tuple[int, ...]:
    """The sides rounded up to what a network of so many halvings takes. Args: spacing: None: every axis is halved."""
    even = spacing is None
    factors = multiples(even_levels(len(sides), halvings) if even else levels_of(spacing, sides, halvings))
    return tuple(-(-side // factor) * factor for side, factor in zip(sides, factors, strict=True))
