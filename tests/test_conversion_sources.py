"""Volumes: Decathlon tasks, and folders of images and masks; and real data."""

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from conversion_miniatures import LABELS, mask, notes, run, save, type_command

from dataset_conversion.msd import convert_msd
from dataset_conversion.nnunet_v1 import convert_nnunet_v1
from dataset_conversion.options import MsdOptions, NnunetV1Options, PairsOptions
from dataset_conversion.pairs import convert_pairs
from jdm.data.image_io import read_raster
from jdm.data.raw_dataset import check_dataset, open_dataset, read_case, read_image, write_dataset_json
from jdm.errors import ConfigError, DataError

# ---------------------------------------------------------------- Decathlon tasks


def volume(path: Path, array: np.ndarray, spacing: tuple[float, ...] = (0.5, 1.0, 2.0)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = SimpleITK.GetImageFromArray(array, isVector=False)
    image.SetSpacing(spacing if array.ndim == 3 else (*spacing, 1.0))
    image.SetOrigin((3.0, -4.0, 5.0) if array.ndim == 3 else (3.0, -4.0, 5.0, 0.0))
    SimpleITK.WriteImage(image, str(path))


def make_task(root: Path, channels: int = 1, names: bool = True) -> Path:
    task = root / "Task09_Thing"
    for i in range(4):
        shape = (3, 4, 5) if channels == 1 else (channels, 3, 4, 5)
        image = np.random.default_rng(i).integers(0, 999, shape).astype(np.int16)
        label = np.zeros((3, 4, 5), np.uint8)
        label[1, 1:3, 1:3] = 1 + i % 2
        suffix = "Tr" if i < 3 else "Ts"
        volume(task / f"images{suffix}/thing_{i}.nii.gz", image)
        if i < 3:
            volume(task / f"labels{suffix}/thing_{i}.nii.gz", label)
            (task / f"labels{suffix}/._thing_{i}.nii.gz").write_bytes(b"mac")
    if names:
        modality = {str(i): f"M{i}" for i in range(channels)}
        content = {"modality": modality, "labels": {"0": "Background", "1": "head", "2": "tail"}}
        (task / "dataset.json").write_text(json.dumps(content))
    return task


def test_msd_task(tmp_path: Path, nnunet_folders: dict[str, Path]) -> None:
    made = convert_msd(MsdOptions(make_task(tmp_path), 9))
    dataset = open_dataset("Thing")
    assert (made.training, made.test) == (3, 1)
    assert dataset.labels == {"background": 0, "head": 1, "tail": 2}
    assert dataset.channel_names == ("M0",)
    pair = read_case(dataset, "thing_1")
    np.testing.assert_array_equal(pair.image[0], np.random.default_rng(1).integers(0, 999, (3, 4, 5)))
    assert pair.label.max() == 2
    assert pair.spacing == (2.0, 1.0, 0.5)
    assert pair.geometry is not None
    assert pair.geometry.origin == (3.0, -4.0, 5.0)
    assert check_dataset(dataset) == []
    assert made.counts["ignored"] == 3


def test_msd_labels_above_255_keep_their_value(tmp_path: Path, nnunet_folders: dict[str, Path]) -> None:
    task = make_task(tmp_path)
    names = {"0": "background"} | {str(k): f"class {k}" for k in range(1, 301)}
    (task / "dataset.json").write_text(json.dumps({"modality": {"0": "CT"}, "labels": names}))
    label = np.zeros((3, 4, 5), np.uint16)
    label[1, 1, 1:4] = 255, 256, 300
    volume(task / "labelsTr/thing_0.nii.gz", label)
    convert_msd(MsdOptions(task, 9))
    np.testing.assert_array_equal(read_case(open_dataset(9), "thing_0").label, label)


def test_msd_channels_are_split(tmp_path: Path, nnunet_folders: dict[str, Path]) -> None:
    convert_msd(MsdOptions(make_task(tmp_path, channels=2), 9, max_cases=2))
    dataset = open_dataset(9)
    assert dataset.cases == ("thing_0", "thing_1")
    assert [f.name for f in dataset.image_files("thing_0")] == ["thing_0_0000.nii.gz", "thing_0_0001.nii.gz"]
    expected = np.random.default_rng(0).integers(0, 999, (2, 3, 4, 5))
    np.testing.assert_array_equal(read_case(dataset, "thing_0").image, expected)
    assert read_image(dataset, "thing_3", test=True)[0].shape == (2, 3, 4, 5)


def test_msd_names_are_inferred_and_told(tmp_path: Path, nnunet_folders: dict[str, Path]) -> None:
    made = convert_msd(MsdOptions(make_task(tmp_path, channels=2, names=False), 9, name="X"))
    dataset = open_dataset("X")
    assert dataset.labels == {"background": 0, "label_1": 1, "label_2": 2}
    assert dataset.channel_names == ("channel_0", "channel_1")
    assert any("label_2" in w for w in made.warnings) and any("channel_1" in w for w in made.warnings)


@pytest.mark.parametrize("kind", ["msd", "v1"])
def test_classes_are_inferred_from_the_values_there_are(
    tmp_path: Path, nnunet_folders: dict[str, Path], kind: str
) -> None:
    task = make_task(tmp_path, names=False)
    for case in range(3):
        volume(task / f"labelsTr/thing_{case}.nii.gz", labelled((1, 2, 4) if case else (1, 2)))
    if kind == "v1":
        for path in [*task.glob("images*/thing*")]:
            path.rename(path.with_name(path.name.replace(".nii", "_0000.nii")))
    made = convert_msd(MsdOptions(task, 9)) if kind == "msd" else convert_nnunet_v1(NnunetV1Options(task, 9))
    dataset = open_dataset(9)
    assert dataset.labels == {"background": 0, "label_1": 1, "label_2": 2, "label_4": 3}
    np.testing.assert_array_equal(read_case(dataset, "thing_1").label, labelled((1, 2, 3)))
    assert any("label_4 (3)" in warning for warning in made.warnings)
    volume(task / "labelsTr/thing_0.nii.gz", labelled((1, 2)).astype(np.float32) / 2)
    with pytest.raises(DataError, match=r"labelsTr: .*0\.5"):
        convert_msd(MsdOptions(task, 10, "Y")) if kind == "msd" else convert_nnunet_v1(NnunetV1Options(task, 10, "Y"))


def test_a_dataset_of_v2_needs_no_conversion(tmp_path: Path, nnunet_folders: dict[str, Path]) -> None:
    task = make_task(tmp_path)
    (task / "dataset.json").write_text('{"channel_names": {"0": "CT"}, "labels": {"background": 0, "a": 1}}')
    with pytest.raises(DataError, match=r"dataset\.json: .*v2"):
        convert_msd(MsdOptions(task, 9))


def test_msd_faults(tmp_path: Path, nnunet_folders: dict[str, Path]) -> None:
    task = make_task(tmp_path)
    volume(task / "labelsTr/thing_0.nii.gz", np.ones((3, 4, 6), np.uint8))
    volume(task / "labelsTr/thing_1.nii.gz", np.ones((3, 4, 5), np.uint8), (1.0, 1.0, 1.0))
    refused = notes(convert_msd(MsdOptions(task, 9)).folder, "refused")
    assert "(3, 4, 6)" in refused["thing_0"] and "(3, 4, 5)" in refused["thing_0"]
    assert "(1.0, 1.0, 1.0)" in refused["thing_1"]
    with pytest.raises(DataError, match=r"--strict.*thing_0.*thing_1"):
        convert_msd(MsdOptions(task, 10, "Y", strict=True))
    (task / "labelsTr/thing_2.nii.gz").unlink()
    with pytest.raises(DataError, match=r"imagesTr.*: thing_2\b"):
        convert_msd(MsdOptions(task, 10, "Y"))
    (task / "dataset.json").write_text('{"labels": {"0": "background"}}')
    with pytest.raises(DataError, match="modality"):
        convert_msd(MsdOptions(task, 10, "Y"))
    for options, kind in (
        (MsdOptions(tmp_path / "x", 10), DataError),
        (MsdOptions(task, 10, max_cases=0), ConfigError),
    ):
        with pytest.raises(kind):
            convert_msd(options)


# ---------------------------------------------------------------- volumes in two folders


def make_volumes(root: Path, ending: str = ".nii.gz", values: tuple[int, ...] = (1, 2, 4)) -> PairsOptions:
    """Two cases, masks named as the images are."""
    for case in range(2):
        volume(
            root / f"images/v{case}{ending}", np.random.default_rng(case).integers(0, 99, (3, 4, 5)).astype(np.int16)
        )
        volume(root / f"masks/v{case}{ending}", labelled(values))
    labels = ("0=background", *(f"{value}=class {value}" for value in values))
    return PairsOptions(root / "images", root / "masks", 12, "Volumes", labels)


def labelled(values: tuple[int, ...]) -> np.ndarray:
    array = np.zeros((3, 4, 5), np.uint8)
    array[1, 1, 1 : 1 + len(values)] = values
    return array


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha"])
def test_folders_of_volumes(tmp_path: Path, nnunet_folders: dict[str, Path], ending: str) -> None:
    options = make_volumes(tmp_path, ending)
    options.masks.joinpath(f"v1{ending}").rename(options.masks / f"v1{'.seg' if ending == '.nrrd' else ''}{ending}")
    assert convert_pairs(options).training == 2
    dataset = open_dataset(12)
    assert dataset.labels == {"background": 0, "class 1": 1, "class 2": 2, "class 4": 3}
    pair = read_case(dataset, "v1")
    np.testing.assert_array_equal(pair.label, labelled((1, 2, 3)))
    np.testing.assert_array_equal(pair.image[0], np.random.default_rng(1).integers(0, 99, (3, 4, 5)))
    assert pair.spacing == (2.0, 1.0, 0.5)
    assert check_dataset(dataset) == []


def test_the_command_that_is_named_maps_the_labels_of_a_raw_dataset(
    tmp_path: Path, nnunet_folders: dict[str, Path]
) -> None:
    """As BraTS has them: 0, 1, 2 and 4."""
    folder = nnunet_folders["nnUNet_raw"] / "Dataset007_Tumour"
    for case in range(2):
        for channel in range(2):
            image = np.random.default_rng([case, channel]).integers(0, 99, (3, 4, 5)).astype(np.int16)
            volume(folder / f"imagesTr/b{case}_{channel:04d}.nii.gz", image)
        volume(folder / f"labelsTr/b{case}.nii.gz", labelled((1, 2, 4)))
    labels = {"background": 0, "necrosis": 1, "edema": 2, "enhancing": 3}
    write_dataset_json(
        folder, channel_names=["T1", "T2"], labels=labels, file_ending=".nii.gz", num_training=2
    )  # fmt: skip
    with pytest.raises(DataError, match=r"b0\.nii\.gz: .* 4;") as caught:
        read_case(open_dataset(7), "b0")
    words = shlex.split(str(caught.value)[str(caught.value).index("jdm-convert ") :])
    assert run(*words[1:]).returncode == 0
    dataset = open_dataset(int(words[words.index("--id") + 1]))
    assert dataset.labels == labels and dataset.cases == ("b0", "b1")
    pair = read_case(dataset, "b1")
    np.testing.assert_array_equal(pair.label, labelled((1, 2, 3)))
    np.testing.assert_array_equal(pair.image[1], np.random.default_rng([1, 1]).integers(0, 99, (3, 4, 5)))


def test_pictures_and_volumes_in_one_folder_are_one_line(tmp_path: Path, nnunet_folders: dict[str, Path]) -> None:
    options = make_volumes(tmp_path)
    for part in ("images", "masks"):
        save(tmp_path / part / "p.png", mask(value=1))
    with pytest.raises(DataError, match=r"2 pictures .*p\.png.* 4 volumes .*v0\.nii\.gz") as caught:
        convert_pairs(options)
    assert "\n" not in str(caught.value)
    assert list(nnunet_folders["nnUNet_raw"].iterdir()) == []


@pytest.mark.parametrize("first", [True, False])
def test_two_and_three_axes_in_one_folder_are_one_line(
    tmp_path: Path, nnunet_folders: dict[str, Path], first: bool
) -> None:
    options = make_volumes(tmp_path)
    for part in ("images", "masks"):
        path = tmp_path / part / f"{'a' if first else 'w'}.nii.gz"
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(mask(value=1)), str(path))
    with pytest.raises(DataError, match=r"[aw]\.nii\.gz.* 2\b|[aw]\.nii\.gz.* 3\b") as caught:
        convert_pairs(options)
    assert "\n" not in str(caught.value)
    assert list(nnunet_folders["nnUNet_raw"].iterdir()) == []


def vectors(path: Path, layers: list[np.ndarray]) -> None:
    """A volume of several values per voxel, as 3D Slicer stores segments that overlap."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = SimpleITK.GetImageFromArray(np.stack(layers, -1), isVector=True)
    image.SetSpacing((0.5, 1.0, 2.0))
    image.SetOrigin((3.0, -4.0, 5.0))
    SimpleITK.WriteImage(image, str(path))


@pytest.mark.parametrize("form", ["vector", "four axes"])
def test_layers_of_a_mask_are_merged_by_the_command_that_is_named(
    tmp_path: Path, nnunet_folders: dict[str, Path], form: str
) -> None:
    options = make_volumes(tmp_path, ".nrrd", (1, 2, 3))
    organ, lesion = np.zeros((2, 3, 4, 5), np.uint8)
    organ[1, 1:3, 1:4], organ[0, 0, 0], lesion[1, 2, 2:5] = 1, 2, 1
    path = tmp_path / "masks/v0.nrrd"
    if form == "vector":
        vectors(path, [organ, lesion])
    else:
        volume(path, np.stack([organ, lesion]))
    (tmp_path / "images/v1.nrrd").unlink()
    (tmp_path / "masks/v1.nrrd").unlink()
    with pytest.raises(DataError, match=r"v0\.nrrd") as caught:
        convert_pairs(options)
    type_command(str(caught.value))
    convert_pairs(options)
    np.testing.assert_array_equal(read_case(open_dataset(12), "v0").label, np.where(lesion > 0, 3, organ))


def test_channels_of_an_image_are_split_by_the_command_that_is_named(
    tmp_path: Path, nnunet_folders: dict[str, Path]
) -> None:
    options = make_volumes(tmp_path, ".nrrd")
    channels = np.random.default_rng(5).integers(0, 99, (2, 2, 3, 4, 5)).astype(np.int16)
    for case in range(2):
        vectors(tmp_path / f"images/v{case}.nrrd", list(channels[case]))
        with pytest.raises(DataError, match=rf"v{case}\.nrrd") as caught:
            read_raster(tmp_path / f"images/v{case}.nrrd")
        type_command(str(caught.value))
    convert_pairs(options)
    np.testing.assert_array_equal(read_case(open_dataset(12), "v1").image, channels[1])


# ---------------------------------------------------------------- real data


def test_real_monuseg(shared_data: Path, tmp_path: Path, nnunet_folders: dict[str, Path]) -> None:
    folders = []
    for split, count in (("train", 2), ("test", 1)):
        for part in ("images", "masks"):
            target = tmp_path / split / part
            target.mkdir(parents=True)
            folders.append(target)
            for path in sorted((shared_data / "monuseg" / split / part).iterdir())[:count]:
                (target / path.name).symlink_to(path)
    made = convert_pairs(PairsOptions(folders[0], folders[1], 11, "MoNuSeg", LABELS, folders[2], folders[3]))
    assert made.counts == {"accepted": 3, "repaired": 0, "refused": 0, "ignored": 0}
    pair = read_case(open_dataset("MoNuSeg"), open_dataset("MoNuSeg").cases[0])
    assert pair.image.shape == (3, 1000, 1000)
    assert 0.05 < pair.label.mean() < 0.6


def test_real_neopolyp(shared_data: Path, tmp_path: Path, nnunet_folders: dict[str, Path]) -> None:
    images, masks = tmp_path / "images", tmp_path / "masks"
    images.mkdir()
    masks.mkdir()
    for path in sorted((shared_data / "neopolyp/train/images").iterdir())[:3]:
        (images / path.name).symlink_to(path)
        (masks / f"{path.stem}.png").symlink_to(shared_data / f"neopolyp/train/masks/{path.stem}.png")
    labels = ("0=background", "127=non_neoplastic", "255=neoplastic")
    assert convert_pairs(PairsOptions(images, masks, 20, "NeoPolyp", labels)).training == 3
    dataset = open_dataset("NeoPolyp")
    assert dataset.classes == 3
    assert check_dataset(dataset) == []


def test_real_hippocampus(shared_data: Path, nnunet_folders: dict[str, Path]) -> None:
    made = convert_msd(MsdOptions(shared_data / "hippocampus", 4, max_cases=3))
    assert (made.folder.name, made.training, made.test) == ("Dataset004_hippocampus", 3, 60)
    dataset = open_dataset(4)
    source = SimpleITK.ReadImage(str(shared_data / f"hippocampus/imagesTr/{dataset.cases[0]}.nii.gz"))
    pair = read_case(dataset, dataset.cases[0])
    np.testing.assert_array_equal(pair.image[0], SimpleITK.GetArrayFromImage(source))
    assert pair.geometry is not None
    assert pair.geometry.direction == pytest.approx(source.GetDirection())
    assert dataset.labels == {"background": 0, "label_1": 1, "label_2": 2}
