"""Faults of full disks, full memories, and numbers that are none."""

import re
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from fault_processes import NETWORK, export_words, tree, typed
from raw_miniatures import make_pair
from small_runs import config_of, prepared, tiny_plan, tiny_run, write_pictures

import jdm
from jdm.cli import run_command
from jdm.data.raw_dataset import FILE_ENDINGS, NATURAL_ENDINGS, check_dataset, open_dataset
from jdm.data.raw_dataset import write_case as write_raw_case
from jdm.errors import CheckpointError, DataError, ExistsError, TrainingError
from jdm.train import loop, objective
from jdm.train.checkpoint import (
    WEIGHTS,
    load_checkpoint,
    load_resume_state,
    run_folder,
    save_checkpoint,
    save_resume_state,
)


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
    save_checkpoint(tmp_path, {"a": torch.ones(10)}, config_of(), {"step": 1})
    save_resume_state(tmp_path, {"step": 1})
    before, big = tree(tmp_path), {"a": torch.zeros(2_000_000)}
    for size in (0, 1, 4096, 1_000_000, 7_999_999):
        for save in (
            lambda: save_checkpoint(tmp_path, big, config_of(), {"step": 2}),
            lambda: save_resume_state(tmp_path, {"step": 2, "nested": [big]}),
        ):
            told = r"\d+ MiB are free.* 8 MiB.*previous.* --resume"
            with files_end_at(size), pytest.raises(CheckpointError, match=told):
                save()
            assert tree(tmp_path) == before


def test_fault_04_disk_full_before_there_is_anything_to_resume(nnunet_folders, host):
    real = write_pictures(nnunet_folders["nnUNet_raw"])
    words = ["jdm-train", "21", "0", *NETWORK, "--train.steps", "2", "--train.batch-size", "2"]
    status, printed = host.run(typed, words, 700)
    told = printed.splitlines()[-1]
    assert status == 2 and re.search(r"cannot write .*(plan\.toml|fingerprint\.json)", told) and "--resume" not in told
    status, printed = host.run(typed, words)
    assert status == 0, printed
    assert "previous file" not in told and load_resume_state(run_folder(real.name, 0)) is not None


@pytest.mark.parametrize("ending", FILE_ENDINGS)
def test_fault_05_a_write_that_fails_at_any_byte_is_noticed(tmp_path, ending):
    shape = (30, 40) if ending in NATURAL_ENDINGS else (3, 30, 40)
    old, new = (make_pair("a", ending, 1, "uint8", seed, shape) for seed in (0, 1))
    write_raw_case(tmp_path / "whole", new, ending)
    whole = tree(tmp_path / "whole")
    write_raw_case(tmp_path / "case", old, ending)
    earlier = tree(tmp_path / "case")
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
            assert content in (whole[name], earlier[name]), (name, size)
    assert tree(tmp_path / "case") == whole


def test_fault_05_disk_full_in_an_export(nnunet_folders, host):
    real = write_pictures(nnunet_folders["nnUNet_raw"], shape=(64, 96))
    tiny_run(real, train={"steps": 1})
    raw = real.folder.parent
    before = tree(raw)
    status, printed = host.run(typed, export_words(), 1000)
    assert status == 2, printed
    (line,) = [line for line in printed.splitlines() if "error" in line]
    assert re.search(r"jdm-export: error: cannot use .*File too large.*free space.*repeat the command", line)
    assert [f.name for f in raw.iterdir() if not f.name.startswith(".")] == [real.name]
    assert {name: content for name, content in tree(raw).items() if not name.startswith(".")} == before
    assert not [f for f in raw.rglob("*.tmp")] and not [f for f in raw.rglob("*partial-[0-9]*")]
    status, printed = host.run(typed, export_words())
    assert status == 0, printed
    assert check_dataset(open_dataset(521)) == []


@pytest.mark.parametrize(
    ("shape", "dtype", "channels"), [((16, 24), "uint8", 1), ((8, 16, 24), "int16", 1), ((1, 16, 24), "float32", 3)]
)
def test_fault_05_the_room_for_an_export_is_estimated_first(nnunet_folders, monkeypatch, shape, dtype, channels):
    real = write_pictures(nnunet_folders["nnUNet_raw"], shape=shape, dtype=dtype, channels=channels)
    run = tiny_run(real, train={"steps": 1})
    slices = shape[0] if len(shape) == 3 else 1
    assert (run.config.facts.slices, run.config.data.slice_axis) == (slices, 0 if len(shape) == 3 else None)
    need = 50_000 * 16 * 24 * slices * (np.dtype(dtype).itemsize * channels + 1)
    usage = shutil.disk_usage(real.folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=need - 1))
    before = tree(real.folder.parent)
    with pytest.raises(ExistsError, match=rf" {(need - 1) // 2**20} MiB .* {need // 2**20} MiB"):
        jdm.export(jdm.ExportRequest("21", "all", id=521, count=50_000, steps=2, margin=100.0, anyway=True))
    assert {name for name in tree(real.folder.parent) if not name.startswith(".")} == {*before}
    assert [f.name for f in real.folder.parent.iterdir() if f.is_dir()] == [real.name]


def test_fault_10_loss_that_is_not_finite(nnunet_folders, tmp_path):
    """A learning rate that drives the weights out of the number range; nothing is simulated."""
    dataset = write_pictures(nnunet_folders["nnUNet_raw"])
    ids = list(dataset.cases[:-1]), list(dataset.cases[-1:])
    wild = tiny_plan(dataset, ids[0], train={"steps": 30, "learning_rate": 1e30})
    with pytest.raises(TrainingError, match=r"step \d+ .*precision fp32.*learning-rate") as error:
        loop.train(prepared(dataset, wild, tmp_path / "run", ids))
    assert "\n" not in str(error.value)
    state = load_resume_state(tmp_path / "run")
    assert state is not None and f"step {state['reached']['step'] + 1} " in str(error.value)
    weights = load_checkpoint(tmp_path / "run").weights if (tmp_path / "run" / WEIGHTS).exists() else {}
    for part in (state["network"], state["ema"], weights):
        assert all(value.isfinite().all() for value in part.values())


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


@pytest.mark.parametrize("part", ["grid", "loss"])
def test_fault_11_memory_that_runs_out_beside_the_steps(nnunet_folders, tmp_path, monkeypatch, part):
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    where, name = (loop, "sample_grid") if part == "grid" else (objective.FixedLoss, "__call__")
    monkeypatch.setattr(where, name, full)
    dataset = write_pictures(nnunet_folders["nnUNet_raw"])
    ids = list(dataset.cases[:-1]), list(dataset.cases[-1:])
    with pytest.raises(TrainingError, match=r"memory.* 2:.*--train\.batch-size 1"):
        loop.train(prepared(dataset, tiny_plan(dataset, ids[0]), tmp_path / "run", ids))


def test_fault_11_memory_that_python_refuses_is_one_line(capsys):
    def work() -> None:
        np.empty(2**62, np.uint8)

    with pytest.raises(SystemExit) as stopped:
        run_command(work)
    told = capsys.readouterr().err
    assert stopped.value.code == 2 and told.count("\n") == 1 and "memory ran out" in told
