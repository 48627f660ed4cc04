"""Damaged archives, tables, outlines and slices: an error of ours or a reading, never a foreign traceback."""

import gzip
import io
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conversion_miniatures_lidc import CT_UID, hounsfield, nodule, ring, write_slice, write_xml
from fuzzing import TOKENS, Fuzz, bytes_of

from dataset_conversion.aperio import read_outlines
from dataset_conversion.dicom import read_ct, read_header
from dataset_conversion.dsb2018 import decode_runs
from dataset_conversion.lidc import read_outline
from dataset_conversion.source import open_source
from dataset_conversion.tables import read_table
from dataset_conversion.xml_files import read_xml
from jdm.errors import DataError


def quiet(path: Path, read: Callable[[Path], object]) -> Callable[[bytes], None]:
    """A reader of contents, which ignores what libraries say about what they read on regardless."""

    def write_and_read(data: bytes) -> None:
        path.write_bytes(data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read(path)

    return write_and_read


XML = [
    *TOKENS, b"<a>" * 3000, b"&amp;", b"&#0;", b"<!--", b"]]>", b"<![CDATA[",
    b'<!DOCTYPE a [<!ENTITY b "c"><!ENTITY d "&b;&b;">]>', b"encoding='UTF-16'",
]  # fmt: skip


def archive() -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", zipfile.ZIP_DEFLATED) as file:
        for name in ("a/images/1.png", "a/masks/1.png", "b.txt"):
            file.writestr(name, np.random.default_rng(len(name)).bytes(40) + bytes(200))
    return memory.getvalue()


def tar() -> bytes:
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode="w", format=tarfile.PAX_FORMAT) as file:
        for name in ("a/images/1.png", "a/" + "long" * 40, "b.txt"):
            member = tarfile.TarInfo(name)
            member.size = 240
            file.addfile(member, io.BytesIO(np.random.default_rng(len(name)).bytes(40) + bytes(200)))
    return memory.getvalue()


def unpack(path: Path) -> None:
    with open_source(path) as source:
        found = [p for p in source.root.rglob("*") if p.is_file()]
        assert all(p.resolve().is_relative_to(source.root) for p in found)
        assert sum(p.stat().st_size for p in found) < 2**20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("damage")


def test_archives(folder: Path, fuzz: Fuzz) -> None:
    fuzz(bytes_of(archive()), quiet(folder / "a.zip", unpack), "a.zip")


@pytest.mark.parametrize("ending", [".tar", ".tar.gz"])
def test_tar_archives(folder: Path, fuzz: Fuzz, ending: str) -> None:
    data = bytes_of(tar()[:-4096])  # most of the padding at the end would take most of the mutations
    packed = data.map(lambda content: gzip.compress(content, 1)) if ending.endswith("gz") else data
    fuzz(packed, quiet(folder / f"a{ending}", unpack), f"a{ending}")


def test_runs(folder: Path, fuzz: Fuzz) -> None:
    def read(path: Path) -> None:
        assert decode_runs(path.read_text(encoding="latin-1"), (9, 7), path).sum() <= 63

    texts = bytes_of(b"1 3 12 4 60 4", [*TOKENS, b" ", b" 63", b"\xb2", b"-"])
    fuzz(texts, quiet(folder / "runs.txt", read), "runs.txt")


def test_tables(folder: Path, fuzz: Fuzz) -> None:
    table = b'name,patient ID, grade (GlaS)\r\ntrain_1,4, "benign, mostly"\r\ntrain_2,5, malignant\r\n'
    fuzz(
        bytes_of(table, TOKENS), quiet(folder / "t.csv", lambda path: read_table(path, ("name", "patient ID"))), "t.csv"
    )


def test_outlines(folder: Path, fuzz: Fuzz) -> None:
    outlines = (
        '<?xml version="1.0" encoding="UTF-8"?><Annotations><Annotation><Regions><Region Id="1" NegativeROA="0">'
        '<Vertices><Vertex X="1.5" Y="2"/><Vertex X="7" Y="2"/><Vertex X="7" Y="9"/></Vertices></Region></Regions>'
        "</Annotation></Annotations>"
    )
    fuzz(bytes_of(outlines.encode(), XML), quiet(folder / "o.xml", read_outlines), "o.xml")


def test_readings(folder: Path, fuzz: Fuzz) -> None:
    write_xml(folder / "whole.xml", CT_UID, [[nodule([(1, ring(2, 2, 4, 4), True)], CT_UID)]])

    def read(path: Path) -> None:
        for roi in read_xml(path, "LidcReadMessage").iter("roi"):
            read_outline(roi, path)

    fuzz(bytes_of((folder / "whole.xml").read_bytes(), XML), quiet(folder / "r.xml", read), "r.xml")


def test_slices(folder: Path, fuzz: Fuzz) -> None:
    write_slice(folder / "whole.dcm", CT_UID, 1, -97.5, hounsfield()[1])
    write_slice(folder / "next.dcm", CT_UID, 2, -95.0, hounsfield()[2])

    def read(path: Path) -> None:
        parts = [read_header(path), read_header(folder / "next.dcm")]
        try:
            read_ct(parts)
        except DataError as error:  # may name the other slice
            raise DataError(f"{path.name}: {error}") from error

    fuzz(bytes_of((folder / "whole.dcm").read_bytes()), quiet(folder / "s.dcm", read), "s.dcm")
