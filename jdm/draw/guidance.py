"""Conditioning on a class, and guidance by the unconditional model or by a weaker model."""

from __future__ import annotations

from collections.abc import Collection

from torch import Tensor

from jdm.config.files import differences, to_dict
from jdm.config.settings import Config
from jdm.data.pairs import sampling_condition
from jdm.diffusion.denoiser import Denoiser
from jdm.diffusion.guidance import conditioned, guided
from jdm.diffusion.noise import Denoise
from jdm.diffusion.vp import VPDenoiser
from jdm.errors import ConfigError
from jdm.system.parallel import on_all_cores
from jdm.train.checkpoint import Checkpoint

AnyDenoiser = Denoiser | VPDenoiser
_ENCODING = (
    "channel_names", "labels", "dtype", "low", "high", "case_mean", "case_std", "zero_border", "spacing", "slice_axis",
    "class_names",
)  # fmt: skip
"""Facts that must agree between a model and its guide."""


def directed(
    denoiser: AnyDenoiser, config: Config, class_name: str = "", scale: float = 1.0,
    weaker: AnyDenoiser | None = None, previous: Tensor | None = None,
) -> Denoise:  # fmt: skip
    """The denoiser conditioned on a class, if one is named, and guided, if the scale is not 1.

    Guidance is away from the weaker denoiser with the same class or, without one, from the denoiser without a class.

    Args: previous: what is told of the slice before, `jdm.data.pairs.previous_condition`; None: nothing.
    """

    def told(one: AnyDenoiser, name: str) -> Denoise:
        condition = sampling_condition(config, name, previous)
        return on_all_cores(conditioned(one, condition) if condition.any() else one)

    if scale == 1:
        return told(denoiser, class_name)
    weak = told(denoiser, "") if weaker is None else told(weaker, class_name)
    return guided(told(denoiser, class_name), weak, scale)


def check_guidance(
    checkpoint: Checkpoint, classes: Collection[str], scale: float, weaker: Checkpoint | None = None
) -> None:
    """Refuse unknown classes and impossible guidance.

    Args:
        classes: classes to sample; empty: without a class. weaker: the guiding checkpoint, of the same plan.
    Raises: ConfigError.
    """
    check_class_names(checkpoint, classes)
    if weaker is not None:
        _check_guide(checkpoint, scale, weaker)
    elif scale != 1 and not classes:
        raise ConfigError(
            f"--guidance is {scale} with neither a class nor a --guide; expected --guidance 1, --class-label NAME (for "
            "a model trained with --classes), or --guide with a weaker checkpoint's folder; give one of them"
        )
    elif scale != 1 and checkpoint.config.train.class_dropout == 0:
        raise ConfigError(
            f"--guidance is {scale}, but the model was never trained without a class (train.class_dropout 0); expected "
            "a --guide, or a model trained with class dropout; leave --guidance out"
        )


def check_class_names(checkpoint: Checkpoint, classes: Collection[str]) -> None:
    """Raises: ConfigError if the model was not trained with one of these classes."""
    names = checkpoint.config.facts.class_names
    if classes and not names:
        raise ConfigError(
            "a class is requested, but the model was trained without classes; expected a model trained with "
            "--classes; train one, or leave --class-label and --balance out"
        )
    if unknown := sorted({*classes} - {*names}):
        raise ConfigError(f"--class-label is {unknown[0]!r}; expected one of {', '.join(names)}; correct it")


def _check_guide(checkpoint: Checkpoint, scale: float, weaker: Checkpoint) -> None:
    if scale == 1:
        raise ConfigError(
            "--guidance is 1.0 with a --guide, which has no effect; expected another scale, such as --guidance 2; "
            "give one, or leave --guide out"
        )
    lines = []
    for part in ("preset", "codec", "data"):
        found, expected = ({part: to_dict(c.config)[part]} for c in (weaker, checkpoint))
        lines += differences(found, expected)
    for fact in _ENCODING:
        found, expected = ({fact: to_dict(c.config.facts)[fact]} for c in (weaker, checkpoint))
        lines += differences(found, expected)
    found, expected = ({"dataset": c.metadata["dataset"]} for c in (weaker, checkpoint))
    lines += differences(found, expected)
    if lines:
        raise ConfigError(f"the --guide checkpoint has another plan: {'; '.join(lines)}; give one with the same plan")
    if strange := sorted({*weaker.metadata["training_ids"]} - {*checkpoint.metadata["training_ids"]}):
        raise ConfigError(
            f"the --guide checkpoint was trained on {', '.join(strange[:5])}, which the guided model never saw; "
            "expected a guide of the same fold, so that held-out cases stay unseen; give one"
        )
