"""What each mode of `jdm-sample`, and `jdm.sample`, is asked for."""

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
    """What every mode is asked for."""

    dataset: Dataset
    """The dataset's id or name; or, without FOLD, the path of a run's folder."""
    fold: Fold = ""
    """Fold of jdm-train: 0 to 4, or "all"."""
    _: KW_ONLY
    samples: int = 4
    """Samples per condition."""
    out: File = None
    """Folder to write; by default sampled/MODE in the run's folder."""
    overwrite: Switch = False
    """Replace samples that are in the output folder."""
    dry_run: Switch = False
    """Check the request, say what would be sampled and how long it takes, and stop."""


@dataclass(frozen=True)
class SampleRequest(Sampling, SampleOptions):
    """A mode's request."""


@dataclass(frozen=True)
class SegmentRequest(SampleRequest):
    """Segment images: the most probable label of each pixel, under labels/, and a map of its uncertainty (the entropy
    of the label probabilities), under uncertainty/."""

    _: KW_ONLY
    images: Folder
    """Images named case_0000.png and so on."""
    masks: Annotated[Estimates | None, tyro.conf.arg(metavar="estimated|sampled", help_behavior_hint="")] = None
    """Probabilities from the mean of the mask given the image, one evaluation a sample; or from how many samples have a
    label there (preset thesis and more than 8 classes: only so)."""


@dataclass(frozen=True)
class ImagesRequest(SampleRequest):
    """Draw images for given masks."""

    _: KW_ONLY
    masks: Folder
    """Masks named case.png and so on."""


@dataclass(frozen=True)
class InpaintRequest(SampleRequest):
    """Sample a region of a real case anew; outside it nothing changes.

    What surrounds the region is kept by replacement, which is biased: on Gaussian data of correlation 0.8 the region
    gets 61 % of the right shift of its mean with --repetitions 1, and 82 % with 4.
    """

    _: KW_ONLY
    case: Case
    """Id of the case."""
    box: Annotated[tuple[int, ...], tyro.conf.arg(metavar="N ...", help_behavior_hint="")] = ()
    """Region in array order: first row and column, then those behind the last, e.g. 40 60 90 120."""
    region: File = None
    """Region as a file of the case's size, nonzero inside."""
    lesion: Text = None
    """Label that the region gets (of a box the ellipse in it), e.g. polyp, or background to remove one."""
    feather: int = 4
    """Pixels inside the border over which sampled and real intensities are mixed."""
    repetitions: int = 4
    """RePaint: how often each stretch of --jump-length steps is repeated; 1: none."""
    jump_length: int = 3
    """RePaint: steps that a jump goes back."""


@dataclass(frozen=True)
class ChannelsRequest(SampleRequest):
    """Sample the other channels of real cases, given some of them.

    An image or mask given whole is exact; part of the channels is kept by replacement, see jdm-sample inpaint.
    """

    _: KW_ONLY
    known: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...", help_behavior_hint="")]
    """Known channels, by number or name; "mask" is the mask."""
    cases: Cases = ()
    """Cases; by default the first four held out in training."""
    repetitions: int = 4
    """RePaint: how often each stretch of --jump-length steps is repeated; 1: none."""
    jump_length: int = 3
    """RePaint: steps that a jump goes back."""


@dataclass(frozen=True)
class VaryRequest(SampleRequest):
    """Draw variations of real pairs: they are noised to a level and denoised again."""

    _: KW_ONLY
    level: float = 0.4
    """Noise level: 0.1 stays close, 0.4 keeps the layout, 2 keeps little."""
    cases: Cases = ()
    """Cases; by default the first four held out in training."""


@dataclass(frozen=True)
class InterpolateRequest(SampleRequest):
    """Draw the pairs between two real ones, or between two draws of noise."""

    _: KW_ONLY
    between: Cases = ()
    """The two cases; by default two draws of noise."""
    points: int = 7
    """Pairs, the two ends included."""


@dataclass(frozen=True)
class LikelihoodRequest(SampleRequest):
    """Measure how likely the model finds real cases, in bits per dimension, by the probability flow ODE.

    Of the image given its mask (preset thesis: of both). Fewer bits for cases trained on than for held-out ones mean
    that the model begins to memorise.
    """

    _: KW_ONLY
    cases: Cases = ()
    """Cases; by default four held out in training, and as many trained on."""
    probes: int = 1
    """Probes of the divergence (Hutchinson's estimator); more vary less."""


MODES: dict[str, type[SampleRequest]] = {
    "segment": SegmentRequest,
    "images": ImagesRequest,
    "inpaint": InpaintRequest,
    "channels": ChannelsRequest,
    "vary": VaryRequest,
    "interpolate": InterpolateRequest,
    "likelihood": LikelihoodRequest,
}
"""The modes by name."""


def mode_of(request: SampleRequest) -> str:
    """Name of a request's mode."""
    return next(name for name, kind in MODES.items() if type(request) is kind)


def way_for(config: Config, request: SampleRequest) -> Way:
    """The request's sampler: by default one that renews no noise where this would lead away from a given case."""
    if isinstance(request, LikelihoodRequest):
        return Way("ode", 2, request.settings)
    return way_of(
        request, usual_sampler(config, renews_noise=not isinstance(request, VaryRequest | InterpolateRequest))
    )


def described(config: Config, request: SampleRequest) -> dict[str, Any]:
    """The request in plain values, with its sampler and steps."""
    places = ("dataset", "fold", "out", "overwrite", "dry_run", "guide")
    asked = {key: value for key, value in asdict(request).items() if key not in places}
    plain = {key: str(value) if isinstance(value, Path) else value for key, value in asked.items()}
    if isinstance(request, SegmentRequest):
        plain["masks"] = "estimated" if estimates(config, request) else "sampled"
    return {"mode": mode_of(request), **plain, **way_for(config, request).to_dict()}


def estimates(config: Config, request: SampleRequest) -> bool:
    """Whether masks of given images are estimated: by default where that can be done."""
    if not isinstance(request, SegmentRequest):
        return False
    return can_estimate_masks(config) if request.masks is None else request.masks == "estimated"


def check_request(config: Config, request: SampleRequest, way: Way) -> None:
    """Refuse, before anything is read or written, what would fail while sampling.

    Raises: ConfigError naming the flag of jdm-sample.
    """
    if way.sampler == "ancestral":
        raise ConfigError("--sampler is ancestral, which serves exports only; choose another")
    resamples = config.preset == "thesis" and isinstance(request, SegmentRequest | ImagesRequest)
    least_steps = 2 if isinstance(request, LikelihoodRequest) else InpaintRequest.jump_length + 1 if resamples else 3
    check_sampling(config, request, way, least_steps=least_steps)
    check_flags(
        (request.samples >= 1, "samples", request.samples, "at least 1"),
        (
            request.guidance == 1 or not (estimates(config, request) or isinstance(request, LikelihoodRequest)),
            "guidance", request.guidance, "1 here; with jdm-sample segment also --masks sampled",
        ),
    )  # fmt: skip
    if estimates(config, request) or isinstance(request, LikelihoodRequest):
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
    both = "given twice" if request.box else "given neither way"
    check_flags(
        (request.feather >= 0, "feather", request.feather, "at least 0"),
        (bool(request.box) != bool(request.region), "box and --region", both, "one of them"),
        (
            not request.box or (len(request.box) == 2 * axes and ordered),
            "box", request.box, f"{axes} first pixels, then the {axes} behind the last, larger ones",
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
            f"--sampler is {way.sampler}, which renews noise, in jdm-sample interpolate; expected one of "
            f"{', '.join(DETERMINISTIC)} without --eta; choose one"
        )
    check_flags(
        (request.points >= 2, "points", request.points, "at least 2"),
        (len(request.between) in (0, 2), "between", request.between, "two case ids, or none for noise"),
    )
