"""The four steps as Python functions, and the README's example of them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from small_runs import write_pictures

import jdm
from jdm.config.command import checked
from jdm.data.raw_dataset import open_dataset
from jdm.sample.request import SampleRequest
from jdm.train import checkpoint

ROOT = Path(__file__).resolve().parents[1]
TINY = {
    "network": {"base_channels": 8, "channel_multipliers": [1, 1], "blocks_per_level": 1, "attention_factors": [2],
                "attention_heads": 2},
    "train": {"steps": 2, "batch_size": 2, "precision": "fp32"},
}  # fmt: skip


def test_the_readmes_example_runs(nnunet_folders):
    real = write_pictures(nnunet_folders["nnUNet_raw"], "Dataset011_MoNuSeg", cases=6)
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    for words, fewer in (
        ("budget_minutes=30", f"settings={TINY!r}"), ("count=100", "count=3, steps=2, anyway=True, margin=100.0"),
        ("samples=2", "samples=2, steps=3"),
    ):  # fmt: skip
        assert words in example
        example = example.replace(words, fewer)
    subprocess.run([sys.executable, "-c", example], check=True, capture_output=True)
    assert len(open_dataset(512).cases) == 3
    assert (checkpoint.run_folder(real.name, "1") / "sampled" / "vary" / "sheet.png").is_file()


def test_a_plan_has_a_reason_for_each_decision_and_trains_nothing(nnunet_folders):
    write_pictures(nnunet_folders["nnUNet_raw"])
    found = jdm.plan(jdm.TrainRequest("21", "all", settings={"train": {"seed": 3}}))
    assert found.config.train.seed == 3 and found.config.data.patch_size == (16, 24)
    assert {"network.base_channels", "data.patch_size", "train.steps", "augment.mirror_axes"} <= set(found.reasons)
    assert all(found.reasons.values()) and not list(nnunet_folders["jdm_results"].iterdir())


def test_functions_stay_functions_whatever_is_imported():
    rooms = "jdm.plan.rules, jdm.train.loop, jdm.export.pairs, jdm.sample.modes"
    code = f"import jdm, {rooms}; print(*[callable(getattr(jdm, n)) for n in ('plan', 'train', 'export', 'sample')])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["True"] * 4


@pytest.mark.parametrize("heavy", ["torch", "numpy", "matplotlib", "nnunetv2", "pydantic"])
def test_importing_jdm_loads_nothing_heavy(heavy):
    code = f"import sys, jdm; sys.exit({heavy!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("request_", "found"),
    [
        (jdm.TrainRequest("21", "0", preset="thesys"), "--preset is 'thesys'.*'thesis'"),
        (jdm.TrainRequest("21", "0", settings={"train": 5}), "train is 5"),
        (jdm.TrainRequest("21", "0", settings={"facts": {"low": [0.0]}}), "'facts'"),
        (jdm.TrainRequest("21", "../../x"), r"fold '\.\./\.\./x'"),
        (jdm.TrainRequest("21", "0", dry_run=True), r"dry_run is True.*jdm\.plan"),
        (jdm.ExportRequest("21", "0", id=5, count=3, masks="estimate"), "--masks is 'estimate'.*'estimated'"),
        (jdm.ExportRequest("21", "0", id="x", count=3), "--id is 'x'.*integer"),
        (jdm.ExportRequest("21", "0", id=5, ratio=float("nan")), "--ratio is nan.*finite"),
        (jdm.ExportRequest("21", "0", id=5, count=3, dry_run=True), "dry_run is True"),
        (jdm.VaryRequest("21", "0", cases="case_0"), "--cases is 'case_0'.*tuple"),
        (SampleRequest("21", "0"), "SampleRequest.*VaryRequest"),
    ],
)
def test_a_request_that_cannot_be_is_refused_in_one_line_and_writes_nothing(nnunet_folders, request_, found):
    write_pictures(nnunet_folders["nnUNet_raw"])
    steps = {jdm.TrainRequest: jdm.train, jdm.ExportRequest: jdm.export}
    with pytest.raises(jdm.JdmError, match=found) as error:
        steps.get(type(request_), jdm.sample)(request_)
    assert "\n" not in str(error.value) and not list(nnunet_folders["jdm_results"].glob("*/fold*"))


def test_a_request_takes_what_a_script_has_at_hand(tmp_path):
    taken = checked(jdm.ExportRequest(21, 0, id=5, count=3, canvas_size=[64, 64], guide=str(tmp_path), margin=1))
    assert taken == jdm.ExportRequest("21", "0", id=5, count=3, canvas_size=(64, 64), guide=tmp_path, margin=1.0)
