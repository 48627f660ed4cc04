"""Faults of damaged and evil files, and whether all thirty of the list are provoked."""

import ast
import gzip
import json
import math
import re
import struct
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from fault_list import FAULTS, INPUTS
from fault_processes import read_starved, tree
from raw_miniatures import make_dataset, make_pair, with_image
from small_runs import config_of

from jdm.data.raw_dataset import read_case, read_dataset
from jdm.errors import CheckpointError, DataError
from jdm.train.checkpoint import METADATA, WEIGHTS, load_checkpoint, save_checkpoint

HERE = Path(__file__).resolve().parent


@pytest.mark.parametrize("faults", [FAULTS, INPUTS])
def test_every_fault_is_provoked_by_a_test_that_is_there(faults):
    assert [fault.number for fault in faults] == list(range(1, 31))
    for place in (test for fault in faults for test in fault.tests):
        file, _, name = place.partition("::")
        names = {
            node.name
            for node in ast.walk(ast.parse((HERE / file).read_text(encoding="utf-8")))
            if isinstance(node, ast.FunctionDef)
        }
        assert name in names, place


def test_fault_07_bit_flip_anywhere_in_a_checkpoint(tmp_path):
    weights = {"a": torch.arange(6.0), "b": torch.zeros(2, 3)}
    origin = {"dataset": "Dataset001_A", "training_ids": ["case_1", "case_2"], "step": 7}
    save_checkpoint(tmp_path, weights, config_of(), origin)
    path = tmp_path / WEIGHTS
    content, whole = path.read_bytes(), load_checkpoint(tmp_path)
    refused = 0
    for place in range(0, len(content), 5):
        path.write_bytes(content[:place] + bytes([content[place] ^ (1 << place % 7)]) + content[place + 1 :])
        try:
            found = load_checkpoint(tmp_path)
        except CheckpointError as error:
            assert str(path) in str(error) and "\n" not in str(error)
            refused += 1
        else:  # only where it changes nothing that is read
            assert all(found.metadata[key] == whole.metadata[key] for key in (*origin, "config", "sha256"))
            assert all(torch.equal(found.weights[name], weights[name]) for name in weights)
    assert refused > 0.9 * len(range(0, len(content), 5))
    assert json.loads((tmp_path / METADATA).read_text()) == whole.metadata


def test_fault_19_image_and_mask_of_different_size(tmp_path):
    dataset = with_image(tmp_path, label=np.zeros((7, 6), np.uint8))
    before = tree(tmp_path)
    with pytest.raises(DataError, match=r"a\.png.* 7x6.* 7x5") as error:
        read_case(dataset, "a")
    assert "\n" not in str(error.value) and tree(tmp_path) == before


def tiff_bomb(**changes: int) -> Callable[[Path], None]:
    """A small TIFF whose tags announce something large: width, height, samples, tile."""
    codes = {"width": 256, "height": 257, "samples": 277, "tile_width": 322, "tile_height": 323}

    def write(path: Path) -> None:
        tile = (16, 16) if "tile_width" in changes else None
        tifffile.imwrite(path, np.zeros((16, 16), np.uint8), compression="zlib", tile=tile, metadata=None)
        content = bytearray(path.read_bytes())
        offset = struct.unpack("<I", content[4:8])[0]
        for entry in range(struct.unpack("<H", content[offset : offset + 2])[0]):
            at = offset + 2 + 12 * entry
            code = struct.unpack("<H", content[at : at + 2])[0]
            for name, value in changes.items():
                if codes[name] == code:
                    kind, size = (4, "<I") if name != "samples" else (3, "<H2x")
                    content[at + 2 : at + 12] = struct.pack("<HI", kind, 1) + struct.pack(size, value)
        path.write_bytes(content)

    return write


def nifti_bomb(dims: tuple[int, ...] = (2, 2, 2), before: float = 352.0, extension: int = 0) -> Callable[[Path], None]:
    """A gzipped NIfTI file that announces many voxels, or a long extension that it then holds, compressed."""

    def write(path: Path) -> None:
        header = bytearray(348)
        struct.pack_into("<i", header, 0, 348)
        struct.pack_into("<8h", header, 40, len(dims), *dims, *[1] * (7 - len(dims)))
        struct.pack_into("<hh", header, 70, 2, 8)
        struct.pack_into("<8f", header, 76, *[1.0] * 8)
        struct.pack_into("<f", header, 108, before)
        header[344:348] = b"n+1\0"
        with gzip.open(path, "wb", compresslevel=1) as file:
            file.write(header + (struct.pack("<4Bii", 1, 0, 0, 0, extension, 0) if extension else bytes(4)))
            for _ in range(extension // 2**20):
                file.write(bytes(2**20))
            file.write(bytes(math.prod(dims) if math.prod(dims) < 2**20 else 8))

    return write


def bmp_bomb(path: Path) -> None:
    path.write_bytes(b"BM" + struct.pack("<IHHIIiiHHIIiiII", 60, 0, 0, 54, 40, 60_000, 60_000, 1, 24, 0, 0, 1, 1, 0, 0))


BOMBS = [
    ("wide.tif", tiff_bomb(width=2**30, height=2**30), "expected at most"),
    ("samples.tif", tiff_bomb(samples=60_000), "has 60000 channels"),
    ("tile.tif", tiff_bomb(tile_width=2**15, tile_height=2**15), "pixels; expected at most"),
    ("wide.bmp", bmp_bomb, "expected at most"),
    ("voxels.nii.gz", nifti_bomb((30_000, 30_000, 30_000)), "pixels; expected at most"),
    ("offset.nii.gz", nifti_bomb(before=float(2**28), extension=2**28), "begin at byte 268435456"),
    ("extension.nii.gz", nifti_bomb(extension=2**28), None),
]


@pytest.mark.parametrize(("name", "write", "found"), BOMBS, ids=[name for name, _, _ in BOMBS])
def test_fault_28_decompression_bomb(tmp_path, host, name, write, found):
    write(tmp_path / name)
    started = time.monotonic()
    status, printed = host.run(read_starved, str(tmp_path / name))
    assert status == 0, printed
    assert found is None or re.search(rf"^refused .*{name}.*{found}", printed, re.M), printed
    grown = int(re.search(r"^grew (\d+)$", printed, re.M)[1])
    assert grown < 100 and time.monotonic() - started < 20, printed


def test_fault_27_a_training_id_cannot_lead_out_of_the_dataset(tmp_path):
    folder = make_dataset(tmp_path, [make_pair()])
    for name in ("../a", "/etc/hosts", "a/../../b"):
        with pytest.raises(DataError, match=rf"'{name}'"):
            read_case(read_dataset(folder), name)
