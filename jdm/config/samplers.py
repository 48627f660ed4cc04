"""The samplers by their names of --sampler, their settings and what they cost; no torch, so that --help is quick."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal, get_args

from jdm.config.command import Number
from jdm.errors import ConfigError

Sampler = Literal[
    "heun", "heun-stochastic", "dpmpp-2m", "unipc", "ddim", "euler-maruyama", "predictor-corrector", "ode", "ancestral"
]
"""All but "ancestral", which is the thesis's own over its process, serve every preset and canvas."""

SAMPLERS = tuple(name for name in get_args(Sampler) if name != "ancestral")
DETERMINISTIC = ("heun", "dpmpp-2m", "unipc", "ddim", "ode")
"""Those whose sample is a function of its starting noise; ddim with eta 0."""

_STEPS = {"heun-stochastic": 25, "euler-maruyama": 250, "predictor-corrector": 250, "ancestral": 250}
_ODE_CALLS = 100
"""About, at the default tolerance."""


@dataclass(frozen=True, kw_only=True)
class SamplerSettings:
    """What some samplers can be set to; each setting belongs to one sampler."""

    churn: Number = None
    """heun-stochastic: noise renewed in all (40); 0 is heun."""
    snr: Number = None
    """predictor-corrector: signal-to-noise ratio (0.16)."""
    tolerance: Number = None
    """ode: error allowed in a step (0.001)."""
    eta: Number = None
    """ddim: noise renewed, 0 to 1; at 1 take 100 steps."""


_OWNERS = {
    "churn": ("heun-stochastic", 0.0, 1000.0),
    "snr": ("predictor-corrector", 1e-4, 1.0),
    "tolerance": ("ode", 1e-7, 0.1),
    "eta": ("ddim", 0.0, 1.0),
}
"""Sampler of each setting, and its bounds."""


def check_sampler(sampler: str, settings: SamplerSettings) -> None:
    """Raises: ConfigError, naming the flag, if there is no such sampler, or a setting is out of bounds or another's."""
    if sampler not in get_args(Sampler):
        raise ConfigError(f"--sampler is {sampler}; expected one of {', '.join(get_args(Sampler))}; correct it")
    for name, value in asdict(settings).items():
        owner, least, most = _OWNERS[name]
        if value is not None and sampler != owner:
            raise ConfigError(f"--{name} is {value} with --sampler {sampler}; it is for {owner}; leave it out")
        if value is not None and not least <= value <= most:
            raise ConfigError(f"--{name} is {value}; expected {least:g} to {most:g}; correct it")


def check_wholly_known(sampler: str, whole: bool) -> None:
    """Raises: ConfigError if something is to be kept by replacement, at levels that the sampler does not know."""
    if sampler == "ode" and not whole:
        raise ConfigError(
            "--sampler is ode, which chooses its own noise levels, with an image or mask known in part or preset "
            f"thesis; expected one of {', '.join(name for name in SAMPLERS if name != 'ode')}; choose another"
        )


def is_deterministic(sampler: str, settings: SamplerSettings) -> bool:
    return sampler in DETERMINISTIC and not settings.eta


def default_steps(sampler: str) -> int:
    return _STEPS.get(sampler, 18)


def evaluations(sampler: str, steps: int) -> int:
    """Calls of the network that a sample takes; of "ode" only about."""
    if sampler == "ode":
        return _ODE_CALLS
    if sampler == "predictor-corrector":
        return 2 * steps
    return 2 * steps - 1 if sampler in ("heun", "heun-stochastic") else steps
