"""Locks: held against other processes, and free when the holder ends, however it does."""

import subprocess
import sys
import threading

import pytest

from jdm.errors import ExistsError
from jdm.system.locks import held, is_held, locked

HOLD = """
import sys
from pathlib import Path
from jdm.system.locks import held
with held(Path(sys.argv[1]), Path(sys.argv[2])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("end", ["killed", "finished"])
def test_a_lock_is_held_against_other_processes_until_its_own_ends(tmp_path, end):
    lock, folder, ended = tmp_path / "run.lock", tmp_path / "run", threading.Event()
    command = [sys.executable, "-c", HOLD, str(lock), str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        assert is_held(lock)
        with locked(lock, wait=False) as free:
            assert not free
        for _ in range(2):
            with pytest.raises(ExistsError, match=rf"{folder} .*process {holder.pid};") as error, held(lock, folder):
                pytest.fail("two hold it")
            assert "\n" not in str(error.value)

        def ends() -> None:
            ended.set()
            holder.kill() if end == "killed" else holder.stdin.close()

        threading.Timer(0.2, ends).start()
        with locked(lock) as free:  # waits
            assert free and ended.is_set()
    assert not is_held(lock)


def test_an_error_frees_a_lock(tmp_path):
    lock = tmp_path / "run.lock"
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), held(lock, tmp_path):
            _ = 1 / 0
    assert not is_held(lock)
