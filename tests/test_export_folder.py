"""Exports by several processes, killed ones and late ones: nothing visible before it is whole, nothing overwritten."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from export_runs import REQUEST, asked, contents, exported, manifest, rewritten, visible

import jdm
from jdm.data.raw_dataset import check_dataset, open_dataset
from jdm.errors import DataError, ExistsError
from jdm.export import dataset
from jdm.export import folder as export_folder
from jdm.export.folder import ExportFolder
from jdm.export.pairs import PairFactory
from jdm.system.locks import held, locked

NAME = "Dataset521_Stripes_syn"


def begun(shards: int = 2) -> Path:
    """The hidden folder of an export of which one shard is done."""
    done = jdm.export(asked(shard=f"0/{shards}"))
    assert not done.finished
    return done.folder


def rest(**changes) -> object:
    """The second of two shards."""
    return jdm.export(asked(shard="1/2", **changes))


def is_whole(raw: Path) -> bool:
    return visible(raw) == ["Dataset021_Stripes", NAME] and check_dataset(open_dataset(521)) == []


def interleaved(monkeypatch, name, act):
    """Have another process act just before this one's next call of a method of its folder."""
    method = getattr(ExportFolder, name)

    def patched(self, *arguments):
        monkeypatch.setattr(ExportFolder, name, method)
        act()
        return method(self, *arguments)

    monkeypatch.setattr(ExportFolder, name, patched)


def test_nothing_is_visible_before_it_is_whole(real, run, monkeypatch):
    raw, write_case, seen = real.folder.parent, dataset.write_case, []

    def watching(*arguments, **named):
        seen.append(visible(raw))
        write_case(*arguments, **named)

    monkeypatch.setattr(dataset, "write_case", watching)
    jdm.export(REQUEST)
    assert seen == [[real.name]] * 5
    assert open_dataset(521).cases == tuple(f"syn_{i:06d}" for i in range(5))


def test_taken_names_are_refused_and_real_data_is_never_overwritten(real, run, nnunet_folders):
    before = contents(real.folder)
    for overwrite in (False, True):
        for name in (None, "Stripes"):
            with pytest.raises(ExistsError, match=f"{real.name}.*--id"):
                jdm.export(asked(id=21, name=name, overwrite=overwrite))
    assert contents(real.folder) == before
    (nnunet_folders["nnUNet_preprocessed"] / "Dataset600_Other").mkdir()
    with pytest.raises(ExistsError, match=r"600.*Dataset600_Other.*--id"):
        jdm.export(asked(id=600))
    first = exported()
    with pytest.raises(ExistsError, match="--overwrite"):
        jdm.export(REQUEST)
    assert contents(real.folder.parent / NAME) == first


def test_a_second_writer_is_refused_and_the_holder_named(real, run):
    partial = begun()
    with (
        held(partial / "shard_1_of_2.lock", partial),
        pytest.raises(ExistsError, match=rf"{partial}.*process {os.getpid()}"),
    ):
        rest()
    assert rest().finished


def test_an_unfinished_export_of_other_settings_is_not_mixed_in(real, run):
    partial = begun()
    before = contents(partial)
    with pytest.raises(ExistsError, match=r"steps: 3, expected 4.*--overwrite") as error:
        jdm.export(asked(steps=4))
    assert "\n" not in str(error.value) and contents(partial) == before
    with held(partial / "shard_1_of_2.lock", partial):  # somebody is at work in it
        before = contents(partial)
        with pytest.raises(ExistsError, match=r"steps: 3, expected 4.*wait.*--id"):
            exported(steps=4)
        assert contents(partial) == before
    records = manifest(exported(steps=4))
    assert len(records) == 5 and all(record["steps"] == 4 for record in records)


def test_an_export_that_failed_before_its_first_batch_does_not_block_the_next(real, run):
    rewritten(run, foreground=[{"size": [16, 24], "least": [0.98, 0.01], "most": [0.99, 0.02]}])
    with pytest.raises(DataError, match="--margin"):
        jdm.export(asked(margin=0.1))
    (partial,) = real.folder.parent.glob(".jdm-partial-*_syn")
    (partial / "imagesTr").mkdir()
    (partial / "imagesTr" / "syn_000099_0000.png").write_bytes(b"of a batch that was not finished")
    assert jdm.export(REQUEST).finished  # with another margin, as the message says
    assert len(open_dataset(521).cases) == 5 and is_whole(real.folder.parent)


def test_all_shards_agree_on_their_number_while_one_is_at_work(real, run):
    partial = begun(shards=3)
    with held(partial / "shard_1_of_3.lock", partial):
        for shard in ("0/1", "0/2"):
            with pytest.raises(ExistsError, match=r"3 shards.*--shard i/3"):
                jdm.export(asked(shard=shard))
    marker = partial / "batches" / "000000.json"
    kept = marker.stat().st_ino
    assert not jdm.export(asked(shard="0/2")).finished  # nobody is: its batches are kept
    assert marker.stat().st_ino == kept
    assert jdm.export(REQUEST).finished


def test_shards_that_finish_together_both_succeed(real, run, monkeypatch):
    """Another shard seals the dataset between this one's last look and its turn."""
    begun()
    others = []
    interleaved(monkeypatch, "seal", lambda: others.append(jdm.export(asked(shard="0/2"))))
    done = rest()
    assert done.finished and not done.found and others[0].finished and done.redrawn == others[0].redrawn
    assert is_whole(real.folder.parent)


def test_nothing_is_sealed_under_a_shard_that_takes_its_last_look(real, run, monkeypatch):
    finished_records, gate, seen = export_folder.finished_records, real.folder.parent / f".jdm-partial-{NAME}.lock", []

    def looking(*arguments):
        with locked(gate, wait=False) as free:
            seen.append(free)
        return finished_records(*arguments)

    monkeypatch.setattr(export_folder, "finished_records", looking)
    assert jdm.export(REQUEST).finished and seen and not any(seen)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_shard_that_starts_after_the_seal_finds_the_dataset(real, run, overwrite):
    begun()
    first = contents(rest().folder)
    late = jdm.export(asked(shard="0/2", overwrite=overwrite))
    assert late.finished and late.found and contents(late.folder) == first
    for request in (asked(shard="0/2", seed=5), REQUEST):  # of other settings; a plain repetition
        with pytest.raises(ExistsError, match="--overwrite"):
            jdm.export(request)
    assert contents(late.folder) == first and is_whole(real.folder.parent)


def test_a_failure_to_seal_is_no_success(real, run, monkeypatch):
    partial = begun()
    (partial / "manifest.jsonl").mkdir()  # which cannot be written then
    with pytest.raises(OSError, match=r"manifest\.jsonl"):
        rest()
    (partial / "manifest.jsonl").rmdir()
    interleaved(monkeypatch, "seal", lambda: shutil.rmtree(partial))
    with pytest.raises(ExistsError, match=f"{partial}.*again"):
        rest()


@pytest.mark.parametrize(("place", "name"), [(shutil, "rmtree"), (Path, "rename")])
def test_a_sealer_that_is_killed_is_continued_without_sampling(real, run, monkeypatch, place, name):
    partial = begun()
    (partial / "imagesTr" / ".partial-1-syn_000001_0000.png").write_bytes(b"of a killed writer")

    def dies(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(place, name, dies)
        rest()
    monkeypatch.setattr(PairFactory, "samples", dies)
    assert rest().finished and is_whole(real.folder.parent)
    assert not list((open_dataset(521).folder / "imagesTr").glob(".*"))


def test_a_batch_is_marked_after_its_files_are_on_disk(real, run, monkeypatch):
    synced, marked, write_text = set(), [], dataset.write_text
    monkeypatch.setattr(export_folder, "sync_to_disk", lambda paths: synced.update(path.name for path in paths))
    monkeypatch.setattr(dataset, "write_text", lambda path, text: (marked.append(set(synced)), write_text(path, text)))
    jdm.export(REQUEST)
    folders = {"imagesTr", "labelsTr", f".jdm-partial-{NAME}"}
    assert marked[0] == {f"syn_00000{i}{end}" for i in (0, 1) for end in ("_0000.png", ".png")} | folders
    assert len(marked) == 3 and "syn_000004.png" in marked[2]


def test_processes_that_work_together_leave_one_whole_dataset(real, run):
    """Real processes, more than there are batches."""
    command = [sys.executable, "-c", "from jdm.cli.export import main; main()", "21", "all", "--id", "521"]
    command += ["--count", "2", "--steps", "2", "--margin", "100", "--batch-size", "1", "--shard"]
    jobs = [
        subprocess.Popen([*command, f"{index}/3"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for index in range(3)
    ]
    printed = [job.communicate(timeout=300)[0] for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0, 0], printed
    assert any("2 pairs in" in text for text in printed)
    assert len(open_dataset(521).cases) == 2 and is_whole(real.folder.parent)
