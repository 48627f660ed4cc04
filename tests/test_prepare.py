"""Before the first step: which cases are held out; after the last: how many pairs to export."""

import dataclasses
import json

import pytest
from small_runs import tiny_run, write_pictures

from jdm.cli.train import affordable_count
from jdm.data.raw_dataset import read_dataset
from jdm.train.prepare import training_and_held_out


def grouped(real, groups: dict[str, str]):
    """The dataset, with patients as a conversion records them."""
    entries = [{"split": "train", "case": case, "group": group} for case, group in groups.items()]
    (real.folder / "conversion.json").write_text(json.dumps({"entries": entries}))
    return read_dataset(real.folder)


@pytest.mark.parametrize(("patients", "held_out"), [(12, 1), (4, 3), (2, 6), (1, 0)])
def test_fold_all_holds_out_whole_patients(nnunet_folders, patients, held_out):
    real = write_pictures(nnunet_folders["nnUNet_raw"], cases=12, shape=(8, 8))
    real = grouped(real, {case: f"p{number % patients}" for number, case in enumerate(real.cases)})
    training, kept = training_and_held_out(real, "all")
    group_of = {case: number % patients for number, case in enumerate(real.cases)}
    assert sorted([*training, *kept]) == list(real.cases) and len(kept) == held_out
    assert not {group_of[case] for case in training} & {group_of[case] for case in kept}
    assert training_and_held_out(real, "all") == (training, kept)


def test_without_patients_a_tenth_is_held_out(nnunet_folders):
    real = write_pictures(nnunet_folders["nnUNet_raw"], cases=20, shape=(8, 8))
    training, kept = training_and_held_out(real, "all")
    assert len(training) == 18 and len(kept) == 2 and not {*training} & {*kept}


@pytest.mark.parametrize(
    ("seconds_per_step", "count"),  # a pair takes 19 evaluations of a third of a sixteenth of a step: about 0.4 steps
    [(1e-6, 1000), (1.0, 1000), (10.0, 100), (10_000.0, 1)],
)
def test_the_export_that_is_suggested_fits_ten_minutes(nnunet_folders, seconds_per_step, count):
    run = tiny_run(write_pictures(nnunet_folders["nnUNet_raw"], cases=3), train={"steps": 1})
    metadata = {**run.checkpoint.metadata, "step": 100, "minutes": 100 * seconds_per_step / 60}
    config = dataclasses.replace(run.config, train=dataclasses.replace(run.config.train, batch_size=16))
    found, minutes = affordable_count(dataclasses.replace(run.checkpoint, config=config, metadata=metadata))
    assert found == count
    assert minutes == pytest.approx(max(1, count * 19 / 48 * seconds_per_step / 60), rel=1e-3)
