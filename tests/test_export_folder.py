"""Exports by several processes, killed ones and late ones: nothing visible before it is whole, nothing overwritten."""

import dataclasses
import fcntl
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from export_runs import REQUEST, contents, exported

import jdm.cli.export
import jdm.export.pairs
from jdm.data.raw_dataset import check_dataset, open_dataset
from jdm.errors import DataError, ExistsError
from jdm.export.folder import ExportFolder
from jdm.export.pairs import export
from jdm.system.locks import held, locked


def test_nothing_is_visible_before_it_is_whole(real, checkpoint, monkeypatch):
    raw, write_case, seen = real.folder.parent, jdm.export.pairs.write_case, []

    def watching(*arguments):
        seen.append(sorted(f.name for f in raw.iterdir() if not f.name.startswith(".")))
        write_case(*arguments)

    monkeypatch.setattr(jdm.export.pairs, "write_case", watching)
    export(checkpoint, real, REQUEST)
    assert len(seen) == 5 and all(names == [real.name] for names in seen)
    assert open_dataset(521).cases == tuple(f"syn_{i:06d}" for i in range(5))


def test_taken_names_are_refused_and_real_data_is_never_overwritten(real, checkpoint, nnunet_folders):
    before = contents(real.folder)
    for overwrite in (False, True):
        with pytest.raises(ExistsError, match=f"id 21 is taken by {real.name}"):
            export(checkpoint, real, dataclasses.replace(REQUEST, id=21), overwrite=overwrite)
        with pytest.raises(ExistsError, match="is a real dataset"):
            itself = dataclasses.replace(REQUEST, id=21, name="Stripes")
            export(checkpoint, real, itself, overwrite=overwrite)
    assert contents(real.folder) == before
    (nnunet_folders["nnUNet_preprocessed"] / "Dataset600_Other").mkdir()
    with pytest.raises(ExistsError, match="id 600 is taken by Dataset600_Other"):
        export(checkpoint, real, dataclasses.replace(REQUEST, id=600))
    first = exported(checkpoint, real)
    with pytest.raises(ExistsError, match="--overwrite"):
        export(checkpoint, real, REQUEST)
    assert contents(real.folder.parent / "Dataset521_Stripes_syn") == first


def begun(checkpoint, real, request=REQUEST, shards=2) -> Path:
    """The hidden folder of an export of which one shard is done."""
    done = export(checkpoint, real, request, shard=(0, shards))
    assert not done.finished
    return done.folder


def failing(checkpoint, real, monkeypatch, request) -> None:
    """An export that dies before its first batch is done."""
    with monkeypatch.context() as patch, pytest.raises(DataError):
        patch.setattr(jdm.export.pairs.PairFactory, "sample", lambda self, seeds: -np.ones((len(seeds), 2, 16, 24)))
        export(checkpoint, real, request)


def test_a_second_writer_is_refused_and_the_holder_named(real, checkpoint):
    partial = begun(checkpoint, real)
    gate = partial.with_name(partial.name + ".lock")
    with (
        locked(gate, fcntl.LOCK_SH),
        held(partial / "shard_1_of_2.lock", partial),
        pytest.raises(ExistsError, match=rf"being written by process {os.getpid()}"),
    ):
        export(checkpoint, real, REQUEST, shard=(1, 2))
    assert export(checkpoint, real, REQUEST, shard=(1, 2)).finished


def test_an_unfinished_export_of_other_settings_is_not_mixed_in(real, checkpoint):
    partial = begun(checkpoint, real)
    other = dataclasses.replace(REQUEST, steps=4)
    before = contents(partial)
    with pytest.raises(ExistsError, match=r"unfinished export.*steps: 3, expected 4.*--overwrite") as error:
        export(checkpoint, real, other)
    assert "\n" not in str(error.value) and contents(partial) == before
    with (
        locked(partial.with_name(partial.name + ".lock"), fcntl.LOCK_SH),  # somebody is at work in it
        pytest.raises(ExistsError, match=r"steps: 3, expected 4 and is being written; wait"),
    ):
        export(checkpoint, real, other, overwrite=True)
    assert contents(partial) == before
    records = (export(checkpoint, real, other, overwrite=True).folder / "manifest.jsonl").read_text().splitlines()
    assert len(records) == 5 and all(json.loads(record)["steps"] == 4 for record in records)


def test_an_export_that_failed_before_its_first_batch_does_not_block_the_next(real, checkpoint, monkeypatch):
    failing(checkpoint, real, monkeypatch, dataclasses.replace(REQUEST, margin=0.1))
    (partial,) = real.folder.parent.glob(".jdm-partial-*_syn")
    (partial / "imagesTr").mkdir()
    (partial / "imagesTr" / "syn_000099_0000.png").write_bytes(b"of a batch that was not finished")
    assert export(checkpoint, real, REQUEST).finished  # with another margin, as the message says
    assert len(open_dataset(521).cases) == 5 and check_dataset(open_dataset(521)) == []
    assert sorted(f.name for f in real.folder.parent.iterdir()) == [real.name, "Dataset521_Stripes_syn"]


def test_all_shards_agree_on_their_number_while_one_is_at_work(real, checkpoint):
    partial = begun(checkpoint, real, shards=3)
    with locked(partial.with_name(partial.name + ".lock"), fcntl.LOCK_SH):
        for shard in ((0, 1), (0, 2)):
            with pytest.raises(ExistsError, match=r"being written in 3 shards; expected \d; give --shard i/3"):
                export(checkpoint, real, REQUEST, shard=shard)
    marker = partial / "batches" / "000000.json"
    kept = marker.stat().st_ino
    assert not export(checkpoint, real, REQUEST, shard=(0, 2)).finished  # nobody is: its batches are kept
    assert marker.stat().st_ino == kept
    assert export(checkpoint, real, REQUEST).finished


def interleaved(monkeypatch, name, act, before: bool):
    """Have another process act just before or after this one's next call of a method of its folder."""
    method = getattr(ExportFolder, name)

    def patched(self, *arguments):
        monkeypatch.setattr(ExportFolder, name, method)
        if before:
            act()
        result = method(self, *arguments)
        if not before:
            act()
        return result

    monkeypatch.setattr(ExportFolder, name, patched)


def test_shards_that_finish_together_both_succeed(real, checkpoint, monkeypatch):
    """Another shard seals the dataset between this one's last look and its turn."""
    begun(checkpoint, real)
    others = []
    interleaved(
        monkeypatch, "seal", lambda: others.append(export(checkpoint, real, REQUEST, shard=(0, 2))), before=True
    )
    done = export(checkpoint, real, REQUEST, shard=(1, 2))
    assert done.finished and not done.found and others[0].finished and done.redrawn == others[0].redrawn
    assert len(open_dataset(521).cases) == 5
    assert sorted(f.name for f in real.folder.parent.iterdir()) == [real.name, "Dataset521_Stripes_syn"]


def test_nothing_is_sealed_under_a_shard_at_work(real, checkpoint, monkeypatch):
    """A shard without work of its own left takes its last look where no other can remove the batches."""
    begun(checkpoint, real)
    records, seen = ExportFolder.records, []

    def looking(self):
        if not seen:  # the first look is in the work's shared lock: a sealer has to wait for it
            with locked(self.gate, fcntl.LOCK_EX | fcntl.LOCK_NB) as alone:
                seen.append(alone)
        return records(self)

    monkeypatch.setattr(ExportFolder, "records", looking)
    assert export(checkpoint, real, REQUEST, shard=(1, 2)).finished and seen == [False]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_shard_that_starts_after_the_seal_finds_the_dataset(real, checkpoint, overwrite):
    begun(checkpoint, real)
    first = contents(export(checkpoint, real, REQUEST, shard=(1, 2)).folder)
    late = export(checkpoint, real, REQUEST, shard=(0, 2), overwrite=overwrite)
    assert late.finished and late.found and contents(late.folder) == first
    assert sorted(f.name for f in real.folder.parent.iterdir()) == [real.name, "Dataset521_Stripes_syn"]
    with pytest.raises(ExistsError, match="--overwrite"):  # of other settings
        export(checkpoint, real, dataclasses.replace(REQUEST, seed=5), shard=(0, 2))
    with pytest.raises(ExistsError, match="--overwrite"):  # a plain repetition
        export(checkpoint, real, REQUEST)
    assert contents(late.folder) == first
    assert sorted(f.name for f in real.folder.parent.iterdir()) == [real.name, "Dataset521_Stripes_syn"]


def test_a_shard_that_starts_while_the_last_one_seals_finds_the_dataset(real, checkpoint, monkeypatch):
    """The seal falls between its first look and its lock."""
    begun(checkpoint, real)
    interleaved(monkeypatch, "_prepare", lambda: export(checkpoint, real, REQUEST, shard=(1, 2)), before=False)
    late = export(checkpoint, real, REQUEST, shard=(0, 2))
    assert late.finished and late.found
    assert sorted(f.name for f in real.folder.parent.iterdir()) == [real.name, "Dataset521_Stripes_syn"]


def test_a_failure_to_seal_is_no_success(real, checkpoint, monkeypatch):
    begun(checkpoint, real)
    with monkeypatch.context() as patch, pytest.raises(FileNotFoundError):
        patch.setattr(jdm.export.folder, "_describe", lambda *_: Path("absent").read_text())
        export(checkpoint, real, REQUEST, shard=(1, 2))
    interleaved(
        monkeypatch, "seal", lambda: shutil.rmtree(next(real.folder.parent.glob(".jdm-partial-*_syn"))), before=True
    )
    with pytest.raises(ExistsError, match="was discarded by another export"):
        export(checkpoint, real, REQUEST, shard=(1, 2))


@pytest.mark.parametrize("dies_at", ["rmtree", "rename"])
def test_a_sealer_that_is_killed_is_continued_without_sampling(real, checkpoint, monkeypatch, dies_at):
    partial = begun(checkpoint, real)
    (partial / "imagesTr" / ".syn_000001_0000.partial-1.png").write_bytes(b"of a killed writer")

    def dies(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        if dies_at == "rmtree":
            patch.setattr(jdm.export.folder.shutil, "rmtree", dies)
        else:
            patch.setattr(Path, "rename", dies)
        export(checkpoint, real, REQUEST, shard=(1, 2))
    monkeypatch.setattr(jdm.export.pairs.PairFactory, "sample", dies)
    assert export(checkpoint, real, REQUEST, shard=(1, 2)).finished
    assert len(open_dataset(521).cases) == 5
    assert not list((open_dataset(521).folder / "imagesTr").glob(".*"))


def test_a_batch_is_marked_after_its_files_are_on_disk(real, checkpoint, monkeypatch):
    synced, written = [], []
    monkeypatch.setattr(jdm.export.pairs, "sync", lambda paths: synced.extend(path.name for path in paths))
    write_text = jdm.export.pairs.write_text
    monkeypatch.setattr(jdm.export.pairs, "write_text", lambda p, t: (written.append(set(synced)), write_text(p, t)))
    export(checkpoint, real, REQUEST)
    folders = {"imagesTr", "labelsTr", ".jdm-partial-Dataset521_Stripes_syn"}
    assert written[0] == {f"syn_00000{i}{end}" for i in (0, 1) for end in ("_0000.png", ".png")} | folders
    assert len(written) == 3 and "syn_000004.png" in written[2]


def test_processes_that_work_together_leave_one_whole_dataset(real, checkpoint):
    """Real processes, more than there are batches."""
    command = [sys.executable, "-c", "import jdm.cli.export; jdm.cli.export.main()", "21", "all", "--id", "521"]
    command += ["--count", "2", "--steps", "2", "--margin", "100", "--batch-size", "1"]
    jobs = [
        subprocess.Popen(
            [*command, "--shard", f"{index}/3"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for index in range(3)
    ]
    printed = [job.communicate(timeout=300)[0] for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0, 0], printed
    assert any("2 pairs in" in text for text in printed)
    assert len(open_dataset(521).cases) == 2
    assert sorted(f.name for f in real.folder.parent.iterdir()) == [real.name, "Dataset521_Stripes_syn"]
