"""Export: the same bytes however and wherever it is run, of the real dataset's kind; what cannot be done is refused."""

import json
import shutil

import numpy as np
import pytest
from export_runs import REQUEST, THESIS, asked, contents, elsewhere, exported, manifest, visible, with_config
from small_runs import tiny_run, write_pictures

import jdm
from jdm.data.raw_dataset import check_dataset, open_dataset, read_case
from jdm.draw.seeds import case_seed
from jdm.errors import ConfigError, DataError
from jdm.export import dataset
from jdm.export.amount import order_of

LINE = ("--id", 521, "--count", 3, "--steps", 8, "--margin", 100, "--batch-size", 2, "--anyway")


def test_repeated_resumed_and_sharded_exports_are_the_same_bytes(real, run, monkeypatch):
    first = exported()
    assert sorted(first) == sorted(
        [f"imagesTr/syn_{i:06d}_0000.png" for i in range(5)]
        + [f"labelsTr/syn_{i:06d}.png" for i in range(5)]
        + ["audit.json", "audit.md", "dataset.json", "manifest.jsonl", "provenance.json"]
    )
    assert exported() == first

    cases = [f"syn_{i:06d}" for i in range(5)]
    write_case, written = dataset.write_case, []

    def dies_once(folder, pair, *rest, **named):
        written.append(pair.case_id)
        if written == cases[:4]:  # in the middle of the second batch
            raise KeyboardInterrupt
        write_case(folder, pair, *rest, **named)

    monkeypatch.setattr(dataset, "write_case", dies_once)
    with pytest.raises(KeyboardInterrupt):
        exported()
    written.clear()
    assert exported() == first
    assert written == cases[2:]  # the first batch was kept

    for shards in (2, 3):
        shutil.rmtree(real.folder.parent / "Dataset521_Stripes_syn")
        done = [jdm.export(asked(shard=f"{index}/{shards}")) for index in range(shards)]
        assert [one.finished for one in done] == [False] * (shards - 1) + [True]
        assert contents(done[-1].folder) == first
    assert visible(real.folder.parent) == [real.name, "Dataset521_Stripes_syn"]
    other = exported(seed=5)
    assert all(other[name] != first[name] for name in first if name.startswith("images"))


@pytest.mark.parametrize(
    ("kind", "plan"),
    [
        ({}, {}),
        ({}, {"data": {"whole": False, "patch_size": [8, 8], "canvas_size": [14, 20]}}),
        ({"shape": (4, 12, 10), "dtype": "int16", "spacing": (3.0, 1.0, 1.5)}, {}),
    ],
    ids=["images", "patches", "volumes"],
)
def test_the_folder_of_a_run_alone_gives_the_same_bytes(nnunet_folders, tmp_path, monkeypatch, typed, kind, plan):
    real = write_pictures(nnunet_folders["nnUNet_raw"], **kind)
    run = tiny_run(real, train={"steps": 1}, **plan)
    at_home = exported(asked(count=3, steps=8, seed=0, no_audit=True))  # which needs the real cases
    there = elsewhere(run, tmp_path / "elsewhere", monkeypatch)
    for folder in nnunet_folders.values():
        shutil.rmtree(folder)
    for words in ((there.folder,), (21, "all"), (real.name, "all")):
        status, _, told = typed("jdm-export", *words, *LINE, "--no-audit")
        assert status == 0, told
        made = tmp_path / "elsewhere" / "raw" / "Dataset521_Stripes_syn"
        assert contents(made) == at_home
        shutil.rmtree(made)


def test_the_dataset_is_the_real_ones_kind_and_says_where_it_comes_from(real, run):
    records = manifest(exported())
    synthetic, checkpoint = open_dataset("Stripes_syn"), run.checkpoint
    assert (synthetic.labels, synthetic.channel_names, synthetic.file_ending) == (
        real.labels, real.channel_names, real.file_ending,
    )  # fmt: skip
    assert check_dataset(synthetic) == []
    assert [record["case_id"] for record in records] == list(synthetic.cases)
    for index, record in enumerate(records):
        pair = read_case(synthetic, record["case_id"])
        assert pair.image.dtype == np.uint8 and pair.image.shape == (1, 16, 24)
        assert set(np.unique(pair.label)) <= {0, 1}
        assert record["seed"] == case_seed(4, index, record["attempt"])
        assert record["checkpoint_sha256"] == checkpoint.sha256
        assert (record["sampler"], record["steps"]) == ("dpmpp-2m", 3)
        assert record["foreground_share"] == {"class1": pytest.approx(pair.label.mean(), abs=1e-6)}
    provenance = json.loads((synthetic.folder / "provenance.json").read_text())
    generator = provenance["generator"]
    assert generator["training_ids"] == list(real.cases[:-1]) and generator["held_out_ids"] == [real.cases[-1]]
    assert generator["dataset"] == real.name and generator["fold"] == "all"
    assert generator["checkpoint_sha256"] == checkpoint.sha256
    assert provenance["count"] == 5 and provenance["canvas_size"] == [16, 24]
    assert provenance["redrawn"] == sum(record["attempt"] for record in records)


def test_neither_batch_nor_neighbours_change_what_a_case_is(real, run):
    """Up to rounding: the sums inside a batched convolution may be ordered by its size."""
    few, many = exported(count=2), exported(count=4)
    names = [name for name in few if name.startswith(("images", "labels"))]
    assert len(names) == 4 and all(few[name] == many[name] for name in names)
    cases = ("syn_000000", "syn_000001")
    narrow = [read_case(open_dataset(521), case).image.astype(int) for case in cases]
    exported(batch_size=5)
    for case, image in zip(cases, narrow, strict=True):
        assert np.abs(read_case(open_dataset(521), case).image.astype(int) - image).max() <= 1


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"sampler": "ancestral"}, "--sampler"),
        ({"canvas_size": (16, 32)}, "--canvas-size.*whole images"),
        ({"canvas_size": (16,)}, "--canvas-size"),
        ({"count": 0}, "--count"),
        ({"count": None}, "--ratio.*--count"),
        ({"ratio": 2.0}, "--ratio.*--count"),
        ({"steps": 1}, "--steps"),
        ({"batch_size": 0}, "--batch-size"),
        ({"overlap": 1.0}, "--overlap"),
        ({"margin": -1.0}, "--margin"),
        ({"seed": -1}, "--seed"),
        ({"shard": "2/2"}, "--shard.*2/2"),
        ({"shard": "one"}, "--shard.*one"),
        ({"dataset": "22"}, "22.*jdm-train 22 all.*jdm_results"),
        ({"dataset": "nowhere", "fold": ""}, "nowhere.*checkpoint.safetensors"),
    ],
)
def test_what_cannot_be_sampled_is_refused_before_anything_is_written(real, run, change, names):
    with pytest.raises(ConfigError, match=names) as error:
        jdm.export(asked(**change))
    assert "\n" not in str(error.value)
    assert [path.name for path in real.folder.parent.iterdir()] == [real.name]


def test_a_canvas_holds_the_patch_and_ancestral_sampling_is_the_default_at_that_size_only(run):
    assert order_of(run.checkpoint, REQUEST).way.sampler == "dpmpp-2m"
    thesis = with_config(run, {**THESIS, "data": {"whole": False, "canvas_size": [16, 32]}}).checkpoint
    for canvas, sampler in (((16, 24), "ancestral"), ((16, 32), "heun"), (None, "heun")):
        assert order_of(thesis, asked(canvas_size=canvas)).way.sampler == sampler
    for change, names in (
        ({"canvas_size": (16, 16)}, r"--canvas-size.*\(16, 24\)"),
        ({"canvas_size": (16, 24), "sampler": "ancestral", "steps": 1001}, "--steps is 1001.*1000"),
    ):
        with pytest.raises(ConfigError, match=names):
            order_of(thesis, asked(**change))


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ({"channels": 3, "classes": 3}, r"channel_names.*labels\.class2"),
        ({"cases": 3}, "case_3"),
        (None, r"case_2\.png"),
    ],
    ids=["another kind", "without a training case", "damaged"],
)
def test_a_real_dataset_that_is_not_the_one_trained_on_is_refused(real, run, kind, names):
    if kind is None:
        (real.folder / "labelsTr" / "case_2.png").unlink()
    else:
        shutil.rmtree(real.folder)
        write_pictures(real.folder.parent, **kind)
    with pytest.raises((ConfigError, DataError), match=names) as error:
        jdm.export(REQUEST)
    assert "\n" not in str(error.value) and visible(real.folder.parent) == [real.name]


@pytest.mark.parametrize("shape", [(16, 24), (4, 12, 10)])
def test_nnunets_own_integrity_check_accepts_the_output(nnunet_folders, shape, capsys):
    from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity

    kind = {"channels": 3} if len(shape) == 2 else {"channels": 2, "dtype": "int16"}
    tiny_run(write_pictures(nnunet_folders["nnUNet_raw"], cases=3, shape=shape, **kind), train={"steps": 1})
    verify_dataset_integrity(str(jdm.export(asked(count=2)).folder), num_processes=1)
    assert "Error" not in capsys.readouterr().out


def test_the_command_estimates_exports_and_lets_late_shards_go(real, run, typed):
    line = ("jdm-export", 21, "all", *LINE)
    status, printed, _ = typed(*line, "--dry-run")
    assert status == 0 and all(part in printed for part in ("3 pairs of 16x24", "dpmpp-2m, 8 steps", "1 minute"))
    assert [path.name for path in real.folder.parent.iterdir()] == [real.name]
    status, printed, told = typed(*line, "--canvas-size", 32, 32)
    assert status == 2 and told.count("\n") == 1 and "--canvas-size" in told
    assert "shard 1/2 is done" in typed(*line, "--shard", "1/2")[1]
    assert "3 pairs in" in typed(*line, "--shard", "0/2")[1]
    status, printed, _ = typed(*line, "--shard", "1/2")
    assert status == 0 and "already" in printed
    status, _, told = typed(*line)
    assert status == 2 and "--overwrite" in told


def test_under_torchrun_each_process_makes_its_shard(real, run, typed, monkeypatch):
    whole = exported(asked(count=3, steps=8, seed=0))
    shutil.rmtree(real.folder.parent / "Dataset521_Stripes_syn")
    for name, value in (("LOCAL_RANK", "0"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "here"), ("MASTER_PORT", "29500")):
        monkeypatch.setenv(name, value)
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        status, printed, told = typed("jdm-export", 21, "all", *LINE)
        assert status == 0, told
    assert "3 pairs in" in printed
    assert contents(real.folder.parent / "Dataset521_Stripes_syn") == whole
    monkeypatch.delenv("RANK")
    status, _, told = typed("jdm-export", 21, "all", *LINE)
    assert status == 2 and told.count("\n") == 1 and "WORLD_SIZE=2" in told and "unset " in told
