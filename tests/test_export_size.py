"""How many pairs an export makes, and how long it takes."""

import pytest
import torch
from export_runs import REQUEST, asked, factory_of, with_config
from small_runs import tiny_run

import jdm
from jdm.draw import cost
from jdm.draw.cost import call_seconds, estimate_line
from jdm.errors import ConfigError, TrainingError
from jdm.export import pairs
from jdm.export.amount import order_of
from jdm.export.pairs import PairFactory

PATCHES = {"data": {"whole": False, "patch_size": [8, 8], "canvas_size": [16, 16]}}


@pytest.mark.parametrize(
    ("plan", "ratio", "count"),
    [
        ({}, 1.0, 4), ({}, 2.0, 8), ({}, 0.5, 2), ({}, 0.3, 1),  # whole images count as such
        (PATCHES, 2.0, 2 * 4 * 16 * 24 / 256),  # patches by their pixels
    ],
)  # fmt: skip
def test_a_ratio_is_of_the_training_set(run, plan, ratio, count):
    assert order_of(with_config(run, plan).checkpoint, asked(count=None, ratio=ratio)).count == count


def test_a_ratio_that_makes_no_pair_is_refused(run):
    with pytest.raises(ConfigError, match=r"--ratio is 0\.01"):
        order_of(run.checkpoint, asked(count=None, ratio=0.01))


@pytest.mark.parametrize(
    ("change", "windows", "calls"),
    [
        ({}, 1, 4),
        ({"masks": "estimated"}, 1, 4),
        ({"sampler": "heun"}, 1, 6),
        ({"sampler": "unipc"}, 1, 4),
        ({"canvas_size": (16, 48)}, 3, 4),
        ({"canvas_size": (28, 42)}, 4, 4),
    ],
)
def test_the_estimate_counts_the_calls_that_are_made(real, monkeypatch, change, windows, calls):
    run = tiny_run(real, train={"steps": 1}, data={"whole": False, "patch_size": [16, 24], "canvas_size": [16, 24]})
    factory, made = factory_of(run, **change), []
    factory.drawer.denoiser.register_forward_hook(lambda *_: made.append(1))
    factory.samples([1, 2], [7, 8])
    assert len(made) == windows * calls
    monkeypatch.setattr(pairs, "call_seconds", lambda *_: 1.0)
    assert factory.seconds([range(2)]) == windows * calls
    assert factory.seconds(factory.order.batches()) == calls * (2 * windows + -(-windows // 2))


def test_a_call_is_timed_after_one_to_warm_up(run, monkeypatch, capsys):
    times, seen = iter([0.0, 9.0, 10.0, 12.0]), []
    with monkeypatch.context() as patch:
        patch.setattr(cost.time, "monotonic", lambda: next(times))
        seconds = call_seconds(lambda x, sigma: seen.append((tuple(x.shape), tuple(sigma.shape))), run.config, 2, "cpu")
    assert seen == [((2, 2, 16, 24), (2, 2))] * 2 and seconds == 2.0
    assert "1 minute " in estimate_line(1) and "30 minutes " in estimate_line(1800)
    assert all(cure in estimate_line(1900) for cure in ("32 minutes", "fewer pairs", "--canvas-size", "--steps"))
    jdm.export(REQUEST)
    assert "1 minute " in capsys.readouterr().err


def test_a_full_memory_names_the_batch_size_of_the_export(run, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(PairFactory, "samples", full)
    with pytest.raises(TrainingError, match=r"--batch-size 1\b") as error:
        jdm.export(REQUEST)
    assert "\n" not in str(error.value)
