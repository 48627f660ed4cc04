"""Requests of `jdm-sample` and `jdm.sample`, one per mode."""

from __future__ import annotations

from dataclasses import KW_ONLY, asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from jdm.config.command import Cases, Dataset, File, Fold, Switch, Text
from jdm.config.samplers import DETERMINISTIC, check_wholly_known, is_deterministic
from jdm.config.settings import Config
from jdm.draw.request import (
    Sampling,
    Way,
    can_estimate_masks,
    check_estimates,
    check_flags,
    check_sampling,
    usual_sampler,
    way_of,
)
from jdm.errors import ConfigError

Folder = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="")]
Case = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="CASE", help_behavior_hint="")]
Estimates = Literal["estimated", "sampled"]


@dataclass(frozen=True)
class SampleOptions:
    """Options common to all modes."""

    dataset: Dataset
    """Dataset id or name; or a run's folder, without FOLD."""
    fold: Fold = ""
    """Fold that the run was trained on: 0 to 4, or "all"."""
    _: KW_ONLY
    samples: int = 4
    """Samples per condition."""
    out: File = None
    """Output folder; by default sampled/MODE in the run's folder."""
    overwrite: Switch = False
    """Replace samples in the output folder."""
    dry_run: Switch = False
    """Check the request, print what would be sampled and the time it takes, and stop."""


@dataclass(frozen=True)
class SampleRequest(Sampling, SampleOptions):
    """Request of any mode."""


@dataclass(frozen=True)
class SegmentRequest(SampleRequest):
    """Segment images. Writes the most probable label of each pixel to labels/ and its uncertainty (entropy of the label
    probabilities) to uncertainty/."""

    _: KW_ONLY
    images: Folder
    """Folder of images, named like case_0000.png."""
    masks: Annotated[Estimates | None, tyro.conf.arg(metavar="estimated|sampled", help_behavior_hint="")] = None
    """estimated: label probabilities from the mean mask given the image, one evaluation per sample. sampled: from label
    frequencies over samples (the only way for preset thesis or more than 8 classes)."""
    save_probabilities: bool = False
    """Also write each case's label probabilities beside its label, as nnU-Net does, for nnUNetv2_ensemble."""


@dataclass(frozen=True)
class ImagesRequest(SampleRequest):
    """Sample images for given masks."""

    _: KW_ONLY
    masks: Folder
    """Folder of masks, named like case.png."""


@dataclass(frozen=True)
class InpaintRequest(SampleRequest):
    """Resample a region of a real case; nothing outside it changes.

    The surroundings are conditioned on by replacement, which is biased: on Gaussian data with correlation 0.8, the
    region gets 61 % of the correct shift in mean with --repetitions 1, and 82 % with 4.
    """

    _: KW_ONLY
    case: Case
    """Case id."""
    box: Annotated[tuple[int, ...], tyro.conf.arg(metavar="N ...", help_behavior_hint="")] = ()
    """Region in array order: first row and column, then last ones plus 1, e.g. 40 60 90 120; of a volume, 6 numbers."""
    inside: Text = None
    """Instead of --box: one at a random place inside this label, a third of its size a side."""
    region: File = None
    """Region as a mask of the case's size, nonzero inside."""
    lesion: Text = None
    """Label to give the region (the ellipse in a box), e.g. polyp, or background to remove a lesion."""
    feather: int = 4
    """Width in pixels, inside the border, over which sampled and real intensities are blended."""
    repetitions: int = 4
    """RePaint: how often each stretch of --jump-length steps is repeated; 1: none."""
    jump_length: int = 3
    """RePaint: steps that a jump goes back."""


@dataclass(frozen=True)
class ChannelsRequest(SampleRequest):
    """Sample the missing channels of real cases, given the others.

    Exact if the whole image or the whole mask is given; otherwise by replacement, see jdm-sample inpaint.
    """

    _: KW_ONLY
    known: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...", help_behavior_hint="")]
    """Known channels, by number or name, and "mask" for the mask."""
    cases: Cases = ()
    """Cases; by default the first four held out in training."""
    repetitions: int = 4
    """RePaint: how often each stretch of --jump-length steps is repeated; 1: none."""
    jump_length: int = 3
    """RePaint: steps that a jump goes back."""


@dataclass(frozen=True)
class VaryRequest(SampleRequest):
    """Sample variations of real pairs by adding noise and denoising again."""

    _: KW_ONLY
    level: float = 0.4
    """Noise level: 0.1 stays close, 0.4 keeps the layout, 2 keeps little."""
    cases: Cases = ()
    """Cases; by default the first four held out in training."""


@dataclass(frozen=True)
class InterpolateRequest(SampleRequest):
    """Interpolate between two real pairs, or between two noise samples."""

    _: KW_ONLY
    between: Cases = ()
    """The two cases; by default two noise samples."""
    points: int = 7
    """Number of pairs, both ends included."""


@dataclass(frozen=True)
class LikelihoodRequest(SampleRequest):
    """Compute the likelihood of real cases, in bits per dimension, with the probability flow ODE.

    The likelihood is of the image given its mask (preset thesis: of both). If training cases need fewer bits than
    held-out ones, the model is starting to memorise.
    """

    _: KW_ONLY
    cases: Cases = ()
    """Cases; by default four held-out cases and four training cases."""
    probes: int = 1
    """Probe vectors of Hutchinson's trace estimator; more probes reduce its variance."""


@dataclass(frozen=True)
class ClassifyRequest(SampleRequest):
    """Classify images by a model trained with --classes: the class with the lowest denoising error.

    Writes classes.csv with the class of each image and the errors of all classes.
    """

    _: KW_ONLY
    images: Folder
    """Folder of images, named like case_0000.png."""
    levels: int = 32
    """Noise levels at which the errors are measured; each takes one network evaluation per class."""


MODES: dict[str, type[SampleRequest]] = {
    "segment": SegmentRequest,
    "images": ImagesRequest,
    "inpaint": InpaintRequest,
    "channels": ChannelsRequest,
    "vary": VaryRequest,
    "interpolate": InterpolateRequest,
    "likelihood": LikelihoodRequest,
    "classify": ClassifyRequest,
}
"""The modes by name."""


def mode_of(request: SampleRequest) -> str:
    """Name of a request's mode."""
    return next(name for name, kind in MODES.items() if type(request) is kind)


def way_for(config: Config, request: SampleRequest) -> Way:
    """The request's sampler; the default for modes that start from a given case or noise adds no noise."""
    if isinstance(request, LikelihoodRequest):
        return Way("ode", 2, request.settings)
    return way_of(request, usual_sampler(config, invertible=isinstance(request, VaryRequest | InterpolateRequest)))


def described(config: Config, request: SampleRequest) -> dict[str, Any]:
    """The request in plain values, with its sampler and steps."""
    places = ("dataset", "fold", "out", "overwrite", "dry_run", "guide")
    asked = {key: value for key, value in asdict(request).items() if key not in places}
    plain = {key: str(value) if isinstance(value, Path) else value for key, value in asked.items()}
    if isinstance(request, SegmentRequest):
        plain["masks"] = "estimated" if estimates(config, request) else "sampled"
    return {"mode": mode_of(request), **plain, **way_for(config, request).to_dict()}


def estimates(config: Config, request: SampleRequest) -> bool:
    """Whether masks of given images are estimated; the default is yes if that is possible."""
    if not isinstance(request, SegmentRequest):
        return False
    return can_estimate_masks(config) if request.masks is None else request.masks == "estimated"


def check_request(config: Config, request: SampleRequest, way: Way) -> None:
    """Refuse, before anything is read or written, what would fail while sampling.

    Raises: ConfigError naming the flag of jdm-sample.
    """
    if way.sampler == "ancestral":
        raise ConfigError("--sampler is ancestral, which works for exports only; choose another")
    resamples = config.preset == "thesis" and isinstance(request, SegmentRequest | ImagesRequest)
    least_steps = 2 if isinstance(request, LikelihoodRequest) else InpaintRequest.jump_length + 1 if resamples else 3
    check_sampling(config, request, way, least_steps=least_steps)
    check_flags(
        (request.samples >= 1, "samples", request.samples, "at least 1"),
        (
            request.guidance == 1 or not (estimates(config, request) or isinstance(request, LikelihoodRequest)),
            "guidance", request.guidance, "1, or --masks sampled with jdm-sample segment",
        ),
    )  # fmt: skip
    if isinstance(request, SegmentRequest | ImagesRequest) and not config.mask_channels:
        raise ConfigError(
            f"jdm-sample {mode_of(request)} needs masks, but the model was trained on images without; expected another "
            "mode; try classify"
        )
    if estimates(config, request) or isinstance(request, LikelihoodRequest | ClassifyRequest):
        expected = "none, as nothing is sampled (jdm-sample segment can, with --masks sampled)"
        for flag, value in (("sampler", request.sampler), ("steps", request.steps)):
            check_flags((value is None, flag, value, expected))
    match request:
        case SegmentRequest():
            check_wholly_known(way.sampler, config.preset == "default")
            if request.masks == "estimated":
                check_estimates(config)
        case ImagesRequest():
            check_wholly_known(way.sampler, config.preset == "default")
        case InpaintRequest():
            _check_inpainting(config, request, way)
        case ChannelsRequest():
            check_wholly_known(way.sampler, config.preset == "default")
            _check_resampling(request.repetitions, request.jump_length, way)
        case VaryRequest():
            low, high = config.noise.sigma_min, config.noise.sigma_max
            check_flags((low < request.level <= high, "level", request.level, f"more than {low} and at most {high}"))
        case InterpolateRequest():
            _check_interpolation(request, way)
        case ClassifyRequest():
            check_flags(
                (config.preset == "default", "preset of the model", config.preset, "default"),
                (request.levels >= 1, "levels", request.levels, "at least 1"),
                (request.class_label is None, "class-label", request.class_label, "none here"),
                (request.guidance == 1, "guidance", request.guidance, "1"),
            )
        case LikelihoodRequest():
            check_flags(
                (request.probes >= 1, "probes", request.probes, "at least 1"),
                (request.class_label is None, "class-label", request.class_label, "none here"),
            )


def _check_inpainting(config: Config, request: InpaintRequest, way: Way) -> None:
    check_wholly_known(way.sampler, False)
    _check_resampling(request.repetitions, request.jump_length, way)
    axes, half = config.data.dims + (config.data.slice_axis is not None), len(request.box) // 2
    ordered = all(0 <= a < b for a, b in zip(request.box[:half], request.box[half:], strict=False))
    regions = sum(map(bool, (request.box, request.region, request.inside)))
    check_flags(
        (request.feather >= 0, "feather", request.feather, "at least 0"),
        (regions == 1, "box, --inside or --region", f"given {regions} times", "exactly one of them"),
        (
            not request.box or (len(request.box) == 2 * axes and ordered),
            "box", request.box, f"{axes} first indices, then {axes} larger ones, each the last index plus 1",
        ),
    )  # fmt: skip


def _check_resampling(repetitions: int, jump_length: int, way: Way) -> None:
    check_flags(
        (repetitions >= 1, "repetitions", repetitions, "at least 1"),
        (jump_length >= 1, "jump-length", jump_length, "at least 1"),
        (
            jump_length < way.steps or repetitions == 1,
            "jump-length", jump_length, f"less than the {way.steps} steps",
        ),
    )  # fmt: skip


def _check_interpolation(request: InterpolateRequest, way: Way) -> None:
    if not is_deterministic(way.sampler, way.settings):
        raise ConfigError(
            f"--sampler is {way.sampler}, but jdm-sample interpolate needs a deterministic sampler; expected one of "
            f"{', '.join(DETERMINISTIC)} without --eta; choose one"
        )
    check_flags(
        (request.points >= 2, "points", request.points, "at least 2"),
        (len(request.between) in (0, 2), "between", request.between, "two case ids, or none for noise"),
    )
