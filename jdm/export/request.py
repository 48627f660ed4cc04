"""What an export is asked for, and whether it can be done at all."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from jdm.config.samplers import SAMPLERS, ExportSampler, SamplerSettings, check_sampler, check_wholly_known
from jdm.config.settings import Config
from jdm.errors import ConfigError

Masks = Literal["estimated", "sampled"]


@dataclass(frozen=True)
class ExportRequest:
    """What to sample; written beside the growing dataset, so that a resumed export cannot mix two."""

    id: int
    name: str
    """Of the new dataset, without its id."""
    count: int
    canvas_size: tuple[int, ...]
    slices: int = 1
    """Slices of an exported volume; 1 for images."""
    sampler: ExportSampler = "heun"
    sampling: SamplerSettings = field(default_factory=SamplerSettings)
    steps: int = 18
    masks: Masks = "sampled"
    """As sampled with the images, or the most probable ones of the finished images (`jdm.diffusion.mask_estimate`).

    Estimated ones fit the images of a well-trained network better; nnU-Net learnt no more from them
    (results/hippocampus).
    """
    given_masks: str = ""
    """Masks to sample images for: "real" (of the training cases), "deformed" (new ones from those), or a folder's path;
    empty: masks are sampled with the images."""
    given_masks_sha256: str = ""
    """Of the contents of that folder (`jdm.export.masks.identified`), so that two sets of masks are not mixed."""
    classes: tuple[tuple[str, int], ...] = ()
    """Class and number of its pairs, which follow each other; empty: the network is told no class."""
    guidance: float = 1.0
    """Scale of guidance (`jdm.draw.guidance`); 1: none."""
    guide_sha256: str = ""
    """Of the weaker checkpoint that guides; empty: none."""
    seed: int = 0
    batch_size: int = 16
    overlap: float = 0.25
    """Least overlap of neighbouring windows on a canvas larger than the training patch."""
    margin: float = 0.25
    """Share of the real foreground range by which a pair may leave it before it is drawn again."""


def class_of(request: ExportRequest, index: int) -> str:
    """The class that a case by index is sampled with; empty: none."""
    for name, count in request.classes:
        if index < count:
            return name
        index -= count
    return ""


def default_sampler(config: Config, canvas_size: tuple[int, ...]) -> ExportSampler:
    """ancestral for the thesis preset at the training size, the only place it serves, else heun for that preset.

    heun-stochastic for the default one: its images and masks agree as real ones do, those of deterministic samplers
    agree less at any number of steps (results/steps_vs_quality).
    """
    if config.preset == "thesis":
        return "ancestral" if canvas_size == config.data.patch_size else "heun"
    return "heun-stochastic"


def gives_estimates(config: Config) -> bool:
    """Whether masks can be estimated: the network has a level for image and mask each, and the mean of the mask tells
    the most probable label, as that of analog bits does not."""
    return config.preset == "default" and config.codec.mask_code != "bits"


def check_estimates(config: Config) -> None:
    """Raises: ConfigError if masks cannot be estimated."""
    if not gives_estimates(config):
        why = (
            f"preset {config.preset!r}, whose network has one noise level for image and mask"
            if config.preset != "default"
            else f"{config.codec.classes} classes in analog bits, whose mean tells no most probable one"
        )
        raise ConfigError(f"--masks is 'estimated' for {why}; expected 'sampled'; leave --masks out")


def check_request(config: Config, request: ExportRequest) -> None:
    """Refuse, before anything is written, what would fail while sampling.

    Raises: ConfigError naming the flag of jdm-export.
    """
    canvas, patch = request.canvas_size, config.data.patch_size
    if config.data.whole and canvas != config.data.canvas_size:
        raise ConfigError(
            f"--canvas-size is {canvas}, but this plan trains whole images and exports them at their own size; "
            f"expected {config.data.canvas_size}; leave --canvas-size out, or train patches (--data.no-whole)"
        )
    if len(canvas) != len(patch) or any(c < p for c, p in zip(canvas, patch, strict=True)):
        raise ConfigError(f"--canvas-size is {canvas}; expected at least the training patch {patch}; enlarge it")
    check_sampler(request.sampler, request.sampling, get_args(ExportSampler))
    check_wholly_known(request.sampler, not (request.given_masks and config.preset == "thesis"))
    ancestral = request.sampler == "ancestral"
    if ancestral and (config.preset != "thesis" or canvas != patch):
        raise ConfigError(
            f"--sampler is 'ancestral' for preset {config.preset!r} at {canvas}; it serves the thesis preset at the "
            f"training size {patch} only; choose one of {', '.join(SAMPLERS)}"
        )
    if request.masks == "estimated":
        check_estimates(config)
    if request.masks == "estimated" and request.given_masks:
        raise ConfigError(
            "--masks is 'estimated' with --given-masks, which are kept as they are; expected one of the two; leave "
            "--masks out"
        )
    if request.guidance != 1 and ancestral:
        raise ConfigError(
            f"--guidance is {request.guidance} with --sampler ancestral, which is not over a denoiser; expected 1; "
            "choose heun, dpmpp-2m, unipc or ddim, or leave --guidance out"
        )
    most = config.diffusion.steps if ancestral else 1000
    checks = (
        (request.count >= 1, "count", request.count, "at least 1"),
        (2 <= request.steps <= most, "steps", request.steps, f"2 to {most}"),
        (
            not request.classes or sum(count for _, count in request.classes) == request.count,
            "count", request.count, f"as many as of the classes {dict(request.classes)}",
        ),
        (request.slices >= 1, "slices", request.slices, "at least 1"),
        (request.batch_size >= 1, "batch-size", request.batch_size, "at least 1"),
        (0 <= request.overlap < 1, "overlap", request.overlap, "at least 0 and less than 1"),
        (request.margin >= 0, "margin", request.margin, "at least 0"),
        (request.seed >= 0, "seed", request.seed, "at least 0"),
        (0 < request.guidance <= 10, "guidance", request.guidance, "more than 0 and at most 10"),
    )  # fmt: skip
    for holds, flag, found, expected in checks:
        if not holds:
            raise ConfigError(f"--{flag} is {found}; expected {expected}; correct it")
