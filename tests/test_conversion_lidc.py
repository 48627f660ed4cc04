"""LIDC-IDRI: volumes in Hounsfield units, readers' outlines, and series that cannot be trusted."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from conversion_miniatures import notes, record, zipped
from conversion_miniatures_lidc import (
    CT_UID,
    SHAPE,
    STEP,
    hounsfield,
    nodule,
    ring,
    write_series,
    write_slice,
    write_xml,
)

from dataset_conversion.lidc import convert_lidc
from dataset_conversion.options import LidcOptions
from jdm.data.raw_dataset import check_dataset, open_dataset, read_case
from jdm.errors import ConfigError, DataError

pytestmark = pytest.mark.usefixtures("nnunet_folders")

CT, OTHER, DX = CT_UID, "1.3.6.1.2", "1.3.6.1.3"


def scan(root: Path, patient: int = 1, series: str = CT) -> Path:
    return root / f"LIDC-IDRI-{patient:04d}" / "01-01-2000-30178" / f"3000566.{series[-1]}"


def make_lidc(root: Path) -> Path:
    """One scan: two readers agree on the inside of a 6x6 ring, one drew a smaller one, one a point."""
    folder = scan(root)
    write_series(folder, CT)
    big, small = ring(2, 3, 6, 6), ring(3, 4, 4, 4)
    readers = [
        [nodule([(1, big, True), (2, big, True)], CT)],
        [nodule([(1, big, True), (2, big, True), (2, ring(4, 5, 2, 2), False)], CT)],
        [nodule([(1, small, True)], CT), nodule([(4, [(5, 5)], True)], CT, rated=False)],
        [nodule([(4, [(5, 5)], True)], CT, rated=False)],
    ]
    write_xml(folder / "069.xml", CT, readers)
    (folder / "069.txt").write_text("note")
    chest = scan(root, series=DX)
    write_slice(chest / "000001.dcm", DX, 1, 0.0, hounsfield()[0], Modality="DX")
    return root


def inside(top: int, left: int, side: int) -> np.ndarray:
    plane = np.zeros(SHAPE[1:], bool)
    plane[top : top + side, left : left + side] = True
    return plane


def test_lidc(tmp_path: Path) -> None:
    made = convert_lidc(LidcOptions(make_lidc(tmp_path / "LIDC-IDRI"), 33))
    dataset = open_dataset("LIDC")
    assert (dataset.cases, dataset.labels) == (("LIDC-IDRI-0001",), {"background": 0, "nodule": 1})
    pair = read_case(dataset, "LIDC-IDRI-0001")
    np.testing.assert_array_equal(pair.image[0], hounsfield())
    assert pair.spacing == pytest.approx((STEP, 0.7, 0.6))
    assert pair.geometry is not None
    assert pair.geometry.origin == pytest.approx((-166.0, -171.7, -100.0))
    expected = np.zeros(SHAPE, bool)
    expected[1] = inside(3, 4, 4)  # a ring of 6x6 lies outside the 4x4 it encloses
    expected[2] = inside(3, 4, 4) & ~inside(4, 5, 2)  # left out, and its outline with it
    np.testing.assert_array_equal(pair.label, expected)
    accepted = notes(made.folder, "accepted")["LIDC-IDRI-0001"]
    assert re.findall(r"\b\d\b", accepted) == ["4", "3", "3", "2"], "readers, nodules of 3 mm or more, smaller ones"
    ignored = [Path(e["files"][0]).name for e in record(made.folder)["entries"] if e["status"] == "ignored"]
    assert ignored == ["069.txt", scan(Path(), series=DX).name]
    assert record(made.folder)["published"]["train"] == {"found": 1, "published": 1018}
    assert check_dataset(dataset) == []


def test_lidc_readers_can_be_chosen(tmp_path: Path) -> None:
    root = make_lidc(tmp_path / "LIDC-IDRI")
    for id, (options, expected) in enumerate(
        [
            ({"min_readers": 1}, (16, 16)), ({"min_readers": 3}, (4, 0)),
            ({"readers": (1,), "min_readers": 1}, (16, 16)), ({"readers": (2, 3), "min_readers": 1}, (16, 12)),
            ({"readers": (2, 3)}, (4, 0)),
        ],
        start=1,
    ):  # fmt: skip
        convert_lidc(LidcOptions(root, id, f"N{id}", **options))  # type: ignore[arg-type]
        label = read_case(open_dataset(id), "LIDC-IDRI-0001").label
        assert (label[1].sum(), label[2].sum()) == expected
    for options in ({"min_readers": 0}, {"min_readers": 5}, {"readers": (1, 1)}, {"readers": (5,)}):
        with pytest.raises(ConfigError, match="--"):
            convert_lidc(LidcOptions(root, 9, "N9", **options))  # type: ignore[arg-type]


def test_lidc_two_scans_of_a_patient_stay_together(tmp_path: Path) -> None:
    root = make_lidc(tmp_path / "LIDC-IDRI")
    write_series(scan(root, series=OTHER), OTHER, seed=1)
    write_xml(scan(root, series=OTHER) / "070.xml", OTHER, [[], []])
    third = "1.3.6.1.4"
    write_series(scan(root, 2, third), third, seed=2, PatientID="LIDC-IDRI-0002")
    write_xml(tmp_path / "LIDC-IDRI" / "071.xml", third, [[nodule([(0, ring(2, 2, 5, 5), True)], third)]] * 2)
    made = convert_lidc(LidcOptions(zipped(root), 33))
    dataset = open_dataset(33)
    assert dataset.cases == ("LIDC-IDRI-0001_1", "LIDC-IDRI-0001_2", "LIDC-IDRI-0002")
    assert not read_case(dataset, "LIDC-IDRI-0001_2").label.any()
    splits = (made.folder / "splits_final.json").read_text()
    assert splits.count("LIDC-IDRI-0001_1") == splits.count("LIDC-IDRI-0001_2") == 2
    assert any("1 of 3" in w for w in made.warnings)


def test_lidc_slices_are_found_by_position_where_their_names_are_missing(tmp_path: Path) -> None:
    root = make_lidc(tmp_path / "LIDC-IDRI")
    xml = scan(root) / "069.xml"
    text = xml.read_text()
    xml.write_text(text.replace(f"<imageSOP_UID>{CT}.1<", "<imageSOP_UID><"))
    convert_lidc(LidcOptions(root, 33))
    assert read_case(open_dataset(33), "LIDC-IDRI-0001").label[1].sum() == 16
    xml.write_text(text.replace(f"<imageSOP_UID>{CT}.1<", "<imageSOP_UID><").replace("-97.50", "-96.10"))
    with pytest.raises(DataError, match=r"069\.xml.* -96\.1 "):
        convert_lidc(LidcOptions(root, 34, "Other"))


# ---------------------------------------------------------------- series that cannot be trusted


def refusal(root: Path) -> str:
    with pytest.raises(DataError) as caught:
        convert_lidc(LidcOptions(root, 33))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_lidc_a_missing_slice_is_refused(tmp_path: Path) -> None:
    root = make_lidc(tmp_path / "LIDC-IDRI")
    (scan(root) / "000003.dcm").unlink()
    message = refusal(root)
    assert f"series {CT}" in message
    assert all(number in message for number in ("-97.5", "-92.5", " 5 mm", "2.5"))


def test_lidc_slices_at_one_place(tmp_path: Path) -> None:
    root = make_lidc(tmp_path / "LIDC-IDRI")
    write_slice(scan(root) / "000009.dcm", CT, 9, -95.0, hounsfield()[2])
    made = convert_lidc(LidcOptions(root, 33))
    assert "000009.dcm" in notes(made.folder, "repaired")["LIDC-IDRI-0001"]
    np.testing.assert_array_equal(read_case(open_dataset(33), "LIDC-IDRI-0001").image[0], hounsfield())
    write_slice(scan(root) / "000009.dcm", CT, 9, -95.0, hounsfield()[3])
    with pytest.raises(DataError, match=r"1\.3\.6\.1\.1: 000003\.dcm and 000009\.dcm .*-95 "):
        convert_lidc(LidcOptions(root, 34, "Other"))


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"RescaleSlope": None}, "rescale slope"), ({"PixelSpacing": None}, "pixel spacing"),
        ({"ImagePositionPatient": None}, "position"), ({"PixelSpacing": [0.7, 0.7]}, "pixel spacing"),
        ({"ImageOrientationPatient": [0, 1, 0, 1, 0, 0]}, "orientation"), ({"PixelData": b"\0" * 10}, "pixels"),
        ({"RescaleSlope": 100}, "Hounsfield units"), ({"NumberOfFrames": 2}, "frames"),
    ],
)  # fmt: skip
def test_lidc_a_slice_unlike_the_others_is_refused(tmp_path: Path, changed: dict[str, object], reason: str) -> None:
    root = make_lidc(tmp_path / "LIDC-IDRI")
    write_slice(scan(root) / "000003.dcm", CT, 2, -95.0, hounsfield()[2], **changed)
    message = refusal(root)
    assert reason in message
    assert "000003.dcm" in message


def test_lidc_mixed_series_in_a_folder_are_refused(tmp_path: Path) -> None:
    root = make_lidc(tmp_path / "LIDC-IDRI")
    write_slice(scan(root) / "scout.dcm", OTHER, 0, 7.0, hounsfield(3)[0])
    message = refusal(root)
    assert f"2 series ({CT}, {OTHER})" in message


@pytest.mark.parametrize("size", [0, 100, 200, 400])
def test_lidc_a_damaged_slice_refuses_its_series(tmp_path: Path, size: int) -> None:
    root = make_lidc(tmp_path / "LIDC-IDRI")
    path = scan(root) / "000005.dcm"  # the lowest: without it, the others still lie evenly
    path.write_bytes(path.read_bytes()[:size])
    checked = convert_lidc(LidcOptions(root, 33, check=True))
    assert checked.training == 0
    # a header that ends within the series' name makes another series
    assert any("000005.dcm" in w or "2 series" in w for w in checked.warnings)


def test_lidc_without_ct(tmp_path: Path) -> None:
    root = make_lidc(tmp_path / "LIDC-IDRI")
    shutil.rmtree(scan(root))
    with pytest.raises(DataError, match="expected LIDC-IDRI-dddd"):
        convert_lidc(LidcOptions(root, 33))


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("<xCoord>3</xCoord>", "<xCoord>three</xCoord>", "069.xml"),
        ("<xCoord>3</xCoord>", "<xCoord>9999999</xCoord>", "069.xml"),
        ("<LidcReadMessage", "<!DOCTYPE a []><LidcReadMessage", CT),
        (f"<SeriesInstanceUid>{CT}", "<SeriesInstanceUid>9", CT),
    ],
)  # fmt: skip
def test_lidc_damaged_annotations(tmp_path: Path, old: str, new: str, reason: str) -> None:
    root = make_lidc(tmp_path / "LIDC-IDRI")
    xml = scan(root) / "069.xml"
    xml.write_text(xml.read_text().replace(old, new, 1))
    checked = convert_lidc(LidcOptions(root, 33, check=True))
    assert checked.training == 0
    assert any(reason in w for w in checked.warnings)
