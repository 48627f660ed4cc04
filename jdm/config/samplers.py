"""The samplers by name, their settings and their cost. Does not import torch, so that --help is fast."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal, get_args

from jdm.config.command import Number
from jdm.errors import ConfigError

Sampler = Literal[
    "heun", "heun-stochastic", "dpmpp-2m", "unipc", "ddim", "euler-maruyama", "predictor-corrector", "ode", "ancestral"
]
"""All work with every preset and canvas, except "ancestral", which needs the discrete process of the thesis."""

SAMPLERS = tuple(name for name in get_args(Sampler) if name != "ancestral")
DETERMINISTIC = ("heun", "dpmpp-2m", "unipc", "ddim", "ode")
"""Samplers whose sample depends only on the initial noise; ddim only with eta 0."""

_STEPS = {"heun-stochastic": 25, "euler-maruyama": 250, "predictor-corrector": 250, "ancestral": 250}
_ODE_CALLS = 100
"""Approximate, at the default tolerance."""


@dataclass(frozen=True, kw_only=True)
class SamplerSettings:
    """Settings of single samplers."""

    churn: Number = None
    """heun-stochastic: total noise added (40); 0 is heun."""
    snr: Number = None
    """predictor-corrector: signal-to-noise ratio (0.16)."""
    tolerance: Number = None
    """ode: error tolerance per step (0.001)."""
    eta: Number = None
    """ddim: noise added, 0 (none) to 1; with 1 use 100 steps."""


_OWNERS = {
    "churn": ("heun-stochastic", 0.0, 1000.0),
    "snr": ("predictor-corrector", 1e-4, 1.0),
    "tolerance": ("ode", 1e-7, 0.1),
    "eta": ("ddim", 0.0, 1.0),
}
"""Sampler of each setting, and its bounds."""


def check_sampler(sampler: str, settings: SamplerSettings) -> None:
    """Raises: ConfigError naming the flag, for an unknown sampler, or a setting out of bounds or of another sampler."""
    if sampler not in get_args(Sampler):
        raise ConfigError(f"--sampler is {sampler}; expected one of {', '.join(get_args(Sampler))}; correct it")
    for name, value in asdict(settings).items():
        owner, least, most = _OWNERS[name]
        if value is not None and sampler != owner:
            raise ConfigError(
                f"--{name} is {value} with --sampler {sampler}; expected --sampler {owner}; leave --{name} out"
            )
        if value is not None and not least <= value <= most:
            raise ConfigError(f"--{name} is {value}; expected {least:g} to {most:g}; correct it")


def check_wholly_known(sampler: str, whole: bool) -> None:
    """Raises: ConfigError if replacement is needed but the sampler chooses its own noise levels.

    Args: whole: whether the known part is a whole image or a whole mask, which needs no replacement.
    """
    if sampler == "ode" and not whole:
        raise ConfigError(
            "--sampler is ode, which cannot condition on part of an image or mask, nor with preset thesis; "
            f"expected one of {', '.join(name for name in SAMPLERS if name != 'ode')}; choose another"
        )


def is_deterministic(sampler: str, settings: SamplerSettings) -> bool:
    return sampler in DETERMINISTIC and not settings.eta


def default_steps(sampler: str) -> int:
    return _STEPS.get(sampler, 18)


def evaluations(sampler: str, steps: int) -> int:
    """Network evaluations per sample; approximate for "ode"."""
    if sampler == "ode":
        return _ODE_CALLS
    if sampler == "predictor-corrector":
        return 2 * steps
    return 2 * steps - 1 if sampler in ("heun", "heun-stochastic") else steps
