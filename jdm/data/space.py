"""Brings volumes with another axis order onto another file's grid, without interpolation."""

from __future__ import annotations

import itertools

import numpy as np

from jdm.data.raster import Geometry, Raster
from jdm.errors import DataError

NEAR = 0.1
"""Tolerance for coinciding voxel centres, in voxels, because files round their geometry."""


def aligned(
    array: np.ndarray, geometry: Geometry | None, spacing: tuple[float, ...], like: Raster, where: str
) -> np.ndarray:
    """The voxels of a file in the order of `like`, using only flips and permutations of axes.

    If either side has no geometry (pictures), nothing is moved, and shape and spacing must be equal.

    Args:
        array: (channels, *spatial); `geometry` and `spacing` are its own, as in `Raster`.
        like: the file with the target grid; its channels are ignored.
        where: both files, for the beginning of the message.
    Returns: (channels, *spatial of `like`).
    Raises: DataError with both shapes, spacings and geometries if the voxels do not coincide.
    """
    wanted = like.array.shape[1:]
    if geometry is None or like.geometry is None:
        if array.shape[1:] == wanted and np.allclose(spacing, like.spacing, rtol=1e-4):
            return array
    elif array.ndim - 1 == len(wanted):
        ours, theirs = _affine(geometry, spacing), _affine(like.geometry, like.spacing)
        for axes in itertools.permutations(range(len(wanted))):
            turned = array.transpose(0, *(axis + 1 for axis in axes))
            if turned.shape[1:] == wanted and (flips := _flips(ours, theirs, axes, wanted)) is not None:
                return np.flip(turned, [axis + 1 for axis in flips])
    raise DataError(
        f"{where}: {_described(array.shape[1:], spacing, geometry)}, the other "
        f"{_described(wanted, like.spacing, like.geometry)}; expected the same voxels, up to flips and permutations "
        "of axes; resample one onto the other's grid, or correct its header"
    )


def _affine(geometry: Geometry, spacing: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Displacement per step along each array axis, as columns, and the position of voxel 0."""
    dims = len(spacing)
    direction = np.reshape(geometry.direction, (dims, dims))  # columns for x, y(, z)
    return direction[:, ::-1] * np.array(spacing), np.array(geometry.origin)


def _flips(
    ours: tuple[np.ndarray, np.ndarray],
    theirs: tuple[np.ndarray, np.ndarray],
    axes: tuple[int, ...],
    shape: tuple[int, ...],
) -> list[int] | None:
    """Axes of the permuted array to flip so that all voxels coincide with the other file's; None if impossible."""
    steps, origin = ours[0][:, axes].copy(), ours[1].copy()
    against = [axis for axis in range(len(shape)) if steps[:, axis] @ theirs[0][:, axis] < 0]
    for axis in against:
        origin += steps[:, axis] * (shape[axis] - 1)
        steps[:, axis] *= -1
    voxel = np.linalg.norm(theirs[0], axis=0).min()
    # the map is affine: no voxel is further off than one of the corners
    for corner in itertools.product(*((0, side - 1) for side in shape)):
        if np.linalg.norm((steps - theirs[0]) @ corner + origin - theirs[1]) > NEAR * voxel:
            return None
    # an axis of one voxel has no second corner to tell its thickness
    return against if np.allclose(steps, theirs[0], atol=NEAR * voxel) else None


def _described(shape: tuple[int, ...], spacing: tuple[float, ...], geometry: Geometry | None) -> str:
    sides = f"has {'x'.join(map(str, shape))} voxels of {'x'.join(f'{side:g}' for side in spacing)}"
    if geometry is None:
        return f"{sides} and no geometry"
    origin, direction = (" ".join(f"{value:g}" for value in part) for part in (geometry.origin, geometry.direction))
    return f"{sides}, origin {origin}, direction {direction}"
