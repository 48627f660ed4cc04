"""What every kind can do: zip files, checks that write nothing, counts, the preview sheet."""

import shlex
import stat
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conversion_miniatures import jpeg_pair, make_source, picture, record, run, save, zipped
from PIL import Image

import dataset_conversion.archives as archives
from dataset_conversion.ledger import Ledger
from dataset_conversion.masks import any_colour, numbered, yes_or_no
from dataset_conversion.options import KvasirSegOptions
from dataset_conversion.pairs import convert_pairs
from dataset_conversion.polyps import convert_kvasir_seg
from dataset_conversion.source import open_source, visible
from dataset_conversion.tables import is_plain_file_name, read_table
from jdm.data.raw_dataset import open_dataset, read_case
from jdm.errors import DataError


@pytest.fixture
def kvasir(tmp_path: Path, nnunet_folders: dict[str, Path]) -> Path:
    folder = tmp_path / "Kvasir-SEG"
    for i in range(3):
        jpeg_pair(folder, f"cju{i}", i)
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


class Free:
    """A disk that is nearly full."""

    free = 1000


# ---------------------------------------------------------------- zip files


def test_a_zip_gives_the_same_dataset_and_leaves_nothing(kvasir: Path, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    first = files(convert_kvasir_seg(KvasirSegOptions(kvasir, 1)).folder)
    made = convert_kvasir_seg(KvasirSegOptions(zipped(kvasir), 2))
    second = files(made.folder)
    assert {n: b for n, b in first.items() if "conversion" not in n} == {
        n: b for n, b in second.items() if "conversion" not in n
    }
    assert list((tmp_path / "temporary").iterdir()) == []
    names = [name for entry in record(made.folder)["entries"] for name in entry["files"]]
    assert all(name.startswith(str(tmp_path / "Kvasir-SEG.zip")) for name in names), "never the temporary folder"


def test_errors_name_the_zip_and_not_the_temporary_folder(kvasir: Path) -> None:
    (kvasir / "masks" / "cju0.jpg").unlink()
    with pytest.raises(DataError, match=r"\bcju0\b") as caught:
        convert_kvasir_seg(KvasirSegOptions(zipped(kvasir), 1))
    assert "jdm-convert-" not in str(caught.value)
    assert "Kvasir-SEG.zip/Kvasir-SEG/images" in str(caught.value)


def test_pairs_may_be_zip_files_each(tmp_path: Path, nnunet_folders: dict[str, Path]) -> None:
    options = make_source(tmp_path)
    packed = replace(
        options, images=zipped(options.images), masks=zipped(options.masks), test_images=None, test_masks=None
    )
    assert convert_pairs(packed).training == 3
    assert open_dataset(11).cases == ("a", "b", "c")


def test_an_archive_in_an_archive_is_read(kvasir: Path, tmp_path: Path) -> None:
    inner = zipped(kvasir)
    with zipfile.ZipFile(tmp_path / "site.zip", "w") as archive:
        archive.write(inner, "Kvasir-SEG.zip")
        archive.writestr("__MACOSX/._Kvasir-SEG.zip", b"mac")
    assert convert_kvasir_seg(KvasirSegOptions(tmp_path / "site.zip", 1)).training == 3


@pytest.mark.parametrize(
    "name", ["../evil.txt", "a/../../evil.txt", "/evil.txt", "..\\evil.txt", "C:\\evil.txt", "C:/evil.txt"]
)
def test_members_outside_the_archive_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "in" / "deep" / "bad.zip"
    path.parent.mkdir(parents=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("good.txt", b"good")
        archive.writestr(name, b"evil")
    with pytest.raises(DataError, match=r"bad\.zip: 1 .*evil"), open_source(path):
        pytest.fail("was opened")
    assert not list(tmp_path.rglob("evil.txt"))


def test_links_in_archives_are_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("images")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr(link, "/etc")
        archive.writestr("images/passwd", b"x")
    with pytest.raises(DataError, match=r"bad\.zip: 1 .*images"), open_source(tmp_path / "bad.zip"):
        pytest.fail("was opened")


def test_bombs_are_refused_by_the_sizes_they_announce(tmp_path: Path, monkeypatch) -> None:
    path, temporary = tmp_path / "bomb.zip", tmp_path / "temporary"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(3 * 2**20))
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    monkeypatch.setattr(archives, "SMALL", 2**20)
    with pytest.raises(DataError, match=r"3145728.*bomb"), open_source(path):
        pytest.fail("was opened")
    monkeypatch.setattr(archives, "SMALL", 2**40)
    monkeypatch.setattr("shutil.disk_usage", lambda _: Free)
    with pytest.raises(DataError, match=r"3145728.* 1000 "), open_source(path):
        pytest.fail("was opened")
    assert not list(temporary.iterdir())


def test_damaged_and_foreign_archives_are_one_line(tmp_path: Path) -> None:
    good = tmp_path / "good"
    save(good / "a.png", picture())
    data = zipped(good).read_bytes()
    broken = bytearray(data)
    broken[60] ^= 0xFF
    for name, content in (("cut.zip", data[: len(data) // 2]), ("flipped.zip", bytes(broken)), ("empty.zip", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError) as caught, open_source(tmp_path / name):
            pytest.fail("was opened")
        assert "\n" not in str(caught.value)
        assert name in str(caught.value)
    save(tmp_path / "a.png", picture())
    with pytest.raises(DataError, match=r"a\.png: .*png"), open_source(tmp_path / "a.png"):
        pytest.fail("was opened")


def test_a_link_back_up_does_not_hang(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_text("x")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    assert [p.name for p in visible(tmp_path)] == ["file"]


# ---------------------------------------------------------------- checks


def test_a_check_reports_the_same_and_writes_nothing(kvasir: Path, tmp_path: Path) -> None:
    save(kvasir / "masks" / "cju1.jpg", np.zeros((40, 50), np.uint8))
    before = sorted(tmp_path.rglob("*"))
    checked = convert_kvasir_seg(KvasirSegOptions(kvasir, 1, check=True))
    assert sorted(tmp_path.rglob("*")) == before
    made = convert_kvasir_seg(KvasirSegOptions(kvasir, 1))
    assert checked.report == (made.folder / "conversion.md").read_text()
    assert (checked.training, checked.counts, checked.warnings) == (made.training, made.counts, made.warnings)
    strict = convert_kvasir_seg(KvasirSegOptions(kvasir, 2, strict=True, check=True))
    assert strict.problem is not None
    assert "--strict" in strict.problem and "cju1.jpg" in strict.problem


def test_the_command_checks_then_converts_and_draws(kvasir: Path, nnunet_folders: dict[str, Path]) -> None:
    checked = run("kvasir-seg", kvasir, "--id", 1, "--check")
    assert checked.returncode == 0, checked.stderr
    assert "3 found, 1000 published" in checked.stdout and "3 training" in checked.stdout
    assert list(nnunet_folders["nnUNet_raw"].iterdir()) == []
    done = run("kvasir-seg", kvasir, "--id", 1)
    assert done.returncode == 0, done.stderr
    with Image.open(nnunet_folders["nnUNet_raw"] / "Dataset001_KvasirSEG" / "preview.png") as sheet:
        colours = {colour for _, colour in sheet.convert("RGB").getcolors(2**24) or []}
    assert (230, 159, 0) in colours, "the mask is outlined"


def test_a_check_that_finds_nothing_usable_fails(kvasir: Path) -> None:
    for path in (kvasir / "masks").iterdir():
        save(path, picture(1, (40, 48, 3)))
    checked = run("kvasir-seg", kvasir, "--id", 1, "--check")
    assert checked.returncode == 2
    assert "3 refused" in checked.stdout
    assert "cju0.jpg" in checked.stderr


# ---------------------------------------------------------------- counts, masks and tables


def test_counts_are_compared_with_the_published_ones() -> None:
    ledger = Ledger({})
    ledger.compare({"train": 9, "test": 2}, {"train": 10, "test": 2})
    assert ledger.published == {"train": (9, 10), "test": (2, 2)}
    assert len(ledger.notes) == 1 and "9" in ledger.notes[0] and "10" in ledger.notes[0]


def test_black_and_white_masks() -> None:
    def decode(values: list[int]) -> list[int]:
        return yes_or_no(np.array([[values]], np.uint8), "png", Path("m")).label[0].tolist()

    assert decode([0, 255, 7, 248]) == [0, 1, 0, 1]
    assert decode([0, 127, 128] + 10 * [0]) == [0, 0, 1] + 10 * [0]
    assert decode([0, 1, 1]) == [0, 1, 1], "palette indices and 0/1 masks"
    assert decode([0, 0]) == [0, 0]
    for values, named in (([0, 38], "38"), ([0, 100, 200], "67%")):
        with pytest.raises(DataError, match=named):
            decode(values)
    with pytest.raises(DataError, match="uint16"):
        yes_or_no(np.zeros((1, 2, 2), np.uint16), "png", Path("m"))
    red = np.zeros((3, 1, 2), np.uint8)
    red[0, 0, 1] = 255
    with pytest.raises(DataError, match="3 channels"):
        yes_or_no(red, "png", Path("m"))
    assert any_colour(red, "png", Path("m")).label.tolist() == [[0, 1]]
    with pytest.raises(DataError, match="JPEG"):
        numbered(np.zeros((1, 2, 2), np.uint8), "jpeg", Path("m"))


def test_grey_masks_of_a_published_set_can_be_mapped_by_the_command_that_is_named(kvasir: Path) -> None:
    for path in (kvasir / "masks").iterdir():
        path.unlink()
        save(path.with_suffix(".png"), 38 * np.pad(np.ones((10, 10), np.uint8), ((5, 25), (5, 33))))
    with pytest.raises(DataError, match=r"cju0\.png: .* 38;") as caught:
        convert_kvasir_seg(KvasirSegOptions(kvasir, 1))
    words = shlex.split(str(caught.value)[str(caught.value).index("jdm-convert ") :])
    done = run(*words[1:])
    assert done.returncode == 0, done.stderr
    dataset = open_dataset(words[words.index("--id") + 1])
    assert [int(read_case(dataset, case).label.sum()) for case in dataset.cases] == [100] * 3


def test_tables_are_read_with_blanks_and_refused_with_reasons(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b'\xef\xbb\xbfname, patient ID, grade\r\n"a", 3, x\r\n\r\nb,4\r\n')
    rows, text = read_table(path, ("name", "patient ID"))
    assert rows == [{"name": "a", "patient ID": "3", "grade": "x"}, {"name": "b", "patient ID": "4", "grade": ""}]
    assert text.startswith("name")
    for content, reason in (
        (b"name\na\n", "patient ID"), (b"", "patient ID"), (b"\xff\xfe\x00", "UTF-8"),
        (b'name,patient ID\n"a\n', "CSV"),
    ):  # fmt: skip
        path.write_bytes(content)
        with pytest.raises(DataError, match=reason):
            read_table(path, ("name", "patient ID"))
    plain = ["a.png", "../a.png", "/a.png", "..", "a/b.png", "..\\a.png", "", "C:a.png"]
    assert [name for name in plain if is_plain_file_name(name)] == ["a.png"]
