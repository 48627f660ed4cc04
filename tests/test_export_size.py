"""How many pairs an export makes, and how long it takes."""

import dataclasses

import pytest
import torch
from export_runs import REQUEST
from small_runs import changed, tiny_run

import jdm.cli.export
import jdm.export.pairs
from jdm.data.pairs import PairDataset
from jdm.errors import ConfigError, TrainingError
from jdm.export.amount import batches_of, duration, export_seconds, network_calls, synthetic_count
from jdm.export.pairs import export


@pytest.mark.parametrize(("ratio", "count"), [(1.0, 5), (2.0, 10), (0.5, 2), (0.3, 2)])
def test_a_ratio_of_whole_images_counts_images(real, checkpoint, ratio, count):
    pairs = PairDataset(real, list(real.cases), checkpoint.config)
    assert synthetic_count(ratio, checkpoint.config, pairs, (16, 24)) == count


def test_a_ratio_of_patches_counts_pixels(real, checkpoint):
    pairs = PairDataset(real, list(real.cases), checkpoint.config)
    config = changed(checkpoint.config, {"data": {"whole": False, "patch_size": [8, 8], "canvas_size": [16, 16]}})
    assert synthetic_count(2.0, config, pairs, (16, 16)) == 2 * 5 * 16 * 24 / 256
    with pytest.raises(ConfigError, match=r"ratio 0\.01 makes 0 pairs"):
        synthetic_count(0.01, config, pairs, (16, 16))


@pytest.mark.parametrize(
    ("change", "windows", "evaluations"),
    [
        ({}, 1, 5),
        ({"masks": "estimated"}, 1, 6),
        ({"sampler": "ddim"}, 1, 3),
        ({"sampler": "unipc"}, 1, 3),
        ({"canvas_size": (16, 48)}, 3, 5),
        ({"canvas_size": (28, 42)}, 4, 5),
    ],
)
def test_the_estimate_counts_the_calls_that_are_made(real, change, windows, evaluations):
    checkpoint = tiny_run(real, train={"steps": 1}, data={"whole": False, "patch_size": [16, 24]})
    request = dataclasses.replace(REQUEST, **change)
    factory, made = jdm.export.pairs.PairFactory(checkpoint, real, request, "cpu"), []
    factory.drawer.denoiser.register_forward_hook(lambda *_: made.append(1))
    factory.sample([1, 2])
    assert network_calls(checkpoint.config, request, [range(2)]) == len(made) == windows * evaluations
    assert network_calls(checkpoint.config, request, batches_of(request)) == evaluations * (
        2 * windows + -(-windows // 2)
    )


def test_the_estimate_is_one_timed_call_times_their_number(real, checkpoint, monkeypatch, capsys):
    times, seen, batches = iter([0.0, 9.0, 10.0, 12.0]), [], batches_of(REQUEST)
    with monkeypatch.context() as patch:
        patch.setattr(jdm.export.amount.time, "monotonic", lambda: next(times))
        seconds = export_seconds(
            lambda x, sigma: seen.append((tuple(x.shape), tuple(sigma.shape))),
            checkpoint.config,
            REQUEST,
            batches,
            "cpu",
        )
    assert seen == [((2, 2, 16, 24), (2, 2))] * 2 and seconds == 2.0 * 3 * 5
    assert duration(1) == "about 1 minute on this machine"
    assert duration(1800) == "about 30 minutes on this machine"
    assert all(cure in duration(1900) for cure in ("about 32", "--canvas-size", "dpmpp-2m", "--ratio"))
    export(checkpoint, real, REQUEST)
    assert "about 1 minute on this machine" in capsys.readouterr().out


def test_a_full_memory_names_the_batch_size_of_the_export(real, checkpoint, monkeypatch):
    def full(self, seeds):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(jdm.export.pairs.PairFactory, "sample", full)
    with pytest.raises(TrainingError, match=r"out of memory.*run again with --batch-size 1$") as error:
        export(checkpoint, real, REQUEST)
    assert "\n" not in str(error.value)
