"""Mutated checkpoints and resume states."""

import json
import struct
from typing import Any

import torch
from fuzzing import TOKENS, altered, bytes_of
from small_runs import config_of

from jdm.config.checks import validate
from jdm.config.settings import Config
from jdm.train.checkpoint import RESUME, WEIGHTS, load_checkpoint, load_resume_state, save_checkpoint, save_resume_state


def checkpoint_with(description: Any, content: bytes) -> bytes:
    """The file with another description, in a header that is whole."""
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = {"jdm": json.dumps(description)}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


def test_checkpoint_header(tmp_path, fuzz):
    weights = {"a": torch.arange(12.0).reshape(3, 4), "b": torch.zeros(2)}
    save_checkpoint(tmp_path, weights, config_of(), {"dataset": "Dataset001_A", "training_ids": ["a"], "step": 1})
    content = (tmp_path / WEIGHTS).read_bytes()
    description = dict(load_checkpoint(tmp_path).metadata)
    unsigned = {key: value for key, value in description.items() if key != "description_sha256"}
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])

    def framed(value: Any) -> bytes:
        text = json.dumps(value).encode()
        return struct.pack("<Q", len(text)) + text + content[8 + length :]

    def read(data: bytes) -> None:
        (tmp_path / WEIGHTS).write_bytes(data)
        found = load_checkpoint(tmp_path)
        assert isinstance(found.config, Config) and validate(found.config) == found.config
        assert {name: tuple(tensor.shape) for name, tensor in found.weights.items()} == {"a": (3, 4), "b": (2,)}
        assert all(torch.equal(found.weights[name], weights[name]) for name in weights)

    described = altered(unsigned).map(lambda changed: checkpoint_with(changed, content))
    fuzz(bytes_of(content, TOKENS) | altered(header).map(framed) | described, read)


def test_resume_state(tmp_path, fuzz, capsys):
    state = {"step": 3, "network": {"a": torch.arange(6.0)}, "origin": {"dataset": "x"}}
    save_resume_state(tmp_path, state)
    content = (tmp_path / RESUME).read_bytes()

    def read(data: bytes) -> None:
        (tmp_path / RESUME).write_bytes(data)
        found = load_resume_state(tmp_path)
        assert isinstance(found, dict) and torch.equal(found["network"]["a"], state["network"]["a"])

    fuzz(bytes_of(content), read)
