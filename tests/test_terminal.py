"""Commands in terminals, pipes and environments as they come: one line, or none, and never a traceback."""

import os
import subprocess
import sys

import pytest

from jdm.errors import ConfigError
from jdm.system.processes import Launch, launch, processes

RUN = "import os, sys; from jdm.cli import run_command; from jdm.errors import DataError\n"


def script(code: str) -> list[str]:
    return [sys.executable, "-c", RUN + code]


@pytest.mark.parametrize(
    "terminal",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1:strict"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"LC_ALL": "C"},
    ],
)
def test_names_that_a_terminal_cannot_show_are_written_all_the_same(terminal):
    name = "Fälle_日本"
    environment = {**os.environ, **terminal}
    encoding = {"ascii": "ascii", "latin-1:strict": "latin-1"}.get(terminal.get("PYTHONIOENCODING", ""))
    encoding = encoding or ("ascii" if "PYTHONUTF8" in terminal else "utf-8")
    shown = name.encode(encoding, "backslashreplace")
    done = subprocess.run(script(f"run_command(lambda: print({name!a}))"), capture_output=True, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, shown + b"\n", b"")
    code = f"def fail(): raise DataError({name!a})\nrun_command(fail)"
    done = subprocess.run(script(code), capture_output=True, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (2, b"", b"-c: error: " + shown + b"\n")


@pytest.mark.parametrize(
    "code",
    [
        "run_command(lambda: [print(n, flush=True) for n in range(100_000)])",
        "run_command(lambda: [print(n) for n in range(100_000)])",
        "run_command(lambda: print('first') or sys.stdin.read() or print('second'))",
        "run_command(lambda: print('first', flush=True) or sys.stdin.read() or print('more') or sys.exit(1))",
        "run_command(lambda: [print(n, file=sys.stderr) or print(n) for n in range(100_000)])",
    ],
)
def test_a_reader_that_closes_its_pipe_ends_a_command_quietly(code):
    """As `command | head -n 1` and `command 2>&1 | head -n 1`."""
    together = subprocess.STDOUT if "stderr" in code else subprocess.PIPE
    process = subprocess.Popen(script(code), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=together)
    assert process.stdin is not None and process.stdout is not None
    if "flush" in code or "for n" in code:
        process.stdout.readline()
    process.stdout.close()
    process.stdin.close()
    told = process.stderr.read() if process.stderr else b""
    if process.stderr:
        process.stderr.close()
    assert (process.wait(), told) == (141, b"")


def test_another_broken_pipe_keeps_its_traceback():
    code = "def work(): r, w = os.pipe(); os.close(r); os.write(w, b'x')\nrun_command(work)"
    done = subprocess.run(script(code), capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" in done.stderr and "BrokenPipeError" in done.stderr


NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT", "MASTER_ADDR")


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, Launch(0, 1, 0)),
        ({"LOCAL_RANK": "3"}, Launch(0, 1, 0)),
        ({"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0"}, Launch(0, 1, 0)),
        (dict(zip(NAMES, ("5", "8", "1", "29500", "host"), strict=True)), Launch(5, 8, 1)),
        ({"WORLD_SIZE": "2"}, None),
        ({"WORLD_SIZE": "2", "LOCAL_RANK": "0"}, None),
        ({"WORLD_SIZE": "two"}, None),
        (dict(zip(NAMES, ("2", "2", "0", "29500", "host"), strict=True)), None),
        (dict(zip(NAMES, ("0", "2", "0", "port", "host"), strict=True)), None),
    ],
)
def test_variables_of_a_launcher_are_whole_or_told_with_the_line_to_type(monkeypatch, variables, expected):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if expected is not None:
        assert launch() == expected
        return
    with pytest.raises(ConfigError) as caught, processes():
        pass
    assert all(f"{name}={value}" in str(caught.value) for name, value in variables.items())
    assert {*str(caught.value).partition("unset ")[2].split()} == {*variables} and "torchrun" in str(caught.value)
