"""Training: stopped anywhere and resumed, it is the run that was never stopped."""

import dataclasses
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from small_runs import TINY, changed, tiny_plan, write_pictures
from torch import nn

import jdm.train.loop
import jdm.train.objective
from jdm.config.settings import NoiseConfig, TrainConfig, load
from jdm.data.pairs import Batches, PairDataset
from jdm.errors import CheckpointError, TrainingError
from jdm.train.checkpoint import load_checkpoint, load_resume_state, run_folder
from jdm.train.log import read_log
from jdm.train.loop import Ema, learning_rate, train
from jdm.train.objective import measure_step_seconds, step_generator

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def dataset(nnunet_folders):
    return write_pictures(nnunet_folders["nnUNet_raw"])


@pytest.fixture
def ids(dataset):
    return list(dataset.cases[:-1]), list(dataset.cases[-1:])


def config_of(dataset, ids, **train_settings):
    return tiny_plan(dataset, ids[0], train={"steps": 9, "checkpoint_every": 4, "validate_every": 2, **train_settings})


def script(tmp_path: Path, text: str) -> list[str]:
    """A command that runs Python text with these tests' helpers at hand."""
    path = tmp_path / "script.py"
    path.write_text(f"import sys\nsys.path.insert(0, {str(ROOT / 'tests')!r})\n" + text, encoding="utf-8")
    return [sys.executable, "-W", "ignore", str(path)]


def environment(**variables: str) -> dict[str, str]:
    """This process's environment for another that keeps to one core."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "MPLBACKEND": "Agg", **variables}


KILLED = """
import os, signal
from pathlib import Path
import jdm.data.pairs, jdm.train.loop
from jdm.config.settings import load
from jdm.data.raw_dataset import open_dataset
dataset = open_dataset(21)
ids = list(dataset.cases)
draw = jdm.data.pairs.Batches.__getitem__
def killed(self, step):
    if self.augmented and step == 6:
        os.kill(os.getpid(), signal.SIGKILL)
    return draw(self, step)
jdm.data.pairs.Batches.__getitem__ = killed
jdm.train.loop.train(load(Path(sys.argv[1])), dataset, 0, (ids[:-1], ids[-1:]), Path(sys.argv[2]))
"""


def test_a_killed_run_resumed_is_the_uninterrupted_run(dataset, ids, tmp_path):
    from jdm.config.settings import dumps

    config = config_of(dataset, ids)
    whole = train(config, dataset, 0, ids, tmp_path / "whole")
    plan = tmp_path / "plan.toml"
    plan.write_text(dumps(config), encoding="utf-8")
    folder = tmp_path / "killed"
    done = subprocess.run([*script(tmp_path, KILLED), str(plan), str(folder)], env=environment(), timeout=200)
    assert done.returncode == -signal.SIGKILL
    state = load_resume_state(folder)
    assert state is not None and state["reached"]["step"] == 4
    resumed = train(config, dataset, 0, ids, folder, resume=True)
    rows = read_log(folder / "log.csv")
    assert rows == read_log(tmp_path / "whole" / "log.csv")
    assert [int(row["step"]) for row in rows] == list(range(1, 10))
    assert resumed.sha256 == whole.sha256
    assert load(folder / "plan.toml") == config
    for part in ("network", "ema"):
        ends = [load_resume_state(tmp_path / name)[part] for name in ("whole", "killed")]
        assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])


RESUMED = """
import sys
import time
from pathlib import Path
import torch
import jdm.train.loop
from jdm.config.settings import load
from jdm.data.raw_dataset import open_dataset
torch.set_num_threads(1)
dataset = open_dataset(21)
ids = list(dataset.cases)
print("ready", flush=True)
jdm.train.loop.train(load(Path(sys.argv[1])), dataset, 0, (ids[:-1], ids[-1:]), Path(sys.argv[2]), resume=True)
"""


@pytest.mark.slow
def test_a_run_killed_at_ten_random_moments_is_the_uninterrupted_run(dataset, ids, tmp_path):
    from jdm.config.settings import dumps

    config = config_of(dataset, ids)
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, steps=300))
    whole = train(config, dataset, 0, ids, tmp_path / "whole")
    plan = tmp_path / "plan.toml"
    plan.write_text(dumps(config), encoding="utf-8")
    folder, moments = tmp_path / "killed", random.Random(0)
    for _ in range(10):
        command = [*script(tmp_path, RESUMED), str(plan), str(folder)]
        with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            time.sleep(moments.uniform(0.0, 1.5))
            process.kill()
    resumed = train(config, dataset, 0, ids, folder, resume=True)
    assert read_log(folder / "log.csv") == read_log(tmp_path / "whole" / "log.csv")
    assert resumed.sha256 == whole.sha256
    assert not list(folder.glob(".*tmp"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_ends_with_its_own_status(dataset, ids, tmp_path, monkeypatch, number):
    config = config_of(dataset, ids)
    train(config, dataset, 0, ids, tmp_path / "whole")
    draw = Batches.__getitem__

    def signalled(self, step):
        if self.augmented and step == 4:
            os.kill(os.getpid(), number)
        return draw(self, step)

    with monkeypatch.context() as patch, pytest.raises(SystemExit) as stopped:
        patch.setattr(Batches, "__getitem__", signalled)
        train(config, dataset, 0, ids, tmp_path / "run")
    assert stopped.value.code == 128 + number
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert load_resume_state(tmp_path / "run")["reached"]["step"] == 5
    assert [int(row["step"]) for row in read_log(tmp_path / "run" / "log.csv")] == [1, 2, 3, 4, 5]
    train(config, dataset, 0, ids, tmp_path / "run", resume=True)
    assert read_log(tmp_path / "run" / "log.csv") == read_log(tmp_path / "whole" / "log.csv")
    assert load_checkpoint(tmp_path / "run").sha256 == load_checkpoint(tmp_path / "whole").sha256


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_finite_state(dataset, ids, tmp_path, monkeypatch):
    compute = jdm.train.loop.loss_and_gradients

    def explodes(denoiser, *arguments):
        loss = compute(denoiser, *arguments)
        calls.append(loss)
        if len(calls) < 6:
            return loss
        for parameter in denoiser.parameters():
            parameter.grad *= math.nan
        return loss * math.nan

    calls: list[torch.Tensor] = []
    monkeypatch.setattr(jdm.train.loop, "loss_and_gradients", explodes)
    with pytest.raises(TrainingError, match=r"step 6 has the loss nan.*fp32.*learning-rate") as error:
        train(config_of(dataset, ids), dataset, 0, ids, tmp_path / "run")
    assert "\n" not in str(error.value)
    state = load_resume_state(tmp_path / "run")
    assert state["reached"]["step"] == 4
    for part in ("network", "ema"):
        assert all(value.isfinite().all() for value in state[part].values())
    assert all(value.isfinite().all() for value in load_checkpoint(tmp_path / "run").weights.values())


def test_the_average_follows_its_formula_and_leaves_buffers_alone():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    ema = Ema(model, 0.6)
    by_hand = [p.detach().clone() for p in model.parameters()]
    for step in range(9):
        with torch.no_grad():
            for p in model.parameters():
                p.add_(torch.randn_like(p))
        model[1].running_mean.fill_(step + 1.0)
        ema.update(step)
        decay = min(0.6, (1 + step) / (10 + step))
        by_hand = [decay * a + (1 - decay) * p.detach() for a, p in zip(by_hand, model.parameters(), strict=True)]
    for averaged, expected in zip(ema.denoiser.parameters(), by_hand, strict=True):
        torch.testing.assert_close(averaged.detach(), expected)
        assert not averaged.requires_grad
    assert (ema.denoiser[1].running_mean == 0).all()
    assert model[0].weight.requires_grad


def test_the_weights_of_the_smoothed_held_out_minimum_are_exported(dataset, ids, tmp_path, monkeypatch):
    curve = iter([9.0, 1.0, 4.0, 8.0])  # smoothed by halves: 9, 5, 4.5, 6.25

    def measured(self, denoiser):
        return 0.5 if len(self._batches.pairs.items) > 1 else next(curve)

    monkeypatch.setattr(jdm.train.loop.FixedLoss, "__call__", measured)
    config = config_of(dataset, ids, steps=8)
    checkpoint = train(config, dataset, 0, ids, tmp_path / "best")
    assert checkpoint.metadata["step"] == 6 and checkpoint.metadata["held_out_loss"] == 4.5
    rows = {int(row["step"]): row for row in read_log(tmp_path / "best" / "log.csv") if row["held_out_loss"]}
    assert [float(rows[s]["held_out_loss"]) for s in (2, 4, 6, 8)] == [9.0, 1.0, 4.0, 8.0]
    assert [float(rows[s]["smoothed"]) for s in (2, 4, 6, 8)] == [9.0, 5.0, 4.5, 6.25]
    assert all(float(rows[s]["seen_loss"]) == 0.5 for s in rows)
    curve = iter([9.0, 1.0, 4.0, 8.0])
    last = train(changed(config, {"train": {"select": "last"}}), dataset, 0, ids, tmp_path / "last")
    assert last.metadata["step"] == 8 and last.sha256 != checkpoint.sha256


def test_a_run_writes_what_its_metadata_and_folder_promise(dataset, ids, tmp_path):
    checkpoint = train(config_of(dataset, ids, steps=2), dataset, "all", (ids[0], []), tmp_path / "run")
    metadata = checkpoint.metadata
    assert metadata["dataset"] == dataset.name and metadata["fold"] == "all"
    assert metadata["training_ids"] == ids[0] and metadata["held_out_ids"] == []
    assert metadata["held_out_loss"] is None and metadata["labels"] == dataset.labels
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names >= {"plan.toml", "checkpoint.safetensors", "checkpoint.json", "resume.pt", "log.csv", "samples"}
    assert list((tmp_path / "run" / "samples").glob("step_000002.png"))
    assert list((tmp_path / "run" / "tensorboard").iterdir())


def test_another_plan_or_dataset_is_not_resumed(dataset, ids, tmp_path):
    config = config_of(dataset, ids, steps=2)
    train(config, dataset, 0, ids, tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"config\.train\.learning_rate: .*expected 0\.5.*--overwrite"):
        other = changed(config, {"train": {"learning_rate": 0.5}})
        train(other, dataset, 0, ids, tmp_path / "run", resume=True)
    with pytest.raises(CheckpointError, match=r"training_ids"):
        train(config, dataset, 0, (ids[0][1:], ids[1]), tmp_path / "run", resume=True)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_the_thesis_preset_trains(dataset, ids, tmp_path, schedule):
    config = config_of(dataset, ids, steps=2)
    config = changed(config, {"preset": "thesis", "augment": {"probability": 0.0}, "diffusion": {"schedule": schedule}})
    checkpoint = train(config, dataset, 0, ids, tmp_path / "run")
    rows = read_log(tmp_path / "run" / "log.csv")
    assert all(0.1 < float(row["loss"]) < 10 for row in rows)
    weight = next(value for name, value in checkpoint.weights.items() if name.endswith("out_conv.weight"))
    assert weight.shape[0] == 4 and weight.abs().max() > 0  # noise and variance of an image and a mask channel


def test_volumes_train_in_three_dimensions(nnunet_folders, tmp_path):
    volumes = write_pictures(nnunet_folders["nnUNet_raw"], "Dataset022_Volumes", 2, (6, 8, 12), dtype="int16")
    config = tiny_plan(
        volumes, list(volumes.cases), train={"steps": 1, "batch_size": 1, "precision": "fp32"},
        data={
            "dims": 3, "patch_size": [4, 8, 8], "canvas_size": [4, 8, 8], "slice_axis": "none",
            "spacing": [1.0, 1.0, 1.0],
        },
    )  # fmt: skip
    checkpoint = train(config, volumes, "all", (list(volumes.cases), []), tmp_path / "run")
    assert checkpoint.weights["network.down.0.blocks.0.weight"].shape == (8, 2, 3, 3, 3)
    x = torch.randn(1, 2, 4, 8, 8)
    assert checkpoint.denoiser()(x, torch.ones(1, 2)).shape == x.shape


def test_training_lowers_the_held_out_loss(dataset, ids, tmp_path):
    settings = {"steps": 40, "learning_rate": 3e-3, "batch_size": 8, "validate_every": 20, "checkpoint_every": 40}
    train(config_of(dataset, ids, **settings), dataset, 0, ids, tmp_path / "run")
    losses = [float(row["held_out_loss"]) for row in read_log(tmp_path / "run" / "log.csv") if row["held_out_loss"]]
    assert losses[-1] < 0.7  # a network that says nothing has a loss of about 0.9: a known side weighs nothing
    assert NoiseConfig().known_mask + NoiseConfig().known_image == pytest.approx(0.2)


def test_the_budget_ends_a_run(dataset, ids, tmp_path):
    config = config_of(dataset, ids, steps=5000, budget_minutes=0.5 / 60)
    checkpoint = train(config, dataset, 0, ids, tmp_path / "run")
    steps = len(read_log(tmp_path / "run" / "log.csv"))
    assert 1 <= steps < 1000 and checkpoint.metadata["step"] <= steps
    rates = [float(row["learning_rate"]) for row in read_log(tmp_path / "run" / "log.csv")]
    assert rates[-1] < 0.5 * max(rates)  # far from its 5000 steps, near the end of its clock


def test_a_resumed_run_knows_at_once_what_its_clock_says(dataset, ids, tmp_path, monkeypatch):
    """Processes of a group ask each other every tenth step only; a run may be resumed at any."""
    monkeypatch.setattr(jdm.train.loop, "agreed", lambda number, step: 0 if step % 10 else number)
    monkeypatch.setattr(jdm.train.loop._Progress, "spent", lambda self: 0.7)
    config = config_of(dataset, ids, steps=7, learning_rate=1e-3, warmup_steps=0)
    train(config, dataset, 0, ids, tmp_path / "run")
    longer = dataclasses.replace(config, train=dataclasses.replace(config.train, steps=5000))
    monkeypatch.setattr(jdm.train.loop._Progress, "spent", lambda self: 0.7 if self.step < 15 else 2.0)
    train(longer, dataset, 0, ids, tmp_path / "run", resume=True)
    rates = [float(row["learning_rate"]) for row in read_log(tmp_path / "run" / "log.csv")]
    assert len(rates) > 7 and max(rates) == pytest.approx(3e-4)


def test_learning_rates_warm_up_and_fall():
    settings = TrainConfig(steps=100, learning_rate=1.0, warmup_steps=10, decay="linear")
    rates = [learning_rate(settings, step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == pytest.approx(0.91) and rates[50] == pytest.approx(0.5)
    assert rates[-1] == pytest.approx(0.01)
    by_clock = [learning_rate(settings, 30, spent) for spent in (0.2, 0.3, 0.6, 1.0, 1.2)]
    assert by_clock == pytest.approx([0.7, 0.7, 0.4, 0.0, 0.0])
    constant = TrainConfig(learning_rate=1.0, warmup_steps=0, decay="constant")
    assert [learning_rate(constant, step) for step in (0, 19_999)] == [1.0, 1.0]


def test_the_randomness_of_a_step_is_its_own():
    def draw(*arguments):
        return torch.randn(4, generator=step_generator(*arguments, torch.device("cpu")))

    first = draw(1, 0, 5)
    assert torch.equal(first, draw(1, 0, 5))
    assert not any(torch.equal(first, draw(*other)) for other in [(2, 0, 5), (1, 1, 5), (1, 0, 6)])


def test_slow_steps_are_timed_once(dataset, ids, monkeypatch):
    steps = []
    monkeypatch.setattr(jdm.train.objective, "loss_and_gradients", lambda *_: steps.append(1))
    monkeypatch.setattr(jdm.train.objective.time, "monotonic", lambda: 10.0 * len(steps))
    assert measure_step_seconds(config_of(dataset, ids), torch.device("cpu")) == 10.0 and len(steps) == 1


def test_a_step_is_timed(dataset, ids):
    assert 0 < measure_step_seconds(config_of(dataset, ids), torch.device("cpu"), repeats=1) < 30


SPY = """
import hashlib, json, os
import numpy as np, torch
import jdm.train.loop
from jdm.data.pairs import Batches
torch.set_num_threads(1)
loop = jdm.train.loop._loop
def spy(config, pairs, measures, trained, *rest):
    loop(config, pairs, measures, trained, *rest)
    rank = int(os.environ["RANK"])
    def digest(tensors):
        return hashlib.sha256(b"".join(t.detach().numpy().tobytes() for t in tensors)).hexdigest()
    found = {
        "weights": digest(trained[0].parameters()), "ema": digest(trained[1].denoiser.parameters()),
        "data": digest([Batches(pairs, config.train.batch_size, config.train.seed, rank)[0][0]]),
    }
    open(os.path.join(os.environ["SPY"], f"{rank}.json"), "w").write(json.dumps(found))
jdm.train.loop._loop = spy
from jdm.cli.train import main
main()
"""


def test_two_processes_see_different_data_and_end_with_equal_weights(dataset, tmp_path):
    _, python_flags, warnings, path = script(tmp_path, SPY)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
    flags = (
        "21 0 --network.base-channels 8 --network.channel-multipliers 1 1 --network.attention-factors 2 "
        "--network.attention-heads 2 --network.blocks-per-level 1 --train.steps 3 --train.batch-size 2 "
        "--train.precision fp32"
    )
    done = subprocess.run(
        [*command, sys.executable, python_flags, warnings, path, *flags.split()],
        env=environment(SPY=str(tmp_path)), timeout=300, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[:2000]
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first["weights"] == second["weights"] and first["ema"] == second["ema"]
    assert first["data"] != second["data"]
    folder = run_folder(dataset.name, 0)
    assert len(read_log(folder / "log.csv")) == 3
    assert all(value.isfinite().all() for value in load_checkpoint(folder).weights.values())


def test_the_held_out_loss_is_of_fixed_samples(dataset, ids):
    config = config_of(dataset, ids)
    pairs = PairDataset(dataset, ids[1], config)
    denoiser = jdm.train.loop.build_denoiser(config, jdm.train.loop.condition_features(2))
    measures = [jdm.train.loop.FixedLoss(pairs, config, torch.device("cpu")) for _ in range(2)]
    assert measures[0](denoiser) == measures[1](denoiser) == measures[0](denoiser)
    assert config.network == TINY
