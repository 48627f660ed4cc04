"""jdm-train --overwrite: the earlier run is there until the new one has passed its first checkpoint."""

import os
import re
import shutil
import signal

import pytest
import torch
from fault_processes import NETWORK, tree
from small_runs import tiny_run, write_pictures

from jdm.errors import CheckpointError
from jdm.train import loop
from jdm.train.checkpoint import load_checkpoint, run_folder, set_aside

STEPS = [
    "--train.steps", "4", "--train.batch-size", "2", "--train.validate-every", "2", "--train.checkpoint-minutes", "0",
]  # fmt: skip


@pytest.fixture
def run(nnunet_folders):
    """The folder of a trained run."""
    dataset = write_pictures(nnunet_folders["nnUNet_raw"])
    tiny_run(dataset, train={"steps": 2})
    return run_folder(dataset.name, "all")


@pytest.fixture
def train(typed):
    """Types jdm-train with some flags: its exit status and errors."""

    def type_it(*flags: str) -> tuple[int, str]:
        status, _, errors = typed("jdm-train", "21", "all", *NETWORK, *STEPS, *flags)
        return status, errors

    return type_it


def at_step(monkeypatch, step, act):
    """Have `act` called instead of a loss at a step of the training."""
    compute, count = loop.loss_and_gradients, iter(range(100))
    monkeypatch.setattr(loop, "loss_and_gradients", lambda *a: act() if next(count) == step else compute(*a))


def out_of_memory():
    raise torch.OutOfMemoryError("CUDA out of memory")


def stopped():
    os.kill(os.getpid(), signal.SIGINT)
    return torch.tensor(1.0)


FAILURES = {
    "nan": (1, lambda: torch.tensor(float("nan")), 2),
    "memory": (0, out_of_memory, 2),
    "signal": (0, stopped, 128 + signal.SIGINT),
}


@pytest.mark.parametrize("kind", FAILURES)
def test_a_run_that_fails_early_leaves_the_one_it_was_to_replace(run, train, monkeypatch, kind):
    before = tree(run)
    step, act, status = FAILURES[kind]
    at_step(monkeypatch, step, act)
    found, told = train("--overwrite")
    assert found == status and f"{run} was restored" in told
    assert tree(run) == before and not set_aside(run).exists()


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--overwrite", "--augment.mirror-axes", "2"], r"augment\.mirror_axes is \(2,\).*0 to 1"),
        (
            ["--overwrite", "--data.dims", "3", "--data.patch-size", "8", "8", "8"],
            r"data\.dims is 3, .* are pictures",
        ),
        (["--overwrite", "--resume"], r"--resume and --overwrite"),
        (["--overwrite", "--plan", "absent.toml"], r"absent\.toml"),
        (["--resume", "--data.slice-axis", "0"], r"data\.slice_axis is 0; expected None"),
        (["--resume", "--data.dims", "3"], r"3 sides"),
        (
            ["--resume", "--data.patch-size", "8", "8", "--train.seed", "1"],
            r"data\.patch_size: .*train\.seed: 0, expected 1",
        ),
    ],
)
def test_a_refused_command_leaves_the_run(run, train, flags, told):
    before = tree(run)
    status, errors = train(*flags)
    assert status == 2 and re.search(told, errors.splitlines()[-1])
    assert tree(run) == before and not set_aside(run).exists()


def test_a_run_past_its_first_checkpoint_replaces_the_earlier_one(run, train, monkeypatch):
    earlier = load_checkpoint(run).sha256
    at_step(monkeypatch, 3, lambda: torch.tensor(float("nan")))
    assert train("--overwrite")[0] == 2  # it failed, but can be resumed
    assert load_checkpoint(run).sha256 != earlier and not set_aside(run).exists()
    assert train("--overwrite")[0] == 0
    assert load_checkpoint(run).metadata["step"] in (2, 4) and not set_aside(run).exists()


@pytest.mark.parametrize("left", [None, "plan.toml"])
def test_what_a_kill_left_is_put_back_by_the_next_command(run, train, left):
    before = tree(run)
    run.rename(set_aside(run))  # and killed
    if left:
        run.mkdir()
        shutil.copy(set_aside(run) / left, run / left)
    with pytest.raises(CheckpointError, match=r"fold_all\.replaced.*jdm-train --resume"):
        load_checkpoint(run)
    status, told = train()
    assert status == 2  # there is a run, as before
    assert f"{run} was restored" in told and "holds a run already" in told.splitlines()[-1]
    assert tree(run) == before and not set_aside(run).exists()


def test_a_kill_after_the_first_checkpoint_keeps_the_new_run(run, train):
    shutil.copytree(run, set_aside(run))
    (set_aside(run) / "checkpoint.json").unlink()  # killed while it was removed
    before = tree(run)
    assert train()[0] == 2
    assert tree(run) == before and not set_aside(run).exists()
