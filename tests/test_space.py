"""Voxels are brought onto another grid exactly, or not at all."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jdm.data.image_io import read_raster, write_raster
from jdm.data.raster import Geometry, Raster
from jdm.data.space import aligned
from jdm.errors import DataError

OBLIQUE = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]


def stored_otherwise(raster: Raster, order: tuple[int, ...], flipped: tuple[bool, ...]) -> Raster:
    """The same voxels at the same places, written along other axes (array order z, y, x), some of them backwards."""
    assert raster.geometry is not None
    direction = np.reshape(raster.geometry.direction, (3, 3))[:, ::-1]
    origin = np.array(raster.geometry.origin)
    array, spacing = raster.array.transpose(0, *(axis + 1 for axis in order)), [raster.spacing[axis] for axis in order]
    direction = direction[:, order].copy()
    for axis in np.flatnonzero(flipped):
        array = np.flip(array, axis + 1)
        origin = origin + direction[:, axis] * spacing[axis] * (array.shape[axis + 1] - 1)
        direction[:, axis] *= -1
    return Raster(array, tuple(spacing), Geometry(tuple(origin), tuple(direction[:, ::-1].ravel())))


@given(
    st.permutations(range(3)),
    st.tuples(*[st.booleans()] * 3),
    st.sampled_from([np.eye(3), OBLIQUE]),
    st.sampled_from([(4, 3, 2), (3, 3, 3), (1, 3, 2)]),
    st.sampled_from([(2.0, 0.5, 0.7), (1.0, 1.0, 1.0)]),
)
def test_voxels_stored_in_another_order_come_back_exactly(order, flipped, direction, shape, spacing) -> None:
    array = np.arange(np.prod(shape)).reshape(1, *shape)
    like = Raster(array, spacing, Geometry((10.0, -20.0, 300.5), tuple(direction.ravel())))
    other = stored_otherwise(like, tuple(order), flipped)
    assert np.array_equal(aligned(other.array, other.geometry, other.spacing, like, "a"), array)


@pytest.mark.parametrize(
    ("spacing", "origin", "direction"),
    [
        ((1.0, 1.0, 1.0), (0.5, 0.0, 0.0), np.eye(3)),
        ((1.0, 1.0, 1.0), (0.0, 0.0, 1.0), np.eye(3)),
        ((1.0, 1.0, 1.01), (0.0, 0.0, 0.0), np.eye(3)),
        ((1.0, 1.0, 1.0), (0.0, 0.0, 0.0), OBLIQUE),
    ],
)
def test_voxels_that_lie_elsewhere_are_refused_with_both_geometries(spacing, origin, direction) -> None:
    array = np.zeros((1, 20, 20, 20))
    like = Raster(array, (1.0, 1.0, 1.0), Geometry((0.0, 0.0, 0.0), tuple(np.eye(3).ravel())))
    geometry = Geometry(origin, tuple(direction.ravel()))
    with pytest.raises(DataError) as refused:
        aligned(array, geometry, spacing, like, "mask.nii against image.nii")
    message = str(refused.value)
    assert "mask.nii" in message and "origin 0 0 0" in message and "direction 1 0 0 0 1 0 0 0 1" in message
    assert " ".join(f"{value:g}" for value in origin) in message and "\n" not in message


def test_one_thick_slice_is_not_one_thin_slice() -> None:
    array, place = np.zeros((1, 1, 4, 4)), Geometry((0.0, 0.0, 0.0), tuple(np.eye(3).ravel()))
    with pytest.raises(DataError, match="5x1x1"):
        aligned(array, place, (5.0, 1.0, 1.0), Raster(array, (1.0, 1.0, 1.0), place), "a")


def test_pictures_have_no_place_but_a_size() -> None:
    array = np.arange(6).reshape(1, 2, 3)
    assert aligned(array, None, (1.0, 1.0), Raster(array, (1.0, 1.0)), "a") is array
    with pytest.raises(DataError, match=r"2x3.*3x2"):
        aligned(array, None, (1.0, 1.0), Raster(array.reshape(1, 3, 2), (1.0, 1.0)), "a")


@pytest.mark.parametrize("ending", [".nii.gz", ".mha", ".nrrd"])
def test_geometry_survives_what_files_round(tmp_path: Path, ending: str) -> None:
    array = np.arange(60, dtype=np.uint8).reshape(1, 3, 4, 5)
    like = Raster(array, (2.5, 0.9765625, 0.7031), Geometry((-171.2, 33.3, 1204.7), tuple(OBLIQUE.ravel())))
    for number, flipped in enumerate(itertools.product([False, True], repeat=3)):
        path = tmp_path / f"{number}{ending}"
        write_raster(path, stored_otherwise(like, (2, 0, 1), flipped))
        read = read_raster(path)
        assert np.array_equal(aligned(read.array, read.geometry, read.spacing, like, "a"), array)
