"""Tar files are read as zip files are: nothing outside, no links, no bombs, nothing lost without a word."""

import gzip
import io
import stat
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from conversion_miniatures import make_source, picture, save, zipped
from test_conversion_sources import make_task

from dataset_conversion.msd import convert_msd
from dataset_conversion.options import MsdOptions
from dataset_conversion.pairs import convert_pairs
from dataset_conversion.source import open_source
from jdm.data.raw_dataset import open_dataset
from jdm.errors import DataError


def packed(path: Path, members: list[tuple[str | tarfile.TarInfo, bytes]], form: int = tarfile.GNU_FORMAT) -> Path:
    """A tar file, compressed if its name says so."""
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w", format=form) as archive:
        for member, content in members:
            info = tarfile.TarInfo(member) if isinstance(member, str) else member
            info.size = info.size or len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def refused(path: Path, reason: str) -> None:
    before = sorted(path.parent.rglob("*"))
    with pytest.raises(DataError, match=reason) as caught, open_source(path):
        pytest.fail("was opened")
    assert "\n" not in str(caught.value) and path.name in str(caught.value)
    assert sorted(path.parent.rglob("*")) == before


@pytest.mark.parametrize("ending", [".tar", ".tar.gz"])
def test_a_decathlon_task_as_downloaded(tmp_path: Path, nnunet_folders: dict[str, Path], ending: str) -> None:
    task = make_task(tmp_path)
    path = tmp_path / f"Task09_Thing{ending}"
    with tarfile.open(path, "w:gz" if ending.endswith("gz") else "w") as archive:
        archive.add(task, "./Task09_Thing")
        archive.addfile(tarfile.TarInfo("./._Task09_Thing"), io.BytesIO())
    made = convert_msd(MsdOptions(path, 9))
    assert (made.folder.name, made.training, made.test) == ("Dataset009_Thing", 3, 1)
    unpacked = convert_msd(MsdOptions(task, 10, "Other")).folder
    for file in sorted((made.folder / "imagesTr").iterdir()):
        assert file.read_bytes() == (unpacked / "imagesTr" / file.name).read_bytes()


@pytest.mark.parametrize("name", ["../evil.txt", "a/../../evil.txt", "/evil.txt", "..\\evil.txt", "C:/evil.txt"])
@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_outside_a_tar_file_are_refused(tmp_path: Path, name: str, form: int) -> None:
    refused(packed(tmp_path / "bad.tar", [("good.txt", b"good"), (name, b"evil")], form), "bad.tar: 1 .*evil")
    assert not list(tmp_path.parent.rglob("evil.txt"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_tar_files_are_refused(tmp_path: Path, kind: bytes) -> None:
    link = tarfile.TarInfo("images")
    link.type, link.linkname = kind, "/etc"
    refused(packed(tmp_path / "bad.tar", [(link, b""), ("images/passwd", b"x")]), "bad.tar: 1 .*images")


def test_files_have_plain_rights_and_occur_once(tmp_path: Path) -> None:
    program = tarfile.TarInfo("program")
    program.mode = 0o6777
    with open_source(packed(tmp_path / "a.tar", [(program, b"x")])) as source:
        assert stat.S_IMODE((source.root / "program").stat().st_mode) & 0o6111 == 0
    refused(packed(tmp_path / "twice.tar", [("a", b"1"), ("./a", b"2")]), "twice.tar: .*'a'")


def test_bombs_in_tar_files_are_refused_by_their_headers(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    huge = tarfile.TarInfo("huge")
    huge.size = 2**50
    (tmp_path / "huge.tar").write_bytes(huge.tobuf() + bytes(1024))
    refused(tmp_path / "huge.tar", str(2**50))
    with gzip.open(tmp_path / "zeros.tar.gz", "wb", compresslevel=1) as file:  # announced, and there
        huge.size = 2**31
        file.write(huge.tobuf())
        file.write(bytes(2**22))
    refused(tmp_path / "zeros.tar.gz", str(2**31))
    refused(packed(tmp_path / "many.tar.gz", [(f"f{i}", b"") for i in range(20_000)]), "10000")
    longest = tarfile.TarInfo("././@LongLink")
    longest.type, longest.size = tarfile.GNUTYPE_LONGNAME, 2**29
    with gzip.open(tmp_path / "name.tar.gz", "wb", compresslevel=1) as file:
        file.write(longest.tobuf())
    refused(tmp_path / "name.tar.gz", "536870912")
    assert not list((tmp_path / "temporary").iterdir())


@pytest.mark.parametrize("damage", ["cut in a file", "cut between files", "header", "points back"])
def test_damaged_tar_files_lose_nothing_without_a_word(tmp_path: Path, damage: str) -> None:
    path = packed(tmp_path / "a.tar", [("a", b"1" * 700), ("b", b"2" * 700)])
    content = bytearray(path.read_bytes())  # a: header 0, content 512 to 1536; b: header 1536
    if damage.startswith("cut"):
        del content[1000 if damage == "cut in a file" else 1536 :]
    elif damage == "header":
        content[1536 + 100] ^= 1
    else:
        back = tarfile.TarInfo("b")
        back.size = -1024
        content[1536:2048] = back.tobuf()
    path.write_bytes(content)
    refused(path, "a.tar: cannot")


def test_pairs_may_be_folders_of_one_archive(tmp_path: Path, nnunet_folders: dict[str, Path]) -> None:
    options = make_source(tmp_path)
    save(tmp_path / "in" / "overview.png", picture())
    both = zipped(tmp_path / "in")
    made = convert_pairs(replace(options, images=both, masks=both, test_images=None, test_masks=None))
    assert made.training == 3 and made.test == 0
    assert open_dataset(11).cases == ("a", "b", "c")


def test_a_zip_member_without_a_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(zipfile.ZipInfo(""), b"evil")
        archive.writestr("good.txt", b"good")
    refused(path, "bad.zip: 1 ")
