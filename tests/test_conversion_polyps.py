"""Miniatures of the polyp datasets, as they lie on disk."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from conversion_miniatures import jpeg_pair, mask, notes, picture, record, save, zipped

from dataset_conversion.options import (
    ClinicDbOptions,
    ColonDbOptions,
    Cvc300Options,
    EtisOptions,
    KvasirSegOptions,
    PolypOptions,
)
from dataset_conversion.polyps import (
    LAST_FRAMES,
    convert_clinicdb,
    convert_colondb,
    convert_cvc300,
    convert_etis,
    convert_kvasir_seg,
    convert_polyp,
    sequence_of,
)
from jdm.data.raw_dataset import check_dataset, open_dataset, read_case
from jdm.data.splits import fold_split
from jdm.errors import DataError

pytestmark = pytest.mark.usefixtures("nnunet_folders")


def near(value: int = 255) -> np.ndarray:
    """A mask as PraNet ships those of Kvasir: values 0 to 7 and 248 to 255."""
    array = mask(value=value).astype(int)
    array[array > 0] -= np.arange(9) % 8
    array[0, :8] = np.arange(8)
    return array.astype(np.uint8)


# ---------------------------------------------------------------- Kvasir-SEG


def test_kvasir_seg(tmp_path: Path) -> None:
    folder = tmp_path / "kvasir" / "Kvasir-SEG"
    truth = [jpeg_pair(folder, f"cju{i}", i) for i in range(2)]
    (folder / "kavsir_bboxes.json").write_text("{}")
    (folder / "images" / ".DS_Store").write_bytes(b"mac")
    made = convert_kvasir_seg(KvasirSegOptions(folder.parent, 5))
    dataset = open_dataset("KvasirSEG")
    assert dataset.file_ending == ".png"
    assert (dataset.cases, dataset.labels) == (("cju0", "cju1"), {"background": 0, "polyp": 1})
    np.testing.assert_array_equal(read_case(dataset, "cju1").label, truth[1])
    assert "cut at > 127" in notes(made.folder, "repaired")["cju0"], "ringing is told"
    assert record(made.folder)["published"] == {"train": {"found": 2, "published": 1000}}
    assert record(made.folder)["counts"]["ignored"] == 1
    assert check_dataset(dataset) == []


def test_kvasir_seg_elsewhere_is_told(tmp_path: Path) -> None:
    (tmp_path / "x" / "images").mkdir(parents=True)
    with pytest.raises(DataError, match=r"Kvasir-SEG/images and Kvasir-SEG/masks.* images"):
        convert_kvasir_seg(KvasirSegOptions(tmp_path / "x", 5))


# ---------------------------------------------------------------- PraNet


def make_pranet(root: Path, images: str = "image", masks: str = "mask") -> Path:
    for stem in ("cju1", "cju2", "1", "2", "26", "27"):  # Kvasir, and frames of sequences 1 and 2 of ClinicDB
        save(root / "TrainDataset" / images / f"{stem}.png", picture(len(stem) * 7 + ord(stem[-1])))
        save(root / "TrainDataset" / masks / f"{stem}.png", near())
    for seed, name in enumerate(("Kvasir", "CVC-ClinicDB", "CVC-ColonDB", "CVC-300", "ETIS-LaribPolypDB")):
        save(root / "TestDataset" / name / "images" / "3.png", picture(90 + seed))
        save(root / "TestDataset" / name / "masks" / "3.png", np.stack([mask()] * 3, -1))
    return root


@pytest.mark.parametrize("spelling", [("image", "mask"), ("images", "masks")])
def test_polyp_archives(tmp_path: Path, spelling: tuple[str, str]) -> None:
    made = convert_polyp(PolypOptions(make_pranet(tmp_path / "PraNet", *spelling), 21))
    dataset = open_dataset("Polyp")
    assert dataset.cases == ("1", "2", "26", "27", "cju1", "cju2")
    assert dataset.test_cases == (
        "CVC-300_3", "CVC-ClinicDB_3", "CVC-ColonDB_3", "ETIS-LaribPolypDB_3", "Kvasir_3",
    )  # fmt: skip
    np.testing.assert_array_equal(read_case(dataset, "cju1").label, mask(value=1))
    np.testing.assert_array_equal(read_case(dataset, "CVC-300_3", test=True).label, mask(value=1))
    published = record(made.folder)["published"]
    assert published["train"] == {"found": 6, "published": 1450}
    assert published["test ETIS-LaribPolypDB"] == {"found": 1, "published": 196}
    assert any("sequence_01" in w and "in training and in test" in w for w in made.warnings)
    assert any("folds 0 to 3" in w for w in made.warnings), "two sequences and two images"
    for fold in range(4):
        training, validation = fold_split(dataset, fold)
        assert ("1" in training) == ("2" in training)
        assert ("26" in training) == ("27" in training)
        assert sorted(training + validation) == sorted(dataset.cases)


def test_polyp_archives_may_be_in_one_zip_and_leaks_are_told(tmp_path: Path) -> None:
    root = make_pranet(tmp_path / "PraNet")
    save(root / "TestDataset" / "Kvasir" / "images" / "3.png", picture(4 * 7 + ord("1")))  # that of cju1
    made = convert_polyp(PolypOptions(zipped(root), 21))
    (line,) = record(made.folder)["duplicates"]
    assert "Kvasir_3" in line and "cju1" in line


def test_polyp_archives_need_training_and_known_names(tmp_path: Path) -> None:
    root = make_pranet(tmp_path / "PraNet")
    (root / "TestDataset" / "CVC-300").rename(root / "TestDataset" / "Mine")
    with pytest.raises(DataError, match=r"Mine: .*TrainDataset.*Kvasir"):
        convert_polyp(PolypOptions(root, 21))
    with pytest.raises(DataError, match="TrainDataset"):
        convert_polyp(PolypOptions(root / "TestDataset" / "Kvasir" / "images", 21))


# ---------------------------------------------------------------- CVC-ClinicDB


def make_clinicdb(root: Path, frames: tuple[int, ...] = (1, 2, 25, 26, 50, 51, 68, 79, 612)) -> Path:
    for frame in frames:
        save(root / "Original" / f"{frame}.tif", picture(frame))
        save(root / "Ground Truth" / f"{frame}.tif", mask())
    return root


def test_sequences_of_clinicdb() -> None:
    assert len(LAST_FRAMES) == 29
    assert [sequence_of(str(frame)) for frame in (1, 25, 26, 591, 592, 612)] == [
        "sequence_01", "sequence_01", "sequence_02", "sequence_28", "sequence_29", "sequence_29",
    ]  # fmt: skip
    assert len({sequence_of(str(frame)) for frame in range(1, 613)}) == 29
    assert [sequence_of(stem) for stem in ("0", "613", "cju1", "", "٣")] == [None] * 5


def test_clinicdb_keeps_sequences_together(tmp_path: Path) -> None:
    made = convert_clinicdb(ClinicDbOptions(make_clinicdb(tmp_path / "CVC-ClinicDB"), 23))
    dataset = open_dataset("CVCClinicDB")
    assert dataset.file_ending == ".png"
    assert read_case(dataset, "612").image.shape == (3, 6, 8)
    folds = json.loads((made.folder / "splits_final.json").read_text())
    assert len(folds) == 5
    for fold in folds:
        assert len({"1", "2", "25"} & set(fold["val"])) in (0, 3)
        assert len({"26", "50"} & set(fold["val"])) in (0, 2)
    assert next(e for e in record(made.folder)["entries"] if e["case"] == "612")["group"] == "sequence_29"


def test_clinicdb_mirror_with_two_formats(tmp_path: Path) -> None:
    root = tmp_path / "archive"
    make_clinicdb(root / "TIF", (1, 2))
    for part in ("Original", "Ground Truth"):
        for frame in (1, 2):
            array = tifffile.imread(root / "TIF" / part / f"{frame}.tif")
            save(root / "PNG" / part / f"{frame}.png", array)
    (root / "metadata.csv").write_text("frame_id,sequence_id\n1,1\n")
    made = convert_clinicdb(ClinicDbOptions(root, 23))
    assert made.training == 2
    assert any("PNG" in w and "TIF" in w for w in made.warnings)


def test_clinicdb_of_one_sequence_has_no_folds(tmp_path: Path) -> None:
    made = convert_clinicdb(ClinicDbOptions(make_clinicdb(tmp_path / "c", (1, 2, 3)), 23))
    assert not (made.folder / "splits_final.json").exists()
    assert any("'all'" in w for w in made.warnings)


# ---------------------------------------------------------------- CVC-ColonDB, CVC-300, ETIS


def test_colondb_as_published(tmp_path: Path) -> None:
    root = tmp_path / "CVC-ColonDB"
    for i in (1, 2, 10):
        save(root / f"{i}.bmp", picture(i))
        for kind in ("p", "s", "c"):
            save(root / f"{kind}{i}.bmp", mask())
    (root / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0windows")
    made = convert_colondb(ColonDbOptions(root, 24))
    dataset = open_dataset("CVCColonDB")
    assert dataset.cases == ("1", "10", "2")
    np.testing.assert_array_equal(read_case(dataset, "10").image, np.moveaxis(picture(10), -1, 0))
    assert record(made.folder)["counts"] == {"accepted": 3, "repaired": 0, "refused": 0, "ignored": 7}
    assert record(made.folder)["published"]["train"]["published"] == 300
    (root / "p2.bmp").unlink()
    with pytest.raises(DataError, match=r"CVC-ColonDB.*: 2\b"):
        convert_colondb(ColonDbOptions(root, 25, "Other"))


def test_colondb_as_shipped_with_pranet(tmp_path: Path) -> None:
    for i in (1, 380):
        save(tmp_path / f"CVC-ColonDB/images/{i}.png", picture(i))
        save(tmp_path / f"CVC-ColonDB/masks/{i}.png", mask())
    made = convert_colondb(ColonDbOptions(zipped(tmp_path / "CVC-ColonDB"), 24))
    assert open_dataset(24).cases == ("1", "380")
    assert record(made.folder)["published"]["train"]["published"] == 380
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"N.bmp and pN.bmp"):
        convert_colondb(ColonDbOptions(tmp_path / "empty", 25, "Other"))


def test_cvc300(tmp_path: Path) -> None:
    for i in (149, 150):
        save(tmp_path / f"CVC-300/images/{i}.png", picture(i))
        save(tmp_path / f"CVC-300/masks/{i}.png", mask())
    made = convert_cvc300(Cvc300Options(tmp_path / "CVC-300", 25))
    assert open_dataset("CVC300").cases == ("149", "150")
    assert any("CVC-ColonDB" in w for w in made.warnings)


def test_etis_as_published_and_with_pranet(tmp_path: Path) -> None:
    root = tmp_path / "ETIS"
    for i in (1, 2):
        save(root / f"ETIS-LaribPolypDB/{i}.tif", picture(i))
        save(root / f"Ground Truth/p{i}.tif", mask())
        save(tmp_path / f"pranet/images/{i}.png", picture(i))
        save(tmp_path / f"pranet/masks/{i}.png", mask())
    convert_etis(EtisOptions(root, 26))
    convert_etis(EtisOptions(tmp_path / "pranet", 27, "Other"))
    for id in (26, 27):
        dataset = open_dataset(id)
        assert dataset.cases == ("1", "2")
        np.testing.assert_array_equal(read_case(dataset, "2").label, mask(value=1))
        np.testing.assert_array_equal(read_case(dataset, "2").image, np.moveaxis(picture(2), -1, 0))
