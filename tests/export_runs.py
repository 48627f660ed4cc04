"""A small export, repeated by many tests; and runs with other weights or settings."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import changed

import jdm
from jdm.draw.run import Run, open_run
from jdm.export.pairs import PairFactory
from jdm.train.checkpoint import save_checkpoint

REQUEST = jdm.ExportRequest("21", "all", id=521, count=5, steps=3, batch_size=2, margin=100.0, seed=4, anyway=True)
THESIS = {"preset": "thesis", "augment": {"probability": 0.0}}


def asked(request: jdm.ExportRequest = REQUEST, **changes: Any) -> jdm.ExportRequest:
    return dataclasses.replace(request, **changes)


def exported(request: jdm.ExportRequest = REQUEST, **changes: Any) -> dict[str, bytes]:
    """Export anew; the bytes of its files."""
    done = jdm.export(asked(request, overwrite=True, **changes))
    assert done.finished
    return contents(done.folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def manifest(files: dict[str, bytes]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in files["manifest.jsonl"].splitlines()]


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def factory_of(run: Run, request: jdm.ExportRequest = REQUEST, **changes: Any) -> PairFactory:
    return PairFactory.of(run, asked(request, **changes), "cpu")


def with_config(run: Run, changes: dict[str, Any]) -> Run:
    """The run, held in memory, with other settings."""
    config = changed(run.config, changes)
    return dataclasses.replace(run, checkpoint=dataclasses.replace(run.checkpoint, config=config))


def rewritten(run: Run, weight: Callable[[torch.Tensor], torch.Tensor] = torch.clone, **facts: Any) -> Run:
    """The run with other weights and facts, on disk."""
    weights = {name: weight(tensor) for name, tensor in run.checkpoint.weights.items()}
    metadata = {key: value for key, value in run.checkpoint.metadata.items() if key not in ("config", "sha256")}
    save_checkpoint(run.folder, weights, changed(run.config, {"facts": facts}), metadata)
    return open_run(str(run.folder), "")


def copied(run: Run, folder: Path) -> Run:
    """The run in another folder, without its samples."""
    shutil.copytree(run.folder, folder, ignore=shutil.ignore_patterns("sampled"))
    return open_run(str(folder), "")


def elsewhere(run: Run, folder: Path, patch: pytest.MonkeyPatch) -> Run:
    """The run's folder, copied alone to a machine with no dataset and of nnU-Net's folders an empty nnUNet_raw."""
    copy = copied(run, folder / "results" / run.folder.parent.name / run.folder.name)
    (folder / "raw").mkdir()
    patch.setenv("nnUNet_raw", str(folder / "raw"))
    patch.setenv("jdm_results", str(folder / "results"))
    for variable in ("nnUNet_preprocessed", "nnUNet_results"):
        patch.delenv(variable)
    return copy
