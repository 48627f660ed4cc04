"""Quality against evaluations: steps that fit, ties, real sets as the measure, table and plot."""

import dataclasses
import json

import numpy as np
import pytest
from shared import counted, first_draws
from small_runs import tiny_plan, write_pictures
from step_quality import METRICS, Judged, real_scores, sampler_scores, steps_by_evaluations
from step_report import draw_steps, fewest_evaluations, step_table

from jdm.data.pairs import condition_features
from jdm.diffusion.model import build_denoiser
from jdm.draw.run import Run
from jdm.errors import DataError
from jdm.export.amount import Order, order_of
from jdm.export.pairs import PairFactory
from jdm.export.request import ExportRequest
from jdm.train.checkpoint import Checkpoint


@pytest.fixture
def run(tmp_path) -> Run:
    """A network that was never trained."""
    dataset = write_pictures(tmp_path)
    config = tiny_plan(dataset, list(dataset.cases))
    weights = build_denoiser(config, condition_features(2)).state_dict()
    return Run(tmp_path, Checkpoint(config, weights, {"dataset": dataset.name}))


def ordered(run: Run, sampler: str, **values) -> Order:
    return order_of(run.checkpoint, ExportRequest("21", "all", id=22, count=5, sampler=sampler, **values))


def test_steps_are_the_most_that_need_no_more_evaluations(run) -> None:
    wanted = (1, 2, 5, 10, 35)
    found = {s: steps_by_evaluations(run.config, ordered(run, s), wanted) for s in ("heun", "ddim", "ode")}
    assert found["heun"] == {5: 2, 10: 5, 35: 17}  # 2 n evaluations, the mask's outlines among them
    assert found["ddim"] == {5: 4, 10: 9, 35: 34}
    assert list(found["ode"].values()) == [18]  # it chooses its own


@pytest.mark.parametrize(("sampler", "evaluations"), [("heun", 8), ("ddim", 5), ("predictor-corrector", 9)])
def test_evaluations_are_counted_at_the_network_whatever_the_batch(run, sampler: str, evaluations: int) -> None:
    factory = PairFactory(run, ordered(run, sampler, steps=4, batch_size=3), "cpu")
    calls = counted(factory.drawer.denoiser)
    assert [label.shape for _, label in first_draws(factory)] == [(16, 24)] * 5
    assert sum(calls) / 5 == evaluations


def judged(n: int, seed: int, shift: float = 0.0, wrong: int = 2) -> Judged:
    """`n` pairs whose features lie `shift` from normal ones; of 20 pixels a class, `wrong` are missed."""
    rng = np.random.default_rng(seed)
    found, missed = 20 - rng.integers(0, 2 * wrong + 1, (n, 2)), rng.integers(0, 3, (n, 2))
    shares = 0.2 + 0.02 * rng.random((n, 2)) + shift / 10
    overlap = np.stack([found, np.zeros((n, 2), int), missed], 2)
    return Judged(rng.normal(shift, 1, (n, 6)), overlap, shares, np.arange(n) // 4)


TRAINING, OTHER = judged(80, 1), judged(120, 2)


def rows() -> list[dict]:
    good, bad = judged(40, 3), judged(40, 4, shift=1.0, wrong=9)
    keys = ("sampler", "steps", "evaluations", "seconds_per_pair")
    facts = (("heun", 3, 5.0, 0.1), ("heun", 18, 35.0, 0.7), ("ddim", 20, 20.0, 0.4))
    took = [dict(zip(keys, one, strict=True)) for one in facts]
    return sampler_scores(list(zip(took, (bad, good, good), strict=True)), TRAINING, OTHER, ["left", "right"])


def test_equal_rows_tie_and_a_worse_one_does_not() -> None:
    found = rows()
    assert [row["ties"] for row in found] == [[], list(METRICS), list(METRICS)]
    worse, good, fewer = found
    assert fewest_evaluations(found) == fewer and fewest_evaluations([worse]) is None
    assert worse["kernel_distance"]["low"] > good["kernel_distance"]["high"] > 0 > good["kernel_distance"]["low"]
    assert worse["agreement"]["high"] < good["agreement"]["low"]
    assert worse["classes"]["left"]["share_distance"] == pytest.approx(0.1, abs=0.01)
    assert worse["share_distance"]["value"] == pytest.approx(0.1, abs=0.01)
    json.dumps(found, allow_nan=False)


def test_real_sets_of_one_distribution_have_no_distance() -> None:
    found = real_scores(TRAINING, OTHER, 40)
    for name in ("training", "other"):
        value, low, high = found[name]["kernel_distance"]
        assert low < 0 < high and abs(value) < 0.2
        assert found[name]["share_distance"].value < 0.01
    shifted = real_scores(judged(80, 1, shift=0.5), OTHER, 40)
    assert shifted["training"]["kernel_distance"].low > 0
    with pytest.raises(DataError, match="one case"):
        real_scores(TRAINING, dataclasses.replace(OTHER, cases=np.zeros(120)), 40)


def test_rows_of_different_sizes_are_refused() -> None:
    with pytest.raises(DataError, match=r"\[8, 9\]"):
        sampler_scores([({}, judged(n, 1)) for n in (8, 9)], TRAINING, OTHER, ["left", "right"])


def test_what_is_kept_comes_back(tmp_path) -> None:
    TRAINING.save(tmp_path / "training.npz")
    back = Judged.load(tmp_path / "training.npz")
    for field in dataclasses.fields(Judged):
        np.testing.assert_array_equal(getattr(back, field.name), getattr(TRAINING, field.name))
    assert [file.name for file in tmp_path.iterdir()] == ["training.npz"]


def test_table_and_plot_show_every_row(tmp_path) -> None:
    found, real = rows(), real_scores(TRAINING, OTHER, 40)
    table = step_table(found, real).splitlines()
    assert len(table) == 2 + len(found) + 2
    assert table[2].startswith("| ddim | 20 | 20 | 0.400 |") and table[2].count("*") == 3
    assert table[3].startswith("| heun | 3 | 5 |") and table[3].count("*") == 0
    assert table[-2].startswith("| training images |")
    draw_steps(found, real, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
