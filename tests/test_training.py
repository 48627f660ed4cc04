"""Training: stopped anywhere and resumed, it is the run that was never stopped."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch
from fault_processes import NETWORK
from small_runs import TINY, changed, config_of, prepared, tiny_plan, write_pictures
from torch import nn

import jdm
from jdm.config.files import from_dict, read_toml, to_dict
from jdm.config.settings import Settings, TrainConfig
from jdm.data.pairs import Batches, PairDataset, condition_features
from jdm.diffusion.model import build_denoiser
from jdm.errors import CheckpointError, ConfigError
from jdm.plan.rules import Plan
from jdm.system.machine import describe_run
from jdm.train import loop, objective, progress
from jdm.train.checkpoint import load_checkpoint, load_resume_state, run_folder
from jdm.train.log import read_log

CPU = torch.device("cpu")


@pytest.fixture
def dataset(nnunet_folders):
    return write_pictures(nnunet_folders["nnUNet_raw"])


@pytest.fixture
def ids(dataset):
    return list(dataset.cases[:-1]), list(dataset.cases[-1:])


@pytest.fixture
def run(dataset, ids):
    """Trains by a config in a folder."""
    return lambda config, folder, some=ids, **options: loop.train(prepared(dataset, config, folder, some), **options)


def short(dataset, ids, **train_settings):
    return tiny_plan(dataset, ids[0], train={"steps": 9, **train_settings})


def column(folder, name: str) -> list[float]:
    return [float(row[name]) for row in read_log(folder / "log.csv") if row[name]]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_ends_with_its_own_status(dataset, ids, run, tmp_path, monkeypatch, number):
    config = short(dataset, ids, checkpoint_minutes=99.0, select="last")
    run(config, tmp_path / "whole")
    draw = Batches.__getitem__

    def signalled(self, step):
        if self.augmented and step == 4:
            os.kill(os.getpid(), number)
        return draw(self, step)

    with monkeypatch.context() as patch, pytest.raises(SystemExit) as stopped:
        patch.setattr(Batches, "__getitem__", signalled)
        run(config, tmp_path / "run")
    assert stopped.value.code == 128 + number
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert load_resume_state(tmp_path / "run")["reached"]["step"] == 5
    assert column(tmp_path / "run", "step") == [1, 2, 3, 4, 5]
    # A newer jdm, at another commit, goes on with it.
    bumped = dataclasses.replace(describe_run(), version="99.0", commit="0123")
    monkeypatch.setattr(progress, "describe_run", lambda: bumped)
    resumed = run(config, tmp_path / "run", resume=True)
    assert read_log(tmp_path / "run" / "log.csv") == read_log(tmp_path / "whole" / "log.csv")
    assert resumed.sha256 == load_checkpoint(tmp_path / "whole").sha256
    assert (resumed.metadata["step"], resumed.metadata["jdm_version"]) == (9, "99.0")
    for part in ("network", "ema"):
        ends = [load_resume_state(tmp_path / name)[part] for name in ("whole", "run")]
        assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])


@pytest.mark.parametrize(("minutes", "saved"), [(0.0, [1, 2, 3, 4, 5, 6, 7, 8, 9]), (2.5, [3, 6, 9]), (99.0, [9])])
def test_a_checkpoint_is_due_by_the_clock(dataset, ids, run, tmp_path, monkeypatch, minutes, saved):
    clock, found = iter(range(0, 10**6, 60)), []
    compute, save, now = loop.loss_and_gradients, progress.save_resume_state, [0.0]

    def minute(*arguments):
        now[0] = float(next(clock)) + 60
        return compute(*arguments)

    monkeypatch.setattr(loop, "loss_and_gradients", minute)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(
        progress, "save_resume_state", lambda f, state: (found.append(state["reached"]["step"]), save(f, state))
    )
    run(short(dataset, ids, checkpoint_minutes=minutes), tmp_path / "run", started=0.0)
    assert found == saved
    assert load_checkpoint(tmp_path / "run").metadata["minutes"] in (2, 4, 6, 8, 9)  # where the best loss was


def test_the_average_follows_its_formula_and_leaves_buffers_alone():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    ema = progress.Ema(model, 0.6)
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


@pytest.mark.parametrize(("select", "step"), [("best", 6), ("last", 8)])
def test_the_weights_of_the_smoothed_held_out_minimum_are_exported(
    dataset, ids, run, tmp_path, monkeypatch, select, step
):
    curve = iter([0.5, 9.0, 0.5, 1.0, 0.5, 4.0, 0.5, 8.0])  # held out, smoothed by halves: 9, 5, 4.5, 6.25
    monkeypatch.setattr(objective.FixedLoss, "__call__", lambda self, denoiser: next(curve))
    checkpoint = run(short(dataset, ids, steps=8, select=select), tmp_path / "run")
    assert checkpoint.metadata["step"] == step
    assert checkpoint.metadata["held_out_loss"] == (4.5 if select == "best" else 6.25)
    assert column(tmp_path / "run", "held_out_loss") == [9.0, 1.0, 4.0, 8.0]
    assert column(tmp_path / "run", "smoothed") == [9.0, 5.0, 4.5, 6.25]
    assert column(tmp_path / "run", "seen_loss") == [0.5] * 4


def test_a_run_writes_what_its_metadata_and_folder_promise(dataset, ids, run, tmp_path):
    config = short(dataset, ids, steps=2)
    checkpoint = run(config, tmp_path / "run", (ids[0], []))
    metadata = checkpoint.metadata
    assert metadata["dataset"] == dataset.name and metadata["fold"] == "all" and checkpoint.config == config
    assert metadata["training_ids"] == ids[0] and metadata["held_out_ids"] == []
    assert metadata["held_out_loss"] is None and metadata["jdm_version"] == jdm.__version__
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {
        "plan.toml", "fingerprint.json", "checkpoint.safetensors", "checkpoint.json", "resume.pt", "resume.pt.previous",
        "log.csv", "samples", "tensorboard",
    }  # fmt: skip
    assert json.loads((tmp_path / "run" / "fingerprint.json").read_text()) == to_dict(config.facts)
    assert from_dict(Settings, read_toml(tmp_path / "run" / "plan.toml")).train == config.train
    assert list((tmp_path / "run" / "samples").glob("step_000002.png"))
    assert list((tmp_path / "run" / "tensorboard").iterdir())


def test_a_run_stopped_before_its_first_resume_state_says_that_it_starts_again(dataset, ids, run, tmp_path, capsys):
    config = short(dataset, ids, steps=3)
    run(config, tmp_path / "run")
    for path in (tmp_path / "run").glob("resume.pt*"):
        path.unlink()
    run(config, tmp_path / "run", resume=True)
    assert "step 0" in capsys.readouterr().err and column(tmp_path / "run", "step") == [1, 2, 3]
    run(config, tmp_path / "run", resume=True)
    assert "step 3" in capsys.readouterr().err


def test_another_plan_or_dataset_is_not_resumed(dataset, ids, run, tmp_path):
    config = short(dataset, ids, steps=2)
    run(config, tmp_path / "run")
    other = changed(config, {"train": {"learning_rate": 0.5}, "facts": {"image_std": 0.25}})
    with pytest.raises(
        CheckpointError, match=r"facts\.image_std: .*train\.learning_rate: .*expected 0\.5.*--overwrite"
    ):
        run(other, tmp_path / "run", resume=True)
    with pytest.raises(CheckpointError, match=r"training_ids"):
        run(config, tmp_path / "run", (ids[0][1:], ids[1]), resume=True)


def test_a_resumed_run_follows_its_own_plan_which_says_what_it_was_extended_by(dataset):
    def request(**changes) -> jdm.TrainRequest:
        return jdm.TrainRequest("21", "all", **changes)

    settings = {"network": to_dict(TINY), "train": {"steps": 2, "batch_size": 2, "precision": "fp32"}}
    jdm.train(request(settings=settings))
    folder = run_folder(dataset.name, "all")
    plan, facts = (folder / "plan.toml").read_text(), (folder / "fingerprint.json").read_text()
    lines = {line.split(" = ")[0]: line for line in plan.splitlines() if " = " in line}
    assert lines["steps"].startswith("steps = 2 # given") and lines["whole"].startswith("whole = true # ")
    assert lines["budget_minutes"] == 'budget_minutes = "none" # no limit'
    (folder / "plan.toml").write_text("# mine\n" + plan)
    write_pictures(dataset.folder.parent, dtype="uint16", ending=".png")  # changed since; what was measured stays
    checkpoint = jdm.train(request(resume=True, budget_minutes=5, settings={"train": {"steps": 3}}))
    assert len(read_log(folder / "log.csv")) == 3 and checkpoint.config.facts.dtype == "uint8"
    told = "# given with --resume"
    longer = plan.replace(lines["steps"], f"steps = 3 {told}").replace('"none" # no limit', f"5.0 {told}")
    assert (folder / "plan.toml").read_text() == "# mine\n" + longer
    assert (folder / "fingerprint.json").read_text() == facts
    for changes in ({"preset": "thesis"}, {"plan": folder / "plan.toml"}, {"init_from": folder / "weights.pt"}):
        with pytest.raises(ConfigError, match=r"--plan, --classes, --preset or --init-from.*--resume"):
            jdm.train(request(resume=True, **changes))
    for damage in ("{", "[]", '{"dtype": 3}', "[" * 100_000):
        (folder / "fingerprint.json").write_text(damage)
        with pytest.raises(ConfigError, match=r"fingerprint\.json.*--overwrite") as error:
            jdm.train(request(resume=True))
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_the_thesis_preset_trains(dataset, ids, run, tmp_path, schedule):
    config = short(dataset, ids, steps=2)
    config = changed(config, {"preset": "thesis", "augment": {"probability": 0.0}, "diffusion": {"schedule": schedule}})
    checkpoint = run(config, tmp_path / "run")
    assert all(0.1 < loss < 10 for loss in column(tmp_path / "run", "loss"))
    weight = next(value for name, value in checkpoint.weights.items() if name.endswith("out_conv.weight"))
    assert weight.shape[0] == 4 and weight.abs().max() > 0  # noise and variance of an image and a mask channel


def test_volumes_train_in_three_dimensions(nnunet_folders, tmp_path):
    volumes = write_pictures(nnunet_folders["nnUNet_raw"], "Dataset022_Volumes", 2, (6, 8, 12), dtype="int16")
    sides = {"dims": 3, "patch_size": [4, 8, 8], "canvas_size": [4, 8, 8], "slice_axis": "none"}
    config = tiny_plan(
        volumes, list(volumes.cases), data=sides, train={"steps": 1, "batch_size": 1},
        facts={"spacing": [1.0, 1.0, 1.0], "slice_axis": "none"},
    )  # fmt: skip
    checkpoint = loop.train(prepared(volumes, config, tmp_path / "run", (list(volumes.cases), [])))
    assert checkpoint.weights["network.down.0.blocks.0.weight"].shape == (8, 2, 3, 3, 3)
    x = torch.randn(1, 2, 4, 8, 8)
    assert checkpoint.denoiser()(x, torch.ones(1, 2)).shape == x.shape


def test_training_lowers_the_held_out_loss(dataset, ids, run, tmp_path):
    settings = {"steps": 40, "learning_rate": 3e-3, "batch_size": 8, "validate_every": 20, "checkpoint_minutes": 9.0}
    config = short(dataset, ids, **settings)
    run(config, tmp_path / "run")
    assert config.noise.known_mask + config.noise.known_image == pytest.approx(0.2)
    # A network that says nothing has a loss of about 0.9: a known side weighs nothing.
    assert column(tmp_path / "run", "held_out_loss")[-1] < 0.7


def test_the_budget_ends_a_run(dataset, ids, run, tmp_path):
    checkpoint = run(short(dataset, ids, steps=5000, budget_minutes=0.5 / 60), tmp_path / "run")
    rates = column(tmp_path / "run", "learning_rate")
    assert 1 <= len(rates) < 1000 and checkpoint.metadata["step"] <= len(rates)
    assert rates[-1] < 0.5 * max(rates)  # far from its 5000 steps, near the end of its clock


@pytest.mark.parametrize(("clock", "counts"), [("wall", True), ("cpu", False)])
def test_a_budget_of_cpu_time_does_not_count_the_time_of_other_jobs(dataset, ids, tmp_path, clock, counts):
    start = prepared(dataset, short(dataset, ids, clock=clock), tmp_path / "run", ids)
    found = progress.Progress(start, time.monotonic())
    time.sleep(0.5)
    assert (found.seconds > 0.4) == counts
    begun = time.process_time()
    while time.process_time() - begun < 0.5:
        sum(range(1000))
    assert found.seconds > 0.4


def test_a_resumed_run_measures_what_its_first_session_could_afford(dataset, ids, tmp_path):
    def trained(folder, steps: int, seconds: float | None, **options) -> list[float]:
        config = short(dataset, ids, steps=steps, budget_minutes=100, validate_every=2, decay="constant")
        start = prepared(dataset, config, folder, ids)
        loop.train(dataclasses.replace(start, plan=Plan(config, {}, seconds)), **options)
        return column(folder, "held_out_loss")

    assert progress.Costs.of(Plan(short(dataset, ids, budget_minutes=100), {}, 8.0)).fixed_batches == 1
    whole = trained(tmp_path / "whole", 4, 8.0)
    assert trained(tmp_path / "run", 2, 8.0) == whole[:1] != trained(tmp_path / "other", 2, None)
    assert trained(tmp_path / "run", 4, None, resume=True) == whole  # it measures no step


def test_a_budget_leaves_room_for_what_comes_beside_the_steps():
    def costs(minutes: float | None, seconds: float | None) -> progress.Costs:
        train = {"budget_minutes": minutes, "batch_size": 16}
        return progress.Costs.of(Plan(config_of(train=train), {}, seconds))

    assert costs(None, 1.0) == costs(10.0, None) == progress.Costs()
    # A sample that is only denoised takes 1 / 48 s, so that a batch of 16 for each of two losses takes 2/3 s.
    assert [costs(minutes, 1.0).fixed_batches for minutes in (10.0, 4.0, 2.0, 0.01)] == [4, 3, 1, 1]
    grid = progress.GRID_PAIRS * progress.GRID_STEPS * 2 / 48
    assert costs(10.0, 1.0).grid and costs(10.0, 1.0).end == pytest.approx({"measure": 8 / 3, "grid": grid})
    assert not costs(0.01, 1.0).grid and costs(0.01, 1.0).end == pytest.approx({"measure": 2 / 3})


def test_a_resumed_run_knows_at_once_what_its_clock_says(dataset, ids, run, tmp_path, monkeypatch):
    """Processes of a group ask each other every tenth step only; a run may be resumed at any."""
    monkeypatch.setattr(loop, "agreed", lambda number, step: 0 if step % 10 else number)
    monkeypatch.setattr(progress.Progress, "spent", lambda self: 0.7)
    config = short(dataset, ids, steps=7, learning_rate=1e-3, warmup_steps=0)
    run(config, tmp_path / "run")
    monkeypatch.setattr(progress.Progress, "spent", lambda self: 0.7 if self.step < 15 else 2.0)
    run(changed(config, {"train": {"steps": 5000}}), tmp_path / "run", resume=True)
    rates = column(tmp_path / "run", "learning_rate")
    assert len(rates) > 7 and max(rates) == pytest.approx(3e-4)


def test_learning_rates_warm_up_and_fall():
    settings = TrainConfig(steps=100, learning_rate=1.0, warmup_steps=10, decay="linear")
    rates = [loop.learning_rate(settings, step) for step in range(100)]
    assert [rates[step] for step in (0, 9, 50, 99)] == pytest.approx([0.1, 0.91, 0.5, 0.01])
    by_clock = [loop.learning_rate(settings, 30, spent) for spent in (0.2, 0.3, 0.6, 1.0, 1.2)]
    assert by_clock == pytest.approx([0.7, 0.7, 0.4, 0.0, 0.0])
    constant = TrainConfig(learning_rate=1.0, warmup_steps=0, decay="constant")
    assert [loop.learning_rate(constant, step) for step in (0, 19_999)] == [1.0, 1.0]


def test_the_randomness_of_a_step_is_its_own():
    def draw(*arguments):
        return torch.randn(4, generator=objective.step_generator(*arguments, CPU))

    first = draw(1, 0, 5)
    assert torch.equal(first, draw(1, 0, 5))
    assert not any(torch.equal(first, draw(*other)) for other in [(2, 0, 5), (1, 1, 5), (1, 0, 6)])


def test_slow_steps_are_timed_once(dataset, ids, monkeypatch):
    config, steps = short(dataset, ids), []
    assert 0 < objective.measure_step_seconds(config, CPU, repeats=1) < 30
    monkeypatch.setattr(objective, "loss_and_gradients", lambda *_: steps.append(1))
    monkeypatch.setattr(objective, "time", SimpleNamespace(monotonic=lambda: 10.0 * len(steps)))
    assert objective.measure_step_seconds(config, CPU) == 10.0 and len(steps) == 1


SPY = """
import hashlib, json, os, sys
import torch
from jdm.cli.train import main
from jdm.train import loop
torch.set_num_threads(1)
compute, seen = loop.loss_and_gradients, []
def digest(tensors):
    return hashlib.sha256(b"".join(t.detach().numpy().tobytes() for t in tensors)).hexdigest()
def spied(denoiser, x0, *rest):
    seen.append([digest(denoiser.parameters()), digest([x0])])
    return compute(denoiser, x0, *rest)
loop.loss_and_gradients = spied
main()
open(os.path.join(os.environ["SPY"], os.environ["RANK"]), "w").write(json.dumps(seen))
"""


def test_two_processes_see_different_data_and_keep_equal_weights(dataset, tmp_path):
    (tmp_path / "spy.py").write_text(SPY)
    words = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python",
        sys.executable, "-W", "ignore", str(tmp_path / "spy.py"), "21", "0", *NETWORK, "--train.steps", "3",
        "--train.batch-size", "2",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg", "SPY": str(tmp_path)}
    done = subprocess.run(words, env=environment, timeout=300, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.count("weights of step") == 1, done.stderr[:2000]
    (weights, data), (others, other_data) = (
        zip(*json.loads((tmp_path / rank).read_text()), strict=True) for rank in "01"
    )
    assert weights == others and len({*weights}) == 3 and len({*data, *other_data}) == 6
    folder = run_folder(dataset.name, 0)
    assert len(read_log(folder / "log.csv")) == 3
    assert all(value.isfinite().all() for value in load_checkpoint(folder).weights.values())


def test_the_held_out_loss_is_of_fixed_samples(dataset, ids):
    config = short(dataset, ids)
    pairs = PairDataset(dataset, ids[1], config)
    denoiser = build_denoiser(config, condition_features(2))
    measures = [objective.FixedLoss(pairs, config, CPU) for _ in range(2)]
    assert measures[0](denoiser) == measures[1](denoiser) == measures[0](denoiser)
