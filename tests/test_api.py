"""The four steps as Python functions, and the README's example of them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from small_runs import write_pictures

import jdm
from jdm.data.raw_dataset import open_dataset
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
    assert len(open_dataset(511).cases) == 3
    assert (checkpoint.run_folder(real.name, "0") / "sampled" / "vary" / "sheet.png").is_file()


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
