"""Damaged archives, tables, outlines and slices: an error of ours or a reading, never a foreign traceback."""

import io
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conversion_miniatures_lidc import CT_UID, hounsfield, nodule, ring, write_slice, write_xml
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_conversion.dicom import read_ct, read_header
from dataset_conversion.lidc import read_outline
from dataset_conversion.monuseg import read_outlines
from dataset_conversion.source import open_source
from dataset_conversion.tables import read_table
from dataset_conversion.xml_files import read_xml
from jdm.errors import DataError

Change = tuple[str, float, bytes]
kinds = st.sampled_from(["flip", "cut", "insert", "overwrite"])
changes = st.lists(st.tuples(kinds, st.floats(0, 1), st.binary(min_size=1, max_size=9)), min_size=1, max_size=6)


def damaged(data: bytes, recipe: list[Change]) -> bytes:
    for kind, where, what in recipe:
        at = int(where * len(data))
        if kind == "cut":
            data = data[:at]
        elif kind == "insert":
            data = data[:at] + what + data[at:]
        elif kind == "overwrite":
            data = data[:at] + what + data[at + len(what) :]
        elif data:
            at = min(at, len(data) - 1)
            data = data[:at] + bytes([data[at] ^ (what[0] or 1)]) + data[at + 1 :]
    return data


def check(data: bytes, path: Path, read: Callable[[Path], object]) -> None:
    path.write_bytes(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the libraries, about what they read on regardless
            read(path)
    except DataError as error:
        assert "\n" not in str(error)
        assert path.name in str(error)
        assert len(str(error)) < 1000


def archive() -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", zipfile.ZIP_DEFLATED) as file:
        for name in ("a/images/1.png", "a/masks/1.png", "b.txt"):
            file.writestr(name, np.random.default_rng(len(name)).bytes(40) + bytes(200))
    return memory.getvalue()


def unpack(path: Path) -> None:
    with open_source(path) as source:
        found = [p for p in source.root.rglob("*") if p.is_file()]
        assert all(p.resolve().is_relative_to(source.root) for p in found)
        assert sum(p.stat().st_size for p in found) < 2**20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("damage")


counts = pytest.mark.parametrize("examples", [50, pytest.param(2000, marks=pytest.mark.slow)])


def try_out(examples: int, data: bytes, path: Path, read: Callable[[Path], object]) -> None:
    """Read `examples` damaged versions of `data`."""

    @given(changes)
    @settings(max_examples=examples, deadline=None)
    def once(recipe: list[Change]) -> None:
        check(damaged(data, recipe), path, read)

    once()


@counts
def test_archives(folder: Path, examples: int) -> None:
    try_out(examples, archive(), folder / "a.zip", unpack)


@counts
def test_tables(folder: Path, examples: int) -> None:
    table = b'name,patient ID, grade (GlaS)\r\ntrain_1,4, "benign, mostly"\r\ntrain_2,5, malignant\r\n'
    try_out(examples, table, folder / "t.csv", lambda path: read_table(path, ("name", "patient ID")))


@counts
def test_outlines(folder: Path, examples: int) -> None:
    outlines = (
        '<?xml version="1.0" encoding="UTF-8"?><Annotations><Annotation><Regions><Region Id="1" NegativeROA="0">'
        '<Vertices><Vertex X="1.5" Y="2"/><Vertex X="7" Y="2"/><Vertex X="7" Y="9"/></Vertices></Region></Regions>'
        "</Annotation></Annotations>"
    )
    try_out(examples, outlines.encode(), folder / "o.xml", read_outlines)


@counts
def test_readings(folder: Path, examples: int) -> None:
    write_xml(folder / "whole.xml", CT_UID, [[nodule([(1, ring(2, 2, 4, 4), True)], CT_UID)]])

    def read(path: Path) -> None:
        for roi in read_xml(path, "LidcReadMessage").iter("roi"):
            read_outline(roi, path)

    try_out(examples, (folder / "whole.xml").read_bytes(), folder / "r.xml", read)


@counts
def test_slices(folder: Path, examples: int) -> None:
    write_slice(folder / "whole.dcm", CT_UID, 1, -97.5, hounsfield()[1])
    write_slice(folder / "next.dcm", CT_UID, 2, -95.0, hounsfield()[2])

    def read(path: Path) -> None:
        parts = [read_header(path), read_header(folder / "next.dcm")]
        try:
            read_ct(parts)
        except DataError as error:  # may name the other slice
            raise DataError(f"{path.name}: {error}") from error

    try_out(examples, (folder / "whole.dcm").read_bytes(), folder / "s.dcm", read)
