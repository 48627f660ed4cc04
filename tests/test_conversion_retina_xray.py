"""Miniatures of IDRiD and of the chest X-ray collections, and tasks of nnU-Net v1."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from conversion_miniatures import mask, notes, picture, record, run, save, zipped
from PIL import Image

from dataset_conversion.chest_xray import convert_chest_xray, patient_of
from dataset_conversion.covid_cxr import class_of, convert_covid_cxr
from dataset_conversion.idrid import convert_idrid
from dataset_conversion.nnunet_v1 import convert_nnunet_v1
from dataset_conversion.options import ChestXrayOptions, CovidCxrOptions, IdridOptions, NnunetV1Options
from jdm.data.raw_dataset import check_dataset, open_dataset, read_case
from jdm.errors import ConfigError, DataError

pytestmark = pytest.mark.usefixtures("nnunet_folders")

# ---------------------------------------------------------------- IDRiD

FOLDERS = {
    "MA": "1. Microaneurysms", "HE": "2. Haemorrhages", "EX": "3. Hard Exudates", "SE": "4. Soft Exudates",
    "OD": "5. Optic Disc",
}  # fmt: skip


def region(top: int, left: int, side: int) -> np.ndarray:
    array = np.zeros((8, 10), np.uint8)
    array[top : top + side, left : left + side] = 255
    return array


def make_idrid(root: Path) -> Path:
    base = root / "A. Segmentation"
    drawn = {"MA": region(1, 1, 2), "HE": region(0, 0, 4), "EX": region(5, 5, 2), "SE": region(4, 4, 4)}
    for split, number in (("a. Training Set", 1), ("a. Training Set", 2), ("b. Testing Set", 55)):
        stem = f"IDRiD_{number:02d}"
        save(base / "1. Original Images" / split / f"{stem}.jpg", picture(number, (8, 10, 3)))
        for code, folder in FOLDERS.items():
            target = base / "2. All Segmentation Groundtruths" / split / folder / f"{stem}_{code}.tif"
            target.parent.mkdir(parents=True, exist_ok=True)
            if code in drawn and (number != 2 or code == "HE"):
                save(target, drawn[code])
    red = np.stack([drawn["HE"], drawn["HE"] * 0, drawn["HE"] * 0], -1)  # some masks are drawn in red
    save(base / "2. All Segmentation Groundtruths" / "a. Training Set" / FOLDERS["HE"] / "IDRiD_02_HE.tif", red)
    (base / "LICENSE.txt").write_text("CC BY 4.0")
    return base


def test_idrid(tmp_path: Path) -> None:
    made = convert_idrid(IdridOptions(make_idrid(tmp_path), 30))
    dataset = open_dataset("IDRiD")
    assert dataset.labels == {
        "background": 0, "microaneurysm": 1, "haemorrhage": 2, "hard_exudate": 3, "soft_exudate": 4, "optic_disc": 5,
    }  # fmt: skip
    expected = np.zeros((8, 10), np.uint8)
    expected[0:4, 0:4] = 2
    expected[4:8, 4:8] = 4
    expected[1:3, 1:3] = 1
    np.testing.assert_array_equal(read_case(dataset, "IDRiD_01").label, expected)
    np.testing.assert_array_equal(read_case(dataset, "IDRiD_02").label, 2 * (region(0, 0, 4) > 0))
    assert dataset.test_cases == ("IDRiD_55",)
    repaired = notes(made.folder, "repaired")
    assert "MA, EX, SE, OD" in repaired["IDRiD_02"], "classes without a file"
    assert "colour" in repaired["IDRiD_02"], "the mask in red"
    assert "8 pixels" in notes(made.folder, "accepted")["IDRiD_01"], "that several classes claim"
    assert record(made.folder)["published"]["masks HE"] == {"found": 3, "published": 80}
    assert record(made.folder)["published"]["test"] == {"found": 1, "published": 27}
    assert "MA before SE" in record(made.folder)["source"]["priority where classes overlap"]
    assert check_dataset(dataset) == []


def test_idrid_priority_decides_overlaps(tmp_path: Path) -> None:
    base = make_idrid(tmp_path)
    convert_idrid(IdridOptions(zipped(base), 30, priority=("HE", "EX", "SE", "MA", "OD")))
    label = read_case(open_dataset(30), "IDRiD_01").label
    assert (label[0:4, 0:4] == 2).all()
    assert (label[5:7, 5:7] == 3).all()
    with pytest.raises(ConfigError, match=r"--priority MA: .*MA HE EX SE OD"):
        convert_idrid(IdridOptions(base, 31, "Other", priority=("MA",)))


def test_idrid_without_its_masks_or_with_strange_ones(tmp_path: Path) -> None:
    base = make_idrid(tmp_path)
    truths = base / "2. All Segmentation Groundtruths"
    save(truths / "a. Training Set" / FOLDERS["MA"] / "IDRiD_09_MA.tif", region(1, 1, 1))
    with pytest.raises(DataError, match=r"IDRiD_09_MA\.tif"):
        convert_idrid(IdridOptions(base, 30))
    shutil.rmtree(truths)
    with pytest.raises(DataError, match="IDRiD_NN_MA"):
        convert_idrid(IdridOptions(base, 30))
    shutil.rmtree(base / "1. Original Images" / "a. Training Set")
    shutil.rmtree(base / "1. Original Images" / "b. Testing Set")
    with pytest.raises(DataError, match=r"'1\. Original Images'"):
        convert_idrid(IdridOptions(base, 30))


def make_grading(root: Path) -> Path:
    base = root / "B. Disease Grading"
    (base / "2. Groundtruths").mkdir(parents=True)
    for split, name, count in (("a. Training Set", "a. IDRiD_Disease Grading_Training Labels.csv", 5),
                               ("b. Testing Set", "b. IDRiD_Disease Grading_Testing Labels.csv", 2)):  # fmt: skip
        rows = ["Image name,Retinopathy grade,Risk of macular edema ,,,"]
        for n in range(1, count + 1):
            save(base / "1. Original Images" / split / f"IDRiD_{n:03d}.jpg", picture(n + count, (16, 24, 3)))
            rows.append(f"IDRiD_{n:03d},{n - 1},1,,,")
        (base / "2. Groundtruths" / name).write_text("\n".join(rows) + "\n,,,,,\n")
    return base


def test_idrid_grading(tmp_path: Path) -> None:
    base = make_grading(tmp_path)
    made = convert_idrid(IdridOptions(zipped(base), 30, size=8))
    dataset = open_dataset("IDRiD")
    assert (made.training, made.test, dataset.has_masks) == (5, 2, False)
    with (made.folder / "classes.csv").open(newline="") as file:
        found = {row["case"]: row["class"] for row in csv.DictReader(file)}
    assert found == {f"train_IDRiD_{n:03d}": f"grade_{n - 1}" for n in range(1, 6)} | {
        "test_IDRiD_001": "grade_0", "test_IDRiD_002": "grade_1",
    }  # fmt: skip
    assert read_case(dataset, "train_IDRiD_003").image.shape == (3, 8, 8)
    assert record(made.folder)["published"]["train"] == {"found": 5, "published": 413}
    convert_idrid(IdridOptions(base, 31, "Large"))
    assert read_case(open_dataset(31), "test_IDRiD_001", test=True).image.shape == (3, 16, 24)


def test_idrid_grading_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    base = make_grading(tmp_path)
    table = base / "2. Groundtruths" / "a. IDRiD_Disease Grading_Training Labels.csv"
    text = table.read_text()
    for wrong, named in ((text.replace("003,2", "003,5"), "IDRiD_003"), (text.replace("005", "004"), "IDRiD_004"),
                         (text.replace("IDRiD_005,4", ""), "IDRiD_005")):  # fmt: skip
        table.write_text(wrong)
        with pytest.raises(DataError, match=named):
            convert_idrid(IdridOptions(base, 30))
    table.write_text(text)
    make_idrid(tmp_path)
    with pytest.raises(DataError, match=r"A\. Segmentation"):
        convert_idrid(IdridOptions(tmp_path, 30))
    with pytest.raises(ConfigError, match="--size"):
        convert_idrid(IdridOptions(tmp_path / "A. Segmentation", 30, size=64))


# ---------------------------------------------------------------- chest X-rays


def make_chest_xray(root: Path) -> Path:
    folder = root / "chest_xray"
    for part in ("train", "val", "test"):
        save(folder / part / "NORMAL" / "IM-0001-0001.jpeg", picture(len(part), (8, 10)))
        save(folder / part / "PNEUMONIA" / "person1_bacteria_1.jpeg", picture(len(part) + 50, (8, 10)))
        (folder / part / "NORMAL" / ".DS_Store").write_bytes(b"mac")
    grey = picture(3, (8, 10))
    save(folder / "train" / "PNEUMONIA" / "person1_virus_2.jpeg", np.stack([grey] * 3, -1), quality=95, subsampling=0)
    shutil.copytree(folder, root / "copy")
    shutil.move(root / "copy", folder / "chest_xray")  # as in the archive
    return folder


def test_chest_xray(tmp_path: Path) -> None:
    made = convert_chest_xray(ChestXrayOptions(zipped(make_chest_xray(tmp_path)), 32))
    dataset = open_dataset("ChestXray")
    assert (made.training, made.test, dataset.labels) == (5, 2, {"background": 0})
    assert read_case(dataset, "train_PNEUMONIA_person1_virus_2").image.shape == (1, 8, 10)
    with (made.folder / "classes.csv").open(newline="") as file:
        rows = {row["case"]: row for row in csv.DictReader(file)}
    assert set(rows) == {*dataset.cases, *dataset.test_cases}
    assert rows["val_NORMAL_IM-0001-0001"] == {
        "case": "val_NORMAL_IM-0001-0001", "class": "NORMAL", "part": "val", "group": "NORMAL_IM-0001",
        "file": "IM-0001-0001.jpeg",
    }  # fmt: skip
    assert record(made.folder)["published"]["val"] == {"found": 2, "published": 16}
    assert any("3 NORMAL, 4 PNEUMONIA" in w for w in made.warnings)
    assert made.counts["ignored"] == 3 + 3, "hidden files, and the second copy"
    assert notes(made.folder, "repaired").keys() == {"train_PNEUMONIA_person1_virus_2"}, "grey stored as colour"


def test_patients_of_chest_xray() -> None:
    stems = ("person12_bacteria_34", "person12_virus_9", "NORMAL2-IM-1427-0001", "IM-0115-0001-0002", "x")
    assert [patient_of(stem, "C") for stem in stems] == [
        "C_person12", "C_person12", "C_NORMAL2-IM-1427", "C_IM-0115", None,
    ]  # fmt: skip


def make_covid(root: Path, rows: list[tuple[str, str, str, str]]) -> Path:
    save(root / "images" / "a.png", picture(1, (8, 10)))
    save(root / "images" / "a.jpg", picture(2, (8, 10)))
    save(root / "images" / "colour.png", picture(3, (8, 10, 3)))
    save(root / "images" / "deep.png", picture(4, (8, 10)).astype(np.uint16) * 200)
    save(root / "images" / "extra.png", picture(5, (8, 10)))
    rgba = np.concatenate([np.stack([picture(6, (8, 10))] * 3, -1), np.full((8, 10, 1), 255, np.uint8)], -1)
    save(root / "images" / "rgba.png", rgba)
    with (root / "metadata.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["patientid", "offset", "sex", "age", "finding", "view", "modality", "folder", "filename"])
        for patient, finding, modality, name in rows:
            writer.writerow([patient, "", "M", 65, finding, "PA", modality, "images", name])
    return root


def test_covid_cxr(tmp_path: Path) -> None:
    rows = [
        ("2", "Pneumonia/Viral/COVID-19", "X-ray", "a.png"), ("2", "COVID-19", "X-ray", "a.jpg"),
        ("3", "No Finding", "X-ray", "rgba.png"), ("4", "Pneumonia", "CT", "slice.png"),
        ("5", "Pneumonia", "X-ray", "gone.png"), ("6", "Pneumonia", "X-ray", "colour.png"),
        ("7", "Pneumonia", "X-ray", "deep.png"),
    ]  # fmt: skip
    made = convert_covid_cxr(CovidCxrOptions(make_covid(tmp_path / "covid", rows), 31))
    with (made.folder / "classes.csv").open(newline="") as file:
        found = [(row["case"], row["class"], row["group"]) for row in csv.DictReader(file)]
    assert found == [
        ("a.png", "COVID-19", "patient_2"), ("a.jpg", "COVID-19", "patient_2"), ("rgba", "No_Finding", "patient_3"),
    ]  # fmt: skip
    refused = notes(made.folder, "refused")
    assert "uint16" in refused["deep"]
    assert "colour.png" in refused["colour"]
    assert any("gone.png" in w for w in made.warnings)
    assert made.counts == {"accepted": 2, "repaired": 1, "refused": 3, "ignored": 2}
    assert class_of("") == "unknown"


def test_covid_cxr_tables_cannot_lead_outside(tmp_path: Path) -> None:
    save(tmp_path / "secret.png", picture())
    for name in ("../secret.png", str(tmp_path / "secret.png")):
        root = make_covid(tmp_path / "covid", [("1", "COVID-19", "X-ray", name)])
        with pytest.raises(DataError, match=r"secret\.png"):
            convert_covid_cxr(CovidCxrOptions(root, 31))
    with pytest.raises(DataError, match=r"metadata\.csv"):
        convert_covid_cxr(CovidCxrOptions(root / "images", 31))


def test_the_command_draws_images_without_masks(tmp_path: Path, nnunet_folders: dict[str, Path]) -> None:
    make_chest_xray(tmp_path)
    done = run("chest-xray", tmp_path / "chest_xray", "--id", 32)
    assert done.returncode == 0, done.stderr
    assert "jdm-train 32 0 --classes classes.csv" in done.stdout
    with Image.open(nnunet_folders["nnUNet_raw"] / "Dataset032_ChestXray" / "preview.png") as sheet:
        assert sheet.width > sheet.height > 100


# ---------------------------------------------------------------- nnU-Net v1


def make_v1(root: Path, channels: int = 2) -> Path:
    task = root / "Task005_Prostate"
    for case, suffix in (("prostate_00", "Tr"), ("prostate_01", "Tr"), ("prostate_02", "Ts")):
        for channel in range(channels):
            values = np.random.default_rng([int(case[-1]), channel]).integers(0, 99, (3, 4, 5)).astype(np.int16)
            image = SimpleITK.GetImageFromArray(values)
            image.SetSpacing((0.5, 0.5, 3.0))
            path = task / f"images{suffix}" / f"{case}_{channel:04d}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            SimpleITK.WriteImage(image, str(path))
        if suffix == "Tr":
            label = SimpleITK.GetImageFromArray(mask((4, 5), 1)[None].repeat(3, 0))
            label.SetSpacing((0.5, 0.5, 3.0))
            (task / "labelsTr").mkdir(exist_ok=True)
            SimpleITK.WriteImage(label, str(task / "labelsTr" / f"{case}.nii.gz"))
    content = {
        "modality": {"0": "T2", "1": "ADC"}, "labels": {"0": "background", "1": "prostate"}, "numTraining": 2,
        "training": [{"image": "./imagesTr/prostate_00.nii.gz", "label": "../../elsewhere.nii.gz"}], "test": [],
    }  # fmt: skip
    (task / "dataset.json").write_text(json.dumps(content))
    return task


def test_nnunet_v1(tmp_path: Path) -> None:
    made = convert_nnunet_v1(NnunetV1Options(zipped(make_v1(tmp_path)), 5))
    dataset = open_dataset("Prostate")
    assert (made.training, made.test) == (2, 1)
    assert dataset.channel_names == ("T2", "ADC")
    pair = read_case(dataset, "prostate_01")
    for channel in range(2):
        expected = np.random.default_rng([1, channel]).integers(0, 99, (3, 4, 5))
        np.testing.assert_array_equal(pair.image[channel], expected)
    assert pair.spacing == (3.0, 0.5, 0.5)
    np.testing.assert_array_equal(pair.label[0], mask((4, 5), 1))
    assert check_dataset(dataset) == []


def test_nnunet_v1_faults(tmp_path: Path) -> None:
    task = make_v1(tmp_path)
    second = task / "imagesTr" / "prostate_01_0001.nii.gz"
    image = SimpleITK.ReadImage(str(second))
    image.SetOrigin((9.0, 0.0, 0.0))
    SimpleITK.WriteImage(image, str(second))
    refused = notes(convert_nnunet_v1(NnunetV1Options(task, 5)).folder, "refused")
    assert "origin" in refused["prostate_01"]
    second.unlink()
    with pytest.raises(DataError, match=r"imagesTr.*prostate_01_0001\b.* 2 "):
        convert_nnunet_v1(NnunetV1Options(task, 6, "Other"))
    second.with_name("prostate_01_0000.nii.gz").rename(second.with_name("prostate_01.nii.gz"))
    with pytest.raises(DataError, match=r"prostate_01\.nii\.gz"):
        convert_nnunet_v1(NnunetV1Options(task, 6, "Other"))
