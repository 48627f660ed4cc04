"""jdm-sample: samples with something given, as files of the dataset's kind and a sheet of pictures."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from jdm.cli import run_command
from jdm.config.samplers import Sampler, SamplerSettings, default_steps
from jdm.errors import ConfigError
from jdm.export.request import Masks

if TYPE_CHECKING:
    from jdm.config.settings import Config
    from jdm.data.raw_dataset import RawDataset
    from jdm.sample.request import Mode, SampleRequest
    from jdm.train.checkpoint import Checkpoint


@dataclass(frozen=True)
class SampleCommand:
    """Sample from a trained fold with something given: exactly one of --given-images, --given-masks, --inpaint,
    --known-channels, --vary and --interpolate; or, with --bits-per-dim, measure how likely real cases are to it.

    Pairs are written like a dataset (imagesTr, labelsTr, dataset.json), segmentations under labels/ with their
    uncertainty under uncertainty/, and sheet.png shows the first of them.
    """

    dataset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET")]
    """The dataset's nnU-Net id or name."""
    fold: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FOLD")]
    """Fold that jdm-train was run on: 0 to 4, or "all"."""
    given_images: Path | None = None
    """Segment the images of this folder (case_0000.png ..): the most probable label of each pixel, and a map of its
    uncertainty, the entropy of the labels' probabilities."""
    masks: Masks | None = None
    """--given-images: where the probabilities come from. estimated: from the mean of the mask given the image, one
    network evaluation per sample (the default). sampled: from how many of the --samples have a label there, many
    evaluations each; the only way of the thesis preset and of more than 8 classes (analog bits)."""
    given_masks: Path | None = None
    """Images for the masks of this folder (case.png ..)."""
    inpaint: str | None = None
    """Sample this case of the dataset anew inside --box or --region; outside nothing changes."""
    known_channels: tuple[str, ...] | None = None
    """Sample the other channels of --cases; channels by number or name, and "mask"."""
    vary: float | None = None
    """Variations of --cases: noised to this level and denoised. 0.1 is close, 0.4 keeps the layout, 2 keeps little."""
    interpolate: tuple[str, ...] | None = None
    """What lies between two cases, given by their ids, or between two draws: "noise"."""
    bits_per_dim: bool = False
    """Sample nothing, but measure how likely the model finds --cases, by default four held out in training and as many
    trained on: bits per dimension of the image given its mask (thesis preset: of both), by the probability flow ODE.
    Fewer for cases trained on than for held-out ones mean that it has begun to learn them by heart."""
    probes: int = 1
    """--bits-per-dim: probes of the divergence (Hutchinson's estimator); more take longer and vary less."""
    cases: tuple[str, ...] = ()
    """Cases for --known-channels, --vary and --bits-per-dim; by default the first four held out in training."""
    box: tuple[int, ...] = ()
    """Region of --inpaint in array order: first row and column, then those behind the last, e.g. 40 60 90 120."""
    region: Path | None = None
    """Region of --inpaint as a file of the case's size, nonzero inside."""
    lesion: str | None = None
    """Label that the region gets, e.g. polyp to add one, or background to remove one; of a box the ellipse in it."""
    feather: int = 4
    """Pixels inside the region's border over which sampled and real intensities are mixed."""
    points: int = 7
    """Pairs of --interpolate."""
    samples: int = 4
    """Samples per condition; with --bits-per-dim random crops of a case."""
    out: Path | None = None
    """Folder to write; by default sampled/MODE in the fold's run folder."""
    sampler: Sampler | None = None
    """heun-stochastic by default; heun for the thesis preset, for --vary, which new noise would take farther than its
    level, and for --interpolate, which takes none that renews noise."""
    sampling: Annotated[SamplerSettings, tyro.conf.OmitArgPrefixes] = field(default_factory=SamplerSettings)
    steps: int | None = None
    """Sampling steps: 25 for heun-stochastic, 250 for euler-maruyama and predictor-corrector, 18 for the others; ode
    finds its own."""
    repetitions: int = 4
    """RePaint: how often each stretch of --jump-length steps is gone through where an image or mask is known in part
    (--inpaint, some --known-channels) and with the thesis preset; 1: plain replacement."""
    jump_length: int = 3
    """RePaint: steps that a jump goes back."""
    class_label: str | None = None
    """Class to sample, of a model trained with jdm-train --classes; by default the model is told none."""
    guide: Path | None = None
    """Folder of a weaker checkpoint of the same plan, such as a shorter run's, to guide away from (autoguidance)."""
    guidance: float = 1.0
    """Scale of that guidance or, without --guide, of guidance towards --class-label, such as 2; 1: none."""
    seed: int = 0
    batch_size: int = 16
    """Samples drawn together."""
    overlap: float = 0.25
    """Least overlap of windows where an image is larger than the training patch."""
    overwrite: bool = False
    """Replace samples that are in the output folder."""
    dry_run: bool = False
    """Read and check the conditions, say what would be sampled and about how long it takes, and stop."""


def main() -> None:
    run_command(_run)


def _run() -> None:
    command = tyro.cli(SampleCommand, prog="jdm-sample")
    mode = _mode(command)
    import torch

    from jdm.data.raw_dataset import open_dataset
    from jdm.draw.guidance import check_guidance
    from jdm.sample.modes import sample
    from jdm.sample.output import check_target
    from jdm.sample.request import check_request
    from jdm.train.checkpoint import load_checkpoint, run_folder

    dataset = open_dataset(command.dataset)
    run = run_folder(dataset.name, command.fold)
    checkpoint = load_checkpoint(run)
    request = _request(command, mode, checkpoint.config)
    out = command.out or run / "sampled" / request.mode
    check_target(out, command.overwrite)
    weaker = None if command.guide is None else load_checkpoint(command.guide)
    check_guidance(checkpoint, [request.class_label] if request.class_label else [], request.guidance, weaker)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if request.mode == "bits-per-dim":
        from jdm.sample.likelihood import measure_bits

        if command.dry_run:
            check_request(checkpoint.config, request)
            print(f"bits-per-dim: {request.samples} crops a case, {request.probes} probes; into {out}")
            return
        print(measure_bits(checkpoint, dataset, request, out, device=device, overwrite=command.overwrite))
        print(f"each crop is in {out / 'bits_per_dim.csv'}")
        return
    if command.dry_run:
        print(f"{_plan(checkpoint, dataset, request, device)}; into {out}")
        return
    count = sample(checkpoint, dataset, request, out, device=device, overwrite=command.overwrite, weaker=weaker)
    made = "segmented cases" if request.mode == "given-images" else "samples"
    print(f"{count} {made} in {out}; {out / 'sheet.png'} shows the first")


def _plan(checkpoint: Checkpoint, dataset: RawDataset, request: SampleRequest, device: str) -> str:
    from jdm.draw.drawer import planned_seconds
    from jdm.export.amount import duration
    from jdm.sample.request import estimates
    from jdm.sample.starts import prepare

    starts = prepare(checkpoint, dataset, request)
    shapes = [plane.canvas.x.shape[1:] for start in starts for plane in start.planes] * request.samples
    if request.mode == "interpolate":
        shapes = [(shapes or [checkpoint.config.data.canvas_size])[0]] * request.points
    way = f"with {request.sampler}, {request.steps} steps"
    if estimates(checkpoint.config, request):
        way = "with estimated masks"
    return (
        f"{request.mode}: {len(shapes)} samples of {len(starts)} cases {way}; "
        f"{duration(planned_seconds(checkpoint, request, shapes, device))}"
    )


def _mode(command: SampleCommand) -> Mode:
    """What is asked for. Raises: ConfigError unless it is exactly one thing."""
    modes: dict[Mode, object] = {
        "given-images": command.given_images,
        "given-masks": command.given_masks,
        "inpaint": command.inpaint,
        "known-channels": command.known_channels,
        "vary": command.vary,
        "interpolate": command.interpolate,
        "bits-per-dim": command.bits_per_dim or None,
    }
    given: list[Mode] = [mode for mode, value in modes.items() if value is not None]
    if len(given) != 1:
        raise ConfigError(
            f"found {' and '.join('--' + mode for mode in given) or 'nothing'} given; expected exactly one of "
            f"{', '.join('--' + mode for mode in modes)}; choose one"
        )
    if command.interpolate is not None and len(command.interpolate) == 1 and command.interpolate != ("noise",):
        raise ConfigError(f'--interpolate is {command.interpolate[0]!r}; expected two case ids, or "noise"; correct it')
    return given[0]


def _request(command: SampleCommand, mode: Mode, config: Config) -> SampleRequest:
    """The request of a command line, with what it leaves to us."""
    from jdm.sample.request import SampleRequest, default_sampler

    cases = command.cases
    if command.inpaint is not None:
        cases = (command.inpaint,)
    elif command.interpolate is not None:
        cases = () if command.interpolate == ("noise",) else command.interpolate
    sampler = command.sampler or default_sampler(config, mode)
    return SampleRequest(
        mode=mode,
        cases=cases,
        folder=str(command.given_images or command.given_masks or ""),
        masks=command.masks,
        channels=command.known_channels or (),
        box=command.box,
        region=str(command.region or ""),
        lesion=command.lesion or "",
        feather=command.feather,
        level=command.vary or 0.0,
        points=command.points,
        samples=command.samples,
        probes=command.probes,
        sampler="ode" if command.bits_per_dim else sampler,
        sampling=command.sampling,
        steps=default_steps(sampler) if command.steps is None else command.steps,
        jump_length=command.jump_length,
        guidance=command.guidance,
        class_label=command.class_label or "",
        repetitions=command.repetitions,
        seed=command.seed,
        batch_size=command.batch_size,
        overlap=command.overlap,
    )
