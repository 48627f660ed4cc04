"""What jdm-sample is asked for, and whether it can be done at all."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from jdm.config.samplers import (
    DETERMINISTIC,
    Sampler,
    SamplerSettings,
    check_sampler,
    check_wholly_known,
    is_deterministic,
)
from jdm.config.settings import Config
from jdm.errors import ConfigError
from jdm.export.request import Masks, check_estimates, gives_estimates

Mode = Literal["given-images", "given-masks", "inpaint", "known-channels", "vary", "interpolate", "bits-per-dim"]


@dataclass(frozen=True)
class SampleRequest:
    """What to sample from what; written beside the samples. Each mode reads its own part."""

    mode: Mode
    cases: tuple[str, ...] = ()
    """Ids of the dataset's cases to start from; two, or none for noise, of "interpolate"."""
    folder: str = ""
    """Of the images or masks given."""
    masks: Masks | None = None
    """Of given images: estimated or sampled; None: see `estimates`."""
    channels: tuple[str, ...] = ()
    """Known channels, by number or name; "mask" is the mask."""
    box: tuple[int, ...] = ()
    """Region to inpaint: first pixel per axis, then the one behind the last."""
    region: str = ""
    """The region as a file of the case's size instead, nonzero inside."""
    lesion: str = ""
    """Label that the region gets; empty: sampled with the image."""
    feather: int = 4
    """Pixels inside the region's border over which sampled and real intensities are mixed."""
    level: float = 0.0
    """Noise level of a variation, in encoded intensity, whose range is [-1, 1]."""
    points: int = 7
    """Pairs of an interpolation, its two ends included."""
    samples: int = 4
    """Per condition; crops of a case for "bits-per-dim"."""
    probes: int = 1
    """Of Hutchinson's estimator, for "bits-per-dim"."""
    sampler: Sampler = "heun"
    sampling: SamplerSettings = field(default_factory=SamplerSettings)
    steps: int = 18
    jump_length: int = 3
    repetitions: int = 4
    """Of RePaint, where something is known by replacement; 1: no resampling."""
    guidance: float = 1.0
    """Scale of guidance by the class or a weaker checkpoint (`jdm.draw.guidance`); 1: none."""
    class_label: str = ""
    """Class to sample; empty: none."""
    seed: int = 0
    batch_size: int = 16
    overlap: float = 0.25
    """Least overlap of neighbouring windows where an image is larger than the training patch."""


def default_sampler(config: Config, mode: Mode) -> Sampler:
    """heun-stochastic, as for exports; heun for the thesis preset and where new noise would lead away from the case."""
    return "heun" if config.preset == "thesis" or mode in ("vary", "interpolate") else "heun-stochastic"


def resamples(config: Config, request: SampleRequest) -> bool:
    """Whether something is known in part, for which RePaint goes back up in noise."""
    partly = request.mode in ("inpaint", "known-channels") or config.preset == "thesis"
    return partly and request.mode not in ("vary", "interpolate", "bits-per-dim")


def estimates(config: Config, request: SampleRequest) -> bool:
    """Whether masks of given images are estimated: by default where that can be done."""
    wanted = gives_estimates(config) if request.masks is None else request.masks == "estimated"
    return request.mode == "given-images" and wanted


def check_request(config: Config, request: SampleRequest) -> None:
    """Refuse, before anything is read or written, what would fail while sampling.

    Raises: ConfigError naming the flag of jdm-sample.
    """
    check_sampler(request.sampler, request.sampling)
    nothing = request.mode in ("vary", "interpolate", "bits-per-dim")
    check_wholly_known(request.sampler, nothing or (request.mode != "inpaint" and config.preset != "thesis"))
    if request.mode == "interpolate" and not is_deterministic(request.sampler, request.sampling):
        raise ConfigError(
            f"--sampler is {request.sampler}, which renews noise, with --interpolate; expected one of "
            f"{', '.join(DETERMINISTIC)} without --eta; choose one"
        )
    if request.masks == "estimated" and request.mode == "given-images":
        check_estimates(config)
    noise = config.noise
    axes = config.data.dims + (config.data.slice_axis is not None)
    varies, paints = request.mode == "vary", request.mode == "inpaint"
    half = len(request.box) // 2
    checks = (
        (request.samples >= 1, "samples", request.samples, "at least 1"),
        (3 <= request.steps <= 1000, "steps", request.steps, "3 to 1000"),
        (request.repetitions >= 1, "repetitions", request.repetitions, "at least 1"),
        (request.jump_length >= 1, "jump-length", request.jump_length, "at least 1"),
        (
            request.jump_length < request.steps or request.repetitions == 1 or not resamples(config, request),
            "jump-length", request.jump_length, f"less than the {request.steps} steps",
        ),
        (request.batch_size >= 1, "batch-size", request.batch_size, "at least 1"),
        (0 <= request.overlap < 1, "overlap", request.overlap, "at least 0 and less than 1"),
        (request.seed >= 0, "seed", request.seed, "at least 0"),
        (0 < request.guidance <= 10, "guidance", request.guidance, "more than 0 and at most 10"),
        (request.mode != "bits-per-dim" or request.guidance == 1, "guidance", request.guidance, "1, for bits"),
        (
            not estimates(config, request) or request.guidance == 1,
            "guidance", request.guidance, "1, or --masks sampled: guided, an estimate is not the most probable mask",
        ),
        (request.probes >= 1, "probes", request.probes, "at least 1"),
        (request.points >= 2, "points", request.points, "at least 2"),
        (request.feather >= 0, "feather", request.feather, "at least 0"),
        (
            not varies or noise.sigma_min < request.level <= noise.sigma_max,
            "vary", request.level, f"more than {noise.sigma_min} and at most {noise.sigma_max}",
        ),
        (not paints or bool(request.box) != bool(request.region), "box and --region", _both(request), "one of them"),
        (
            not request.box or (len(request.box) == 2 * axes and all(
                0 <= a < b for a, b in zip(request.box[:half], request.box[half:], strict=True)
            )),
            "box", request.box, f"{axes} first pixels, then the {axes} behind the last, larger ones",
        ),
        (
            request.mode != "interpolate" or len(request.cases) in (0, 2),
            "interpolate", request.cases, 'two case ids, or "noise"',
        ),
    )  # fmt: skip
    for holds, flag, found, expected in checks:
        if not holds:
            raise ConfigError(f"--{flag} is {found}; expected {expected}; correct it")


def _both(request: SampleRequest) -> str:
    return "given twice" if request.box else "given neither way"


def known_numbers(
    names: tuple[str, ...], channel_names: tuple[str, ...], image_channels: int, mask_channels: int
) -> list[int]:
    """Model channels that names, numbers or "mask" stand for.

    Raises: ConfigError for another name, or if nothing is left to sample.
    """
    known: set[int] = set()
    for name in names:
        if name == "mask":
            known |= {image_channels + c for c in range(mask_channels)}
        elif name in channel_names:
            known.add(channel_names.index(name))
        elif name.isdecimal() and int(name) < image_channels:
            known.add(int(name))
        else:
            raise ConfigError(
                f"--known-channels has {name!r}; expected channels 0 to {image_channels - 1}, their names "
                f"({', '.join(channel_names)}) or mask; correct it"
            )
    if len(known) == image_channels + mask_channels:
        raise ConfigError("--known-channels names every channel and the mask; expected some to sample; leave one out")
    return sorted(known)
