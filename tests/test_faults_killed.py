"""Faults of processes: killed, stopped, and two at once."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict

import pytest
import torch
from fault_processes import (
    NETWORK,
    REQUEST,
    endless_checkpoints,
    export_words,
    kill_at_random,
    make_export,
    resumed_training,
    tree,
    typed,
)
from small_runs import changed, tiny_plan, tiny_run, write_pictures

from jdm.config.settings import Config, dumps
from jdm.errors import DataError
from jdm.export.pairs import export
from jdm.train.checkpoint import (
    RESUME,
    load_checkpoint,
    load_resume_state,
    run_folder,
    save_checkpoint,
    save_resume_state,
)
from jdm.train.log import read_log
from jdm.train.loop import train


def test_fault_01_kill_in_training(nnunet_folders, tmp_path, host, kills, record_property):
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
    record_property("kills", kills)


def test_fault_02_kill_in_a_checkpoint_write(tmp_path, host, kills, record_property):
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
    record_property("kills", kills)


def test_fault_02_what_a_killed_writer_left_is_removed_and_a_living_one_is_not(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for pid in (gone.pid, os.getppid()):
        (tmp_path / f".{RESUME}.{pid}.tmp").write_bytes(b"half")
    save_resume_state(tmp_path, {"step": 1})
    assert [path.name for path in tmp_path.glob(".*")] == [f".{RESUME}.{os.getppid()}.tmp"]


def test_fault_03_kill_in_an_export(nnunet_folders, host, kills, record_property):
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
    record_property("kills", kills)


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


def test_fault_15_two_trainings_in_one_folder(nnunet_folders, host):
    real = write_pictures(nnunet_folders["nnUNet_raw"])
    words = ["jdm-train", "21", "0", *NETWORK, "--train.checkpoint-every", "5", "--train.steps", "100000"]
    folder, pid = run_folder(real.name, 0), host.start(typed, words)
    waited = time.monotonic() + 100
    while not (folder / RESUME).exists() and time.monotonic() < waited:
        time.sleep(0.05)
    for flag in ("--resume", "--overwrite"):
        status, printed = host.run(typed, ["jdm-train", "21", "0", flag])
        (line,) = [line for line in printed.splitlines() if "error" in line]
        assert status == 2 and f"{folder} is being written by process {pid}; expected no other" in line
    os.kill(pid, signal.SIGTERM)
    status, printed = host.wait(pid)
    assert status == 128 + signal.SIGTERM, printed
    assert load_resume_state(folder)["reached"]["step"] == len(read_log(folder / "log.csv"))
    assert [path.name for path in folder.parent.iterdir()] == [folder.name], "the lock is gone"
