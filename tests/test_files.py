"""Files: whole or not at all, whatever ends their writer; and JSON that every reader takes."""

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from jdm.system.files import replaced, write_json, write_text

BEGIN = "import sys, time; from pathlib import Path; from jdm.system.files import *; path = Path(sys.argv[1])\n"
HALF = "with replaced(path) as t: t.write_text('half'); print('half', flush=True); time.sleep(60)"
ENDLESS = "for n in range(10**9): write_text(path, str(n % 10) * 10**6); print(n, flush=True)"


def started(code: str, path: Path) -> subprocess.Popen:
    """A process that has begun to write `path`."""
    process = subprocess.Popen([sys.executable, "-c", BEGIN + code, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline()
    return process


def test_what_a_killed_writer_left_is_removed_and_what_a_living_one_writes_is_kept(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with started(HALF, path) as process:
        (half,) = tmp_path.glob(".*")
        write_text(path, "new")
        assert half.read_text() == "half"
        process.kill()
    assert path.read_text() == "new" and half.exists()
    others = [half.with_name(half.name + ".txt"), half.with_name(".partial-mine-a.txt")]
    for other in others:
        other.touch()
    with monkeypatch.context() as patch:
        patch.setattr(os, "kill", lambda *_: (_ for _ in ()).throw(PermissionError))  # another user's, and alive
        write_text(path, "newer")
    assert half.exists()
    write_text(path, "newest")
    assert path.read_text() == "newest" and {*tmp_path.iterdir()} == {path, *others}


@pytest.mark.parametrize("wait", [0.0, 0.01, 0.02, 0.04, 0.08])
def test_a_file_is_whole_whenever_its_writer_is_killed(tmp_path, wait):
    with started(ENDLESS, tmp_path / "a.txt") as process:
        time.sleep(wait)
        process.kill()
    content = (tmp_path / "a.txt").read_text()
    assert len(content) == 10**6 and len({*content}) == 1


@pytest.mark.parametrize("old", ["old", None])
def test_a_writer_that_fails_leaves_what_was_there(tmp_path, old):
    path = tmp_path / "a.txt"
    if old is not None:
        path.write_text(old)
    with pytest.raises(ZeroDivisionError), replaced(path, keep=tmp_path / "kept") as temporary:
        temporary.write_text("half")
        _ = 1 / 0
    assert [file.read_text() for file in tmp_path.iterdir()] == ([] if old is None else [old])


def test_a_written_file_has_its_ending_all_along_and_the_usual_rights(tmp_path):
    path, kept = tmp_path / "a[1].nii.gz", tmp_path / "previous"
    for content in ("1", "2", "3"):
        with replaced(path, keep=kept) as temporary:
            assert temporary.parent == tmp_path and temporary.name.endswith(".nii.gz")
            temporary.touch(0o600)
            temporary.write_text(content)
    (tmp_path / "usual").touch()
    assert (path.read_text(), kept.read_text()) == ("3", "2")
    assert path.stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_json_is_strict(tmp_path):
    path = tmp_path / "new" / "a.json"
    write_json(path, {"a": (math.nan, -math.inf, 1.5, np.float32(0.5), 2, True, None), 3: "Größe"})
    text = path.read_text(encoding="utf-8")
    found = json.loads(text, parse_constant=pytest.fail)
    assert found == {"a": [None, None, 1.5, 0.5, 2, True, None], "3": "Größe"}
    assert "Größe" in text and found["a"][5] is True
