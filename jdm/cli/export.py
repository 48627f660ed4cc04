"""jdm-export: synthetic pairs as a new nnU-Net raw dataset."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from jdm.cli import run_command
from jdm.config.samplers import ExportSampler, SamplerSettings, default_steps
from jdm.errors import ConfigError
from jdm.export.request import ExportRequest, Masks, check_request, default_sampler

if TYPE_CHECKING:
    from jdm.data.pairs import PairDataset
    from jdm.data.raw_dataset import RawDataset
    from jdm.export.request import ExportRequest
    from jdm.train.checkpoint import Checkpoint


@dataclass(frozen=True)
class ExportCommand:
    """Sample synthetic pairs from a trained fold and write them as DatasetNNN_Name_syn under $nnUNet_raw.

    A killed export goes on when the same command is given again. Several processes share the work under torchrun
    or with --shard; the one that finishes last puts the dataset in place.
    """

    dataset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET")]
    """The real dataset's nnU-Net id or name."""
    fold: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FOLD")]
    """Fold that jdm-train was run on: 0 to 4, or "all"."""
    id: int
    """Id of the new dataset; must be free."""
    ratio: float | None = None
    """Synthetic data relative to the training set: in cases where images are trained whole, else in pixels."""
    count: int | None = None
    """Number of pairs, instead of --ratio."""
    name: str | None = None
    """Name of the new dataset; the real one's with "_syn" by default."""
    canvas_size: tuple[int, ...] | None = None
    """Size of a pair in pixels, of plans that train patches; by default the plan's, which reaches nnU-Net's patch."""
    sampler: ExportSampler | None = None
    """heun-stochastic by default; of the thesis preset heun, and ancestral at its training size, its only place."""
    sampling: Annotated[SamplerSettings, tyro.conf.OmitArgPrefixes] = field(default_factory=SamplerSettings)
    steps: int | None = None
    """Sampling steps: 25 of heun-stochastic by default (49 network evaluations), 18 of heun (35) and those of
    one evaluation a step, 250 of euler-maruyama, predictor-corrector and ancestral; ode finds its own."""
    masks: Masks = "sampled"
    """sampled: the mask that came with the image, ragged as annotations are. estimated: of each pixel the most probable
    class, given the finished image, at one more network evaluation; smoother, if trained long enough. Not for the
    thesis preset, nor for more than 8 classes (analog bits)."""
    given_masks: str | None = None
    """Sample images for given masks instead of both: "real" for those of the training cases, "deformed" for new ones
    made from them (components recombined, flipped where the plan allows, zoomed, turned, bent), or a folder of label
    files."""
    class_label: str | None = None
    """Sample this class, of a model trained with jdm-train --classes; by default the model is told none."""
    balance: bool = False
    """Sample all classes, as many of each as make real and synthetic pairs together as equal as their number allows."""
    guidance: float = 1.0
    """Above 1, pairs are pushed towards their class (classifier-free guidance) or, with --guide, away from what a
    weaker model makes (autoguidance): 2 is a start. Twice the time."""
    guide: Path | None = None
    """Folder of a weaker checkpoint of the same plan, such as a shorter run's, for --guidance."""
    seed: int = 0
    batch_size: int = 16
    """Pairs sampled together. Part of what fixes their bytes."""
    overlap: float = 0.25
    """Least overlap of windows where a pair is larger than the training patch."""
    margin: float = 0.25
    """How far, as a share of the real range, a pair's foreground may leave it before it is drawn again."""
    shard: str = "0/1"
    """Which part of the batches to make, as i/n with i from 0, e.g. for a Slurm array; n is the same for all."""
    overwrite: bool = False
    """Replace an earlier synthetic dataset of this name, and discard an unfinished export of other settings."""
    dry_run: bool = False
    """Say what would be sampled and about how long it takes, and stop."""


def main() -> None:
    run_command(_run)


def _run() -> None:
    command = tyro.cli(ExportCommand, prog="jdm-export")
    import torch

    from jdm.data.raw_dataset import open_dataset
    from jdm.draw.guidance import check_guidance
    from jdm.export.masks import identified
    from jdm.export.pairs import check_origin, export
    from jdm.train.checkpoint import load_checkpoint, run_folder

    shard, local_rank = _shard(command.shard)
    dataset = open_dataset(command.dataset)
    checkpoint = load_checkpoint(run_folder(dataset.name, command.fold))
    check_origin(checkpoint, dataset)
    weaker = None if command.guide is None else load_checkpoint(command.guide)
    request = _request(command, checkpoint, dataset)
    device = f"cuda:{local_rank}" if torch.cuda.is_available() else "cpu"
    print(
        f"{request.count} pairs of {'x'.join(map(str, request.canvas_size))} with {request.sampler}, "
        f"{request.steps} steps, from step {checkpoint.metadata['step']} of {dataset.name} fold {command.fold}"
    )
    if request.classes:
        print("by class: " + ", ".join(f"{count} {name}" for name, count in request.classes))
    if command.dry_run:
        check_guidance(checkpoint, [name for name, _ in request.classes], request.guidance, weaker)
        identified(request, dataset, checkpoint.metadata["training_ids"])
        print(_estimate(checkpoint, request, shard, device))
        return
    done = export(checkpoint, dataset, request, shard=shard, device=device, overwrite=command.overwrite, weaker=weaker)
    if not done.finished:
        print(f"shard {shard[0]}/{shard[1]} is done; the dataset appears when the others are")
        return
    if done.found:
        print(f"{done.folder} is already finished, of the same settings and checkpoint; shard {shard[0]} had no work")
    print(f"{done.count} pairs in {done.folder}; {done.redrawn} degenerate draws were repeated")
    print(f"next: jdm-experiment {command.dataset} --synthetic {command.id} --fold {command.fold}")
    print(f"  or, for stock nnU-Net: jdm-register {command.id} --like {command.dataset}")


def _estimate(checkpoint: Checkpoint, request: ExportRequest, shard: tuple[int, int], device: str) -> str:
    from jdm.export.amount import batches_of, duration, export_seconds
    from jdm.system.parallel import on_all_cores
    from jdm.train.objective import memory_errors

    mine = batches_of(request)[shard[0] :: shard[1]]
    with memory_errors(request.batch_size, flag="--batch-size"):
        return duration(
            export_seconds(on_all_cores(checkpoint.denoiser(device)), checkpoint.config, request, mine, device)
        )


def _request(command: ExportCommand, checkpoint: Checkpoint, dataset: RawDataset) -> ExportRequest:
    from jdm.data.pairs import PairDataset
    from jdm.export.amount import slices_of, synthetic_count

    config = checkpoint.config
    if (command.ratio is None) == (command.count is None):
        raise ConfigError("found both or neither of --ratio and --count; expected one of them; try --ratio 5.0")
    canvas = tuple(command.canvas_size or config.data.canvas_size)
    sampler = command.sampler or default_sampler(config, canvas)
    request = ExportRequest(
        id=command.id,
        name=command.name or dataset.name.split("_", 1)[1] + "_syn",
        count=1 if command.count is None else command.count,
        canvas_size=canvas,
        sampler=sampler,
        sampling=command.sampling,
        steps=default_steps(sampler) if command.steps is None else command.steps,
        masks=command.masks,
        given_masks=_masks(command.given_masks),
        guidance=command.guidance,
        seed=command.seed,
        batch_size=command.batch_size,
        overlap=command.overlap,
        margin=command.margin,
    )
    check_request(config, request)
    pairs = PairDataset(dataset, list(checkpoint.metadata["training_ids"]), config)
    request = replace(request, slices=slices_of(pairs))
    if command.ratio is not None:
        request = replace(request, count=synthetic_count(command.ratio, config, pairs, canvas))
    return replace(request, classes=_classes(command, checkpoint, pairs, request))


def _classes(
    command: ExportCommand, checkpoint: Checkpoint, pairs: PairDataset, request: ExportRequest
) -> tuple[tuple[str, int], ...]:
    """Class and number of its pairs, as the user asks for."""
    from jdm.draw.guidance import check_class_names
    from jdm.export.amount import balanced, real_amounts

    config = checkpoint.config
    if command.balance and command.class_label is not None:
        raise ConfigError("found both --class-label and --balance; expected one of them; leave one out")
    if command.class_label is not None:
        check_class_names(checkpoint, [command.class_label])
        return ((command.class_label, request.count),)
    if not command.balance:
        return ()
    check_class_names(checkpoint, config.network.class_names or ["any"])
    real = real_amounts(config, pairs, request.canvas_size, checkpoint.metadata["classes"])
    return tuple((name, count) for name, count in balanced(real, request.count).items() if count)


def _masks(text: str | None) -> str:
    """ "real", "deformed", or a folder's absolute path, which another working directory does not change."""
    return str(Path(text).resolve()) if text not in (None, "real", "deformed") else text or ""


def _shard(text: str) -> tuple[tuple[int, int], int]:
    """((index, count), local rank): torchrun's where it runs, else --shard."""
    if "LOCAL_RANK" in os.environ and text == "0/1":
        return (int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])), int(os.environ["LOCAL_RANK"])
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise ConfigError(f"--shard is {text!r}; expected i/n with i from 0 to n - 1, such as 0/4")
    return (int(index), int(count)), 0
