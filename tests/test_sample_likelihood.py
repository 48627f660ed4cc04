"""jdm-sample --bits-per-dim: the closed form of Gaussian data, and the command on a miniature."""

import csv
import dataclasses
import json
import math
import sys
from types import SimpleNamespace

import pytest
from closed_forms import MEAN, STD, gaussian
from small_runs import changed, tiny_plan, tiny_run, write_pictures

import jdm.cli.sample
from jdm.config.samplers import SamplerSettings
from jdm.data.pairs import PairDataset
from jdm.errors import ConfigError, DataError
from jdm.sample.likelihood import Bits, _measured, bin_widths, chosen_cases, measure_bits, summary
from jdm.sample.request import SampleRequest, check_request

REQUEST = SampleRequest(
    "bits-per-dim",
    sampler="ode",
    samples=1,
    sampling=SamplerSettings(tolerance=0.1),
    cases=("case_4", "case_0"),
    seed=3,
)


def test_gaussian_data_has_the_bits_of_its_density(tmp_path):
    real = write_pictures(tmp_path)
    config = tiny_plan(real, list(real.cases))
    checkpoint = SimpleNamespace(config=config, metadata={"training_ids": ["case_0"]}, denoiser=lambda device: gaussian)
    request = dataclasses.replace(REQUEST, cases=(), sampling=SamplerSettings(tolerance=1e-5), samples=2)
    pairs = PairDataset(real, ["case_4", "case_0"], config)
    rows = _measured(checkpoint, pairs, request, "cpu")
    assert [(row.case, row.part, row.crop) for row in rows] == [
        ("case_4", "held-out", 0), ("case_4", "held-out", 1), ("case_0", "seen", 0), ("case_0", "seen", 1),
    ]  # fmt: skip
    variance = STD**2 + config.noise.sigma_min**2
    for row in rows:
        image = pairs.codec.encode(*pairs._read(row.case))[: config.image_channels]
        squares = ((image - MEAN) ** 2).mean() / variance
        nats = 0.5 * (squares + math.log(2 * math.pi * variance))
        # The grey levels are spread over their bins, which moves the square a little.
        assert row.bits_per_dim == pytest.approx((nats - math.log(2 / 255)) / math.log(2), abs=0.02)


@pytest.fixture(scope="module")
def run(module_folders):
    real = write_pictures(module_folders["nnUNet_raw"])
    return real, tiny_run(real, train={"steps": 1})


def test_seen_and_held_out_cases_are_measured_and_written(run, tmp_path):
    real, checkpoint = run
    line = measure_bits(checkpoint, real, REQUEST, tmp_path / "a")
    with (tmp_path / "a" / "bits_per_dim.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["case"], row["part"]) for row in rows] == [("case_4", "held-out"), ("case_0", "seen")]
    record = json.loads((tmp_path / "a" / "samples.json").read_text())
    means = record["bits_per_dim"]
    assert means["held-out"]["mean"] == pytest.approx(float(rows[0]["bits_per_dim"]), abs=1e-6)
    assert record["counted"] == "image given its mask" and record["probes"] == 1 and record["seed"] == 3
    assert f"{means['seen']['mean']:.3f}" in line and 0 < means["seen"]["mean"] < 20
    assert measure_bits(checkpoint, real, REQUEST, tmp_path / "b") == line
    measure_bits(checkpoint, real, dataclasses.replace(REQUEST, probes=2), tmp_path / "c")
    assert json.loads((tmp_path / "c" / "samples.json").read_text())["bits_per_dim"] != means
    assert chosen_cases(checkpoint, dataclasses.replace(REQUEST, cases=())) == ["case_4", "case_0"]
    with pytest.raises(DataError, match="no training case 'x'"):
        measure_bits(checkpoint, real, dataclasses.replace(REQUEST, cases=("x",)), tmp_path / "d")
    assert not (tmp_path / "d").exists()


def test_what_is_counted():
    def widths(**codec):
        config = changed(plan, {"codec": codec})
        return bin_widths(config)

    from jdm.config.settings import Config

    plan = Config()
    assert widths() == [2 / 255, 0.0]
    assert widths(low=[-1000.0], high=[1000.0], image_dtype="int16") == [0.001, 0.0]
    assert widths(low=[-1.5], high=[7.0], image_dtype="float32") == [2 / 255, 0.0]
    thesis = changed(plan, {"preset": "thesis", "augment": {"probability": 0.0}})
    assert bin_widths(thesis) == [2 / 255, 2 / 255]


def test_a_part_is_the_mean_of_its_cases():
    rows = [
        Bits("a", "seen", 0, 1.0),
        Bits("a", "seen", 1, 3.0),
        Bits("b", "seen", 0, 4.0),
        Bits("c", "held-out", 0, 9.0),
    ]
    assert summary(rows) == {
        "seen": {"cases": 2, "mean": 3.0, "standard_error": pytest.approx(math.sqrt(2) / math.sqrt(2))},
        "held-out": {"cases": 1, "mean": 9.0, "standard_error": 0.0},
    }


def test_wrong_settings_name_their_flag(run, monkeypatch, capsys):
    config = run[1].config
    for changes, flag in (
        ({"probes": 0}, "--probes is 0"), ({"guidance": 2.0}, "--guidance is 2.0"), ({"samples": 0}, "--samples is 0"),
        ({"sampling": SamplerSettings(tolerance=-1.0)}, "--tolerance is -1.0"),
        ({"sampling": SamplerSettings(snr=0.1)}, "--snr is 0.1 with --sampler ode"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=flag):
            check_request(config, dataclasses.replace(REQUEST, **changes))
    for words, problem in (
        (("--bits-per-dim", "--vary", "0.4"), "found --vary and --bits-per-dim"),
        (("--bits-per-dim", "--probes", "0"), "--probes is 0; expected at least 1"),
    ):
        monkeypatch.setattr(sys, "argv", ["jdm-sample", "21", "all", *words])
        with pytest.raises(SystemExit) as stopped:
            jdm.cli.sample.main()
        error = capsys.readouterr().err
        assert stopped.value.code == 2 and problem in error and len(error.splitlines()) == 1
