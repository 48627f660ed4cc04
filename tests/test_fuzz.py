"""Mutated files of every kind that is read: an error of ours or a correct read, never another one, a hang or a bomb.

The default run tries a few hundred per kind, always the same ones; the slow run ten thousand, other ones each time.
XML and DICOM are fuzzed with their converters.
"""

import copy
import functools
import gzip
import json
import math
import os
import struct
import tomllib
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from raw_miniatures import make_dataset, make_pair

import jdm.data.image_io
import jdm.data.picture_io
from jdm.checkpoint import RESUME, WEIGHTS, load_checkpoint, load_resume_state, save_checkpoint, save_resume_state
from jdm.config import Config, dumps, from_dict, load, validate
from jdm.data.image_io import read_raster
from jdm.data.picture_io import peek_picture, read_picture
from jdm.data.raw_dataset import FILE_ENDINGS, NATURAL_ENDINGS, RawDataset, check_dataset, read_dataset
from jdm.data.raw_dataset import write_case as write_raw_case
from jdm.data.splits import fold_split
from jdm.errors import JdmError
from jdm.evaluation.figures import _read_log
from jdm.export_folder import finished_records, read_manifest
from jdm.run_log import FIELDS, read_log
from nnunet_integration.provenance import read_generator, read_run

SOME_OR_MANY = pytest.mark.parametrize("examples", [200, pytest.param(10_000, marks=pytest.mark.slow)])
PIXELS = 2**16
"""Stands for the largest picture and volume, so that what is read is small and what is reserved without need shows."""
MOST_BYTES = 512 * 2**20  # what a bomb asks for is more; hypothesis itself takes up to 200 MB
"""By which a process may grow: twice 2**16 pixels of 4 channels of 8 bytes are 4 MiB; the rest is of libraries."""

# ---------------------------------------------------------------- mutations

NUMBERS = [
    b"\0" * 2, b"\0" * 4, b"\0" * 8, b"\xff" * 2, b"\xff" * 4, b"\xff" * 8, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f",
    b"\0\0\0\x80", b"\x80\0\0\0", b"\0\0\xc0\x7f", b"\0\0\x80\x7f", b"\x01\0\0\0", b"\0\0\0\x01", b"\0\x10\0\0",
]  # fmt: skip
TOKENS = [
    b"[" * 5000, b'{"a":' * 3000, b"9" * 5000, b"-1", b"1e999", b"NaN", b"Infinity", b"null", b'"', b"\\u0000", b"\0",
    b"\xff\xfe", b"\xef\xbb\xbf", b"../", b"\n", b"\r", b",,", b"=", b"nan", b"inf", b"'''", b"1979-05-27T07:32:00Z",
]  # fmt: skip


def changes(length: int, inserted: list[bytes]) -> st.SearchStrategy:
    """Some edits of a file of this length, most of them near its beginning."""
    place = st.integers(0, min(length, 400)) | st.integers(0, length)
    return st.lists(
        st.one_of(
            st.tuples(st.just("flip"), place, st.integers(0, 7)),
            st.tuples(st.just("set"), place, st.sampled_from(NUMBERS) | st.binary(min_size=1, max_size=4)),
            st.tuples(st.just("insert"), place, st.sampled_from(inserted) | st.binary(min_size=1, max_size=4)),
            st.tuples(st.just("cut"), place, st.integers(1, 40)),
            st.tuples(st.just("repeat"), place, st.integers(1, 40)),
            st.tuples(st.just("end"), place, st.none()),
        ),
        min_size=1, max_size=4,
    )  # fmt: skip


def mutate(content: bytes, edits: list[tuple[str, int, Any]]) -> bytes:
    data = bytearray(content)
    for kind, place, value in edits:
        if kind == "flip" and place < len(data):
            data[place] ^= 1 << value
        elif kind == "set":
            data[place : place + len(value)] = value
        elif kind == "insert":
            data[place:place] = value
        elif kind == "cut":
            del data[place : place + value]
        elif kind == "repeat":
            data[place:place] = data[place : place + value]
        elif kind == "end":
            del data[place:]
    return bytes(data)


def bytes_of(content: bytes, inserted: list[bytes] = NUMBERS) -> st.SearchStrategy[bytes]:
    return changes(len(content), inserted).map(functools.partial(mutate, content))


PLAIN = st.one_of(
    st.none(), st.booleans(), st.integers(), st.sampled_from([0, 1, -1, 2**31, 2**63, 10**400]), st.floats(),
    st.text(max_size=6), st.sampled_from(["../../x", "/etc/hosts", "$HOME/x", "a", "\0", "a/b", "none", ".png"]),
)  # fmt: skip
VALUES = st.recursive(
    PLAIN,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@st.composite
def altered(draw: st.DrawFn, value: Any) -> Any:
    """A JSON value with some of its parts replaced, left out or added."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, 3))):
        if not isinstance(value, dict | list) or not value:
            return draw(VALUES)
        where: Any = value
        while True:
            keys = list(where) if isinstance(where, dict) else list(range(len(where)))
            key = draw(st.sampled_from(keys))
            if isinstance(where[key], dict | list) and where[key] and draw(st.booleans()):
                where = where[key]
                continue
            break
        kind = draw(st.sampled_from(["replace", "replace", "remove", "add", "rename"]))
        if kind == "replace":
            where[key] = draw(VALUES)
        elif kind == "remove":
            del where[key]
        elif isinstance(where, list):
            where.append(draw(VALUES))
        elif kind == "add":
            where[draw(st.text(max_size=4))] = draw(VALUES)
        else:
            where[draw(st.sampled_from(["../a", "a/b", "", "A", "\0", "ignore"]))] = where.pop(key)
    return value


def json_of(value: Any) -> st.SearchStrategy[bytes]:
    """Texts of altered JSON values, and altered texts of the value."""
    text = json.dumps(value).encode()
    whole = altered(value).map(lambda changed: json.dumps(changed).encode())
    return whole | bytes_of(text, TOKENS)


# ---------------------------------------------------------------- judging


def resident(name: str) -> int:
    """VmRSS or VmHWM of this process in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise AssertionError(name)


@contextmanager
def little_memory() -> Iterator[None]:
    """Fail if the process needs much more memory at any time within; only where Linux tells."""
    reset = Path("/proc/self/clear_refs")
    if not os.access(reset, os.W_OK):
        yield
        return
    before = resident("VmRSS")
    reset.write_text("5")  # the peak starts again from here
    yield
    assert resident("VmHWM") - before < MOST_BYTES


def fuzz(contents: st.SearchStrategy[bytes], examples: int, read: Callable[[bytes], object]) -> None:
    """Read mutated contents: an error of ours in one line, or what `read` itself finds right."""
    seen = {"read": 0, "refused": 0}

    @settings(
        max_examples=examples, deadline=20_000, database=None, derandomize=examples < 1000, print_blob=True,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(contents)
    def check(content: bytes) -> None:
        try:
            read(content)
        except JdmError as error:
            assert "\n" not in str(error) and str(error)
            seen["refused"] += 1
        else:
            seen["read"] += 1

    with little_memory():
        check()
    assert seen["refused"] > 0, seen
    print(seen)


# ---------------------------------------------------------------- text


@SOME_OR_MANY
def test_dataset_json(tmp_path, monkeypatch, examples):
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    folder = make_dataset(tmp_path, [make_pair("a"), make_pair("b", seed=1)])
    path = folder / "dataset.json"
    content = json.loads(path.read_text())
    explicit = {
        case: {"images": [f"imagesTr/{case}_0000.png"], "label": f"./labelsTr/{case}.png"} for case in ("a", "b")
    }

    def read(text: bytes) -> None:
        path.write_bytes(text)
        dataset = read_dataset(folder)
        assert sorted(dataset.labels.values()) == list(range(dataset.classes)) and dataset.classes > 1
        assert dataset.channel_names and all(isinstance(name, str) for name in dataset.channel_names)
        for case in dataset.cases:
            files = [*dataset.image_files(case), dataset.label_file(case)]
            assert all(f.resolve().is_relative_to(tmp_path.resolve()) for f in files)
        assert all(isinstance(finding, str) for finding in check_dataset(dataset))

    fuzz(json_of(content) | json_of({**content, "dataset": explicit}), examples, read)


@SOME_OR_MANY
def test_splits_final_json(tmp_path, monkeypatch, examples):
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)
    cases = tuple(f"case_{i}" for i in range(6))
    dataset = RawDataset(tmp_path, 1, "Dataset001_X", ("a",), {"background": 0, "b": 1}, ".png", cases, (), {}, {})
    splits = [{"train": [c for c in cases if c != held], "val": [held]} for held in cases[:5]]

    def read(text: bytes) -> None:
        (tmp_path / "splits_final.json").write_bytes(text)
        for fold in range(6):
            training, validation = fold_split(dataset, fold)
            assert training and not set(training) & set(validation)
            assert {*training, *validation} <= set(cases)

    fuzz(json_of(splits), examples, read)


@SOME_OR_MANY
def test_manifest_and_batches(tmp_path, examples):
    records = [{"case_id": f"syn_{i:06d}", "seed": i, "attempt": 0, "foreground_share": {"a": 0.5}} for i in range(3)]
    lines = "".join(json.dumps(record) + "\n" for record in records).encode()
    (tmp_path / "batches").mkdir()
    one = altered(records[0]).map(lambda record: lines + json.dumps(record).encode())

    def read(text: bytes) -> None:
        (tmp_path / "manifest.jsonl").write_bytes(text)
        (tmp_path / "batches" / "000000.json").write_bytes(text)
        assert all(isinstance(record["case_id"], str) for record in read_manifest(tmp_path / "manifest.jsonl"))
        assert all(isinstance(record, dict) for record in finished_records(tmp_path, 1) or [])

    fuzz(one | bytes_of(lines, TOKENS), examples, lambda text: both(read, text, tmp_path))
    fuzz(json_of(records), examples // 2, lambda text: both(read, text, tmp_path))


def both(read: Callable[[bytes], None], text: bytes, folder: Path) -> None:
    """Read as a manifest and, whatever that says, as a batch's records."""
    try:
        read(text)
    finally:
        (folder / "batches" / "000000.json").write_bytes(text)
        found = finished_records(folder, 1)
        assert found is not None and all(isinstance(record, dict) for record in found)


@SOME_OR_MANY
def test_provenance_and_run_files(tmp_path, examples):
    dataset = RawDataset(tmp_path, 1, "Dataset001_X", ("a",), {"background": 0, "b": 1}, ".png", ("a",), (), {}, {})
    content = {"generator": {"dataset": "Dataset002_Y", "fold": "0", "training_ids": ["a", "b"]}, "count": 3}

    def read(text: bytes) -> None:
        (tmp_path / "provenance.json").write_bytes(text)
        (tmp_path / "jdm_run.json").write_bytes(text)
        generator = read_generator(dataset)
        assert generator["training_ids"] and all(isinstance(case, str) for case in generator["training_ids"])
        assert isinstance(read_run(tmp_path), dict)

    fuzz(json_of(content), examples, read)


@SOME_OR_MANY
def test_plan_toml(tmp_path, examples):
    text = dumps(Config()).encode()

    def read(content: bytes) -> None:
        path = tmp_path / "plan.toml"
        path.write_bytes(content)
        config = validate(load(path))
        assert from_dict(Config, tomllib.loads(dumps(config))) == config
        for part in (config.noise, config.augment, config.train):
            assert all(math.isfinite(v) for v in vars(part).values() if isinstance(v, float))

    places = [at for at, byte in enumerate(text) if byte == ord("=")]
    values = st.sampled_from([
        b"-1", b"0", b"nan", b"inf", b"[]", b"[1]", b"[0, 0]", b"[-8, 8]", b"'x'", b"true", b"1e400", b"{}",
        b"9" * 5000, b"1" + b"0" * 400, b"1979-05-27", b"[[1]]", b"[1.5]", b"'none'",
    ])  # fmt: skip

    def with_values(drawn: list[tuple[int, bytes]]) -> bytes:
        data = text
        for at, value in sorted(drawn, reverse=True):
            data = data[: at + 1] + b" " + value + data[data.index(b"\n", at) :]
        return data

    assigned = st.lists(st.tuples(st.sampled_from(places), values), min_size=1, max_size=3, unique_by=lambda d: d[0])
    fuzz(assigned.map(with_values) | bytes_of(text, TOKENS), examples, read)


@SOME_OR_MANY
def test_log_csv(tmp_path, examples):
    rows = [
        ",".join([str(step), "0.5", "1.25", "0.001", "", "0.75" if step % 2 else "nan", ""]) for step in range(1, 9)
    ]
    text = ("\r\n".join([",".join(FIELDS), *rows]) + "\r\n").encode()

    def read(content: bytes) -> None:
        (tmp_path / "log.csv").write_bytes(content)
        steps = [int(row["step"]) for row in read_log(tmp_path / "log.csv")]
        assert steps == list(range(steps[0], steps[0] + len(steps))) if steps else True
        columns = _read_log(tmp_path / "log.csv")
        assert all(math.isfinite(step) for step in columns["step"])

    fuzz(bytes_of(text, [*TOKENS, b"," * 200_000, b'"' + b"x" * 140_000]), examples, read)


# ---------------------------------------------------------------- checkpoints


def checkpoint_with(description: Any, content: bytes) -> bytes:
    """The file with another description, in a header that is whole."""
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = {"jdm": json.dumps(description)}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


@SOME_OR_MANY
def test_checkpoint_header(tmp_path, examples):
    weights = {"a": torch.arange(12.0).reshape(3, 4), "b": torch.zeros(2)}
    save_checkpoint(tmp_path, weights, Config(), {"dataset": "Dataset001_A", "training_ids": ["a"], "step": 1})
    content = (tmp_path / WEIGHTS).read_bytes()
    description = dict(load_checkpoint(tmp_path).metadata)
    unsigned = {key: value for key, value in description.items() if key != "description_sha256"}
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])

    def framed(value: Any) -> bytes:
        text = json.dumps(value).encode()
        return struct.pack("<Q", len(text)) + text + content[8 + length :]

    def read(data: bytes) -> None:
        (tmp_path / WEIGHTS).write_bytes(data)
        found = load_checkpoint(tmp_path)
        assert isinstance(found.config, Config) and validate(found.config) == found.config
        assert {name: tuple(tensor.shape) for name, tensor in found.weights.items()} == {"a": (3, 4), "b": (2,)}
        assert all(torch.equal(found.weights[name], weights[name]) for name in weights)

    described = altered(unsigned).map(lambda changed: checkpoint_with(changed, content))
    fuzz(bytes_of(content, TOKENS) | altered(header).map(framed) | described, examples, read)


@SOME_OR_MANY
def test_resume_state(tmp_path, examples, capsys):
    state = {"step": 3, "network": {"a": torch.arange(6.0)}, "origin": {"dataset": "x"}}
    save_resume_state(tmp_path, state)
    content = (tmp_path / RESUME).read_bytes()

    def read(data: bytes) -> None:
        (tmp_path / RESUME).write_bytes(data)
        found = load_resume_state(tmp_path)
        assert isinstance(found, dict) and torch.equal(found["network"]["a"], state["network"]["a"])

    fuzz(bytes_of(content), examples, read)


# ---------------------------------------------------------------- images


@pytest.fixture
def small_limits(monkeypatch):
    monkeypatch.setattr(jdm.data.picture_io, "MAX_PIXELS", PIXELS)
    monkeypatch.setattr(jdm.data.image_io, "MAX_VOXELS", PIXELS)


def image_reader(path: Path) -> Callable[[bytes], None]:
    def read(data: bytes) -> None:
        path.write_bytes(data)
        for label in (False, True):
            raster = read_raster(path, label)
            array = raster.array
            assert array.ndim == 1 + len(raster.spacing) and array.dtype.kind in "iuf"
            assert array[0].size <= PIXELS and len(array) <= PIXELS
            assert array.dtype.kind != "f" or np.isfinite(array).all()
            assert all(isinstance(s, float) for s in raster.spacing)

    return read


def with_right_checksums(content: bytes) -> bytes:
    """A PNG file whose chunks pass, so that what is in them is looked at."""
    data, at = bytearray(content), 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        if at + 12 + length > len(data):
            break
        data[at + 8 + length : at + 12 + length] = zlib.crc32(data[at + 4 : at + 8 + length]).to_bytes(4, "big")
        at += 12 + length
    return bytes(data)


@SOME_OR_MANY
@pytest.mark.parametrize("ending", FILE_ENDINGS)
def test_images(tmp_path, small_limits, examples, ending):
    shape = (9, 7) if ending in NATURAL_ENDINGS else (3, 5, 4)
    for number, (channels, dtype) in enumerate(
        [(1, "uint8"), (1, "float32" if ending not in (".png", ".bmp") else "uint8")]
    ):
        write_raw_case(tmp_path, make_pair(f"c{number}", ending, channels, dtype, number, shape), ending)
    contents = [path.read_bytes() for path in sorted((tmp_path / "imagesTr").iterdir())]
    if ending in NATURAL_ENDINGS:
        write_raw_case(tmp_path, make_pair("rgb", ending, 3, "uint8", 5, shape), ending)
        contents.append((tmp_path / "imagesTr" / f"rgb_0000{ending}").read_bytes())
    if ending == ".nii.gz":
        inner = st.one_of([bytes_of(gzip.decompress(content)) for content in contents])
        mutated = inner.map(lambda data: gzip.compress(data, 1)) | st.one_of([bytes_of(c) for c in contents])
    else:
        mutated = st.one_of([bytes_of(content) for content in contents])
    if ending == ".png":
        mutated = mutated | mutated.map(with_right_checksums)
    fuzz(mutated, examples, image_reader(tmp_path / f"x{ending}"))


@SOME_OR_MANY
def test_tiff_variants(tmp_path, small_limits, examples):
    grey, rgb = make_pair(channels=1, shape=(20, 24)).image[0], np.moveaxis(make_pair(shape=(20, 24)).image, 0, -1)
    kinds: list[tuple[np.ndarray, dict[str, Any]]] = [
        (grey, {"compression": "lzw", "byteorder": ">"}), (grey, {"tile": (16, 16), "compression": "zlib"}),
        (rgb, {"photometric": "rgb", "compression": "jpeg"}), (rgb, {"photometric": "rgb", "bigtiff": True}),
        (grey, {"photometric": "palette", "colormap": np.zeros((3, 256), np.uint16)}),
        (grey.astype(np.uint16), {"compression": "packbits", "rowsperstrip": 4}),
    ]  # fmt: skip
    contents = []
    for array, options in kinds:
        tifffile.imwrite(tmp_path / "seed.tif", array, metadata=None, **options)
        contents.append(bytes_of((tmp_path / "seed.tif").read_bytes()))
    fuzz(st.one_of(contents), examples, image_reader(tmp_path / "x.tif"))


@SOME_OR_MANY
def test_pictures_of_sources(tmp_path, small_limits, examples):
    """Kinds that converters read, and the glance at the header that they take first."""
    rgb = Image.fromarray(np.moveaxis(make_pair(shape=(20, 24)).image, 0, -1))
    exif = Image.Exif()
    exif[0x0112] = 6
    rgb.save(tmp_path / "seed.jpg", exif=exif, quality=80)
    rgb.quantize(5).save(tmp_path / "palette.png", transparency=0)
    jpeg, png = (tmp_path / "seed.jpg").read_bytes(), (tmp_path / "palette.png").read_bytes()
    for kind, contents in (("jpeg", bytes_of(jpeg)), ("png", bytes_of(png).map(with_right_checksums))):
        path = tmp_path / f"x.{kind}"

        def read(data: bytes, path: Path = path, kind: str = kind) -> None:
            path.write_bytes(data)
            channels, dtype = peek_picture(path, kind)
            array = read_picture(path, kind).array
            assert array.shape[0] == channels and array.dtype == dtype and array[0].size <= PIXELS

        fuzz(contents, examples, read)
