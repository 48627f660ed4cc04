"""Miniatures of datasets whose objects are numbered: GlaS and the 2018 Data Science Bowl."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conversion_miniatures import mask, notes, picture, record, save, zipped
from PIL import Image

from dataset_conversion.dsb2018 import convert_dsb2018, decode_runs
from dataset_conversion.glas import convert_glas
from dataset_conversion.options import Dsb2018Options, GlasOptions
from jdm.data.classes import read_classes
from jdm.data.raw_dataset import check_dataset, open_dataset, read_case, read_image
from jdm.errors import DataError

pytestmark = pytest.mark.usefixtures("nnunet_folders")

# ---------------------------------------------------------------- GlaS


def glands(count: int = 2) -> np.ndarray:
    array = np.zeros((6, 8), np.uint8)
    for number in range(1, count + 1):
        array[2:5, 3 * number - 2 : 3 * number] = number
    return array


def make_glas(root: Path) -> Path:
    folder = root / "Warwick QU Dataset (Released 2016_07_08)"
    rows = ["name,patient ID, grade (GlaS), grade (Sirinukunwattana et al. 2015)"]
    for i, name in enumerate(("train_1", "train_2", "train_3", "train_10", "testA_1", "testB_1")):
        save(folder / f"{name}.bmp", picture(i))
        grey = Image.fromarray(glands())
        if name == "train_2":  # numbers as indices of a palette
            grey.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
        grey.save(folder / f"{name}_anno.bmp")
        patient = {"train_1": 4, "train_2": 4, "testA_1": 4}.get(name, 10 + i)
        rows.append(f"{name},{patient}, {'malignant' if i % 2 else 'benign'}, healthy")
    (folder / "Grade.csv").write_text("\r\n".join(rows) + "\r\n")
    (folder / "train_1.txt").write_text("note")
    return folder


def test_glas(tmp_path: Path) -> None:
    folder = make_glas(tmp_path)
    made = convert_glas(GlasOptions(folder, 27))
    dataset = open_dataset("GlaS")
    assert dataset.cases == ("train_1", "train_10", "train_2", "train_3")
    assert dataset.test_cases == ("testA_1", "testB_1")
    assert dataset.labels == {"background": 0, "gland": 1}
    for case in ("train_1", "train_2"):
        np.testing.assert_array_equal(read_case(dataset, case).label, glands() > 0)
        with Image.open(made.folder / "instancesTr" / f"{case}.png") as numbers:
            np.testing.assert_array_equal(np.asarray(numbers), glands())
    assert (made.folder / "instancesTs" / "testA_1.png").is_file()
    assert (made.folder / "Grade.csv").read_text() == (folder / "Grade.csv").read_text()
    grades = read_classes(made.folder / "classes.csv", dataset)
    assert grades == {"train_1": "benign", "train_10": "malignant", "train_2": "malignant", "train_3": "benign"}
    for fold in json.loads((made.folder / "splits_final.json").read_text()):
        assert len({"train_1", "train_2"} & set(fold["val"])) in (0, 2), "images of patient 4"
    assert any("patient_4" in w and "in training and in test" in w for w in made.warnings)
    assert record(made.folder)["published"]["testB"] == {"found": 1, "published": 20}
    assert ["patient_4" in found.text for found in check_dataset(dataset)] == [True], "one patient of two classes"


def test_glas_without_its_table_or_with_another(tmp_path: Path) -> None:
    folder = make_glas(tmp_path)
    (folder / "Grade.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="name, patient ID"):
        convert_glas(GlasOptions(folder, 27))
    (folder / "Grade.csv").unlink()
    made = convert_glas(GlasOptions(zipped(folder), 27))
    assert any("Grade.csv" in w for w in made.warnings)
    assert not (made.folder / "classes.csv").exists()
    (folder / "train_3_anno.bmp").unlink()
    with pytest.raises(DataError, match="train_3"):
        convert_glas(GlasOptions(folder, 28, "Other"))


# ---------------------------------------------------------------- 2018 Data Science Bowl


def make_stage1(root: Path) -> Path:
    for i, case in enumerate(("00ae65c1", "0121d676", "02903040")):
        rgba = np.concatenate([picture(i), np.full((6, 8, 1), 255, np.uint8)], -1)
        save(root / "stage1_train" / case / "images" / f"{case}.png", rgba)
        for number in (1, 2):
            save(root / "stage1_train" / case / "masks" / f"{case}{number}.png", (glands() == number) * np.uint8(255))
    save(root / "stage1_test" / "0f1f896d" / "images" / "0f1f896d.png", picture(9))
    (root / "stage1_train" / "00ae65c1" / "masks" / ".DS_Store").write_bytes(b"mac")
    return root


def test_dsb2018(tmp_path: Path) -> None:
    root = make_stage1(tmp_path / "dsb")
    overlap = np.zeros((6, 8), np.uint8)
    overlap[2:4, 1:3] = 255  # lies on nucleus 1, which is larger
    save(root / "stage1_train" / "0121d676" / "masks" / "overlap.png", overlap)
    save(root / "stage1_train" / "0121d676" / "masks" / "none.png", overlap * 0)
    made = convert_dsb2018(Dsb2018Options(root, 28))
    dataset = open_dataset("DSB2018")
    assert dataset.cases == ("00ae65c1", "0121d676", "02903040")
    assert read_case(dataset, "00ae65c1").image.shape == (3, 6, 8)
    with Image.open(made.folder / "instancesTr" / "00ae65c1.png") as numbers:
        np.testing.assert_array_equal(np.asarray(numbers), glands())
    with Image.open(made.folder / "instancesTr" / "0121d676.png") as numbers:
        assert np.unique(np.asarray(numbers)).tolist() == [0, 1, 2, 3], "the smaller nucleus keeps its pixels"
    np.testing.assert_array_equal(read_case(dataset, "0121d676").label, glands() > 0)
    assert "4 pixels lie in several nuclei" in notes(made.folder, "repaired")["0121d676"]
    assert "none.png is empty" in notes(made.folder, "repaired")["0121d676"]
    assert "02903040.png" in notes(made.folder, "repaired")["02903040"], "an opaque alpha channel"
    assert dataset.test_files["0f1f896d"].label is None
    assert record(made.folder)["published"] == {
        "train": {"found": 3, "published": 670}, "test": {"found": 1, "published": 65},
    }  # fmt: skip


def runs(mask: np.ndarray) -> str:
    """Pixels counted from 1 down the columns, each a run of its own."""
    pixels = [1 + x * mask.shape[0] + y for x in range(mask.shape[1]) for y in range(mask.shape[0]) if mask[y, x]]
    return " ".join(f"{pixel} 1" for pixel in pixels)


def write_solution(path: Path, rows: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("ImageId,EncodedPixels,Height,Width,Usage\n" + "\n".join(rows) + "\n")


def test_dsb2018_test_images_have_the_masks_of_the_solution(tmp_path: Path) -> None:
    root = make_stage1(tmp_path / "dsb")
    save(root / "stage1_test" / "unsolved" / "images" / "unsolved.png", picture(11))
    case = "0f1f896d"
    encoded = [f"{case},{runs(glands() == number)},6,8,Private" for number in (1, 2)]
    write_solution(root / "stage1_solution.csv" / "stage1_solution.csv", encoded)  # as its zip file unpacks
    made = convert_dsb2018(Dsb2018Options(root, 28))
    dataset = open_dataset("DSB2018")
    np.testing.assert_array_equal(read_case(dataset, case, test=True).label, glands() > 0)
    with Image.open(made.folder / "instancesTs" / f"{case}.png") as numbers:
        np.testing.assert_array_equal(np.asarray(numbers), glands())
    assert dataset.test_files["unsolved"].label is None and made.test == 2
    assert any("unsolved" in str(finding) for finding in check_dataset(dataset))
    assert any("stage1_solution.csv" in note and "unsolved" in note for note in record(made.folder)["notes"])


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("1 2 3,6,8", "'1 2 3'"), ("1 x,6,8", "'1 x'"), ("-1 2,6,8", "'-1 2'"), ("0 1,6,8", "0 1 "),
        ("48 2,6,8", "48 2 "), ("1 2,8,6", "8 x 6"),
    ],
)  # fmt: skip
def test_dsb2018_unusable_solutions_refuse_their_case(tmp_path: Path, row: str, reason: str) -> None:
    root = make_stage1(tmp_path / "dsb")
    write_solution(root / "stage1_solution.csv", [f"0f1f896d,{row},Private"])
    made = convert_dsb2018(Dsb2018Options(root, 28))
    assert reason in notes(made.folder, "refused")["0f1f896d"] and made.test == 0


def test_runs_go_down_the_columns_from_one() -> None:
    mask = decode_runs("1 2 5 1", (3, 2), Path("table.csv"))
    np.testing.assert_array_equal(mask, [[1, 0], [1, 1], [0, 0]])


def test_dsb2018_as_downloaded_a_zip_of_zips(tmp_path: Path) -> None:
    root = make_stage1(tmp_path / "dsb")
    with zipfile.ZipFile(tmp_path / "data-science-bowl-2018.zip", "w") as outer:
        for stage in ("stage1_train", "stage1_test"):
            with zipfile.ZipFile(tmp_path / f"{stage}.zip", "w") as inner:
                for file in sorted((root / stage).rglob("*.png")):
                    inner.write(file, file.relative_to(root / stage))
            outer.write(tmp_path / f"{stage}.zip", f"{stage}.zip")
    made = convert_dsb2018(Dsb2018Options(tmp_path / "data-science-bowl-2018.zip", 28))
    assert (made.training, made.test) == (3, 1)


def test_dsb2018_masks_of_another_size_refuse_their_case(tmp_path: Path) -> None:
    root = make_stage1(tmp_path / "dsb")
    save(root / "stage1_train" / "0121d676" / "masks" / "bad.png", mask((6, 9)))
    save(root / "stage1_train" / "02903040" / "images" / "second.png", picture())
    with pytest.raises(DataError, match=r"02903040/images: .*2 "):
        convert_dsb2018(Dsb2018Options(root, 28))
    (root / "stage1_train" / "02903040" / "images" / "second.png").unlink()
    made = convert_dsb2018(Dsb2018Options(root, 28))
    assert "(6, 9)" in notes(made.folder, "refused")["0121d676"]


def test_real_dsb2018(shared_data: Path, tmp_path: Path) -> None:
    for part in ("images", "masks"):
        (tmp_path / "dsb" / part).mkdir(parents=True)
        for path in sorted((shared_data / "dsb2018" / part).iterdir())[:4]:
            (tmp_path / "dsb" / part / path.name).symlink_to(path)
    made = convert_dsb2018(Dsb2018Options(tmp_path / "dsb", 28))
    dataset = open_dataset("DSB2018")
    assert (made.training, dataset.channel_names) == (4, ("R", "G", "B"))
    assert read_image(dataset, "000")[0].shape == (3, 256, 256)
    assert 0 < read_case(dataset, "002").label.mean() < 0.9
    assert check_dataset(dataset) == []
