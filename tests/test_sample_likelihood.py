"""jdm-sample likelihood: the closed form of Gaussian data, and a miniature."""

import csv
import json
import math

import numpy as np
import pytest
from closed_forms import MEAN, STD, gaussian
from export_runs import THESIS
from small_runs import config_of, tiny_run, write_pictures

import jdm
from jdm.data.codec import PairCodec
from jdm.data.pairs import planned_arrays
from jdm.data.raw_dataset import read_case
from jdm.errors import DataError
from jdm.sample.likelihood import Bits, bin_widths, chosen_cases, measure_bits, summary
from jdm.train.checkpoint import Checkpoint


@pytest.fixture(scope="module")
def run(module_folders):
    return tiny_run(write_pictures(module_folders["nnUNet_raw"]), train={"steps": 1})


def asked(**changes) -> jdm.LikelihoodRequest:
    return jdm.LikelihoodRequest("21", "all", **{"samples": 1, "tolerance": 0.1, "seed": 3, **changes})


def measured(out, **changes) -> list[dict[str, str]]:
    """The rows of the table."""
    jdm.sample(asked(out=out, **changes))
    with (out / "bits_per_dim.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_gaussian_data_has_the_bits_of_its_density(run, tmp_path, monkeypatch):
    monkeypatch.setattr(Checkpoint, "denoiser", lambda *_: gaussian)
    rows = measured(tmp_path / "out", tolerance=1e-5, samples=2)
    assert [(row["case"], row["part"], row["crop"]) for row in rows] == [
        ("case_4", "held-out", "0"), ("case_4", "held-out", "1"), ("case_0", "seen", "0"), ("case_0", "seen", "1"),
    ]  # fmt: skip
    variance, codec = STD**2 + run.config.noise.sigma_min**2, PairCodec(run.config)
    for row in rows:
        image = codec.encode(*planned_arrays(read_case(run.real(), row["case"]), run.config))[:1]
        nats = 0.5 * (((image - MEAN) ** 2).mean() / variance + math.log(2 * math.pi * variance))
        # The grey levels are spread over their bins, which moves the square a little.
        assert float(row["bits_per_dim"]) == pytest.approx((nats - math.log(2 / 255)) / math.log(2), abs=0.02)


def test_seen_and_held_out_cases_are_measured_and_written(run, tmp_path):
    request = asked(cases=("case_4", "case_0"))
    count, line = measure_bits(run, request, tmp_path / "a", "cpu")
    assert (count, line.replace("/a/", "/b/")) == measure_bits(run, request, tmp_path / "b", "cpu")
    rows = measured(tmp_path / "c", cases=("case_4", "case_0"))
    assert [(row["case"], row["part"]) for row in rows] == [("case_4", "held-out"), ("case_0", "seen")]
    record = json.loads((tmp_path / "c" / "samples.json").read_text())
    means = record["bits_per_dim"]
    assert means["held-out"]["mean"] == pytest.approx(float(rows[0]["bits_per_dim"]), abs=1e-6)
    assert record["counted"] == "image given its mask" and record["probes"] == 1 and record["seed"] == 3
    assert f"{means['seen']['mean']:.3f}" in line and 0 < means["seen"]["mean"] < 20
    assert measured(tmp_path / "d", cases=("case_4", "case_0"), probes=2) != rows
    assert chosen_cases(run.checkpoint, asked()) == ["case_4", "case_0"]
    with pytest.raises(DataError, match="'x'"):
        measured(tmp_path / "e", cases=("x",))
    assert not (tmp_path / "e").exists()


@pytest.mark.parametrize(
    ("changes", "widths"),
    [
        ({}, [2 / 255, 0]),
        ({"facts": {"low": [-1000.0], "high": [1000.0], "dtype": "int16"}}, [0.001, 0]),
        ({"facts": {"low": [-1.5], "high": [7.0], "dtype": "float32"}}, [2 / 255, 0]),
        ({"facts": {"zero_border": True}}, [1.9 / 255, 0]),
        (THESIS, [2 / 255, 2 / 255]),
    ],
)
def test_levels_are_counted_as_far_apart_as_they_are_encoded(changes, widths):
    config = config_of(**changes)
    assert bin_widths(config) == pytest.approx(widths)
    if config.facts.dtype != "float32":
        first, second = PairCodec(config).encode(np.array([[[1, 2]]]), np.zeros((1, 2), int))[0, 0]
        assert second - first == pytest.approx(widths[0], rel=1e-3)


def test_a_part_is_the_mean_of_its_cases():
    rows = [Bits("a", "seen", 0, 1.0), Bits("a", "seen", 1, 3.0), Bits("b", "seen", 0, 4.0)]
    assert summary([*rows, Bits("c", "held-out", 0, 9.0)]) == {
        "seen": {"cases": 2, "mean": 3.0, "standard_error": pytest.approx(math.sqrt(2) / math.sqrt(2))},
        "held-out": {"cases": 1, "mean": 9.0, "standard_error": 0.0},
    }
