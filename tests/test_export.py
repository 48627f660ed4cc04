"""Export: the same bytes however it is run, nothing visible before it is whole, nothing overwritten."""

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
import SimpleITK
import torch
from small_runs import changed, tiny_run, write_pictures

import jdm.cli.export
import jdm.export
from jdm.checkpoint import load_checkpoint, run_folder
from jdm.config import CodecConfig
from jdm.data.pairs import PairDataset
from jdm.data.raw_dataset import check_dataset, open_dataset, read_case
from jdm.errors import ConfigError, DataError, ExistsError, TrainingError
from jdm.evaluation.plausible import ForegroundRange, foreground_shares, real_foreground
from jdm.export import case_seed, check_origin, export, restore_zero_border, zero_is_lowest
from jdm.export_folder import ExportFolder
from jdm.export_request import ExportRequest, check_request, default_masks, default_sampler
from jdm.export_size import batches_of, duration, export_seconds, network_calls, slices_of, synthetic_count
from jdm.locks import held, locked

REQUEST = ExportRequest(
    id=521, name="Stripes_syn", count=5, canvas_size=(16, 24), steps=3, batch_size=2, margin=100.0, seed=4
)


@pytest.fixture
def real(nnunet_folders):
    return write_pictures(nnunet_folders["nnUNet_raw"])


@pytest.fixture
def checkpoint(real):
    return tiny_run(real, train={"steps": 2})


def contents(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def exported(checkpoint, real, request=REQUEST, **options) -> dict[str, bytes]:
    """Export anew and return the bytes."""
    done = export(checkpoint, real, request, overwrite=True, **options)
    assert done.finished and done.folder.name == f"Dataset{request.id}_{request.name}"
    return contents(done.folder)


def test_repeated_resumed_and_sharded_exports_are_the_same_bytes(real, checkpoint, monkeypatch):
    raw = real.folder.parent
    first = exported(checkpoint, real)
    assert sorted(first) == sorted(
        [f"imagesTr/syn_{i:06d}_0000.png" for i in range(5)]
        + [f"labelsTr/syn_{i:06d}.png" for i in range(5)]
        + ["dataset.json", "manifest.jsonl", "provenance.json"]
    )
    assert exported(load_checkpoint(run_folder(real.name, "all")), real) == first

    write_case, written = jdm.export.write_case, []

    def dies(folder, pair, *rest):
        written.append(pair.case_id)
        if len(written) == 4:  # in the middle of the second batch
            raise KeyboardInterrupt
        write_case(folder, pair, *rest)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(jdm.export, "write_case", dies)
        export(checkpoint, real, REQUEST, overwrite=True)
    monkeypatch.setattr(
        jdm.export, "write_case", lambda f, pair, *r: (written.append(pair.case_id), write_case(f, pair, *r))
    )
    written.clear()
    assert exported(checkpoint, real) == first
    assert written == [f"syn_{i:06d}" for i in (2, 3, 4)]  # the first batch was kept

    for shards in (2, 3):
        shutil.rmtree(raw / "Dataset521_Stripes_syn")
        for index in range(shards - 1):
            done = export(checkpoint, real, REQUEST, shard=(index, shards), overwrite=True)
            assert not done.finished and done.folder.name.startswith(".")
        assert exported(checkpoint, real, shard=(shards - 1, shards)) == first
    assert sorted(f.name for f in raw.iterdir()) == [real.name, "Dataset521_Stripes_syn"]
    other = exported(checkpoint, real, dataclasses.replace(REQUEST, seed=5))
    assert all(other[name] != first[name] for name in first if name.startswith("images"))


def test_nothing_is_visible_before_it_is_whole(real, checkpoint, monkeypatch):
    raw, write_case, seen = real.folder.parent, jdm.export.write_case, []

    def watching(*arguments):
        seen.append(sorted(f.name for f in raw.iterdir() if not f.name.startswith(".")))
        write_case(*arguments)

    monkeypatch.setattr(jdm.export, "write_case", watching)
    export(checkpoint, real, REQUEST)
    assert len(seen) == 5 and all(names == [real.name] for names in seen)
    assert open_dataset(521).cases == tuple(f"syn_{i:06d}" for i in range(5))


def test_the_dataset_is_the_real_ones_kind_and_says_where_it_comes_from(real, checkpoint):
    export(checkpoint, real, REQUEST)
    synthetic = open_dataset("Stripes_syn")
    assert (synthetic.labels, synthetic.channel_names, synthetic.file_ending) == (
        real.labels, real.channel_names, real.file_ending,
    )  # fmt: skip
    assert check_dataset(synthetic) == []
    records = [json.loads(line) for line in (synthetic.folder / "manifest.jsonl").read_text().splitlines()]
    assert [record["case_id"] for record in records] == list(synthetic.cases)
    for index, record in enumerate(records):
        pair = read_case(synthetic, record["case_id"])
        assert pair.image.dtype == np.uint8 and pair.image.shape == (1, 16, 24)
        assert set(np.unique(pair.label)) <= {0, 1}
        assert record["seed"] == case_seed(4, index, record["attempt"])
        assert record["checkpoint_sha256"] == checkpoint.sha256
        assert (record["sampler"], record["steps"]) == ("heun", 3)
        assert record["foreground_share"] == {"class1": pytest.approx(pair.label.mean(), abs=1e-6)}
    provenance = json.loads((synthetic.folder / "provenance.json").read_text())
    generator = provenance["generator"]
    assert generator["training_ids"] == list(real.cases[:-1]) and generator["held_out_ids"] == [real.cases[-1]]
    assert generator["dataset"] == real.name and generator["fold"] == "all"
    assert generator["checkpoint_sha256"] == checkpoint.sha256
    assert provenance["count"] == 5 and provenance["canvas_size"] == [16, 24]
    assert provenance["redrawn"] == sum(record["attempt"] for record in records)


def test_neither_batch_nor_neighbours_change_what_a_case_is(real, checkpoint):
    """Up to rounding: the sums inside a batched convolution may be ordered by its size."""
    few = exported(checkpoint, real, dataclasses.replace(REQUEST, count=2))
    many = exported(checkpoint, real, dataclasses.replace(REQUEST, count=4))
    names = [name for name in few if name.startswith(("images", "labels"))]
    assert len(names) == 4 and all(few[name] == many[name] for name in names)
    narrow = [read_case(open_dataset(521), case).image.astype(int) for case in ("syn_000000", "syn_000001")]
    export(checkpoint, real, dataclasses.replace(REQUEST, batch_size=5), overwrite=True)
    for case, image in zip(("syn_000000", "syn_000001"), narrow, strict=True):
        assert np.abs(read_case(open_dataset(521), case).image.astype(int) - image).max() <= 1


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
        patch.setattr(jdm.export.PairFactory, "sample", lambda self, seeds: -np.ones((len(seeds), 2, 16, 24)))
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


@pytest.mark.parametrize(
    ("change", "flag"),
    [
        ({"sampler": "ancestral"}, "--sampler"),
        ({"canvas_size": (16, 32)}, "--canvas-size.*whole images"),
        ({"canvas_size": (16,)}, "--canvas-size"),
        ({"count": 0}, "--count"),
        ({"steps": 1}, "--steps"),
        ({"batch_size": 0}, "--batch-size"),
        ({"overlap": 1.0}, "--overlap"),
        ({"margin": -1.0}, "--margin"),
        ({"seed": -1}, "--seed"),
    ],
)
def test_what_cannot_be_sampled_is_refused_before_anything_is_written(real, checkpoint, change, flag):
    with pytest.raises(ConfigError, match=flag) as error:
        export(checkpoint, real, dataclasses.replace(REQUEST, **change))
    assert "\n" not in str(error.value)
    assert [f.name for f in real.folder.parent.iterdir()] == [real.name]


def test_a_canvas_holds_the_patch_and_ancestral_sampling_is_the_default_at_that_size_only(checkpoint):
    patches = {"data": {"whole": False, "canvas_size": [16, 32]}}
    config = changed(checkpoint.config, {"preset": "thesis", "augment": {"probability": 0.0}, **patches})
    with pytest.raises(ConfigError, match=r"at least the training patch \(16, 24\)"):
        check_request(config, dataclasses.replace(REQUEST, canvas_size=(16, 16)))
    assert default_sampler(config, (16, 24)) == "ancestral" and default_sampler(config, (16, 32)) == "heun"
    assert default_sampler(checkpoint.config, (16, 24)) == "heun"
    with pytest.raises(ConfigError, match=r"--steps is 1001; expected 2 to 1000"):
        check_request(config, dataclasses.replace(REQUEST, sampler="ancestral", steps=1001))


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
        patch.setattr(jdm.export_folder, "_describe", lambda *_: Path("absent").read_text())
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
            patch.setattr(jdm.export_folder.shutil, "rmtree", dies)
        else:
            patch.setattr(Path, "rename", dies)
        export(checkpoint, real, REQUEST, shard=(1, 2))
    monkeypatch.setattr(jdm.export.PairFactory, "sample", dies)
    assert export(checkpoint, real, REQUEST, shard=(1, 2)).finished
    assert len(open_dataset(521).cases) == 5
    assert not list((open_dataset(521).folder / "imagesTr").glob(".*"))


def test_a_batch_is_marked_after_its_files_are_on_disk(real, checkpoint, monkeypatch):
    synced, written = [], []
    monkeypatch.setattr(jdm.export, "sync", lambda paths: synced.extend(path.name for path in paths))
    write_text = jdm.export.write_text
    monkeypatch.setattr(jdm.export, "write_text", lambda p, t: (written.append(set(synced)), write_text(p, t)))
    export(checkpoint, real, REQUEST)
    folders = {"imagesTr", "labelsTr", ".jdm-partial-Dataset521_Stripes_syn"}
    assert written[0] == {f"syn_00000{i}{end}" for i in (0, 1) for end in ("_0000.png", ".png")} | folders
    assert len(written) == 3 and "syn_000004.png" in written[2]


def test_a_checkpoint_of_another_dataset_is_refused_with_the_difference(real, checkpoint, nnunet_folders):
    other = write_pictures(nnunet_folders["nnUNet_raw"], "Dataset022_Other", channels=3, classes=3)
    with pytest.raises(
        ConfigError, match=r"dataset: Dataset021_Stripes, expected Dataset022_Other.*labels\.class2"
    ) as error:
        export(checkpoint, other, REQUEST)
    assert "\n" not in str(error.value)
    fewer = dataclasses.replace(real, cases=real.cases[1:])
    with pytest.raises(ConfigError, match=r"training cases \['case_0'\] are not in the dataset"):
        check_origin(checkpoint, fewer)


def test_degenerate_pairs_are_drawn_again_and_counted(real, checkpoint, monkeypatch):
    sample = jdm.export.PairFactory.sample
    empty = {case_seed(4, 1, 0), case_seed(4, 1, 1), case_seed(4, 3, 0)}

    def sometimes_empty(self, seeds):
        samples = sample(self, seeds)
        for index, seed in enumerate(seeds):
            if seed in empty:
                samples[index, 1] = -0.5
        return samples

    monkeypatch.setattr(jdm.export.PairFactory, "sample", sometimes_empty)
    done = export(checkpoint, real, REQUEST)
    records = [json.loads(line) for line in (done.folder / "manifest.jsonl").read_text().splitlines()]
    assert [record["attempt"] for record in records] == [0, 2, 0, 1, 0]
    assert records[1]["seed"] == case_seed(4, 1, 2)
    assert done.redrawn == 3 and json.loads((done.folder / "provenance.json").read_text())["redrawn"] == 3
    assert all(read_case(open_dataset(521), record["case_id"]).label.any() for record in records)


def test_a_model_that_makes_only_degenerate_pairs_is_refused(real, checkpoint, monkeypatch):
    def empty(self, seeds):
        return -np.ones((len(seeds), 2, 16, 24))

    monkeypatch.setattr(jdm.export.PairFactory, "sample", empty)
    with pytest.raises(DataError, match=r"case 0 is degenerate in 20 draws: label 0 fills the sample.*--margin"):
        export(checkpoint, real, REQUEST)
    assert [f.name for f in real.folder.parent.iterdir() if not f.name.startswith(".")] == [real.name]


@pytest.mark.parametrize(
    ("label", "problem"),
    [
        (np.array([0, 0, 0, 1]), None),
        (np.array([0, 0, 1, 1]), None),
        (np.array([0, 0, 0, 0]), "label 0 fills the sample"),
        (np.array([1, 1, 1, 1]), "label 0 is missing"),
        (np.array([0, 1, 1, 1]), "label 0 covers 0.2500, real samples 0.4500 to 0.8000"),
    ],
)
def test_what_is_plausible_is_what_real_samples_hold(label, problem):
    found = ForegroundRange((0.45, 0.2), (0.8, 0.55), margin=0.2).problem(label)
    assert found == problem if problem is None else found.startswith(problem)


def test_real_samples_that_all_hold_the_same_still_leave_room():
    found = ForegroundRange((0.5, 0.5), (0.5, 0.5), margin=0.4)
    assert found.problem((np.arange(100) < 49).astype(np.uint8)) is None
    assert found.problem((np.arange(100) < 40).astype(np.uint8)) is not None


def test_the_real_range_is_measured_on_the_exported_size(real, checkpoint):
    pairs = PairDataset(real, list(real.cases), checkpoint.config)
    whole = real_foreground(pairs, (16, 24), 0.25)
    shares = np.array([foreground_shares(read_case(real, case).label, 2) for case in real.cases])
    np.testing.assert_allclose(whole.least, shares.min(0))
    np.testing.assert_allclose(whole.most, shares.max(0))
    crops = real_foreground(pairs, (8, 8), 0.25)
    assert crops.least[1] < whole.least[1] and crops.most[1] > whole.most[1]


@pytest.mark.parametrize(("ratio", "count"), [(1.0, 5), (2.0, 10), (0.5, 2), (0.3, 2)])
def test_a_ratio_of_whole_images_counts_images(real, checkpoint, ratio, count):
    pairs = PairDataset(real, list(real.cases), checkpoint.config)
    assert synthetic_count(ratio, checkpoint.config, pairs, (16, 24)) == count


def test_a_ratio_of_patches_counts_pixels(real, checkpoint):
    pairs = PairDataset(real, list(real.cases), checkpoint.config)
    config = changed(checkpoint.config, {"data": {"whole": False, "patch_size": [8, 8], "canvas_size": [16, 16]}})
    assert synthetic_count(2.0, config, pairs, (16, 16)) == 2 * 5 * 16 * 24 / 256
    with pytest.raises(ConfigError, match=r"ratio 0\.01 makes 0 pairs"):
        synthetic_count(0.01, config, pairs, (16, 16))


@pytest.mark.parametrize("sampler", ["heun", "dpmpp-2m", "unipc", "ddim"])
def test_a_canvas_larger_than_the_patch_is_filled(real, sampler):
    patches = {"data": {"whole": False, "patch_size": [8, 8], "canvas_size": [14, 20]}}
    checkpoint = tiny_run(real, train={"steps": 1}, **patches)
    request = dataclasses.replace(REQUEST, count=2, canvas_size=(14, 20), sampler=sampler)
    first = exported(checkpoint, real, request)
    pair = read_case(open_dataset(521), "syn_000001")
    assert pair.image.shape == (1, 14, 20) and pair.image.std() > 10
    assert exported(checkpoint, real, request) == first


def test_estimated_masks_leave_images_alone_and_are_not_for_the_thesis_preset(real, checkpoint):
    factory, plain = (
        jdm.export.PairFactory(checkpoint, real, dataclasses.replace(REQUEST, masks=masks), "cpu")
        for masks in ("estimated", "sampled")
    )
    estimated, sampled = factory.sample([1, 2]), plain.sample([1, 2])
    assert np.array_equal(estimated[:, 0], sampled[:, 0]) and not np.array_equal(estimated[:, 1], sampled[:, 1])
    assert np.array_equal(estimated, factory.sample([1, 2]))
    thesis = changed(checkpoint.config, {"preset": "thesis", "augment": {"probability": 0.0}})
    with pytest.raises(ConfigError, match="--masks is 'estimated' for preset 'thesis'"):
        check_request(thesis, dataclasses.replace(REQUEST, masks="estimated"))
    assert (default_masks(thesis, ""), default_masks(checkpoint.config, "")) == ("sampled", "estimated")


def test_the_thesis_preset_is_exported_by_its_own_sampler_and_others(real):
    checkpoint = tiny_run(real, preset="thesis", train={"steps": 1}, augment={"probability": 0.0})
    for sampler in ("ancestral", "heun", "ddim"):
        first = exported(checkpoint, real, dataclasses.replace(REQUEST, count=2, sampler=sampler, steps=4))
        assert exported(checkpoint, real, dataclasses.replace(REQUEST, count=2, sampler=sampler, steps=4)) == first


def test_a_network_of_v_that_ends_in_pure_noise_is_trained_and_exported(real):
    zero = {"prediction": "v", "zero_terminal_snr": True, "steps": 50}
    checkpoint = tiny_run(real, preset="thesis", train={"steps": 1}, augment={"probability": 0.0}, diffusion=zero)
    for sampler, calls in (("ancestral", 4), ("unipc", 5)):
        request = dataclasses.replace(REQUEST, count=1, sampler=sampler, steps=4)
        factory, made = jdm.export.PairFactory(checkpoint, real, request, "cpu"), []
        factory.drawer.denoiser.register_forward_hook(lambda *_, made=made: made.append(1))
        factory.drawer.denoiser.network.register_forward_hook(lambda *_, made=made: made.append(0))
        assert np.isfinite(factory.sample([1])).all()
        assert made.count(0) == calls == network_calls(checkpoint.config, request, [range(1)])


def test_padding_is_cut_to_the_size_of_a_real_image(nnunet_folders):
    real = write_pictures(nnunet_folders["nnUNet_raw"], shape=(15, 21))
    checkpoint = tiny_run(real, train={"steps": 1})
    assert checkpoint.config.data.patch_size == (16, 24) and checkpoint.config.data.whole
    export(checkpoint, real, REQUEST)
    assert all(read_case(open_dataset(521), f"syn_{i:06d}").image.shape == (1, 15, 21) for i in range(5))


def test_black_borders_become_exact_zeros_and_black_insides_do_not():
    encoded = np.full((1, 8, 8), 0.5)
    encoded[:, :2] = -0.97
    encoded[:, 5, 5] = -1.0
    image = np.rint((encoded + 1) * 127.5).astype(np.uint8)
    image[image == 0] = 1
    restored = restore_zero_border(image, encoded)
    assert (restored[0, :2] == 0).all() and restored[0, 5, 5] == 1
    assert np.array_equal(restored[0, 2:], image[0, 2:]) and restored.dtype == np.uint8
    both = np.concatenate([encoded, np.full((1, 8, 8), 0.2)])
    assert (restore_zero_border(np.full((2, 8, 8), 7), both) == 7).all()  # black in every channel or not at all


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [((0.0,), (255.0,), True), ((-5.0,), (1000.0,), True), ((-1000.0,), (900.0,), False), ((3.0,), (255.0,), False),
     ((0.0, -1000.0), (255.0, 900.0), False)],
)  # fmt: skip
def test_borders_are_restored_only_where_stored_zero_is_black(low, high, expected):
    assert zero_is_lowest(CodecConfig(low=low, high=high)) is expected


def test_no_border_is_restored_in_images_whose_zero_is_grey(real, checkpoint, monkeypatch):
    monkeypatch.setattr(jdm.export.PairFactory, "sample", lambda self, seeds: np.full((len(seeds), 2, 16, 24), -0.99))
    for low, lowest in ((0.0, 0), (-200.0, -199)):
        codec = {"low": [low], "high": [low + 255], "zero_border": True, "image_dtype": "int16"}
        other = dataclasses.replace(checkpoint, config=changed(checkpoint.config, {"codec": codec}))
        factory = jdm.export.PairFactory(other, real, REQUEST, "cpu")
        assert np.unique(factory.decoded(0, factory.sample([1])[0])[0]).tolist() == [lowest]


@pytest.mark.parametrize(
    ("change", "windows", "evaluations"),
    [
        ({}, 1, 5),
        ({"masks": "estimated"}, 1, 6),
        ({"sampler": "ddim"}, 1, 3),
        ({"sampler": "unipc"}, 1, 3),
        ({"canvas_size": (16, 48)}, 3, 5),
        ({"canvas_size": (28, 42)}, 4, 5),
    ],
)
def test_the_estimate_counts_the_calls_that_are_made(real, change, windows, evaluations):
    checkpoint = tiny_run(real, train={"steps": 1}, data={"whole": False, "patch_size": [16, 24]})
    request = dataclasses.replace(REQUEST, **change)
    factory, made = jdm.export.PairFactory(checkpoint, real, request, "cpu"), []
    factory.drawer.denoiser.register_forward_hook(lambda *_: made.append(1))
    factory.sample([1, 2])
    assert network_calls(checkpoint.config, request, [range(2)]) == len(made) == windows * evaluations
    assert network_calls(checkpoint.config, request, batches_of(request)) == evaluations * (
        2 * windows + -(-windows // 2)
    )


def test_the_estimate_is_one_timed_call_times_their_number(real, checkpoint, monkeypatch, capsys):
    times, seen, batches = iter([0.0, 9.0, 10.0, 12.0]), [], batches_of(REQUEST)
    with monkeypatch.context() as patch:
        patch.setattr(jdm.export_size.time, "monotonic", lambda: next(times))
        seconds = export_seconds(
            lambda x, sigma: seen.append((tuple(x.shape), tuple(sigma.shape))),
            checkpoint.config,
            REQUEST,
            batches,
            "cpu",
        )
    assert seen == [((2, 2, 16, 24), (2, 2))] * 2 and seconds == 2.0 * 3 * 5
    assert duration(1) == "about 1 minute on this machine"
    assert duration(1800) == "about 30 minutes on this machine"
    assert all(cure in duration(1900) for cure in ("about 32", "--canvas-size", "dpmpp-2m", "--ratio"))
    export(checkpoint, real, REQUEST)
    assert "about 1 minute on this machine" in capsys.readouterr().out


def test_a_full_memory_names_the_batch_size_of_the_export(real, checkpoint, monkeypatch):
    def full(self, seeds):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(jdm.export.PairFactory, "sample", full)
    with pytest.raises(TrainingError, match=r"out of memory.*run again with --batch-size 1$") as error:
        export(checkpoint, real, REQUEST)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("slices", [1, 5])
def test_volumes_are_exported_as_stacked_slices_in_place(nnunet_folders, slices):
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    raw = nnunet_folders["nnUNet_raw"]
    real = write_pictures(raw, "Dataset031_Volumes", 3, (10, 5, 12), dtype="int16", spacing=(0.8, 3.0, 1.5))
    checkpoint = tiny_run(real, train={"steps": 1})
    assert checkpoint.config.data.slice_axis == 1
    request = dataclasses.replace(
        REQUEST, id=531, name="Volumes_syn", count=2, slices=slices, canvas_size=checkpoint.config.data.canvas_size
    )
    first = exported(checkpoint, real, request)
    synthetic = open_dataset(531)
    pair = read_case(synthetic, "syn_000000")
    assert pair.image.shape == (1, 10, slices, 12) and pair.image.dtype == read_case(real, "case_0").image.dtype
    assert pair.spacing == pytest.approx((0.8, 3.0, 1.5))
    images, properties = SimpleITKIO().read_images([str(f) for f in synthetic.image_files("syn_000000")])
    assert images.shape == (1, 10, slices, 12) and properties["spacing"] == pytest.approx([0.8, 3.0, 1.5])
    segmentation, _ = SimpleITKIO().read_seg(str(synthetic.label_file("syn_000000")))
    assert np.array_equal(segmentation[0], pair.label)
    stored = SimpleITK.ReadImage(str(synthetic.image_files("syn_000000")[0]))
    assert stored.GetSpacing() == pytest.approx((1.5, 3.0, 0.8))
    planes = np.moveaxis(pair.image[0], 1, 0)
    assert len(np.unique(planes.reshape(slices, -1), axis=0)) == slices  # every slice has noise of its own
    assert exported(checkpoint, real, request) == first


def test_synthetic_volumes_have_as_many_slices_as_real_ones(nnunet_folders):
    volumes = write_pictures(nnunet_folders["nnUNet_raw"], "Dataset031_Volumes", 3, (6, 12, 10), dtype="int16")
    checkpoint = tiny_run(volumes, train={"steps": 1})
    pairs = PairDataset(volumes, list(volumes.cases), checkpoint.config)
    assert slices_of(pairs) == 6
    assert synthetic_count(2.0, checkpoint.config, pairs, checkpoint.config.data.canvas_size) == 6
    request = dataclasses.replace(REQUEST, count=6, slices=6, batch_size=16)
    assert [len(batch) for batch in batches_of(request)] == [2, 2, 2]
    assert [len(batch) for batch in batches_of(dataclasses.replace(request, batch_size=4))] == [1] * 6


@pytest.mark.parametrize("shape", [(16, 24), (4, 12, 10)])
def test_nnunets_own_integrity_check_accepts_the_output(nnunet_folders, shape, capsys):
    from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity

    dtype = "uint8" if len(shape) == 2 else "int16"
    real = write_pictures(
        nnunet_folders["nnUNet_raw"], cases=3, shape=shape, channels=2 if len(shape) == 3 else 3, dtype=dtype
    )
    checkpoint = tiny_run(real, train={"steps": 1})
    request = dataclasses.replace(REQUEST, count=2, canvas_size=checkpoint.config.data.canvas_size)
    verify_dataset_integrity(str(export(checkpoint, real, request).folder), num_processes=1)
    assert "Error" not in capsys.readouterr().out


def typed(monkeypatch, capsys, line: str) -> tuple[int, str, str]:
    """Exit status and output of jdm-export, in this process."""
    monkeypatch.setattr(sys, "argv", ["jdm-export", *line.split()])
    status = 0
    try:
        jdm.cli.export.main()
    except SystemExit as stop:
        status = int(stop.code or 0)
    return status, *capsys.readouterr()


def test_the_command_estimates_exports_and_lets_late_shards_go(real, checkpoint, monkeypatch, capsys):
    line = "21 all --id 521 --count 3 --steps 2 --margin 100 --batch-size 2"
    status, printed, _ = typed(monkeypatch, capsys, f"{line} --dry-run")
    assert status == 0 and "3 pairs of 16x24 with heun, 2 steps" in printed and "about 1 minute on this" in printed
    assert [f.name for f in real.folder.parent.iterdir()] == [real.name]
    status, printed, told = typed(monkeypatch, capsys, f"{line} --canvas-size 32 32")
    assert status == 2 and told.count("\n") == 1 and "trains whole images" in told
    assert "shard 1/2 is done" in typed(monkeypatch, capsys, f"{line} --shard 1/2")[1]
    assert "3 pairs in" in typed(monkeypatch, capsys, f"{line} --shard 0/2")[1]
    status, printed, _ = typed(monkeypatch, capsys, f"{line} --shard 1/2")
    assert status == 0 and "already finished, of the same settings and checkpoint" in printed
    status, _, told = typed(monkeypatch, capsys, line)
    assert status == 2 and "--overwrite" in told


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
