"""Faults of processes: killed, stopped, and two at once."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time

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
from small_runs import changed, config_of, prepared, tiny_plan, tiny_run, write_pictures

import jdm
from jdm.config.files import to_dict
from jdm.errors import DataError
from jdm.train import loop
from jdm.train.checkpoint import (
    RESUME,
    load_checkpoint,
    load_resume_state,
    run_folder,
    save_checkpoint,
    save_resume_state,
    weights_sha256,
)
from jdm.train.log import read_log

EXPORT = "Dataset521_Stripes_syn"


def test_fault_01_kill_in_training(nnunet_folders, tmp_path, host, kills, record_property):
    dataset = write_pictures(nnunet_folders["nnUNet_raw"])
    settings = {"steps": 16, "validate_every": 8, "sample_every": 8}
    config = to_dict(tiny_plan(dataset, list(dataset.cases[:-1]), train=settings))
    started = time.monotonic()
    status, printed = host.run(resumed_training, config, str(tmp_path / "whole"))
    seconds = time.monotonic() - started
    assert status == 0, printed
    assert len(read_log(tmp_path / "whole" / "log.csv")) == 16

    def without_clocks(folder) -> tuple:
        """Every file, but for clock times."""
        checkpoint, state = load_checkpoint(folder), load_resume_state(folder)
        told = {key: v for key, v in checkpoint.metadata.items() if key not in ("minutes", "description_sha256")}
        weights = [weights_sha256(state[part]) for part in ("network", "ema")]
        return (
            tree(folder, "tensorboard", RESUME, "checkpoint."),
            told,
            weights,
            state["reached"],
            {*tree(folder, "tens")},
        )

    whole, arguments = without_clocks(tmp_path / "whole"), [config, str(tmp_path / "killed")]
    for finished in kill_at_random(host, resumed_training, arguments, kills, seconds / 3):
        if finished:
            assert without_clocks(tmp_path / "killed") == whole
            shutil.rmtree(tmp_path / "killed")
    status, printed = host.run(resumed_training, *arguments)
    assert status == 0, printed
    assert without_clocks(tmp_path / "killed") == whole
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
        assert len(list(tmp_path.glob(".partial-*"))) <= 3  # of each file the last killed writer's at most
    save_checkpoint(tmp_path, {"a": torch.ones(1)}, config_of(), {"step": 1})
    save_resume_state(tmp_path, {"step": 1})
    assert not list(tmp_path.glob(".*")), endings
    record_property("kills", kills)


def test_fault_02_what_a_killed_writer_left_is_removed_and_a_living_one_is_not(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for pid in (gone.pid, os.getppid()):
        (tmp_path / f".partial-{pid}-{RESUME}").write_bytes(b"half")
    save_resume_state(tmp_path, {"step": 1})
    assert [path.name for path in tmp_path.glob(".*")] == [f".partial-{os.getppid()}-{RESUME}"]


def test_fault_03_kill_in_an_export(nnunet_folders, host, kills, record_property):
    real = write_pictures(nnunet_folders["nnUNet_raw"])
    tiny_run(real, train={"steps": 1})
    raw = real.folder.parent
    started = time.monotonic()
    status, printed = host.run(make_export, REQUEST)
    seconds = time.monotonic() - started
    assert status == 0, printed
    whole = tree(raw / EXPORT)
    assert len(whole) == 2 * REQUEST["count"] + 5
    shutil.rmtree(raw / EXPORT)
    for _ in kill_at_random(host, make_export, [REQUEST], kills, seconds * 0.8):
        if (raw / EXPORT).exists():  # all of it, or nothing
            assert tree(raw / EXPORT) == whole
            shutil.rmtree(raw / EXPORT)
        assert [f.name for f in raw.iterdir() if not f.name.startswith(".")] == [real.name]
    status, printed = host.run(make_export, REQUEST)
    assert status == 0, printed
    assert tree(raw / EXPORT) == whole
    assert {f.name for f in raw.iterdir() if f.is_dir()} == {real.name, EXPORT}
    record_property("kills", kills)


def exported(shard: str = "0/1"):
    return jdm.export(jdm.ExportRequest(**REQUEST, shard=shard))


def test_fault_03_what_a_killed_export_left_does_not_get_into_the_dataset(nnunet_folders):
    tiny_run(write_pictures(nnunet_folders["nnUNet_raw"]), train={"steps": 1})
    partial = exported("0/2").folder
    for name in (".partial-77-manifest.jsonl", ".partial-77-dataset.json", "imagesTr/.partial-77-a.png"):
        (partial / name).write_text("half")
    done = exported("1/2")
    assert done.finished and not list(done.folder.rglob(".*"))


def test_fault_03_a_damaged_record_of_a_batch_is_named(nnunet_folders):
    tiny_run(write_pictures(nnunet_folders["nnUNet_raw"]), train={"steps": 1})
    marker = exported("0/2").folder / "batches" / "000000.json"
    for damage in ("", '[{"case_id": "syn', "{}", "[1]"):
        marker.write_text(damage)
        with pytest.raises(DataError, match=r"000000\.json.*remove it") as error:
            exported("1/2")
        assert "\n" not in str(error.value)
    marker.unlink()
    assert exported().finished


@pytest.mark.parametrize(
    ("damage", "kept"),
    [
        (lambda text: text[:-9], 3), (lambda text: text + "7,0.5", 4), (lambda _: "", 0),
        (lambda text: text[: text.index("\n2,") + 3], 1),
    ],
)  # fmt: skip
def test_fault_01_a_torn_log_keeps_its_whole_rows(nnunet_folders, tmp_path, damage, kept):
    dataset = write_pictures(nnunet_folders["nnUNet_raw"])
    ids = list(dataset.cases[:-1]), list(dataset.cases[-1:])
    run = prepared(dataset, tiny_plan(dataset, ids[0]), tmp_path / "run", ids)
    loop.train(run)
    log = tmp_path / "run" / "log.csv"
    before = read_log(log)
    log.write_bytes(damage(log.read_bytes().decode()).encode())
    assert read_log(log) == before[:kept]
    longer = changed(run.config, {"train": {"steps": 6}})
    loop.train(prepared(dataset, longer, tmp_path / "run", ids), resume=True)
    rows = [int(line.split(",")[0]) for line in log.read_text().splitlines()[1:]]
    assert rows == [*range(1, kept + 1), 5, 6]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_fault_12_signal_to_the_command(nnunet_folders, host, number):
    real = write_pictures(nnunet_folders["nnUNet_raw"])
    words = ["jdm-train", "21", "0", *NETWORK, "--train.checkpoint-minutes", "0", "--train.batch-size", "2"]
    folder, pid = run_folder(real.name, 0), host.start(typed, [*words, "--train.steps", "100000"])
    waited = time.monotonic() + 100
    while not (folder / RESUME).exists() and time.monotonic() < waited:
        time.sleep(0.05)
    os.kill(pid, number)
    status, printed = host.wait(pid)
    assert status == 128 + number, printed
    reached = load_resume_state(folder)["reached"]["step"]
    assert reached >= 1 and len(read_log(folder / "log.csv")) == reached
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
        assert re.search(rf"error: .*(process {won};|{EXPORT} exists)", told), told
        assert {f.name for f in raw.iterdir() if f.is_dir()} == {real.name, EXPORT}
        first = first or tree(raw / EXPORT)
        assert tree(raw / EXPORT) == first
        shutil.rmtree(raw / EXPORT)


def test_fault_15_two_trainings_in_one_folder(nnunet_folders, host):
    real = write_pictures(nnunet_folders["nnUNet_raw"])
    words = ["jdm-train", "21", "0", *NETWORK, "--train.checkpoint-minutes", "0", "--train.steps", "100000"]
    folder, pid = run_folder(real.name, 0), host.start(typed, words)
    waited = time.monotonic() + 100
    while not (folder / RESUME).exists() and time.monotonic() < waited:
        time.sleep(0.05)
    for flag in ("--resume", "--overwrite"):
        status, printed = host.run(typed, ["jdm-train", "21", "0", flag])
        (line,) = [line for line in printed.splitlines() if "error" in line]
        assert status == 2 and re.search(rf"{folder} .*process {pid};", line)
    os.kill(pid, signal.SIGTERM)
    status, printed = host.wait(pid)
    assert status == 128 + signal.SIGTERM, printed
    assert load_resume_state(folder)["reached"]["step"] == len(read_log(folder / "log.csv"))
    assert {path.name for path in folder.parent.iterdir()} == {folder.name, f".{folder.name}.lock"}
    status, printed = host.run(typed, ["jdm-train", "21", "0"])
    assert status == 2 and "--resume" in printed, "the lock went with its process"
