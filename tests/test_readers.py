"""Files as nnU-Net's own readers have them: arrays, axes and spacing, and back."""

import json
import tempfile
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nnunetv2.imageio import nibabel_reader_writer, simpleitk_reader_writer, tif_reader_writer
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json
from raw_miniatures import LABELS, edit_json, make_dataset, make_pair
from scipy.spatial.transform import Rotation

from jdm.data.image_io import read_raster, write_raster
from jdm.data.raw_dataset import (
    Pair,
    check_dataset,
    read_case,
    read_dataset,
    write_case,
    write_dataset_json,
    write_json_like,
)
from jdm.draw.given import given_masks, region_of
from jdm.errors import DataError

VOLUME_READERS = {
    reader.__name__: reader
    for reader in (
        simpleitk_reader_writer.SimpleITKIO, simpleitk_reader_writer.SimpleITKIOWithReorient,
        nibabel_reader_writer.NibabelIO, nibabel_reader_writer.NibabelIOWithReorient,
    )
}  # fmt: skip
NNUNET = {**VOLUME_READERS, "NaturalImage2DIO": NaturalImage2DIO, "Tiff3DIO": tif_reader_writer.Tiff3DIO}
LYING = [-1, 0, 0, 1], [0, 0, 1, 2], [0, -1, 0, 3], [0, 0, 0, 1]
"""An affine, RAS: the axes of the file point left, inferior, and anterior."""


def nifti(path: Path, data: np.ndarray, affine: np.ndarray) -> None:
    image = nibabel.Nifti1Image(data, affine, dtype=data.dtype)
    if np.allclose(affine[:3, :3].T @ affine[:3, :3], np.diag((affine[:3, :3] ** 2).sum(axis=0)), atol=1e-6):
        image.set_qform(affine, 1)
    nibabel.save(image, path)


# ---------------------------------------------------------------- each reader


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    reader=st.sampled_from(sorted(VOLUME_READERS)), order=st.permutations(range(3)),
    signs=st.tuples(*[st.sampled_from([-1, 1])] * 3), angles=st.tuples(*[st.floats(-0.3, 0.3)] * 3),
    spacing=st.tuples(*[st.sampled_from([0.3, 0.5, 1.0, 7.0])] * 3), shape=st.tuples(*[st.integers(1, 5)] * 3),
    ending=st.sampled_from([".nii", ".nii.gz"]),
)  # fmt: skip
def test_every_reader_has_nnunets_array_of_any_orientation(reader, order, signs, angles, spacing, shape, ending):
    """Read, written and read again: equal to nnU-Net's reader, and to every other reader of both files."""
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angles).as_matrix() @ np.eye(3)[:, order] * signs * spacing
    affine[:3, 3] = -3, 20, 100
    data = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    with tempfile.TemporaryDirectory() as root:
        real, made = Path(root) / f"real_0000{ending}", Path(root) / f"made_0000{ending}"
        nifti(real, data, affine)
        found = read_raster(real, reader=reader)
        write_raster(made, found)
        for name, nnunet in VOLUME_READERS.items():
            array, properties = nnunet().read_images([str(real)])
            again, same = nnunet().read_images([str(made)])
            np.testing.assert_array_equal(again, array)
            np.testing.assert_allclose(same["spacing"], properties["spacing"], rtol=1e-5)
            if name == reader:
                np.testing.assert_array_equal(found.array, array)
                np.testing.assert_allclose(found.spacing, properties["spacing"], rtol=1e-5)
        image = nibabel.load(made)
        np.testing.assert_array_equal(np.asanyarray(image.dataobj), data)
        np.testing.assert_allclose(image.affine, affine, atol=1e-3)  # ITK keeps directions as float32 quaternions


@pytest.mark.parametrize("ending", [".mha", ".nrrd"])
@pytest.mark.parametrize("reader", ["SimpleITKIO", "SimpleITKIOWithReorient"])
def test_meta_and_nrrd_files_are_turned_as_nnunet_turns_them(tmp_path, ending, reader):
    path, again = tmp_path / f"a_0000{ending}", tmp_path / f"b_0000{ending}"
    image = SimpleITK.GetImageFromArray(np.arange(24, dtype=np.int16).reshape(2, 3, 4))
    image.SetSpacing((1, 2, 3))
    image.SetOrigin((5, 6, 7))
    image.SetDirection((0, 1, 0, 0, 0, 1, 1, 0, 0))
    SimpleITK.WriteImage(image, str(path))
    array, properties = NNUNET[reader]().read_images([str(path)])
    assert array.shape[1:] == ((2, 3, 4) if reader == "SimpleITKIO" else (4, 2, 3))
    found = read_raster(path, reader=reader)
    np.testing.assert_array_equal(found.array, array)
    assert found.spacing == tuple(properties["spacing"])
    assert found.geometry is not None and found.geometry.direction == properties["sitk_stuff"]["direction"]
    write_raster(again, found)
    assert again.read_bytes() == path.read_bytes() or SimpleITK.ReadImage(str(again)) == image


def test_tiff_volumes_have_their_spacing_in_a_file(tmp_path):
    """Also of one slice, or three, which without the shape inside are pictures."""
    for shape in ((5, 7, 6), (1, 7, 6), (3, 7, 6), (4, 7, 3)):
        image = np.arange(3 * np.prod(shape), dtype=np.uint16).reshape(3, *shape)
        pair = Pair("s_1", image, np.ones(shape, np.uint8), (3, 1, 0.5))
        folder = tmp_path / "x".join(map(str, shape)) / "Dataset007_Cells"
        write_case(folder, pair, ".tif")
        kind = {"channel_names": "abc", "labels": LABELS, "file_ending": ".tif", "reader": "Tiff3DIO"}
        write_dataset_json(folder, num_training=1, **kind)
        dataset = read_dataset(folder)
        image, properties = tif_reader_writer.Tiff3DIO().read_images([str(f) for f in dataset.image_files("s_1")])
        label, of_label = tif_reader_writer.Tiff3DIO().read_seg(str(dataset.label_file("s_1")))
        assert properties["spacing"] == of_label["spacing"] == [3, 1, 0.5]
        found = read_case(dataset, "s_1")
        for array in (image, pair.image):
            np.testing.assert_array_equal(found.image, array)
        np.testing.assert_array_equal(found.label, label[0])
        assert found.spacing == (3, 1, 0.5) and found.geometry is None and check_dataset(dataset) == []


def test_files_of_two_axes_are_volumes_of_one_slice_as_nnunet_has_them(tmp_path):
    image = SimpleITK.GetImageFromArray(np.arange(12, dtype=np.int16).reshape(3, 4))
    image.SetSpacing((0.5, 0.25))
    image.SetOrigin((3, 4))
    image.SetDirection((0, 1, -1, 0))
    for ending in (".mha", ".nii.gz", ".nrrd"):
        path, again = tmp_path / f"a_0000{ending}", tmp_path / f"b_0000{ending}"
        SimpleITK.WriteImage(image, str(path))
        array, properties = NNUNET["SimpleITKIO"]().read_images([str(path)])
        found = read_raster(path)
        np.testing.assert_array_equal(found.array, array)
        assert found.array.shape == (1, 1, 3, 4) and found.spacing == tuple(properties["spacing"]) == (499.5, 0.25, 0.5)
        write_raster(again, found)
        written = SimpleITK.ReadImage(str(again))
        assert written.GetSize() == (4, 3) and written.GetSpacing() == (0.5, 0.25)
        np.testing.assert_allclose(written.GetDirection(), (0, 1, -1, 0), atol=1e-6)
        np.testing.assert_allclose(written.GetOrigin(), (3, 4))


# ---------------------------------------------------------------- which reader


def volume_dataset(root: Path, affines: list[np.ndarray], reader: str = "", ending: str = ".nii.gz") -> Path:
    """A dataset of one case for each affine."""
    folder = root / "Dataset007_Cells"
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    for index, affine in enumerate(affines):
        rng = np.random.default_rng(index)
        nifti(folder / "imagesTr" / f"c{index}_0000{ending}", rng.integers(0, 90, (4, 5, 6)).astype(np.int16), affine)
        nifti(folder / "labelsTr" / f"c{index}{ending}", rng.integers(0, 3, (4, 5, 6)).astype(np.uint8), affine)
    write_dataset_json(
        folder, channel_names=["MR"], labels=LABELS, file_ending=ending, num_training=len(affines), reader=reader
    )
    return folder


SHEARED = np.array([[2, 0.7, 0, 1], [0, 1, 0, 2], [0, 0, 3, 3], [0, 0, 0, 1]])
CHOICES = [
    ([np.eye(4)], "", ".nii.gz", "SimpleITKIO"),
    ([np.eye(4)], "", ".nii", "NibabelIO"),
    ([SHEARED, np.eye(4)], "", ".nii.gz", "NibabelIO"),
    ([np.eye(4)], "None", ".nii.gz", "SimpleITKIO"),
    ([SHEARED], "NibabelIOWithReorient", ".nii.gz", "NibabelIOWithReorient"),
    ([np.array(LYING)], "NibabelIOWithReorient", ".nii", "NibabelIOWithReorient"),
    ([np.array(LYING)], "SimpleITKIOWithReorient", ".nii.gz", "SimpleITKIOWithReorient"),
    ([np.array(LYING)], "SimpleITKIO", ".nii", "SimpleITKIO"),
    ([np.array(LYING)], "NibabelIO", ".nii.gz", "NibabelIO"),
]


@pytest.mark.parametrize(("affines", "asked", "ending", "expected"), CHOICES)
def test_the_reader_is_nnunets_and_what_is_made_is_read_alike(tmp_path, affines, asked, ending, expected):
    """A set of volumes like the real one: same reader, axes, spacing, and direction of the first case."""
    folder = volume_dataset(tmp_path / "real", affines, asked, ending)
    dataset = read_dataset(folder)
    files = [str(dataset.image_files("c0")[0])]
    content = json.loads((folder / "dataset.json").read_text())
    nnunet = determine_reader_writer_from_dataset_json(content, files[0], verbose=False)
    assert dataset.reader == nnunet.__name__ == expected
    pair = read_case(dataset, "c0")
    array, properties = nnunet().read_images(files)
    np.testing.assert_array_equal(pair.image, array)
    np.testing.assert_allclose(pair.spacing, properties["spacing"], rtol=1e-6)

    made = tmp_path / "made" / "Dataset008_Made"
    image = np.arange(210, dtype=np.int16).reshape(1, 5, 7, 6)
    write_case(made, Pair("m", image, (image[0] % 3).astype(np.uint8), pair.spacing, pair.geometry), ending)
    write_json_like(made, dataset, 1)
    content = json.loads((made / "dataset.json").read_text())
    assert content["overwrite_image_reader_writer"] == expected
    file = str(made / "imagesTr" / f"m_0000{ending}")
    assert determine_reader_writer_from_dataset_json(content, file, verbose=False) is nnunet
    array, again = nnunet().read_images([file])
    np.testing.assert_array_equal(array, image)
    np.testing.assert_allclose(again["spacing"], properties["spacing"], rtol=1e-6)
    for kind in set(again) - {"spacing"}:
        for key in set(again[kind]) & {"direction", "original_affine", "reoriented_affine"}:
            ours, theirs = (np.array(p[kind][key]) for p in (again, properties))
            ours, theirs = (a[:3, :3] if a.ndim == 2 else a for a in (ours, theirs))
            np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_a_stack_of_tiff_pages_is_a_volume_where_nnunet_takes_it_for_one(tmp_path):
    folder = make_dataset(tmp_path, [make_pair(ending=".tif", channels=1)], ".tif")
    assert read_dataset(folder).reader == "NaturalImage2DIO"
    for shape, expected in (((5, 7, 6), "Tiff3DIO"), ((2, 7, 6), "Tiff3DIO"), ((3, 7, 6), "NaturalImage2DIO")):
        path = folder / "imagesTr/a_0000.tif"
        tifffile.imwrite(path, np.zeros(shape, np.uint8), photometric="minisblack")
        assert read_dataset(folder).reader == expected
        content = json.loads((folder / "dataset.json").read_text())
        assert determine_reader_writer_from_dataset_json(content, str(path), verbose=False).__name__ == expected


@pytest.mark.parametrize("name", ["NaturalImage2DIO", "Tiff3DIO", "MyIO", 7])
def test_readers_that_are_unknown_or_of_other_files_are_refused(tmp_path, name):
    folder = volume_dataset(tmp_path, [np.eye(4)])
    edit_json(folder, overwrite_image_reader_writer=name)
    with pytest.raises(DataError, match=rf"dataset.json.*{name}.*SimpleITKIO .*NibabelIOWithReorient"):
        read_dataset(folder)


def test_a_sheared_file_among_others_names_the_reader_that_takes_it(tmp_path):
    folder = volume_dataset(tmp_path, [np.eye(4), SHEARED])
    with pytest.raises(DataError, match=r"c1_0000\.nii\.gz.*NibabelIO.*dataset\.json"):
        read_case(read_dataset(folder), "c1")
    edit_json(folder, overwrite_image_reader_writer="NibabelIO")
    assert read_case(read_dataset(folder), "c1").image.shape == (1, 6, 5, 4)


# ---------------------------------------------------------------- one grid for a case


def test_label_and_channels_of_other_axes_come_onto_the_first_image(tmp_path):
    """Stored flipped and with exchanged axes, they are where they were; nnU-Net, which does not look, is told of."""
    rng = np.random.default_rng(0)
    image, second = (rng.integers(0, 99, (2, 4, 5, 6))).astype(np.int16)
    label = rng.integers(0, 3, (4, 5, 6)).astype(np.uint8)
    affine = np.diag([1.0, 2, 3, 1])
    folder = tmp_path / "Dataset007_Cells"
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)

    def turned(data: np.ndarray, axes: list[int], flips: list[int]) -> nibabel.Nifti1Image:
        ornt = np.array([[axes.index(k), flips[k]] for k in range(3)])
        return nibabel.Nifti1Image(data, affine).as_reoriented(ornt)

    nifti(folder / "imagesTr/a_0000.nii.gz", image, affine)
    nibabel.save(turned(second, [2, 0, 1], [1, -1, 1]), folder / "imagesTr/a_0001.nii.gz")
    nibabel.save(turned(label, [0, 1, 2], [-1, -1, 1]), folder / "labelsTr/a.nii.gz")
    write_dataset_json(folder, channel_names="ab", labels=LABELS, file_ending=".nii.gz", num_training=1)
    for reader in ("None", "NibabelIO", "NibabelIOWithReorient"):
        edit_json(folder, overwrite_image_reader_writer=reader)
        dataset = read_dataset(folder)
        pair = read_case(dataset, "a")
        np.testing.assert_array_equal(pair.image, np.stack([image, second]).transpose(0, 3, 2, 1))
        np.testing.assert_array_equal(pair.label, label.transpose())
        findings = [f for f in check_dataset(dataset) if f.must]
        if reader == "NibabelIOWithReorient":  # nnU-Net brings them together too
            assert findings == []
        else:
            assert ["2 files" in f.text and '"NibabelIOWithReorient"' in f.text for f in findings] == [True]


@pytest.mark.parametrize("part", ["imagesTr/a_0001", "labelsTr/a"])
@pytest.mark.parametrize("change", ["origin", "direction", "spacing", "size"])
def test_files_of_a_case_that_lie_elsewhere_are_refused_with_both_grids(tmp_path, part, change):
    folder = make_dataset(tmp_path, [make_pair(ending=".nii.gz", channels=2)], ".nii.gz")
    path = folder / f"{part}.nii.gz"
    image = SimpleITK.ReadImage(str(path))
    if change == "origin":
        image.SetOrigin((1.5, 2.0, 9.25))
    elif change == "direction":
        image.SetDirection(Rotation.from_euler("z", 20, degrees=True).as_matrix().ravel().tolist())
    elif change == "spacing":
        image.SetSpacing((0.25, 0.5, 3.25))
    else:
        image = image[:-1]
    SimpleITK.WriteImage(image, str(path))
    both = {
        "origin": ("9.25", "-3"),
        "direction": ("0.93", "-1 0 0"),
        "spacing": ("3.25", "3x0.5"),
        "size": ("4x7x4", "4x7x5"),
    }
    with pytest.raises(DataError, match=rf"{path.name}.*a_0000") as caught:
        read_case(read_dataset(folder), "a")
    assert all(value in str(caught.value) for value in both[change])


def test_masks_and_regions_that_are_given_lie_as_the_cases_do(tmp_path):
    """Files of a set that nnU-Net turns are stored along other axes than its arrays."""
    folder = volume_dataset(tmp_path, [np.array(LYING)], "NibabelIOWithReorient")
    dataset = read_dataset(folder)
    pair = read_case(dataset, "c0")
    assert nibabel.load(dataset.label_file("c0")).shape[::-1] != pair.label.shape
    (mask,) = given_masks(dataset, folder / "labelsTr", "int16")
    np.testing.assert_array_equal(mask.label, pair.label)
    np.testing.assert_array_equal(region_of(pair, (), dataset.label_file("c0")), pair.label != 0)
    elsewhere = nibabel.load(dataset.label_file("c0"))
    nifti(tmp_path / "region.nii.gz", np.asanyarray(elsewhere.dataobj), elsewhere.affine @ np.diag([1, 1, 2, 1]))
    with pytest.raises(DataError, match=r"region\.nii\.gz.*c0"):
        region_of(pair, (), tmp_path / "region.nii.gz")


# ---------------------------------------------------------------- types

TYPES = ("int8", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64")
VOLUMES = {
    **{name: np.ones((4, 5, 6), name) for name in TYPES},
    "two_axes": np.zeros((4, 5), np.int16),
    "four_axes": np.zeros((4, 5, 6, 2), np.int16),
    "complex": np.ones((4, 5, 6), np.complex64),
    "colours": np.ones((4, 5, 6), [("R", "u1"), ("G", "u1"), ("B", "u1")]),
}


@pytest.mark.parametrize("reader", sorted(VOLUME_READERS))
@pytest.mark.parametrize("kind", VOLUMES)
def test_volumes_of_every_type_are_read_as_nnunet_reads_them_or_refused(tmp_path, reader, kind):
    data = VOLUMES[kind]
    path = tmp_path / "a_0000.nii.gz"
    nibabel.save(nibabel.Nifti1Image(data, np.eye(4), dtype=data.dtype), path)
    try:
        found = read_raster(path, reader=reader)
    except DataError as error:
        assert path.name in str(error) and kind not in TYPES
        return
    array, _ = VOLUME_READERS[reader]().read_images([str(path)])
    np.testing.assert_array_equal(found.array, array)


@pytest.mark.parametrize("reader", sorted(VOLUME_READERS))
def test_scaled_integers_are_the_numbers_they_stand_for(tmp_path, reader):
    path = tmp_path / "a_0000.nii.gz"
    image = nibabel.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.eye(4))
    image.header.set_slope_inter(0.5, -1024)
    nibabel.save(image, path)
    found = read_raster(path, reader=reader).array
    np.testing.assert_array_equal(found, VOLUME_READERS[reader]().read_images([str(path)])[0])
    assert found.dtype.kind == "f"


@pytest.mark.parametrize("ending", [".nii.gz", ".mha", ".tif"])
def test_labels_of_real_numbers_are_classes_where_they_are_whole(tmp_path, ending):
    pair = make_pair(ending=ending, channels=1)
    dataset = read_dataset(make_dataset(tmp_path, [pair], ending))
    path = dataset.label_file("a")
    stored = read_raster(path, True)
    write_raster(path, replace(stored, array=stored.array.astype(np.float32)))
    np.testing.assert_array_equal(read_case(dataset, "a").label, pair.label)
    assert check_dataset(dataset) == []
    write_raster(path, replace(stored, array=stored.array.astype(np.float32) / 2))
    with pytest.raises(DataError, match=rf"a\{ending}.* 0\.5"):
        read_case(dataset, "a")
