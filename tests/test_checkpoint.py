"""Checkpoints: whole or refused, and never code."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from small_runs import TINY, config_of

from jdm.config.files import to_dict
from jdm.data.pairs import condition_features
from jdm.diffusion.model import build_denoiser
from jdm.errors import CheckpointError
from jdm.train.checkpoint import (
    METADATA,
    RESUME,
    WEIGHTS,
    load_checkpoint,
    load_resume_state,
    run_folder,
    save_checkpoint,
    save_resume_state,
    weights_sha256,
)

CONFIG = config_of(network=to_dict(TINY), data={"patch_size": [8, 8], "canvas_size": [8, 8], "whole": False})
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


@pytest.mark.parametrize("kept", [0.0, 0.0001, 0.5, 0.999])
def test_a_truncated_file_is_refused(tmp_path, weights, kept):
    save_checkpoint(tmp_path, weights, CONFIG, ORIGIN)
    path = tmp_path / WEIGHTS
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(CheckpointError, match=r"checkpoint\.safetensors") as error:
        load_checkpoint(tmp_path)
    assert "\n" not in str(error.value)


def test_what_is_no_checkpoint_of_jdm_is_refused(tmp_path, weights):
    save_checkpoint(tmp_path, weights, CONFIG, ORIGIN)
    header = json.loads((tmp_path / METADATA).read_text())
    unsigned = {key: value for key, value in header.items() if key != "description_sha256"}
    newer = {**unsigned, "config": {**header["config"], "network": {**header["config"]["network"], "width": 3}}}
    digest = hashlib.sha256(json.dumps(newer, sort_keys=True).encode()).hexdigest()
    cases = {
        "not a complete jdm checkpoint": [
            None,
            "{}",
            json.dumps(unsigned),
            json.dumps({**header, "step": 8}),
            "[" * 99_999,
        ],
        r"network\.width.*another version": [json.dumps({**newer, "description_sha256": digest})],
        "the checksum of its weights": [json.dumps(header)],
    }
    changed = {name: (tensor + 1).contiguous() for name, tensor in weights.items()}
    for found, descriptions in cases.items():
        for description in descriptions:
            save_file(changed, tmp_path / WEIGHTS, metadata=None if description is None else {"jdm": description})
            with pytest.raises(CheckpointError, match=found) as error:
                load_checkpoint(tmp_path)
            assert "\n" not in str(error.value) and WEIGHTS in str(error.value)
    (tmp_path / WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match=rf"no checkpoint .*{WEIGHTS}"):
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
    with pytest.raises(CheckpointError, match=r"checkpoint\.safetensors"):
        load_checkpoint(tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_a_damaged_resume_state_falls_back_to_the_one_before_and_says_so(tmp_path, capsys, damage):
    assert load_resume_state(tmp_path) is None
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
    assert "resume.pt cannot be read" in warning and "previous state" in warning and warning.count("\n") == 1


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


def test_runs_are_kept_by_dataset_and_fold(monkeypatch, tmp_path):
    monkeypatch.setenv("jdm_results", str(tmp_path))
    assert run_folder("Dataset001_A", 3) == tmp_path / "Dataset001_A" / "fold_3"
    monkeypatch.delenv("jdm_results")
    assert run_folder("Dataset001_A", "all") == Path("jdm_results/Dataset001_A/fold_all")
