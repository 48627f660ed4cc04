"""Membership inference: a model that memorises is told from one that has learnt nothing; what the audit says of it."""

import json

import numpy as np
import pytest
from export_runs import REQUEST
from nnunet_blobs import write_blobs
from small_runs import prepared, tiny_plan, tiny_run, write_pictures

import jdm
from jdm.draw.run import Run
from jdm.sample.membership import membership
from jdm.train import loop
from jdm.train.checkpoint import run_folder


def test_a_memoriser_tells_its_training_cases_and_a_new_model_does_not(module_folders):
    real = write_blobs(module_folders["nnUNet_raw"] / "Dataset022_Blobs", [f"b{n:02d}" for n in range(16)], side=32)
    trained = list(real.cases[::4])
    found = {}
    for steps in (1, 200):
        train = {"steps": steps, "batch_size": 8, "learning_rate": 5e-3, "ema_decay": 0.9, "warmup_steps": 10}
        config = tiny_plan(real, trained, train={**train, "select": "last"}, augment={"probability": 0.0})
        folder = run_folder(real.name, steps)
        run = Run(folder, loop.train(prepared(real, config, folder, (trained, ["b01"]))))
        found[steps] = membership(run, real, "cpu")
        assert found[steps] == membership(run, real, "cpu")
    assert found[1]["cases"] == {"training": 4, "held_out": 12} and found[1]["held_out_from"] == ["imagesTr"]
    assert found[200]["auc"] > 0.85 and found[200]["low"] > 0.5 > found[1]["low"]


def test_the_audit_names_the_run_or_says_why_it_is_left_out(nnunet_folders, typed):
    real = write_pictures(nnunet_folders["nnUNet_raw"], cases=6)
    run = tiny_run(real, train={"steps": 2})
    made = jdm.export(REQUEST).folder
    entries = [{"case": case, "split": "train", "group": f"p{n // 2}"} for n, case in enumerate(real.cases)]
    (real.folder / "conversion.json").write_text(json.dumps({"entries": entries}))

    def audited(*words):
        status, printed, error = typed("jdm-audit", 521, "--like", 21, *words)
        return status, json.loads((made / "audit.json").read_text())["membership"], printed + error

    status, found, printed = audited()
    assert status == 0 and found["patients"] == {"training": 3, "held_out": 1} and "own loss" in printed
    assert "own loss" in (made / "audit.md").read_text() and "own loss" in (made / "report.html").read_text()
    kept = run.folder.rename(run.folder.with_name("kept"))
    status, found, printed = audited()
    assert status == 0 and "left_out" in found and "--run" in printed
    assert audited("--run", kept)[1]["auc"] == pytest.approx(audited("--run", kept)[1]["auc"])
    tiny_run(real, train={"steps": 3})
    assert "trained again" in audited()[1]["left_out"]
    status, _, error = audited("--run", run.folder)
    assert status == 2 and "expected Dataset521" in error


def test_few_held_out_cases_are_joined_by_the_test_set(nnunet_folders):
    ids = [f"b{n}" for n in range(6)]
    real = write_blobs(nnunet_folders["nnUNet_raw"] / "Dataset023_Blobs", ids, ["t0", "t1", "b0"], side=32)
    found = membership(tiny_run(real, train={"steps": 1}), real, "cpu")
    assert found["held_out_from"] == ["imagesTr", "imagesTs"] and found["cases"]["held_out"] == 4
    assert np.isfinite(found["auc"])
