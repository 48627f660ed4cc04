"""Sampling options common to every command that samples."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Annotated, Any

import tyro

from jdm.config.command import Count, File, Text
from jdm.config.samplers import Sampler, SamplerSettings, check_sampler, default_steps
from jdm.config.settings import Config
from jdm.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """Sampling options that apply to every sampler."""

    sampler: Annotated[Sampler | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")] = None
    """heun-stochastic, heun, dpmpp-2m, unipc, ddim, euler-maruyama, predictor-corrector or ode (README: which)."""
    steps: Count = None
    """Sampling steps; default 18 to 250, by sampler."""
    class_label: Text = None
    """Class to sample (see jdm-train --classes)."""
    guidance: Annotated[float, tyro.conf.arg(metavar="X")] = 1.0
    """Above 1: towards the class, or away from the --guide model."""
    guide: File = None
    """Run folder of a weaker model with the same plan."""
    seed: Annotated[int, tyro.conf.arg(metavar="N")] = 0
    batch_size: Annotated[int, tyro.conf.arg(metavar="N")] = 16
    """Samples per batch."""
    overlap: Annotated[float, tyro.conf.arg(metavar="X")] = 0.25
    """Least overlap of a large image's windows."""


# Fields of the last base come first, so --help lists the common flags before those of single samplers.
@dataclass(frozen=True, kw_only=True)
class Sampling(SamplerSettings, SamplingOptions):
    """All sampling options."""

    @property
    def settings(self) -> SamplerSettings:
        return SamplerSettings(**{f.name: getattr(self, f.name) for f in fields(SamplerSettings)})


@dataclass(frozen=True)
class Way:
    """A sampler with its number of steps and settings, all defaults resolved."""

    sampler: Sampler
    steps: int
    settings: SamplerSettings = field(default_factory=SamplerSettings)

    def to_dict(self) -> dict[str, Any]:
        """The entries to record in addition to the request."""
        return {"sampler": self.sampler, "steps": self.steps}


def way_of(sampling: Sampling, usual: Sampler) -> Way:
    """The requested sampler, or else the usual one, with its number of steps."""
    sampler = sampling.sampler or usual
    return Way(sampler, default_steps(sampler) if sampling.steps is None else sampling.steps, sampling.settings)


def usual_sampler(config: Config, *, invertible: bool = False) -> Sampler:
    """dpmpp-2m, or heun for the thesis preset and for sampling that must stay close to a given case.

    At 18 steps dpmpp-2m gives every sub-band of the images the same variance as 40 steps of heun; ten steps of
    heun-stochastic, which take as many evaluations, give fine ones twice as much.

    Args: invertible: whether noise must lead back to a given case.
    """
    return "dpmpp-2m" if config.preset == "default" and not invertible else "heun"


def check_sampling(config: Config, sampling: Sampling, way: Way, *, least_steps: int = 2) -> None:
    """Check the request before sampling starts. Raises: ConfigError naming the flag."""
    check_sampler(way.sampler, way.settings)
    ancestral = way.sampler == "ancestral"
    if sampling.guidance != 1 and ancestral:
        raise ConfigError(
            f"--guidance is {sampling.guidance} with --sampler ancestral, which cannot be guided; expected 1; choose "
            "another sampler, or leave --guidance out"
        )
    most = config.diffusion.steps if ancestral else 1000
    check_flags(
        (least_steps <= way.steps <= most, "steps", way.steps, f"{least_steps} to {most}"),
        (sampling.batch_size >= 1, "batch-size", sampling.batch_size, "at least 1"),
        (0 <= sampling.overlap < 1, "overlap", sampling.overlap, "at least 0 and less than 1"),
        (sampling.seed >= 0, "seed", sampling.seed, "at least 0"),
        (0 < sampling.guidance <= 10, "guidance", sampling.guidance, "more than 0 and at most 10"),
    )


def check_flags(*checks: tuple[bool, str, object, str]) -> None:
    """Raises: ConfigError for the first check (holds, flag, found, expected) that does not hold."""
    for holds, flag, found, expected in checks:
        if not holds:
            raise ConfigError(f"--{flag} is {found}; expected {expected}; correct it")


def can_estimate_masks(config: Config) -> bool:
    """Whether masks can be estimated.

    This needs separate noise levels for image and mask, and a mask code whose mean gives the most probable label, which
    rules out analog bits.
    """
    return config.preset == "default" and config.codec.mask_code != "bits" and config.mask_channels > 0


def check_estimates(config: Config) -> None:
    """Raises: ConfigError if masks cannot be estimated."""
    if not can_estimate_masks(config):
        why = (
            "images without masks"
            if not config.mask_channels
            else (
                f"preset {config.preset!r}, whose network has one noise level for image and mask"
                if config.preset != "default"
                else f"{config.facts.classes} classes in analog bits, whose mean does not give the most probable class"
            )
        )
        raise ConfigError(f"--masks is 'estimated' for {why}; expected 'sampled'; leave --masks out")
