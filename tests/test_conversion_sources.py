"""Decathlon tasks, and real data."""

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from conversion_miniatures import LABELS, notes

from dataset_conversion.msd import convert_msd
from dataset_conversion.options import MsdOptions, PairsOptions
from dataset_conversion.pairs import convert_pairs
from jdm.data.raw_dataset import check_dataset, open_dataset, read_case, read_image
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
    assert sum("inferred" in w or "assumed" in w for w in made.warnings) == 2


def test_msd_faults(tmp_path: Path, nnunet_folders: dict[str, Path]) -> None:
    task = make_task(tmp_path)
    volume(task / "labelsTr/thing_0.nii.gz", np.ones((3, 4, 6), np.uint8))
    volume(task / "labelsTr/thing_1.nii.gz", np.ones((3, 4, 5), np.uint8), (1.0, 1.0, 1.0))
    refused = notes(convert_msd(MsdOptions(task, 9)).folder, "refused")
    assert "size" in refused["thing_0"]
    assert "spacing" in refused["thing_1"]
    with pytest.raises(DataError, match="--strict: 2 cases"):
        convert_msd(MsdOptions(task, 10, "Y", strict=True))
    (task / "labelsTr/thing_2.nii.gz").unlink()
    with pytest.raises(DataError, match=r"no mask of the same stem: thing_2"):
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
