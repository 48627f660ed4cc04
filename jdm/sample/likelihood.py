"""Likelihood of real cases in bits per dimension: training cases compared with held-out ones."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from jdm.config.settings import Config
from jdm.data.codec import PairCodec
from jdm.data.pairs import PairDataset
from jdm.diffusion.conditioning import Known
from jdm.diffusion.ode import Solver, bits_per_dim, dequantised, log_likelihood, rademacher
from jdm.diffusion.sampling import CaseNoise, karras_sigmas
from jdm.diffusion.windows import with_beside
from jdm.draw.drawer import level_span
from jdm.draw.run import Run, origin
from jdm.draw.seeds import case_seed
from jdm.sample.output import output_folder, write_record
from jdm.sample.request import LikelihoodRequest, described
from jdm.system.progress import progress
from jdm.train.checkpoint import Checkpoint
from jdm.train.objective import memory_errors

_CASES = 4
_GREY = 2 / 255


@dataclass(frozen=True)
class Bits:
    """Result of one crop."""

    case: str
    part: str
    """seen or held-out"""
    crop: int
    bits_per_dim: float


def measure_bits(run: Run, request: LikelihoodRequest, out: Path, device: str) -> tuple[int, str]:
    """Write bits_per_dim.csv, a line per crop, and samples.json with the means, into `out`.

    Returns: number of crops, and a line to print.
    Raises: as `jdm.sample.modes.sample`.
    """
    checkpoint, dataset = run.checkpoint, run.real_for("jdm-sample likelihood")
    pairs = PairDataset(dataset, chosen_cases(checkpoint, request), checkpoint.config)
    with output_folder(out, request.overwrite) as folder, memory_errors(1, flag="--data.patch-size of jdm-train"):
        rows = _measured(checkpoint, pairs, request, device)
        with (folder / "bits_per_dim.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["case", "part", "crop", "bits_per_dim"])
            writer.writerows([row.case, row.part, row.crop, f"{row.bits_per_dim:.6f}"] for row in rows)
        means = summary(rows)
        counted = "image and mask" if checkpoint.config.preset == "thesis" else "image given its mask"
        asked = {**origin(checkpoint, None), **described(checkpoint.config, request)}
        write_record(folder, {"bits_per_dim": means, "counted": counted, **asked})
    parts = [
        f"{m['mean']:.3f} +- {m['standard_error']:.3f} over {m['cases']} {part} cases" for part, m in means.items()
    ]
    return len(rows), f"bits per dimension of {counted}: {', '.join(parts)}; each crop is in {out / 'bits_per_dim.csv'}"


def chosen_cases(checkpoint: Checkpoint, request: LikelihoodRequest) -> list[str]:
    """The request's cases; by default the first held-out ones, and as many evenly spaced training cases."""
    if request.cases:
        return list(request.cases)
    held_out, seen = (list(checkpoint.metadata[key]) for key in ("held_out_ids", "training_ids"))
    held_out = held_out[:_CASES]
    count = min(len(held_out) or _CASES, len(seen))
    return held_out + [seen[k * len(seen) // count] for k in range(count)]


def summary(rows: Sequence[Bits]) -> dict[str, dict[str, float]]:
    """Mean over the cases of each part, with its standard error (0 for one case). A case is the mean of its crops."""
    found = {}
    for part in ("seen", "held-out"):
        cases = dict.fromkeys(row.case for row in rows if row.part == part)
        means = [np.mean([row.bits_per_dim for row in rows if row.case == case]) for case in cases]
        if means:
            error = np.std(means, ddof=1) / math.sqrt(len(means)) if len(means) > 1 else 0.0
            found[part] = {"cases": len(means), "mean": float(np.mean(means)), "standard_error": float(error)}
    return found


def _measured(checkpoint: Checkpoint, pairs: PairDataset, request: LikelihoodRequest, device: str) -> list[Bits]:
    seen = set(checkpoint.metadata["training_ids"])
    denoiser = checkpoint.denoiser(device)
    sigmas = karras_sigmas(2, *level_span(denoiser, pairs.config))
    widths = bin_widths(pairs.config)
    tolerance = 1e-3 if request.settings.tolerance is None else request.settings.tolerance
    items = {
        item.case_id: [n for n, one in enumerate(pairs.items) if one.case_id == item.case_id] for item in pairs.items
    }
    jobs = [(number, case, crop) for number, case in enumerate(items) for crop in range(request.samples)]
    rows = []
    for number, case, crop in progress(jobs, "crops"):
        seed = case_seed(request.seed, number, crop)
        rng = np.random.default_rng(seed)
        sampled = torch.from_numpy(pairs.sample(int(rng.choice(items[case])), rng))[None].to(device)
        x0, beside = sampled.tensor_split([len(widths)], dim=1)
        spread = dequantised(x0, torch.from_numpy(rng.random(x0.shape)).to(x0), _column(widths, x0))
        noise = CaseNoise([seed], x0.shape[1:], device)
        probes = torch.stack([rademacher(noise()) for _ in range(request.probes)])
        found = log_likelihood(
            with_beside(denoiser, beside),
            spread,
            sigmas,
            probes,
            Solver(rtol=tolerance, atol=tolerance),
            _known(spread, widths, pairs.config),
        )
        width = math.exp(np.mean(np.log([width for width in widths if width > 0])))
        part = "seen" if case in seen else "held-out"
        rows.append(Bits(case, part, crop, bits_per_dim(found, width).item()))
    return rows


def bin_widths(config: Config) -> list[float]:
    """Spacing of discrete levels of each channel, in encoded intensity; 0 for channels that are given, not counted.

    For integers it is the codec's spacing. Real numbers and the thesis's masks count as 256 levels, as in the thesis's
    bound. The few values of a mask have an unbounded density, so the mask is given if the network can be conditioned on
    it.
    """
    integers = np.dtype(config.facts.dtype).kind in "iu"
    ends, span = zip(config.facts.low, config.facts.high, strict=True), PairCodec(config).span
    image = [span / (high - low) if integers else _GREY for low, high in ends]
    return image + [_GREY if config.preset == "thesis" else 0.0] * config.mask_channels


def _known(x0: Tensor, widths: list[float], config: Config) -> Known | None:
    where = _column(widths, x0) == 0
    return Known(where[None], x0, config.image_channels) if bool(where.any()) else None


def _column(widths: list[float], x0: Tensor) -> Tensor:
    return x0.new_tensor(widths).reshape(-1, *[1] * (x0.ndim - 2))
