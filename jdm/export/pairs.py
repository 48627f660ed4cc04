"""Export: sample, decode, filter, and write another nnU-Net raw dataset.

A dataset grows in a hidden folder beside its final place and is renamed when the last batch is done. Every case has
a seed of its own, and its index fixes the batch it is sampled in, so that repeated, resumed and sharded exports are
the same bytes on the same hardware.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage
from tqdm import tqdm

from jdm.config.settings import CodecConfig
from jdm.data.codec import PairCodec
from jdm.data.pairs import PairDataset
from jdm.data.raw_dataset import Pair, RawDataset, write_case
from jdm.draw.export_drawer import PairDrawer
from jdm.draw.guidance import check_guidance
from jdm.errors import ConfigError, DataError
from jdm.export.amount import batches_of, duration, export_seconds
from jdm.export.folder import ExportFolder
from jdm.export.masks import GivenMasks, identified
from jdm.export.request import ExportRequest, check_request, class_of
from jdm.plan.foreground import ForegroundRange, foreground_shares, real_foreground
from jdm.system.files import sync_to_disk, write_text
from jdm.system.locks import held
from jdm.system.machine import jdm_version
from jdm.system.parallel import on_all_cores
from jdm.train.checkpoint import Checkpoint, differences
from jdm.train.objective import memory_errors

PREFIX = "syn_"
_MOST_ATTEMPTS = 20
_ZERO_TOLERANCE = 0.03  # of the encoded range [-1, 1]: what counts as black at a border


@dataclass(frozen=True)
class Exported:
    """What this process did."""

    folder: Path
    """The finished dataset, or the hidden one if other shards are still at work."""
    finished: bool
    count: int
    redrawn: int
    """Degenerate draws that were repeated."""
    found: bool = False
    """The dataset was in place already, of the same request and checkpoint; nothing was done."""


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
    shard: tuple[int, int] = (0, 1), device: str = "cpu", overwrite: bool = False, weaker: Checkpoint | None = None,
) -> Exported:  # fmt: skip
    """Write the synthetic dataset, or one shard of it; the shard that finishes last puts it in place.

    Args:
        shard: (index, of how many); batches are dealt out in turn.
        overwrite: replace an earlier synthetic dataset of this name; a real one never.
        weaker: a checkpoint of the same plan that guides, see `jdm.diffusion.guidance`.
    Raises: ExistsError if the id or the name is taken, another process holds this shard, or an unfinished export of
        other settings is in the way; ConfigError if the request cannot be sampled or the checkpoint is of another
        dataset; DataError if the model does not produce plausible pairs; TrainingError if the device is too small.
    """
    check_origin(checkpoint, dataset)
    check_request(checkpoint.config, request)
    check_guidance(checkpoint, [name for name, _ in request.classes], request.guidance, weaker)
    request = identified(request, dataset, checkpoint.metadata["training_ids"])
    request = replace(request, guide_sha256="" if weaker is None else weaker.sha256)
    folder = ExportFolder(request, checkpoint, shard[1], overwrite)
    with folder.shared() as in_place:
        if in_place:
            found = json.loads((folder.target / "provenance.json").read_text(encoding="utf-8"))
            return Exported(folder.target, True, request.count, found["redrawn"], found=True)
        lock = folder.partial / f"shard_{shard[0]}_of_{shard[1]}.lock"
        with held(lock, folder.partial), memory_errors(request.batch_size, flag="--batch-size"):
            factory = PairFactory(checkpoint, dataset, request, device, weaker)
            _make_batches(factory, folder.partial, shard)
        records = folder.records()
    if records is None:
        return Exported(folder.partial, False, request.count, 0)
    folder.seal(provenance(checkpoint, request, factory.real, records), dataset)
    return Exported(folder.target, True, request.count, sum(record["attempt"] for record in records))


def _make_batches(factory: PairFactory, partial: Path, shard: tuple[int, int]) -> None:
    """Make what is missing of this shard's batches; the marker of each follows when its files are on disk."""
    batches = batches_of(factory.request)
    done = {number: partial / "batches" / f"{number:06d}.json" for number in range(shard[0], len(batches), shard[1])}
    missing = [number for number in done if not done[number].exists()]
    if missing:
        print(duration(factory.seconds([batches[number] for number in missing])), flush=True)
    for number in tqdm(missing, disable=None, unit="batch", initial=len(done) - len(missing), total=len(done)):
        made = factory.batch(batches[number])
        for pair, _ in made:
            write_case(partial, pair, factory.dataset.file_ending)
        _sync_cases(partial, {pair.case_id for pair, _ in made})
        write_text(done[number], json.dumps([record for _, record in made]))


def _sync_cases(partial: Path, case_ids: set[str]) -> None:
    """Have the files of some cases on disk, and their names."""
    for folder in (partial / "imagesTr", partial / "labelsTr"):
        stems = {path: path.name.partition(".")[0] for path in folder.iterdir()}
        sync_to_disk([path for path, stem in stems.items() if case_ids & {stem, stem[: -len("_0000")]}])
        sync_to_disk([folder])
    sync_to_disk([partial])


@dataclass(frozen=True)
class _Draw:
    """One accepted image or slice."""

    image: np.ndarray
    label: np.ndarray
    seed: int
    attempt: int
    """Draws before this one that were degenerate."""


class PairFactory:
    """Makes the pairs of one export."""

    def __init__(
        self, checkpoint: Checkpoint, dataset: RawDataset, request: ExportRequest, device: str,
        weaker: Checkpoint | None = None,
    ) -> None:  # fmt: skip
        self.config, self.request, self.device = checkpoint.config, request, device
        self.dataset, self.sha256 = dataset, checkpoint.sha256
        training_ids = list(checkpoint.metadata["training_ids"])
        self.pairs = PairDataset(dataset, training_ids, checkpoint.config)
        self.real = real_foreground(self.pairs, request.canvas_size, request.margin)
        self.drawer = PairDrawer(checkpoint, request, device, weaker)
        self.masks = GivenMasks(dataset, training_ids, self.config, request, self.real) if request.given_masks else None

    def seconds(self, batches: list[range]) -> float:
        """Estimated time of some batches; calls the network."""
        return export_seconds(on_all_cores(self.drawer.denoiser), self.config, self.request, batches, self.device)

    def batch(self, indices: range) -> list[tuple[Pair, dict[str, Any]]]:
        """The pairs of some case indices and their manifest records."""
        slices = self.request.slices
        draws = self.plausible([index * slices + part for index in indices for part in range(slices)])
        return [self.case(index, draws[n * slices : (n + 1) * slices]) for n, index in enumerate(indices)]

    def plausible(self, wanted: list[int]) -> list[_Draw]:
        """Images or slices by number, all of one class, `batch_size` at a time; degenerate ones are drawn again.

        Raises: DataError if one stays degenerate.
        """
        made: dict[int, _Draw] = {}
        waiting, problem = wanted, ""
        for attempt in range(_MOST_ATTEMPTS):
            failed: list[int] = []
            for first in range(0, len(waiting), self.request.batch_size):
                chunk = waiting[first : first + self.request.batch_size]
                seeds = [case_seed(self.request.seed, number, attempt) for number in chunk]
                samples = self.sample(seeds, **self.conditions(chunk))
                for number, seed, sample in zip(chunk, seeds, samples, strict=True):
                    draw = _Draw(*self.decoded(number // self.request.slices, sample), seed, attempt)
                    found = self.real.problem(draw.label) if self.masks is None else None
                    if found is None:
                        made[number] = draw
                    else:
                        failed.append(number)
                        problem = found
            waiting = failed
            if not waiting:
                return [made[number] for number in wanted]
        raise DataError(
            f"case {waiting[0] // self.request.slices} is degenerate in {_MOST_ATTEMPTS} draws: {problem}; expected "
            "pairs like the real ones; train longer, or allow more with --margin, and run again with --overwrite"
        )

    def conditions(self, numbers: list[int]) -> dict[str, Any]:
        """What is given for some images or slices of one class: arguments of `sample`."""
        given: dict[str, Any] = {}
        if self.masks is not None:
            given["given"] = self.masks.encoded(numbers)
        if self.request.classes:
            given["class_name"] = class_of(self.request, numbers[0] // self.request.slices)
        return given

    def sample(self, seeds: list[int], given: np.ndarray | None = None, class_name: str = "") -> np.ndarray:
        """Encoded samples (n, channels, *canvas_size), each a function of its seed and of what is given."""
        return self.drawer.samples(seeds, given, class_name)

    def decoded(self, case: int, sample: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A sample's image and label, with the size and borders of a real one."""
        if self.masks is not None:
            sample = self.masks.cut(sample, case)
        elif self.config.data.whole:
            sample = self._natural_size(case, sample)
        return stored_pair(self.pairs.codec, sample)

    def _natural_size(self, case: int, sample: np.ndarray) -> np.ndarray:
        """Cut the padding that training added, by the size of a training image drawn for the case."""
        drawn = np.random.default_rng(case_seed(self.request.seed, case, 0)).integers(len(self.pairs))
        keep = [slice(None)]
        for side, want in zip(sample.shape[1:], self.pairs.item_shape(int(drawn)), strict=True):
            start = max(side - want, 0) // 2
            keep.append(slice(start, start + min(side, want)))
        return sample[tuple(keep)]

    def case(self, index: int, draws: list[_Draw]) -> tuple[Pair, dict[str, Any]]:
        """One image, or one volume of slices with the real ones' spacing, and its manifest record."""
        spacing, axis = self.config.data.spacing, self.config.data.slice_axis
        if axis is None:
            image, label = draws[0].image, draws[0].label
        else:
            image = np.stack([draw.image for draw in draws], axis + 1)
            label = np.stack([draw.label for draw in draws], axis)
            spacing = (*spacing[:axis], self.config.data.slice_spacing, *spacing[axis:])
        shares = foreground_shares(label, self.config.codec.classes)
        names = {value: name for name, value in self.dataset.labels.items()}
        record = {
            "case_id": f"{PREFIX}{index:06d}",
            "seed": draws[0].seed if axis is None else [draw.seed for draw in draws],
            "attempt": sum(draw.attempt for draw in draws),
            "checkpoint_sha256": self.sha256,
            "sampler": self.request.sampler,
            "steps": self.request.steps,
            "masks": self.request.masks,
            "foreground_share": {names[v]: round(float(s), 6) for v, s in enumerate(shares) if v > 0},
        }
        if self.masks is not None:
            record["mask_of"] = self.masks.source(index)
        if self.request.classes:
            record["class"] = class_of(self.request, index)
        return Pair(record["case_id"], image, label, spacing), record


def stored_pair(codec: PairCodec, sample: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The image and label that an encoded sample (channels, *spatial) is stored as, with the borders of a real one."""
    image, label = codec.decode(sample)
    if codec.codec.zero_border and zero_is_lowest(codec.codec):
        image = restore_zero_border(image, sample[: len(image)])
    return image, label


def case_seed(seed: int, index: int, attempt: int) -> int:
    """Seed of one draw of one case, 63 bits."""
    words = np.random.SeedSequence([seed, index, attempt]).generate_state(2, np.uint32)
    return (int(words[0]) << 32 | int(words[1])) >> 1


def zero_is_lowest(codec: CodecConfig) -> bool:
    """Whether stored zero lies at the low end of every channel's range; where it does not (CT), black is not zero."""
    ends = zip(codec.low, codec.high, strict=True)
    return all(low <= 0 <= low + _ZERO_TOLERANCE * (high - low) for low, high in ends)


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
        "jdm_version": jdm_version(),
        "generator": {**generator, "checkpoint_sha256": checkpoint.sha256},
        **asdict(request),
        "redrawn": sum(record["attempt"] for record in records),
        "real_foreground_range": asdict(real),
    }
