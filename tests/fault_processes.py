"""Processes that are to be killed or starved, and what they do."""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from small_runs import TINY, config_of, prepared

import jdm
from jdm.config.files import from_dict
from jdm.config.settings import Config
from jdm.data.raw_dataset import open_dataset
from jdm.errors import DataError
from jdm.train import loop
from jdm.train.checkpoint import load_resume_state, save_checkpoint, save_resume_state

HERE = Path(__file__).resolve().parent
REQUEST = {
    "dataset": "21", "fold": "all", "id": 521, "name": "Stripes_syn", "count": 8, "steps": 3, "batch_size": 2,
    "margin": 100.0, "seed": 4, "anyway": True,
}  # fmt: skip
NETWORK = [
    "--network.base-channels", "8", "--network.channel-multipliers", "1", "1", "--network.attention-factors", "2",
    "--network.attention-heads", "2", "--network.blocks-per-level", "1", "--train.precision", "fp32",
]  # fmt: skip
assert TINY.base_channels == 8  # the flags are the same network


def serve() -> None:
    """Fork a child for each task that comes on stdin; what takes seconds to import is there already."""
    import matplotlib.figure  # noqa: F401
    import SimpleITK  # noqa: F401
    import torch._dynamo  # which the first optimiser imports  # noqa: F401

    print(0, flush=True)  # ready: nobody is to time the imports
    for line in sys.stdin:
        order = json.loads(line)
        if order["task"] == "wait":
            print(os.waitstatus_to_exitcode(os.waitpid(order["pid"], 0)[1]), flush=True)
            continue
        pid = os.fork()
        if pid == 0:
            _child(**order)
        print(pid, flush=True)


def _child(task: str, arguments: list, environment: dict[str, str], output: str) -> None:
    status = 99
    try:
        os.environ.update(environment)
        log = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        globals()[task](*arguments)
        status = 0
    except SystemExit as stop:
        status = int(stop.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def resumed_training(config: dict, folder: str) -> None:
    dataset = open_dataset(21)
    ids = list(dataset.cases)
    run = prepared(dataset, from_dict(Config, config), Path(folder), (ids[:-1], ids[-1:]))
    loop.train(run, resume=True)


def endless_checkpoints(folder: str) -> None:
    """Save one after another, each of its step's weights."""
    state = load_resume_state(Path(folder)) or {"step": 0}
    for step in range(state["step"] + 1, 10**9):
        weights = {"a": torch.full((50_000,), float(step))}
        save_checkpoint(Path(folder), weights, config_of(), {"step": step})
        save_resume_state(Path(folder), {"step": step, "weights": weights})


def make_export(request: dict) -> None:
    jdm.export(jdm.ExportRequest(**request))


def typed(words: list[str], file_size: int | None = None, more_memory: int | None = None) -> None:
    """A command, in a process whose files or memory are limited."""
    if file_size is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
    if more_memory is not None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + more_memory
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    sys.argv = words
    if words[0] == "jdm-train":
        from jdm.cli.train import main
    else:
        from jdm.cli.export import main
    main()


def read_starved(path: str) -> None:
    """Read a file that must not need more than a little memory."""
    import nibabel  # noqa: F401
    import SimpleITK  # noqa: F401

    from jdm.data.image_io import read_raster

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        print("read", read_raster(Path(path)).array.shape)
    except DataError as error:
        print("refused", error)
    print("grew", (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)


class Host:
    """A process that forks others; see `serve`."""

    def __init__(self, folder: Path) -> None:
        code = f"import sys; sys.path.insert(0, {str(HERE)!r}); import fault_processes; fault_processes.serve()"
        self._folder, self._process = folder, subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        self.output: dict[int, Path] = {}
        self._count = 0
        self._answer()

    def _answer(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())

    def _ask(self, order: dict) -> int:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def start(self, task: Callable, *arguments: object) -> int:
        """The id of a new process that does the task; this process's nnU-Net folders are its own."""
        self._count += 1
        output = self._folder / f"output_{self._count}"
        output.touch()  # a child may be killed before it opens it
        names = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results", "jdm_results")
        environment = {name: os.environ[name] for name in names if name in os.environ}
        order = {"task": task.__name__, "arguments": arguments, "environment": environment, "output": str(output)}
        pid = self._ask(order)
        self.output[pid] = output
        return pid

    def wait(self, pid: int) -> tuple[int, str]:
        """Exit status, negative for a signal, and what was printed."""
        return self._ask({"task": "wait", "pid": pid}), self.output[pid].read_text()

    def run(self, task: Callable, *arguments: object) -> tuple[int, str]:
        return self.wait(self.start(task, *arguments))

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()


def kill_at_random(host: Host, task: Callable, arguments: list, kills: int, longest: float) -> Iterator[bool]:
    """Kill as many processes at random moments; yields after each end, True where it had finished before."""
    moments, killed = random.Random(kills), 0
    while killed < kills:
        pid = host.start(task, *arguments)
        time.sleep(moments.uniform(0, longest))
        os.kill(pid, signal.SIGKILL)
        status, printed = host.wait(pid)
        assert status in (0, -signal.SIGKILL), printed
        killed += status != 0
        yield status == 0


def tree(folder: Path, *left_out: str) -> dict[str, bytes]:
    files = {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}
    return {name: content for name, content in files.items() if not name.startswith(left_out or ("//",))}


def export_words(**changes: object) -> list[str]:
    flags = {"id": 521, "count": 6, "steps": 2, "margin": 100, "batch-size": 2, **changes}
    return [
        "jdm-export",
        "21",
        "all",
        "--anyway",
        *(word for name, value in flags.items() for word in (f"--{name}", str(value))),
    ]
