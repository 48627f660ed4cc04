"""The thirty faults a user meets, provoked for real: killed processes, full disks and memories, damaged and evil files.

`PROVOKED` says where each is tested; those that need a process of their own to be killed or starved are tested here.
"""

import ast
import gzip
import json
import math
import os
import random
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from raw_miniatures import make_dataset, make_pair, with_image
from small_runs import TINY, changed, tiny_plan, tiny_run, write_pictures

from jdm.checkpoint import (
    METADATA,
    RESUME,
    WEIGHTS,
    load_checkpoint,
    load_resume_state,
    run_folder,
    save_checkpoint,
    save_resume_state,
)
from jdm.cli import run_command
from jdm.config import Config, dumps, load
from jdm.data.raw_dataset import FILE_ENDINGS, NATURAL_ENDINGS, check_dataset, open_dataset, read_case, read_dataset
from jdm.data.raw_dataset import write_case as write_raw_case
from jdm.errors import CheckpointError, DataError, ExistsError, TrainingError
from jdm.export import export
from jdm.export_folder import ExportFolder
from jdm.export_request import ExportRequest
from jdm.run_log import read_log
from jdm.training import train

HERE = Path(__file__).resolve().parent
PROVOKED = {
    1: "test_faults.py::test_fault_01_kill_in_training",
    2: "test_faults.py::test_fault_02_kill_in_a_checkpoint_write",
    3: "test_faults.py::test_fault_03_kill_in_an_export",
    4: "test_faults.py::test_fault_04_disk_full_at_a_checkpoint",
    5: "test_faults.py::test_fault_05_disk_full_in_an_export",
    6: "test_checkpoint.py::test_a_damaged_resume_state_falls_back_to_the_one_before_and_says_so",
    7: "test_faults.py::test_fault_07_bit_flip_anywhere_in_a_checkpoint",
    8: "test_checkpoint.py::test_code_in_a_resume_state_is_refused_and_not_run",
    9: "test_training.py::test_another_plan_or_dataset_is_not_resumed",
    10: "test_faults.py::test_fault_10_loss_that_is_not_finite",
    11: "test_faults.py::test_fault_11_out_of_memory",
    12: "test_faults.py::test_fault_12_signal_to_the_command",
    13: "test_raw_layout.py::test_open_by_id_name_and_full_name",
    14: "test_export.py::test_taken_names_are_refused_and_real_data_is_never_overwritten",
    15: "test_faults.py::test_fault_15_two_processes_race_for_one_export",
    16: "test_raw_dataset.py::test_values_outside_the_labels_name_value_file_and_cure",
    17: "test_raw_dataset.py::test_values_outside_the_labels_name_value_file_and_cure",
    18: "test_image_io.py::test_opaque_alpha_is_dropped_and_transparency_refused",
    19: "test_faults.py::test_fault_19_image_and_mask_of_different_size",
    20: "test_image_io.py::test_equal_label_channels_collapse_and_others_are_refused",
    21: "test_image_io.py::test_palette_is_colours_in_an_image_and_indices_in_a_label",
    22: "test_image_io.py::test_nan_and_infinite_pixels_are_refused",
    23: "test_raw_dataset.py::test_every_missing_file_is_listed",
    24: "test_conversion.py::test_stems_that_occur_twice_are_refused",
    25: "test_conversion_rules.py::test_duplicates_across_training_and_test_are_told_and_strictly_refused",
    26: "test_image_io.py::test_truncated_files_never_pass",
    27: "test_raw_layout.py::test_explicit_paths_that_leave_are_refused",
    28: "test_faults.py::test_fault_28_decompression_bomb",
    30: "test_export.py::test_a_model_that_makes_only_degenerate_pairs_is_refused",
}
"""Fault of the list, by its number: the test that provokes it. DICOM (29) is with its converter."""

REQUEST = ExportRequest(
    id=521, name="Stripes_syn", count=8, canvas_size=(16, 24), steps=3, batch_size=2, margin=100.0, seed=4
)
SOME_OR_MANY = pytest.mark.parametrize("kills", [5, pytest.param(50, marks=pytest.mark.slow)])


def test_every_fault_is_provoked_by_a_test_that_is_there():
    assert set(PROVOKED) == set(range(1, 31)) - {29}
    for place in PROVOKED.values():
        file, _, name = place.partition("::")
        tree = ast.parse((HERE / file).read_text(encoding="utf-8"))
        assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, place


# ---------------------------------------------------------------- processes to kill


def serve() -> None:
    """Fork a child for each task that comes on stdin; what takes seconds to import is there already."""
    import matplotlib.figure  # noqa: F401
    import SimpleITK  # noqa: F401
    import torch._dynamo  # which the first optimiser imports  # noqa: F401

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


class Host:
    """A process that forks others; see `serve`."""

    def __init__(self, folder: Path) -> None:
        code = f"import sys; sys.path.insert(0, {str(HERE)!r}); import test_faults; test_faults.serve()"
        self._folder, self._process = folder, subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        self.output: dict[int, Path] = {}
        self._count = 0

    def _ask(self, order: dict) -> int:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def start(self, task: Callable, *arguments: object) -> int:
        """The id of a new process that does the task; this process's nnU-Net folders are its own."""
        self._count += 1
        output = self._folder / f"output_{self._count}"
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


@pytest.fixture(scope="module")
def host(tmp_path_factory) -> Iterator[Host]:
    started = Host(tmp_path_factory.mktemp("host"))
    yield started
    started.close()


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


# ---------------------------------------------------------------- killed


def resumed_training(plan: str, folder: str) -> None:
    dataset = open_dataset(21)
    ids = list(dataset.cases)
    train(load(Path(plan)), dataset, 0, (ids[:-1], ids[-1:]), Path(folder), resume=True)


@SOME_OR_MANY
def test_fault_01_kill_in_training(nnunet_folders, tmp_path, host, kills):
    dataset = write_pictures(nnunet_folders["nnUNet_raw"])
    settings = {"steps": 16, "checkpoint_every": 2, "validate_every": 8, "sample_every": 8}
    plan = tmp_path / "plan.toml"
    plan.write_text(dumps(tiny_plan(dataset, list(dataset.cases[:-1]), train=settings)))
    started = time.monotonic()
    status, printed = host.run(resumed_training, str(plan), str(tmp_path / "whole"))
    seconds = time.monotonic() - started
    assert status == 0, printed
    whole = tree(tmp_path / "whole", "tensorboard", RESUME)  # which hold clock times
    assert len(read_log(tmp_path / "whole" / "log.csv")) == 16

    def equals_the_uninterrupted_run() -> None:
        found = tree(tmp_path / "killed", "tensorboard", RESUME)
        assert {name for name in {*found, *whole} if found.get(name) != whole.get(name)} == set()
        for part in ("network", "ema"):
            states = [load_resume_state(tmp_path / name)[part] for name in ("whole", "killed")]
            assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])

    arguments = [str(plan), str(tmp_path / "killed")]
    for finished in kill_at_random(host, resumed_training, arguments, kills, seconds / 3):
        if finished:
            equals_the_uninterrupted_run()
            shutil.rmtree(tmp_path / "killed")
    status, printed = host.run(resumed_training, *arguments)
    assert status == 0, printed
    equals_the_uninterrupted_run()


def endless_checkpoints(folder: str) -> None:
    """Save one after another, each of its step's weights."""
    state = load_resume_state(Path(folder)) or {"step": 0}
    for step in range(state["step"] + 1, 10**9):
        weights = {"a": torch.full((50_000,), float(step))}
        save_checkpoint(Path(folder), weights, Config(), {"step": step})
        save_resume_state(Path(folder), {"step": step, "weights": weights})


@SOME_OR_MANY
def test_fault_02_kill_in_a_checkpoint_write(tmp_path, host, kills):
    endings = []
    for _ in kill_at_random(host, endless_checkpoints, [str(tmp_path)], kills, 0.4):
        endings.append({path.name for path in tmp_path.iterdir()})
        if not (tmp_path / RESUME).exists() and not (tmp_path / (RESUME + ".previous")).exists():
            continue  # killed before the first was whole
        checkpoint, state = load_checkpoint(tmp_path), load_resume_state(tmp_path)
        assert (checkpoint.weights["a"] == checkpoint.metadata["step"]).all()
        assert (state["weights"]["a"] == state["step"]).all()
        assert 0 <= checkpoint.metadata["step"] - state["step"] <= 1
        assert len(list(tmp_path.glob(".*.tmp"))) <= 3  # of each file the last killed writer's at most
    save_checkpoint(tmp_path, {"a": torch.ones(1)}, Config(), {"step": 1})
    save_resume_state(tmp_path, {"step": 1})
    assert not list(tmp_path.glob(".*.tmp")), endings


def test_fault_02_what_a_killed_writer_left_is_removed_and_a_living_one_is_not(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for pid in (gone.pid, os.getppid()):
        (tmp_path / f".{RESUME}.{pid}.tmp").write_bytes(b"half")
    save_resume_state(tmp_path, {"step": 1})
    assert [path.name for path in tmp_path.glob(".*")] == [f".{RESUME}.{os.getppid()}.tmp"]


def make_export(request: dict, shards: int = 1) -> None:
    request = ExportRequest(**{**request, "canvas_size": tuple(request["canvas_size"])})
    real = open_dataset(21)
    checkpoint = load_checkpoint(run_folder(real.name, "all"))
    for shard in range(shards):
        export(checkpoint, real, request, shard=(shard, shards))


@SOME_OR_MANY
def test_fault_03_kill_in_an_export(nnunet_folders, host, kills):
    real = write_pictures(nnunet_folders["nnUNet_raw"])
    tiny_run(real, train={"steps": 1})
    raw = real.folder.parent
    started = time.monotonic()
    status, printed = host.run(make_export, asdict(REQUEST))
    seconds = time.monotonic() - started
    assert status == 0, printed
    whole = tree(raw / "Dataset521_Stripes_syn")
    assert len(whole) == 2 * REQUEST.count + 3
    shutil.rmtree(raw / "Dataset521_Stripes_syn")
    for _ in kill_at_random(host, make_export, [asdict(REQUEST)], kills, seconds * 0.8):
        if (raw / "Dataset521_Stripes_syn").exists():  # all of it, or nothing
            assert tree(raw / "Dataset521_Stripes_syn") == whole
            shutil.rmtree(raw / "Dataset521_Stripes_syn")
        assert [f.name for f in raw.iterdir() if not f.name.startswith(".")] == [real.name]
    status, printed = host.run(make_export, asdict(REQUEST))
    assert status == 0, printed
    assert tree(raw / "Dataset521_Stripes_syn") == whole
    assert sorted(f.name for f in raw.iterdir()) == [real.name, "Dataset521_Stripes_syn"]


@pytest.mark.parametrize("name", [".request.json.77.tmp", ".manifest.jsonl.77.tmp", ".dataset.json.partial-77"])
def test_fault_03_what_a_killed_export_left_does_not_get_into_the_dataset(nnunet_folders, name):
    real = write_pictures(nnunet_folders["nnUNet_raw"])
    checkpoint = tiny_run(real, train={"steps": 1})
    partial = export(checkpoint, real, REQUEST, shard=(0, 2)).folder
    (partial / name).write_text("half")
    done = export(checkpoint, real, REQUEST, shard=(1, 2))
    assert done.finished and not list(done.folder.rglob(".*"))


def test_fault_03_a_damaged_record_of_a_batch_is_named(nnunet_folders):
    real = write_pictures(nnunet_folders["nnUNet_raw"])
    checkpoint = tiny_run(real, train={"steps": 1})
    partial = export(checkpoint, real, REQUEST, shard=(0, 2)).folder
    marker = partial / "batches" / "000000.json"
    for damage in ("", '[{"case_id": "syn', "{}", "[1]"):
        marker.write_text(damage)
        with pytest.raises(DataError, match=r"000000\.json is damaged.*remove it") as error:
            export(checkpoint, real, REQUEST, shard=(1, 2))
        assert "\n" not in str(error.value)
    marker.unlink()
    assert export(checkpoint, real, REQUEST).finished


@pytest.mark.parametrize(
    "damage", [lambda text: text[:-9], lambda text: text + "7,0.5", lambda text: text[: len(text) // 2], lambda _: ""]
)
def test_fault_01_a_torn_log_keeps_its_whole_rows(nnunet_folders, tmp_path, damage):
    dataset = write_pictures(nnunet_folders["nnUNet_raw"])
    ids = list(dataset.cases[:-1]), list(dataset.cases[-1:])
    config = tiny_plan(dataset, ids[0])
    train(config, dataset, 0, ids, tmp_path / "run")
    log = tmp_path / "run" / "log.csv"
    before = read_log(log)
    log.write_bytes(damage(log.read_bytes().decode()).encode())
    rows = read_log(log)
    assert rows == before[: len(rows)] and len(rows) >= len(before) - 3 - (damage("x") == "") * 9
    longer = changed(config, {"train": {"steps": 6}})
    train(longer, dataset, 0, ids, tmp_path / "run", resume=True)
    steps = [int(row["step"]) for row in read_log(log)]
    assert steps == [*range(1, len(rows) + 1), 5, 6] or (
        len(rows) < 4 and steps[: len(rows)] == [*range(1, len(rows) + 1)]
    )


# ---------------------------------------------------------------- full


@contextmanager
def files_end_at(size: int) -> Iterator[None]:
    """Every write beyond this byte of a file fails, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_fault_04_disk_full_at_a_checkpoint(tmp_path):
    save_checkpoint(tmp_path, {"a": torch.ones(10)}, Config(), {"step": 1})
    save_resume_state(tmp_path, {"step": 1})
    before, big = tree(tmp_path), {"a": torch.zeros(2_000_000)}
    for size in (0, 1, 4096, 1_000_000, 7_999_999):
        for save in (
            lambda: save_checkpoint(tmp_path, big, Config(), {"step": 2}),
            lambda: save_resume_state(tmp_path, {"step": 2, "nested": [big]}),
        ):
            with (
                files_end_at(size),
                pytest.raises(CheckpointError, match=r"cannot write .*; \d+ MiB are free; expected about 8 MiB"),
            ):
                save()
            assert tree(tmp_path) == before


@pytest.mark.parametrize("ending", FILE_ENDINGS)
def test_fault_05_a_write_that_fails_at_any_byte_is_noticed(tmp_path, ending):
    shape = (30, 40) if ending in NATURAL_ENDINGS else (3, 30, 40)
    old, new = (make_pair("a", ending, 1, "uint8", seed, shape) for seed in (0, 1))
    write_raw_case(tmp_path / "whole", new, ending)
    whole = tree(tmp_path / "whole")
    write_raw_case(tmp_path / "case", old, ending)
    sizes = [len(content) for content in whole.values()]
    for size in sorted({0, 1, 100, 352, *range(500, max(sizes), max(sizes) // 15), *(s - 1 for s in sizes), *sizes}):
        with files_end_at(size):
            try:
                write_raw_case(tmp_path / "case", new, ending)
            except (OSError, DataError):
                assert size < max(sizes), "a file that fits was refused"
            else:
                assert size >= max(sizes), f"a file cut at byte {size} passed for whole"
        for name, content in tree(tmp_path / "case").items():
            assert content in (whole[name], tree_of_old(tmp_path, old, ending)[name]), (name, size)
    assert tree(tmp_path / "case") == whole


def tree_of_old(folder: Path, pair, ending: str) -> dict[str, bytes]:
    if not (folder / "old").exists():
        write_raw_case(folder / "old", pair, ending)
    return tree(folder / "old")


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


def export_words(**changes: object) -> list[str]:
    flags = {"id": 521, "count": 6, "steps": 2, "margin": 100, "batch-size": 2, **changes}
    return ["jdm-export", "21", "all", *(word for name, value in flags.items() for word in (f"--{name}", str(value)))]


def test_fault_05_disk_full_in_an_export(nnunet_folders, host):
    real = write_pictures(nnunet_folders["nnUNet_raw"], shape=(64, 96))
    tiny_run(real, train={"steps": 1})
    raw = real.folder.parent
    before = tree(raw)
    status, printed = host.run(typed, export_words(), 1000)
    assert status == 2, printed
    (line,) = [line for line in printed.splitlines() if "error" in line]
    assert re.search(r"jdm-export: error: cannot use .*File too large.*free space.*same command again", line)
    assert [f.name for f in raw.iterdir() if not f.name.startswith(".")] == [real.name]
    assert {name: content for name, content in tree(raw).items() if not name.startswith(".")} == before
    assert not [f for f in raw.rglob("*.tmp")] and not [f for f in raw.rglob("*partial-[0-9]*")]
    status, printed = host.run(typed, export_words())
    assert status == 0, printed
    assert check_dataset(open_dataset(521)) == []


@pytest.mark.parametrize(("slices", "dtype", "channels"), [(1, "uint8", 1), (40, "uint8", 1), (1, "float32", 3)])
def test_fault_05_the_room_for_an_export_is_estimated_first(
    nnunet_folders, tmp_path, monkeypatch, slices, dtype, channels
):
    real = write_pictures(nnunet_folders["nnUNet_raw"])
    checkpoint = tiny_run(real, train={"steps": 1})
    codec = {"image_dtype": dtype, "low": [0.0] * channels, "high": [255.0] * channels}
    checkpoint = replace(checkpoint, config=changed(checkpoint.config, {"codec": codec}))
    folder = ExportFolder(replace(REQUEST, count=50_000, slices=slices), checkpoint, 1, False)
    need = 50_000 * 16 * 24 * slices * (np.dtype(dtype).itemsize * channels + 1)
    usage = shutil.disk_usage(tmp_path)
    for free in (need, need - 1):
        monkeypatch.setattr(shutil, "disk_usage", lambda path, free=free: usage._replace(free=free))
        if free >= need:
            folder._check_disk()
            continue
        with (
            pytest.raises(ExistsError, match=rf"has {free // 2**20} MiB free; expected about {need // 2**20}"),
            folder.shared(),
        ):
            pass
    assert [f.name for f in real.folder.parent.iterdir() if f.is_dir()] == [real.name]


def test_fault_10_loss_that_is_not_finite(nnunet_folders, tmp_path):
    """A learning rate that drives the weights out of the number range; nothing is simulated."""
    dataset = write_pictures(nnunet_folders["nnUNet_raw"])
    ids = list(dataset.cases[:-1]), list(dataset.cases[-1:])
    wild = tiny_plan(dataset, ids[0], train={"steps": 30, "learning_rate": 1e30, "checkpoint_every": 1})
    with pytest.raises(TrainingError, match=r"has the loss .*expected finite.*fp32.*learning-rate") as error:
        train(wild, dataset, 0, ids, tmp_path / "run")
    assert "\n" not in str(error.value)
    state = load_resume_state(tmp_path / "run")
    if state is not None:
        for part in ("network", "ema"):
            assert all(value.isfinite().all() for value in state[part].values())
    if (tmp_path / "run" / WEIGHTS).exists():
        assert all(value.isfinite().all() for value in load_checkpoint(tmp_path / "run").weights.values())


NETWORK = [
    "--network.base-channels", "8", "--network.channel-multipliers", "1", "1", "--network.attention-factors", "2",
    "--network.attention-heads", "2", "--network.blocks-per-level", "1", "--train.precision", "fp32",
]  # fmt: skip


def test_fault_11_out_of_memory(nnunet_folders, host):
    """The machine refuses memory beyond a limit; the batch is too large for it."""
    real = write_pictures(nnunet_folders["nnUNet_raw"])
    words = ["jdm-train", "21", "all", *NETWORK, "--train.steps", "2", "--train.batch-size"]
    status, printed = host.run(typed, [*words, "4096"], None, 2**28)
    assert status == 2, printed[-3000:]
    errors = [line for line in printed.splitlines() if "error:" in line]
    assert len(errors) == 1 and "memory" in errors[0], printed
    folder = run_folder(real.name, "all")
    assert not [f for f in folder.glob("*") if f.name.startswith(("checkpoint", "resume", "."))]
    status, printed = host.run(typed, [*words, "2", "--overwrite"])
    assert status == 0, printed


def test_fault_11_memory_that_python_refuses_is_one_line(capsys):
    def work() -> None:
        np.empty(2**62, np.uint8)

    with pytest.raises(SystemExit) as stopped:
        run_command(work)
    told = capsys.readouterr().err
    assert stopped.value.code == 2 and told.count("\n") == 1 and "memory ran out" in told


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_fault_12_signal_to_the_command(nnunet_folders, host, number):
    real = write_pictures(nnunet_folders["nnUNet_raw"])
    words = ["jdm-train", "21", "0", *NETWORK, "--train.checkpoint-every", "5", "--train.batch-size", "2"]
    folder, pid = run_folder(real.name, 0), host.start(typed, [*words, "--train.steps", "100000"])
    waited = time.monotonic() + 100
    while not (folder / RESUME).exists() and time.monotonic() < waited:
        time.sleep(0.05)
    os.kill(pid, number)
    status, printed = host.wait(pid)
    assert status == 128 + number, printed
    reached = load_resume_state(folder)["reached"]["step"]
    assert reached >= 5 and len(read_log(folder / "log.csv")) == reached
    more = ["jdm-train", "21", "0", "--resume", "--train.steps", str(reached + 2)]
    status, printed = host.run(typed, more)
    assert status == 0 and len(read_log(folder / "log.csv")) == reached + 2, printed


# ---------------------------------------------------------------- raced for


def test_fault_15_two_processes_race_for_one_export(nnunet_folders, host):
    real = write_pictures(nnunet_folders["nnUNet_raw"])
    tiny_run(real, train={"steps": 1})
    raw, first = real.folder.parent, {}
    for pause in (0.0, 0.05, 0.3):
        pids = [host.start(typed, export_words())]
        time.sleep(pause)
        pids.append(host.start(typed, export_words()))
        ends = [host.wait(pid) for pid in pids]
        assert sorted(status for status, _ in ends) == [0, 2], ends
        (won,) = [pid for pid, (status, _) in zip(pids, ends, strict=True) if status == 0]
        (told,) = [printed for status, printed in ends if status == 2]
        assert re.search(rf"error: .*(is being written by process {won};|exists; expected a free name)", told), told
        assert sorted(f.name for f in raw.iterdir()) == [real.name, "Dataset521_Stripes_syn"]
        first = first or tree(raw / "Dataset521_Stripes_syn")
        assert tree(raw / "Dataset521_Stripes_syn") == first
        shutil.rmtree(raw / "Dataset521_Stripes_syn")


# ---------------------------------------------------------------- damaged and evil files


def test_fault_07_bit_flip_anywhere_in_a_checkpoint(tmp_path):
    weights = {"a": torch.arange(6.0), "b": torch.zeros(2, 3)}
    origin = {"dataset": "Dataset001_A", "training_ids": ["case_1", "case_2"], "step": 7}
    save_checkpoint(tmp_path, weights, Config(), origin)
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


def test_fault_07_a_checkpoint_of_before_there_was_a_second_checksum_is_read(tmp_path):
    from safetensors import safe_open
    from safetensors.torch import save_file

    weights = {"a": torch.arange(6.0)}
    save_checkpoint(tmp_path, weights, Config(), {"step": 3})
    with safe_open(str(tmp_path / WEIGHTS), framework="pt") as file:
        described = json.loads(file.metadata()["jdm"])
    header = {"jdm": json.dumps({key: value for key, value in described.items() if key != "description_sha256"})}
    save_file(weights, tmp_path / WEIGHTS, metadata=header)
    assert load_checkpoint(tmp_path).metadata["step"] == 3


def test_fault_19_image_and_mask_of_different_size(tmp_path):
    dataset = with_image(tmp_path, label=np.zeros((7, 6), np.uint8))
    before = tree(tmp_path)
    with pytest.raises(DataError, match=r"a\.png: the label's size is \(7, 6\), the image's \(7, 5\).*never") as error:
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
        with pytest.raises(DataError, match="no training case"):
            read_case(read_dataset(folder), name)


assert TINY.base_channels == 8  # the flags in NETWORK are the same network
