"""Export: sample, decode, filter, and write another nnU-Net raw dataset.

A dataset grows in a hidden folder beside its final place and is renamed when the last batch is done. Every case has
a seed of its own, and its index fixes the batch it is sampled in, so that repeated, resumed and sharded exports are
the same bytes on the same hardware.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from scipy import ndimage
from tqdm import tqdm

from jdm import __version__
from jdm.checkpoint import Checkpoint, differences
from jdm.config import Config
from jdm.data.pairs import PairDataset
from jdm.data.raw_dataset import (
    Pair,
    RawDataset,
    dataset_name,
    nnunet_folder,
    read_case,
    write_case,
)
from jdm.diffusion.sampling import CaseNoise, karras_sigmas, sample_ancestral, sample_ddim, sample_dpmpp_2m, sample_heun
from jdm.diffusion.vp import VPDenoiser
from jdm.diffusion.windows import windowed
from jdm.errors import ConfigError, DataError, ExistsError
from jdm.evaluation.plausible import ForegroundRange, foreground_shares, real_foreground
from jdm.export_folder import check_target, claim, finished_records, held, seal, write_text

Sampler = Literal["heun", "dpmpp-2m", "ddim", "ancestral"]
PREFIX, PARTIAL = "syn_", ".jdm-partial-"
_MOST_ATTEMPTS = 20
_ZERO_TOLERANCE = 0.03  # of the encoded range [-1, 1]: what counts as black at a border


@dataclass(frozen=True)
class ExportRequest:
    """What to sample; written beside the growing dataset, so that a resumed export cannot mix two."""

    id: int
    name: str
    """Of the new dataset, without its id."""
    count: int
    canvas_size: tuple[int, ...]
    sampler: Sampler = "heun"
    steps: int = 18
    seed: int = 0
    batch_size: int = 16
    overlap: float = 0.25
    """Least overlap of neighbouring windows on a canvas larger than the training patch."""
    margin: float = 0.25
    """Share of the real foreground range by which a pair may leave it before it is drawn again."""


@dataclass(frozen=True)
class Exported:
    """What this process did."""

    folder: Path
    """The finished dataset, or the hidden one if other shards are still at work."""
    finished: bool
    count: int
    redrawn: int
    """Degenerate draws that were repeated."""


def synthetic_count(ratio: float, config: Config, pairs: PairDataset, canvas_size: Sequence[int]) -> int:
    """Number of pairs that make `ratio` times the training set.

    Counted in images (slices of volumes) where those are trained whole, in pixels where patches are.
    Raises: ConfigError if that is none.
    """
    if config.data.whole:
        count = round(ratio * len(pairs))
    else:
        pixels = sum(math.prod(pairs.item_shape(index)) for index in range(len(pairs)))
        count = round(ratio * pixels / math.prod(canvas_size))
    if count < 1:
        raise ConfigError(f"ratio {ratio} makes {count} pairs; expected at least one; ask for a larger ratio")
    return count


def check_origin(checkpoint: Checkpoint, dataset: RawDataset) -> None:
    """Refuse a checkpoint of another dataset, showing what differs.

    Raises: ConfigError.
    """
    kept = ("dataset", "labels", "channel_names", "file_ending")
    found = {key: checkpoint.metadata[key] for key in kept}
    expected = {
        "dataset": dataset.name,
        "labels": dict(dataset.labels),
        "channel_names": list(dataset.channel_names),
        "file_ending": dataset.file_ending,
    }
    lines = differences(found, expected)
    gone = sorted({*checkpoint.metadata["training_ids"]} - {*dataset.cases})
    if gone:
        lines.append(f"training cases {gone[:5]} are not in the dataset")
    if lines:
        raise ConfigError(
            f"the checkpoint is of another dataset: {'; '.join(lines)}; train again, or name its own dataset"
        )


def export(
    checkpoint: Checkpoint, dataset: RawDataset, request: ExportRequest, *,
    shard: tuple[int, int] = (0, 1), device: str = "cpu", overwrite: bool = False,
) -> Exported:  # fmt: skip
    """Write the synthetic dataset, or one shard of it; the shard that finishes last puts it in place.

    Args:
        shard: (index, of how many); batches are dealt out in turn.
        overwrite: replace an earlier synthetic dataset of this name; a real one never.
    Raises: ExistsError if the id or the name is taken or another process holds this shard; ConfigError if the
        checkpoint is of another dataset; DataError if the model does not produce plausible pairs.
    """
    check_origin(checkpoint, dataset)
    target = nnunet_folder("nnUNet_raw") / dataset_name(request.id, request.name)
    check_target(target, request, overwrite)
    partial = target.with_name(PARTIAL + target.name)
    claim(partial, checkpoint, request)
    batches = [
        range(first, min(first + request.batch_size, request.count))
        for first in range(0, request.count, request.batch_size)
    ]
    with held(partial / f"shard_{shard[0]}_of_{shard[1]}.lock"):
        factory = _Factory(checkpoint, dataset, request, device)
        mine = [number for number in range(len(batches)) if number % shard[1] == shard[0]]
        for number in tqdm(mine, disable=None, unit="batch"):
            done = partial / "batches" / f"{number:06d}.json"
            if not done.exists():
                lines = [factory.write(pair, record, partial) for pair, record in factory.batch(batches[number])]
                write_text(done, json.dumps(lines))
    records = finished_records(partial, len(batches))
    redrawn = sum(record["attempt"] for record in records or [])
    if records is None:
        return Exported(partial, False, request.count, redrawn)
    # Another shard may see the end too, and be quicker.
    with contextlib.suppress(ExistsError, FileNotFoundError), held(partial / "seal.lock"):
        if partial.exists():
            seal(partial, target, records, provenance(checkpoint, request, factory.real, records), dataset)
    return Exported(target, True, request.count, redrawn)


class _Factory:
    """Makes the pairs of one export."""

    def __init__(self, checkpoint: Checkpoint, dataset: RawDataset, request: ExportRequest, device: str) -> None:
        self.config, self.request, self.device = checkpoint.config, request, device
        self.dataset, self.sha256 = dataset, checkpoint.sha256
        self.pairs = PairDataset(dataset, list(checkpoint.metadata["training_ids"]), checkpoint.config)
        self.real = real_foreground(self.pairs, request.canvas_size, request.margin)
        self.denoiser = checkpoint.denoiser(device)
        self.third_spacing = read_case(dataset, self.pairs.items[0].case_id).spacing

    def batch(self, indices: range) -> list[tuple[Pair, dict[str, Any]]]:
        """The pairs of some case indices and their manifest records; degenerate ones are drawn again."""
        made: dict[int, tuple[Pair, dict[str, Any]]] = {}
        waiting, failed = list(indices), []
        for attempt in range(_MOST_ATTEMPTS):
            seeds = [case_seed(self.request.seed, index, attempt) for index in waiting]
            samples = self.sample(seeds)
            failed = []
            for index, seed, sample in zip(waiting, seeds, samples, strict=True):
                pair = self.finish(index, seed, sample)
                problem = self.real.problem(pair.label)
                if problem is None:
                    made[index] = pair, self.record(pair, seed, attempt)
                else:
                    failed.append((index, problem))
            waiting = [index for index, _ in failed]
            if not waiting:
                return [made[index] for index in indices]
        raise DataError(
            f"case {waiting[0]} is degenerate in {_MOST_ATTEMPTS} draws: {failed[0][1]}; expected pairs "
            "like the real ones; train longer, or allow more with --margin"
        )

    def sample(self, seeds: list[int]) -> np.ndarray:
        """Encoded samples (n, channels, *canvas_size), each a function of its seed."""
        config, request, denoiser = self.config, self.request, self.denoiser
        draw = CaseNoise(seeds, (config.image_channels + config.mask_channels, *request.canvas_size), self.device)
        if request.sampler == "ancestral":
            if not isinstance(denoiser, VPDenoiser) or request.canvas_size != config.data.patch_size:
                raise ConfigError(
                    "sampler 'ancestral' serves the thesis preset at the training size only; "
                    "expected heun, dpmpp-2m or ddim"
                )
            respaced = denoiser.respaced(request.steps)
            return sample_ancestral(respaced.predict, respaced.process, draw(), draw, clip=1.0).cpu().numpy()
        denoise = windowed(denoiser, config.data.patch_size, request.overlap, request.batch_size)
        sample = {"heun": sample_heun, "dpmpp-2m": sample_dpmpp_2m, "ddim": sample_ddim}[request.sampler]
        return sample(denoise, draw(), self.levels()).cpu().numpy()

    def levels(self) -> torch.Tensor:
        """Noise levels from the plan's, or the span of the thesis's process."""
        low, high = self.config.noise.sigma_min, self.config.noise.sigma_max
        if isinstance(self.denoiser, VPDenoiser):
            process = self.denoiser.process
            low, high = process.sigma(0), process.sigma(process.steps - 1)
        return karras_sigmas(self.request.steps, low, high)

    def finish(self, index: int, seed: int, sample: np.ndarray) -> Pair:
        """Decode a sample and give it the size, borders and geometry of a real case."""
        if self.config.data.whole:
            sample = self._natural_size(seed, sample)
        image, label = self.pairs.codec.decode(sample)
        if self.config.codec.zero_border:
            image = restore_zero_border(image, sample[: len(image)])
        spacing, axis = self.config.data.spacing, self.config.data.slice_axis
        if axis is not None:
            image, label = np.expand_dims(image, axis + 1), np.expand_dims(label, axis)
            spacing = (*spacing[:axis], self.third_spacing[axis], *spacing[axis:])
        return Pair(f"{PREFIX}{index:06d}", image, label, spacing)

    def _natural_size(self, seed: int, sample: np.ndarray) -> np.ndarray:
        """Cut the padding that training added, by the size of a training image drawn with the case's seed."""
        drawn = np.random.default_rng(seed).integers(len(self.pairs))
        keep = [slice(None)]
        for side, want in zip(sample.shape[1:], self.pairs.item_shape(int(drawn)), strict=True):
            start = max(side - want, 0) // 2
            keep.append(slice(start, start + min(side, want)))
        return sample[tuple(keep)]

    def record(self, pair: Pair, seed: int, attempt: int) -> dict[str, Any]:
        shares = foreground_shares(pair.label, self.config.codec.classes)
        names = {value: name for name, value in self.dataset.labels.items()}
        return {
            "case_id": pair.case_id,
            "seed": seed,
            "attempt": attempt,
            "checkpoint_sha256": self.sha256,
            "sampler": self.request.sampler,
            "steps": self.request.steps,
            "foreground_share": {names[v]: round(float(s), 6) for v, s in enumerate(shares) if v > 0},
        }

    def write(self, pair: Pair, record: dict[str, Any], folder: Path) -> dict[str, Any]:
        write_case(folder, pair, self.dataset.file_ending)
        return record


def case_seed(seed: int, index: int, attempt: int) -> int:
    """Seed of one draw of one case, 63 bits."""
    words = np.random.SeedSequence([seed, index, attempt]).generate_state(2, np.uint32)
    return (int(words[0]) << 32 | int(words[1])) >> 1


def restore_zero_border(image: np.ndarray, encoded: np.ndarray) -> np.ndarray:
    """Make what is black up to the border exactly zero, as in the real images; nnU-Net crops exact zeros only.

    Args:
        image: decoded (channels, *spatial); encoded: the same before decoding, where -1 is the lowest intensity.
    """
    black = (encoded <= -1 + 2 * _ZERO_TOLERANCE).all(axis=0)
    regions = np.empty(black.shape, np.int32)
    ndimage.label(black, output=regions)
    touching: set[int] = set()
    for axis in range(black.ndim):
        for end in (0, -1):
            touching |= set(np.unique(regions.take(end, axis=axis)).tolist())
    border = np.isin(regions, sorted(touching - {0}))
    return np.where(border[None], np.zeros((), image.dtype), image)


def provenance(
    checkpoint: Checkpoint, request: ExportRequest, real: ForegroundRange, records: list[dict[str, Any]]
) -> dict[str, Any]:
    """Where a synthetic dataset comes from; the trainers read the generator's case ids from it."""
    metadata = checkpoint.metadata
    generator = {key: metadata[key] for key in ("dataset", "fold", "training_ids", "held_out_ids", "step")}
    return {
        "jdm_version": __version__,
        "generator": {**generator, "checkpoint_sha256": checkpoint.sha256},
        **asdict(request),
        "redrawn": sum(record["attempt"] for record in records),
        "real_foreground_range": asdict(real),
    }
