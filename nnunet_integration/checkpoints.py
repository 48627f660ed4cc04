"""Read nnU-Net checkpoints as data only: tensors and plain values, no code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jdm.errors import CheckpointError

HEAD = ".seg_layers."


def read_checkpoint(file: Path) -> dict[str, Any]:
    """Load an nnU-Net checkpoint to the CPU, without executing anything in it.

    Raises: CheckpointError if the file is missing, truncated, or holds anything other than tensors and plain values.
    """
    # nnU-Net's training curves are lists of NumPy scalars; these names only build numbers
    plain = [
        np.float64(0).__reduce__()[0],
        np.dtype,
        *(type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8")),
    ]
    try:
        with torch.serialization.safe_globals(plain):
            return torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
    except Exception as error:  # pickle.UnpicklingError, without importing pickle
        if type(error).__name__ != "UnpicklingError":
            raise
        reason = "it holds objects other than tensors and plain values"
    raise CheckpointError(
        f"cannot read the nnU-Net checkpoint {file}: {reason}; expected a checkpoint of nnU-Net 2.8; "
        "check the path, or train it again"
    )


def load_body(network: torch.nn.Module, file: Path) -> None:
    """Load all layers of a checkpoint except the segmentation layers, like nnU-Net's `-pretrained_weights`.

    Unlike nnU-Net it executes nothing in the file, and can load a GPU checkpoint on a machine without a GPU.
    Raises: CheckpointError if a layer is missing or has another shape.
    """
    weights = read_checkpoint(file)["network_weights"]
    body = {name: value for name, value in unwrap(network).state_dict().items() if HEAD not in name}
    for name, value in body.items():
        if name not in weights or weights[name].shape != value.shape:
            found = tuple(weights[name].shape) if name in weights else "nothing"
            raise CheckpointError(
                f"{file} has {found} for the layer {name}; expected {tuple(value.shape)}; pretrain with the "
                "same plans and configuration"
            )
    unwrap(network).load_state_dict({name: weights[name] for name in body}, strict=False)


def unwrap(network: torch.nn.Module) -> torch.nn.Module:
    """The network without the wrappers of DistributedDataParallel and torch.compile."""
    for wrapper in ("module", "_orig_mod"):
        network = getattr(network, wrapper, network)
    return network


def load_head(network: torch.nn.Module, file: Path, labels: dict) -> str | None:
    """Load the segmentation layers of a checkpoint into `network`, if they segment the same labels.

    Args:
        network: the network of a trainer, possibly compiled or wrapped for distributed training.
        labels: `labels` of the current training dataset.
    Returns: None if loaded, else the reason in one line, with the network unchanged.
    """
    checkpoint = read_checkpoint(file)
    before = checkpoint["init_args"]["dataset_json"]["labels"]
    if json.dumps(before) != json.dumps(labels):
        return f"the pretrained head segments {before}, this dataset has {labels}"
    network = unwrap(network)
    head = {name: value for name, value in checkpoint["network_weights"].items() if HEAD in name}
    own = {name: value.shape for name, value in network.state_dict().items() if HEAD in name}
    if own != {name: value.shape for name, value in head.items()}:
        return "the shapes of the pretrained head differ from this network's"
    network.load_state_dict(head, strict=False)
    return None
