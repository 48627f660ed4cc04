"""Checkpoints: safetensors weights with plain metadata, and a resume state that contains no code."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import sys
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from jdm.config.checks import validate
from jdm.config.files import from_dict, to_dict
from jdm.config.settings import Config
from jdm.data.pairs import condition_features
from jdm.data.raw_dataset import matches_dataset
from jdm.data.raw_layout import few, results_folder
from jdm.diffusion.denoiser import Denoiser
from jdm.diffusion.model import build_denoiser
from jdm.diffusion.vp import VPDenoiser
from jdm.errors import CheckpointError, ConfigError
from jdm.system.files import replaced

WEIGHTS, METADATA, RESUME = "checkpoint.safetensors", "checkpoint.json", "resume.pt"
PLAN, FINGERPRINT = "plan.toml", "fingerprint.json"
_PREVIOUS = ".previous"
_DESCRIPTION = "description_sha256"  # hash of everything else in the header


@dataclass(frozen=True)
class Checkpoint:
    """Weights to sample from, and their provenance."""

    config: Config
    weights: Mapping[str, Tensor]
    metadata: Mapping[str, Any]
    """dataset, fold, training_ids, held_out_ids, step, sha256, jdm_version, commit, hardware, ..."""

    @property
    def sha256(self) -> str:
        return self.metadata["sha256"]

    def denoiser(self, device: torch.device | str = "cpu") -> Denoiser | VPDenoiser:
        """The network with these weights, ready to sample on `device`."""
        denoiser = build_denoiser(self.config, condition_features(self.config.data.dims))
        denoiser.load_state_dict(dict(self.weights))
        return denoiser.to(device).eval().requires_grad_(False)


def run_folder(dataset_name: str, fold: int | str) -> Path:
    """Folder of a training run: $jdm_results/DatasetNNN_Name/fold_F, or below ./jdm_results."""
    return results_folder() / dataset_name / f"fold_{fold}"


def find_run(dataset: str, fold: str) -> Path:
    """Find the folder of a training run.

    Args:
        dataset: id or name of its dataset, which need not be on this machine; or, with an empty fold, the run's folder.
    Raises: ConfigError if there is no such run.
    """
    if not fold:
        if not (Path(dataset) / WEIGHTS).is_file():
            raise ConfigError(
                f"{dataset} is not a trained run's folder (no {WEIGHTS}); expected DATASET FOLD or a run's folder; "
                "train first, or correct the path"
            )
        return Path(dataset)
    root = results_folder()
    names = sorted({path.name for path in root.glob("Dataset*") if matches_dataset(path.name, dataset)})
    if len(names) != 1:
        raise ConfigError(
            f"{'several runs' if names else 'no run'} of dataset {dataset!r} in {root}; expected one"
            f"{' of ' + few(names) if names else ''}; "
            + ("give its full name" if names else f"train one with jdm-train {dataset} {fold}, or set jdm_results")
        )
    return run_folder(names[0], fold)


def set_aside(folder: Path) -> Path:
    """Where `jdm.train.replaced_run` keeps the earlier run of a folder while another replaces it."""
    return folder.with_name(f".{folder.name}.replaced")


@contextlib.contextmanager
def _written(path: Path, keep: Path | None = None, size: int | None = None) -> Iterator[Path]:
    """Like `jdm.system.files.replaced`, but a full disk raises CheckpointError with the space needed and free.

    Args: size: bytes needed, if known.
    """
    try:
        with replaced(path, keep=keep) as temporary:
            yield temporary
    except (OSError, RuntimeError, SafetensorError) as error:  # the C++ and Rust writers raise the latter two
        free = shutil.disk_usage(path.parent).free // 2**20
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        needed = "enough free space" if size is None else f"about {size // 2**20 + 1} MiB"
        kept = "; the previous file is kept" if path.exists() else ""
        again = " with --resume" if has_resume_state(path.parent) else ""
        raise CheckpointError(
            f"cannot write {path}: {reason}; {free} MiB are free; expected {needed}{kept}; "
            f"free space and run again{again}"
        ) from error


def write_run_text(path: Path, text: str) -> None:
    """Write a text file in a run's folder. Raises: CheckpointError if writing fails."""
    with _written(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def save_checkpoint(folder: Path, weights: Mapping[str, Tensor], config: Config, metadata: Mapping[str, Any]) -> None:
    """Write checkpoint.safetensors, with all metadata in its header, and a readable copy of that in checkpoint.json."""
    weights = {name: tensor.detach().to("cpu", torch.float32).contiguous() for name, tensor in weights.items()}
    content = {**metadata, "sha256": weights_sha256(weights), "config": to_dict(config)}
    content = json.loads(json.dumps(content))  # as it will be read back
    content[_DESCRIPTION] = _description_sha256(content)
    header = {"jdm": json.dumps(content)}  # one entry: safetensors does not keep the order of several
    with _written(folder / WEIGHTS, size=_stored_bytes(weights)) as path:
        path.write_bytes(save(weights, metadata=header))  # its save_file leaves a file of its own if it is killed
    write_run_text(folder / METADATA, json.dumps(content, indent=2) + "\n")


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint and verify it.

    Raises: CheckpointError if it is missing, truncated, not of jdm, or differs from its checksum.
    """
    path, aside = folder / WEIGHTS, set_aside(folder)
    if not path.is_file():
        raise CheckpointError(
            f"no checkpoint {path}; expected one written by jdm-train; train first, or name its folder"
            + (f"; the earlier run is in {aside}, jdm-train --resume restores it" if aside.exists() else "")
        )
    try:
        with safe_open(str(path), framework="pt") as file:
            header = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = _described(header)
        config = validate(from_dict(Config, metadata["config"]))
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}; the file was written by another version of jdm; train again") from None
    except (SafetensorError, KeyError, ValueError, TypeError, OSError, RecursionError) as error:
        raise CheckpointError(f"{path} is not a complete jdm checkpoint: {error}; restore it or train again") from None
    if weights_sha256(weights) != metadata.get("sha256"):
        raise CheckpointError(
            f"{path} is damaged: the checksum of its weights is {weights_sha256(weights)[:12]}, expected "
            f"{str(metadata.get('sha256'))[:12]}; restore it or train again"
        )
    return Checkpoint(config, weights, metadata)


def _described(header: Mapping[str, str]) -> dict[str, Any]:
    """Metadata in a checkpoint's header. Raises: KeyError, ValueError if it is damaged or not written by jdm."""
    metadata = json.loads(header["jdm"])
    if not isinstance(metadata, dict) or not isinstance(metadata["config"], dict):
        raise ValueError("its description is not a JSON object with a config")
    if metadata[_DESCRIPTION] != _description_sha256(metadata):
        raise ValueError("the checksum of its description is wrong")
    return metadata


def _description_sha256(metadata: Mapping[str, Any]) -> str:
    """SHA-256 over all metadata in a checkpoint's header except this hash."""
    rest = {key: value for key, value in metadata.items() if key != _DESCRIPTION}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def weights_sha256(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes and values, independent of file layout."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].contiguous()
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data if tensor.numel() else b"")
    return digest.hexdigest()


def save_resume_state(folder: Path, state: Mapping[str, Any]) -> None:
    """Write resume.pt and keep the previous one."""
    path, keep = resume_paths(folder)
    with _written(path, keep, _stored_bytes(state)) as temporary:
        torch.save(dict(state), temporary)


def _stored_bytes(state: Any) -> int:
    """Size in bytes of the tensors in nested mappings and lists."""
    if isinstance(state, Tensor):
        return state.numel() * state.element_size()
    parts = state.values() if isinstance(state, Mapping) else state if isinstance(state, list | tuple) else ()
    return sum(map(_stored_bytes, parts))


def resume_paths(folder: Path) -> tuple[Path, Path]:
    """Paths of a run's last resume state and of the previous one."""
    return folder / RESUME, folder / (RESUME + _PREVIOUS)


def has_resume_state(folder: Path) -> bool:
    """Whether a run has saved a resume state, readable or not."""
    return any(path.is_file() for path in resume_paths(folder))


def load_resume_state(folder: Path) -> dict[str, Any] | None:
    """The newest readable resume state, or None if there is none; warns if it is not the last one.

    Raises: CheckpointError if all are damaged.
    """
    if not has_resume_state(folder):
        return None
    problem = ""
    for path in resume_paths(folder):
        try:
            with zipfile.ZipFile(path) as file:
                if file.testzip() is not None:  # torch.load does not verify the checksums
                    raise zipfile.BadZipFile("wrong checksum")
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged file can raise many kinds of exception
            problem = problem or f"{path} cannot be read ({type(error).__name__})"
            print(f"jdm: warning: {problem}; using the previous state instead", file=sys.stderr)
            continue
        return state
    raise CheckpointError(f"{problem}; expected a state written by jdm-train; train again with --overwrite")
