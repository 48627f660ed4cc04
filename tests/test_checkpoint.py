"""Checkpoints: whole or refused, and never code."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import jdm.train.checkpoint
from jdm.config.settings import Config, DataConfig, NetworkConfig
from jdm.data.pairs import condition_features
from jdm.diffusion.model import build_denoiser
from jdm.errors import CheckpointError
from jdm.train.checkpoint import (
    METADATA,
    RESUME,
    WEIGHTS,
    differences,
    load_checkpoint,
    load_resume_state,
    run_folder,
    save_checkpoint,
    save_resume_state,
    weights_sha256,
    write_atomically,
)

CONFIG = Config(
    network=NetworkConfig(8, (1, 1), 1, (2,), 2), data=DataConfig(patch_size=(8, 8), canvas_size=(8, 8), whole=False)
)
ORIGIN = {"dataset": "Dataset001_A", "fold": "0", "training_ids": ["a", "b"], "held_out_ids": [], "step": 7}


@pytest.fixture
def weights():
    torch.manual_seed(0)
    denoiser = build_denoiser(CONFIG, condition_features(2))
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return denoiser.state_dict()


def test_a_checkpoint_returns_what_was_saved(tmp_path, weights):
    save_checkpoint(tmp_path, weights, CONFIG, ORIGIN)
    checkpoint = load_checkpoint(tmp_path)
    assert checkpoint.config == CONFIG
    modes = {(tmp_path / name).stat().st_mode for name in (WEIGHTS, METADATA)}
    assert len(modes) == 1, "readable to whom the other files are"
    assert {key: checkpoint.metadata[key] for key in ORIGIN} == ORIGIN
    assert checkpoint.sha256 == weights_sha256(checkpoint.weights) and len(checkpoint.sha256) == 64
    assert json.loads((tmp_path / METADATA).read_text()) == json.loads(json.dumps(dict(checkpoint.metadata)))
    original = build_denoiser(CONFIG, condition_features(2))
    original.load_state_dict(weights)
    x, sigma = torch.randn(2, 2, 8, 8), torch.tensor([[1.0, 0.3], [0.0, 2.0]])
    denoiser = checkpoint.denoiser()
    assert not denoiser.training and not any(p.requires_grad for p in denoiser.parameters())
    with torch.no_grad():
        assert torch.equal(denoiser(x, sigma), original.eval()(x, sigma))


def test_the_checksum_is_of_names_shapes_and_values(weights):
    before = weights_sha256(weights)
    assert before == weights_sha256(dict(reversed(weights.items())))
    name = next(iter(weights))
    assert before != weights_sha256({**weights, name: weights[name] + 1e-3})
    assert before != weights_sha256({**weights, name: weights[name].reshape(-1)})
    assert before != weights_sha256({("x" if k == name else k): v for k, v in weights.items()})


@pytest.mark.parametrize("place", [0.3, 0.7, 0.999])
def test_a_flipped_bit_is_found(tmp_path, weights, place):
    save_checkpoint(tmp_path, weights, CONFIG, ORIGIN)
    path = tmp_path / WEIGHTS
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"checkpoint\.safetensors is damaged: the checksum.*expected") as error:
        load_checkpoint(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kept", [0.0, 0.0001, 0.5, 0.999])
def test_a_truncated_file_is_refused(tmp_path, weights, kept):
    save_checkpoint(tmp_path, weights, CONFIG, ORIGIN)
    path = tmp_path / WEIGHTS
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(CheckpointError, match="not a whole jdm checkpoint") as error:
        load_checkpoint(tmp_path)
    assert "\n" not in str(error.value)


def test_what_is_no_checkpoint_of_jdm_is_refused(tmp_path, weights):
    with pytest.raises(CheckpointError, match=r"no checkpoint .*train first"):
        load_checkpoint(tmp_path)
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(2)}, tmp_path / WEIGHTS)
    with pytest.raises(CheckpointError, match="not a whole jdm checkpoint"):
        load_checkpoint(tmp_path)
    save_checkpoint(tmp_path, weights, CONFIG, ORIGIN)
    header = json.loads((tmp_path / METADATA).read_text())
    header["config"]["network"]["width"] = 3
    del header["description_sha256"]
    save_file({k: v.contiguous() for k, v in weights.items()}, tmp_path / WEIGHTS, metadata={"jdm": json.dumps(header)})
    with pytest.raises(CheckpointError, match=r"network\.width.*another version"):
        load_checkpoint(tmp_path)


class _Payload:
    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self):
        return Path.touch, (self.witness,)


def test_code_in_a_resume_state_is_refused_and_not_run(tmp_path, capsys):
    torch.save({"clock": _Payload(tmp_path / "ran")}, tmp_path / RESUME)
    with pytest.raises(CheckpointError, match=r"resume\.pt cannot be read"):
        load_resume_state(tmp_path)
    assert not (tmp_path / "ran").exists()
    torch.save(_Payload(tmp_path / "ran"), tmp_path / WEIGHTS)
    with pytest.raises(CheckpointError, match="not a whole jdm checkpoint"):
        load_checkpoint(tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_a_damaged_resume_state_falls_back_to_the_one_before_and_says_so(tmp_path, capsys, damage):
    for step in (1, 2):
        save_resume_state(tmp_path, {"step": step, "weights": torch.full((5000,), float(step))})
    assert load_resume_state(tmp_path)["step"] == 2
    assert capsys.readouterr().err == ""
    path = tmp_path / RESUME
    content = path.read_bytes()
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :]
    path.write_bytes({"truncated": content[:middle], "flipped": flipped, "empty": b""}[damage])
    state = load_resume_state(tmp_path)
    assert state["step"] == 1 and (state["weights"] == 1).all()
    warning = capsys.readouterr().err
    assert "resume.pt cannot be read" in warning and "falling back" in warning and warning.count("\n") == 1


def test_no_resume_state_is_none(tmp_path):
    assert load_resume_state(tmp_path) is None


@pytest.mark.parametrize("failing", ["weights", "metadata", "resume"])
def test_a_write_that_fails_midway_keeps_what_was_there(tmp_path, weights, monkeypatch, failing):
    save_checkpoint(tmp_path, weights, CONFIG, ORIGIN)
    save_resume_state(tmp_path, {"step": 1})

    def full(*arguments, **options):
        path = Path(next(a for a in arguments if isinstance(a, str | Path)))
        path.write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    before = (tmp_path / WEIGHTS).read_bytes()
    with pytest.raises(CheckpointError, match=r"No space left on device.*previous file is kept"):
        if failing == "resume":
            monkeypatch.setattr(torch, "save", full)
            save_resume_state(tmp_path, {"step": 2})
        elif failing == "weights":
            monkeypatch.setattr(jdm.train.checkpoint, "save_file", full)
            save_checkpoint(tmp_path, {k: v + 1 for k, v in weights.items()}, CONFIG, ORIGIN)
        else:
            monkeypatch.setattr(Path, "write_text", lambda self, *a, **k: full(self))
            save_checkpoint(tmp_path, weights, CONFIG, ORIGIN)
    monkeypatch.undo()
    assert (tmp_path / WEIGHTS).read_bytes() == before
    assert load_checkpoint(tmp_path).metadata["step"] == 7 and load_resume_state(tmp_path) == {"step": 1}
    assert not list(tmp_path.glob(".*tmp"))


FULL = """
import resource, sys, torch
from pathlib import Path
from jdm.train.checkpoint import save_checkpoint, save_resume_state
from jdm.config.settings import Config
from jdm.errors import CheckpointError
folder, big = Path(sys.argv[1]), {"a": torch.zeros(200_000)}
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
for save in (lambda: save_resume_state(folder, big), lambda: save_checkpoint(folder, big, Config(), {})):
    try:
        save()
    except CheckpointError as error:
        print(error)
"""


def test_a_file_that_cannot_grow_is_one_line_and_keeps_what_was_there(tmp_path, weights):
    save_checkpoint(tmp_path, weights, CONFIG, ORIGIN)
    save_resume_state(tmp_path, {"step": 1})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    done = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, timeout=120)
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and len(lines) == 2, done.stderr[-2000:]
    assert all("cannot write" in line and "MiB are free" in line for line in lines)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_process_that_dies_between_the_renames_leaves_a_state_to_resume(tmp_path, monkeypatch):
    save_resume_state(tmp_path, {"step": 1})
    replace = Path.replace

    def dies(self, target):
        if self.name.startswith("."):
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", dies)
    with pytest.raises(KeyboardInterrupt):
        save_resume_state(tmp_path, {"step": 2})
    monkeypatch.undo()
    assert load_resume_state(tmp_path) == {"step": 1}


def test_write_atomically_is_invisible_until_complete(tmp_path):
    target = tmp_path / "file"
    target.write_text("old")

    def write(path):
        path.write_text("new")
        assert target.read_text() == "old"

    write_atomically(target, write)
    assert target.read_text() == "new" and [p.name for p in tmp_path.iterdir()] == ["file"]


def test_differences_name_each_field():
    found = {"a": {"b": 1, "c": [1]}, "d": 2}
    assert differences(found, {"a": {"b": 2, "c": [1]}, "e": 3}) == [
        "a.b: 1, expected 2",
        "d: 2, expected None",
        "e: None, expected 3",
    ]
    assert differences(found, found) == []


def test_runs_are_kept_by_dataset_and_fold(monkeypatch, tmp_path):
    monkeypatch.setenv("jdm_results", str(tmp_path))
    assert run_folder("Dataset001_A", 3) == tmp_path / "Dataset001_A" / "fold_3"
    monkeypatch.delenv("jdm_results")
    assert run_folder("Dataset001_A", "all") == Path("jdm_results/Dataset001_A/fold_all")
