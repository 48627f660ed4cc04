"""How samples are drawn: what every command that samples is asked for."""

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
    """How samples are drawn, whatever the sampler."""

    sampler: Annotated[Sampler | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")] = None
    """heun-stochastic, heun, dpmpp-2m, unipc, ddim, euler-maruyama, predictor-corrector or ode (README: which)."""
    steps: Count = None
    """Sampling steps; by default 18 to 250, by the sampler."""
    class_label: Text = None
    """Class to sample (jdm-train --classes)."""
    guidance: Annotated[float, tyro.conf.arg(metavar="X")] = 1.0
    """Above 1: towards the class, or away from what --guide makes."""
    guide: File = None
    """Run folder of a weaker model of the same plan."""
    seed: Annotated[int, tyro.conf.arg(metavar="N")] = 0
    batch_size: Annotated[int, tyro.conf.arg(metavar="N")] = 16
    """Samples drawn together."""
    overlap: Annotated[float, tyro.conf.arg(metavar="X")] = 0.25
    """Least overlap of windows over a large image."""


# Fields of a later base come first, and so do their flags in --help: the common ones before those of single samplers.
@dataclass(frozen=True, kw_only=True)
class Sampling(SamplerSettings, SamplingOptions):
    """How samples are drawn."""

    @property
    def settings(self) -> SamplerSettings:
        return SamplerSettings(**{f.name: getattr(self, f.name) for f in fields(SamplerSettings)})


@dataclass(frozen=True)
class Way:
    """A sampler and its steps, with nothing left open."""

    sampler: Sampler
    steps: int
    settings: SamplerSettings = field(default_factory=SamplerSettings)

    def to_dict(self) -> dict[str, Any]:
        """What records say beside the request."""
        return {"sampler": self.sampler, "steps": self.steps}


def way_of(sampling: Sampling, usual: Sampler) -> Way:
    """The sampler that is asked for, or the usual one, with its steps."""
    sampler = sampling.sampler or usual
    return Way(sampler, default_steps(sampler) if sampling.steps is None else sampling.steps, sampling.settings)


def usual_sampler(config: Config, *, renews_noise: bool = True) -> Sampler:
    """heun-stochastic: its images and masks agree as real ones do; those of deterministic samplers agree less at any
    number of steps (results/steps_vs_quality). heun for the thesis preset.

    Args: renews_noise: off where new noise would lead away from a given case: heun.
    """
    return "heun-stochastic" if renews_noise and config.preset == "default" else "heun"


def check_sampling(config: Config, sampling: Sampling, way: Way, *, least_steps: int = 2) -> None:
    """Refuse what would fail while sampling. Raises: ConfigError naming the flag."""
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
    """Raises: ConfigError for the first check that does not hold: (holds, flag, found, expected)."""
    for holds, flag, found, expected in checks:
        if not holds:
            raise ConfigError(f"--{flag} is {found}; expected {expected}; correct it")


def can_estimate_masks(config: Config) -> bool:
    """Whether masks can be estimated: the network has a level each for image and mask, and the mean of the mask gives
    the most probable label, as that of analog bits does not."""
    return config.preset == "default" and config.codec.mask_code != "bits"


def check_estimates(config: Config) -> None:
    """Raises: ConfigError if masks cannot be estimated."""
    if not can_estimate_masks(config):
        why = (
            f"preset {config.preset!r}, whose network has one noise level for image and mask"
            if config.preset != "default"
            else f"{config.facts.classes} classes in analog bits, whose mean gives no most probable one"
        )
        raise ConfigError(f"--masks is 'estimated' for {why}; expected 'sampled'; leave --masks out")
