"""Export: the same bytes however it is run, of the real dataset's kind; what cannot be done is refused first."""

import dataclasses
import json
import shutil
import sys

import numpy as np
import pytest
from export_runs import REQUEST, exported
from small_runs import changed, tiny_run, write_pictures

import jdm.cli.export
import jdm.export.pairs
from jdm.data.raw_dataset import check_dataset, open_dataset, read_case
from jdm.errors import ConfigError
from jdm.export.pairs import case_seed, check_origin, export
from jdm.export.request import check_request, default_sampler
from jdm.train.checkpoint import load_checkpoint, run_folder


def test_repeated_resumed_and_sharded_exports_are_the_same_bytes(real, checkpoint, monkeypatch):
    raw = real.folder.parent
    first = exported(checkpoint, real)
    assert sorted(first) == sorted(
        [f"imagesTr/syn_{i:06d}_0000.png" for i in range(5)]
        + [f"labelsTr/syn_{i:06d}.png" for i in range(5)]
        + ["dataset.json", "manifest.jsonl", "provenance.json"]
    )
    assert exported(load_checkpoint(run_folder(real.name, "all")), real) == first

    write_case, written = jdm.export.pairs.write_case, []

    def dies(folder, pair, *rest):
        written.append(pair.case_id)
        if len(written) == 4:  # in the middle of the second batch
            raise KeyboardInterrupt
        write_case(folder, pair, *rest)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(jdm.export.pairs, "write_case", dies)
        export(checkpoint, real, REQUEST, overwrite=True)
    monkeypatch.setattr(
        jdm.export.pairs, "write_case", lambda f, pair, *r: (written.append(pair.case_id), write_case(f, pair, *r))
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
    assert default_sampler(checkpoint.config, (16, 24)) == "heun-stochastic"
    with pytest.raises(ConfigError, match=r"--steps is 1001; expected 2 to 1000"):
        check_request(config, dataclasses.replace(REQUEST, sampler="ancestral", steps=1001))


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
    assert (
        status == 0
        and "3 pairs of 16x24 with heun-stochastic, 2 steps" in printed
        and "about 1 minute on this" in printed
    )
    assert [f.name for f in real.folder.parent.iterdir()] == [real.name]
    status, printed, told = typed(monkeypatch, capsys, f"{line} --canvas-size 32 32")
    assert status == 2 and told.count("\n") == 1 and "trains whole images" in told
    assert "shard 1/2 is done" in typed(monkeypatch, capsys, f"{line} --shard 1/2")[1]
    assert "3 pairs in" in typed(monkeypatch, capsys, f"{line} --shard 0/2")[1]
    status, printed, _ = typed(monkeypatch, capsys, f"{line} --shard 1/2")
    assert status == 0 and "already finished, of the same settings and checkpoint" in printed
    status, _, told = typed(monkeypatch, capsys, line)
    assert status == 2 and "--overwrite" in told
