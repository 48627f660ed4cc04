"""Every setting, once: frozen dataclasses, read from and written to TOML.

`Config` is the plan of a run: `jdm.plan.rules` fills it from a dataset's fingerprint, `plan.toml` beside the
checkpoint holds it, and each of its values is a flag of `jdm-train` (`--train.batch-size 8`).
"""

from __future__ import annotations

import dataclasses
import math
import tomllib
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from jdm.config.checks import check_bounds, check_fit
from jdm.errors import ConfigError

Preset = Literal["default", "thesis"]


@dataclass(frozen=True)
class CodecConfig:
    """How a pair becomes model channels; see `jdm.data.codec`."""

    mask_code: Literal["binary", "one-hot", "bits"] = "binary"
    """binary: 1 channel, 2 classes. one-hot: a channel per class. bits: analog bits, ceil(log2 classes) channels."""
    mask_amplitude: float = 0.5
    """Mask channels are +-amplitude; the noise at which labels are decided is in proportion to it."""
    classes: int = 2
    image_dtype: str = "uint8"
    """NumPy name of the stored image type; decoding returns to it."""
    low: tuple[float, ...] = (0.0,)
    """Stored intensity per image channel that becomes -1; below it is clipped."""
    high: tuple[float, ...] = (255.0,)
    """Stored intensity per image channel that becomes +1; above it is clipped."""
    zero_border: bool = False
    """The dataset has borders of exact zeros; export restores them."""


@dataclass(frozen=True)
class DataConfig:
    """Which part of a case becomes a training sample."""

    dims: int = 2
    patch_size: tuple[int, ...] = (64, 64)
    """Training sample in pixels; each side a multiple of the network's."""
    whole: bool = True
    """Images are trained whole (padded to patch_size); otherwise as native-resolution patches."""
    canvas_size: tuple[int, ...] = (64, 64)
    """Exported sample in pixels, at least patch_size; larger ones are sampled by overlapping windows."""
    slice_axis: int | None = None
    """Volumes only: the array axis along which slices are taken, as nnU-Net's 2d configuration does."""
    spacing: tuple[float, ...] = (1.0, 1.0)
    """Spacing of patch_size's axes in the dataset's unit; other cases are resampled to it."""
    slice_spacing: float = 1.0
    """Volumes only: spacing across slices that exported pairs get."""
    case_mean: tuple[float, ...] = ()
    """Intensities have arbitrary units: each case is brought to this mean per channel; empty: taken as stored. With
    codec.zero_border it is 0, and only the deviation is changed, that of what is not zero."""
    case_std: tuple[float, ...] = ()
    """Standard deviation about case_mean that each case is brought to, per channel."""


@dataclass(frozen=True)
class AugmentConfig:
    """Augmentation of training samples, told to the network as a condition that is zero when sampling."""

    probability: float = 0.12
    """Chance of each kind below per sample (Karras et al. 2022, appendix F.2)."""
    mirror_axes: tuple[int, ...] = ()
    """Spatial axes that may be flipped."""
    quarter_turns: bool = False
    scale: float = 0.1
    """Standard deviation of log2 of the zoom."""
    rotation_degrees: float = 10.0
    """Standard deviation of the rotation angle."""
    translation: float = 0.05
    """Standard deviation of the shift, as a share of the side."""
    brightness: float = 0.1
    """Standard deviation of an image-only shift, in encoded intensity."""
    contrast: float = 0.1
    """Standard deviation of log2 of an image-only gain."""


@dataclass(frozen=True)
class NetworkConfig:
    """The U-Net; see `jdm.diffusion.unet`."""

    base_channels: int = 64
    channel_multipliers: tuple[int, ...] = (1, 2, 2, 4)
    blocks_per_level: int = 2
    attention_factors: tuple[int, ...] = (8,)
    """Downsampling factors at which self-attention follows each residual block."""
    attention_heads: int = 4
    dropout: float = 0.0
    class_names: tuple[str, ...] = ()
    """Classes of whole cases that the network is told, those of jdm-train --classes; none: it is told of none."""


@dataclass(frozen=True)
class NoiseConfig:
    """Noise levels of the default preset (Karras et al. 2022) and the mixture of their pairing."""

    sigma_data: tuple[float, float] = (0.5, 0.5)
    """Standard deviation of the encoded image and mask channels about data_mean."""
    data_mean: tuple[float, ...] = ()
    """Mean of each encoded channel, image channels first; empty: zeros."""
    log_mean: float = -0.8
    log_std: float = 1.6
    """ln(sigma) of training is normal with this mean and deviation.

    Wider than -1.2 and 1.2 of Karras et al. 2022: where things lie is decided above sigma = 1, and a run of minutes
    would see too little of it (31 % of the levels instead of 16 %).
    """
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    equal: float = 0.5
    """Share of training samples whose image and mask have the same level (the joint model)."""
    independent: float = 0.3
    """Share with a level drawn for each."""
    known_mask: float = 0.1
    """Share with the mask known (level zero): mask -> image."""
    known_image: float = 0.1
    """Share with the image known: image -> mask."""


@dataclass(frozen=True)
class DiffusionConfig:
    """The discrete variance-preserving process of `preset = "thesis"`."""

    steps: int = 1000
    schedule: Literal["linear", "cosine"] = "linear"
    """linear is the VP SDE of Song et al. 2021 in discrete steps."""
    prediction: Literal["epsilon", "v"] = "epsilon"
    """What the network estimates: the noise as in the thesis, or v (Salimans & Ho 2022)."""
    zero_terminal_snr: bool = False
    """The last step has no signal left, so that brightness is free (Lin et al. 2023); with prediction v."""
    vlb_weight: float = 0.001


@dataclass(frozen=True)
class TrainConfig:
    """Optimisation."""

    steps: int = 20_000
    batch_size: int = 16
    learning_rate: float = 1e-3
    decay: Literal["constant", "linear"] = "linear"
    """linear: the rate falls to zero over the steps, or over the budget where that ends first."""
    warmup_steps: int = 200
    gradient_clip: float = 1.0
    ema_decay: float = 0.9999
    """Ceiling of the exponential moving average of the weights; it warms up with the step count."""
    precision: Literal["bf16", "fp32"] = "bf16"
    validate_every: int = 250
    checkpoint_every: int = 250
    sample_every: int = 2_000
    budget_minutes: float | None = None
    """Wall-clock minutes after which training ends, whatever the step; None: no limit."""
    class_dropout: float = 0.1
    """Share of training samples whose class the network is not told, so that it samples without one too."""
    select: Literal["best", "last"] = "best"
    """Exported weights: those at the smoothed minimum of the held-out loss, or the last."""
    cache_bytes: int = 4 * 2**30
    """Cases are kept in memory up to this size and read from disk beyond it."""
    seed: int = 0


@dataclass(frozen=True)
class Config:
    """The whole plan of a run."""

    preset: Preset = "default"
    codec: CodecConfig = field(default_factory=CodecConfig)
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    @property
    def image_channels(self) -> int:
        return len(self.codec.low)

    @property
    def mask_channels(self) -> int:
        if self.codec.mask_code == "binary":
            return 1
        return self.codec.classes if self.codec.mask_code == "one-hot" else (self.codec.classes - 1).bit_length()


def from_dict(cls: type, values: dict[str, Any], base: Any = None, path: str = "") -> Any:
    """Build a config dataclass from nested plain values, refusing what it does not know.

    Args:
        base: values for whatever `values` leaves out; the defaults of `cls` when None.
        path: dotted name of this part, for messages.
    Raises: ConfigError naming the key, the value found and what was expected.
    """
    base = cls() if base is None else base
    hints = typing.get_type_hints(cls)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise ConfigError(
            f"unknown setting {path + unknown[0]!r}: known here are {', '.join(sorted(hints))}; correct the name"
        )
    changes = {}
    for name, value in values.items():
        where = path + name
        if dataclasses.is_dataclass(hints[name]):
            if not isinstance(value, dict):
                raise ConfigError(f"setting {where!r} is {value!r}; expected a table [{where}]")
            changes[name] = from_dict(typing.cast(type, hints[name]), value, getattr(base, name), where + ".")
        else:
            changes[name] = _checked(hints[name], value, where)
    return dataclasses.replace(base, **changes)


def _checked(kind: Any, value: Any, where: str) -> Any:
    """`value` as `kind`, or a ConfigError naming `where`."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    problem = ConfigError(f"setting {where!r} is {value!r}; expected {_describe(kind)}; correct it")
    if origin is Literal:
        if value not in arguments:
            raise problem
        return value
    if origin in (typing.Union, types.UnionType):
        inner = next(a for a in arguments if a is not type(None))
        return None if value in (None, "none") else _checked(inner, value, where)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise problem
        fixed = arguments[-1] is not Ellipsis
        if fixed and len(value) != len(arguments):
            raise problem
        return tuple(_checked(arguments[0], v, where) for v in value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**1000:
        return float(value)
    if type(value) is not kind or (kind is float and not math.isfinite(value)):
        raise problem
    return value


def _describe(kind: Any) -> str:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return "one of " + ", ".join(map(repr, arguments))
    if origin in (typing.Union, types.UnionType):
        return " or ".join("'none'" if a is type(None) else _describe(a) for a in arguments)
    if origin is tuple:
        return f"a list of {arguments[0].__name__}"
    return kind.__name__


def to_dict(config: Any) -> dict[str, Any]:
    """Nested plain values of a config dataclass; `from_dict` of them returns it."""
    return {
        f.name: to_dict(value) if dataclasses.is_dataclass(value) else _plain(value)
        for f in dataclasses.fields(config)
        for value in [getattr(config, f.name)]
    }


def _plain(value: Any) -> Any:
    if value is None:
        return "none"
    return list(value) if isinstance(value, tuple) else value


def dumps(config: Config) -> str:
    """TOML text of a config, one table per part."""
    lines: list[str] = []
    tables: list[str] = []
    for name, value in to_dict(config).items():
        if isinstance(value, dict):
            tables += ["", f"[{name}]", *(f"{key} = {_toml(item)}" for key, item in value.items())]
        else:
            lines.append(f"{name} = {_toml(value)}")
    return "\n".join(lines + tables) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return repr(value)


def load(path: Path, base: Config | None = None) -> Config:
    """Read a TOML file over `base`.

    Raises: ConfigError if the file is missing, is not TOML, or holds an unknown or ill-typed setting.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"cannot read settings {path}: {error}; expected a TOML file such as plan.toml") from None
    try:
        return from_dict(Config, values, base)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def validate(config: Config) -> Config:
    """Return `config` if its values fit together.

    Raises: ConfigError naming the setting, the value and what it must be.
    """
    check_bounds(to_dict(config))
    check_fit(config)
    return config
