"""What several scripts share: where results come from, earlier results, counts of evaluations, draws of an export."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jdm.config.files import differences
from jdm.data.raw_dataset import RawDataset
from jdm.diffusion.denoiser import Denoiser
from jdm.diffusion.vp import VPDenoiser
from jdm.draw.run import Run, open_run
from jdm.draw.seeds import case_seed
from jdm.errors import DataError, ExistsError
from jdm.evaluation.statistics import Interval
from jdm.export.pairs import PairFactory
from jdm.system.machine import describe_run


def about() -> dict[str, str]:
    """The command, the commit and the hardware that a result comes from."""
    run = describe_run()
    return {"command": f"python scripts/{run.command}", "commit": run.commit, "hardware": run.hardware}


def interval(found: Interval) -> dict[str, float]:
    return {"mean": found.mean, "low": found.low, "high": found.high}


def kept(file: Path, circumstances: Mapping[str, Any]) -> dict[str, Any]:
    """What an earlier call wrote to a JSON file; nothing where there is none.

    Raises: ExistsError, naming what differs, if it was written under other circumstances.
    """
    if not file.is_file():
        return {}
    content = json.loads(file.read_text(encoding="utf-8"))
    expected = json.loads(json.dumps(circumstances))
    if lines := differences({key: content.get(key) for key in expected}, expected):
        raise ExistsError(
            f"{file} is of another run: {'; '.join(lines[:3])}; expected the same; remove it, or choose another folder"
        )
    return content


def generator_of(synthetic: RawDataset) -> tuple[Run, dict[str, Any]]:
    """The run that a synthetic dataset was exported from, and the dataset's provenance.

    Raises: DataError if the run was trained anew since.
    """
    provenance = json.loads((synthetic.folder / "provenance.json").read_text(encoding="utf-8"))
    origin = provenance["generator"]
    run = open_run(origin["dataset"], str(origin["fold"]))
    if run.checkpoint.sha256 != origin["checkpoint_sha256"]:
        raise DataError(
            f"{synthetic.name} comes from checkpoint {origin['checkpoint_sha256'][:12]}, {run.folder} holds "
            f"{run.checkpoint.sha256[:12]}; expected them equal; export again, or restore the checkpoint"
        )
    return run, provenance


def counted(denoiser: Denoiser | VPDenoiser) -> list[int]:
    """A list to which every call of the network from now on appends its number of samples."""
    calls: list[int] = []
    denoiser.network.register_forward_pre_hook(lambda _, arguments: calls.append(len(arguments[0])))
    return calls


def first_draws(factory: PairFactory) -> list[tuple[np.ndarray, np.ndarray]]:
    """Image and label of the first draw of each image or slice of an export, degenerate or not."""
    order, numbers = factory.order, list(range(factory.order.count))
    samples = factory.samples(numbers, [case_seed(order.request.seed, number, 0) for number in numbers])
    return [factory.codec.decode(factory.cut(n // order.slices, x)) for n, x in zip(numbers, samples, strict=True)]
