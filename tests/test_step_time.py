"""scripts/step_time.py: what it times, what it calls a tie, and what it leaves out."""

import json
import sys

import pytest
import torch
from step_time import Options, contestants, main, timers, verdict


@pytest.fixture(autouse=True)
def import_path(monkeypatch):
    """Restores what the script adds to it."""
    monkeypatch.setattr(sys, "path", list(sys.path))


def test_less_than_eight_per_cent_is_a_tie_either_way():
    assert verdict(100, 107.9) == verdict(107.9, 100) == verdict(5, 5) == "tie"
    assert "1.10" in verdict(100, 110) and verdict(100, 110).startswith("jdm")
    assert "1.10" in verdict(110, 100) and verdict(110, 100).endswith("as jdm")


def test_a_training_step_trains_and_an_evaluation_does_not(tmp_path):
    options = Options(tmp_path, peers=(), side=16, batch=1)
    networks, _ = contestants(options)
    network = networks["jdm", "fp32", "its own"]
    tasks, before = timers(network, options), [p.clone() for p in network[0].parameters()]
    tasks["evaluate"]()
    assert all(torch.equal(old, new) for old, new in zip(before, network[0].parameters(), strict=True))
    assert all(p.grad is None for p in network[0].parameters())
    tasks["train"]()
    assert not all(torch.equal(old, new) for old, new in zip(before, network[0].parameters(), strict=True))


def test_libraries_are_timed_in_both_precisions_and_layouts_or_left_out_by_name(tmp_path, monkeypatch, capsys):
    package = tmp_path / "checkout" / "improved_diffusion"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "unet.py").write_text(
        "import torch\n"
        "class UNetModel(torch.nn.Conv2d):\n"
        "    def __init__(self, channels, *_, **__):\n"
        "        super().__init__(channels, channels, 1)\n"
        "    def forward(self, x, steps):\n"
        "        assert len(steps) == len(x)\n"
        "        return super().forward(x)\n"
    )
    monkeypatch.setitem(sys.modules, "monai", None)  # as where it is not installed
    peers = ("improved-diffusion", "MONAI")
    main(Options(tmp_path, peers=peers, folders=(tmp_path / "checkout",), steps=2, side=16, batch=1))
    found = json.loads((tmp_path / "step_time.json").read_text())
    assert found["absent"] == ["MONAI"] and "MONAI is left out" in capsys.readouterr().err
    timed = {(row["library"], row["precision"], row["layout"], row["task"]) for row in found["rows"]}
    assert len(timed) == len(found["rows"]) == 2 * (1 + 2) * 2
    assert all(row["median_ms"] > 0 for row in found["rows"])
    times = {row["library"]: row["median_ms"] for row in found["rows"] if row["task"] == "train"}
    assert times["improved-diffusion"] < times["jdm"]
    text = (tmp_path / "step_time.md").read_text()
    assert text.count("| improved-diffusion |") == 2 and "left out: MONAI" in text and "as fast as jdm" in text
