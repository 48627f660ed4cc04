"""All settings with their bounds: frozen dataclasses whose docstrings are the help texts.

`Settings` holds the plan's decisions and the expert defaults: `jdm.plan` decides some of them from a dataset's
fingerprint, and each is a flag of `jdm-train` (`--train.batch-size 8`). `Config` adds the fingerprint to the settings.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt

from jdm.config.facts import Fingerprint, Strict
from jdm.config.levels import Level, even_levels, levels_of

Preset = Literal["default", "thesis"]
Count = Annotated[int, Ge(1)]
Positive = Annotated[float, Gt(0)]
NotNegative = Annotated[float, Ge(0)]
Share = Annotated[float, Ge(0), Le(1)]
Rate = Annotated[float, Ge(0), Lt(1)]
Axis = Annotated[int, Ge(0), Le(2)]


@dataclass(frozen=True)
class CodecConfig(Strict):
    """How a label becomes model channels; see `jdm.data.codec`."""

    mask_code: Literal["binary", "one-hot", "bits"] = "binary"
    """binary: 1 channel, 2 classes. one-hot: a channel per class. bits: analog bits, ceil(log2 classes) channels."""
    mask_amplitude: Positive = 0.5
    """Mask channels are +-amplitude; the noise level at which labels are decided is proportional to it."""


@dataclass(frozen=True)
class DataConfig(Strict):
    """Which part of a case becomes a training sample."""

    dims: Literal[2, 3] = 2
    """3: volumes as a whole; 2: images, and volumes as slices."""
    patch_size: tuple[Count, ...] = (64, 64)
    """Sides of a training sample in pixels, multiples of the network's downsampling factor."""
    whole: bool = True
    """Train on whole images, padded to patch_size; otherwise on patches at native resolution."""
    canvas_size: tuple[Count, ...] = (64, 64)
    """Sides of an exported sample in pixels, at least patch_size; larger samples use overlapping windows."""
    slice_axis: Axis | None = None
    """Volumes only: the array axis along which slices are taken, as in nnU-Net's 2d configuration."""
    previous_slice: bool = False
    """Slices only: condition each slice on its position and on the slice before it, and export volumes slice by
    slice."""

    position: bool = False
    """Volumes only: give the network the coordinates of each voxel in its volume, from -1 to 1 along each axis."""

    @property
    def previous_features(self) -> int:
        """Length of what the network is told of the slice before: `jdm.data.pairs.previous_condition`."""
        return 4 * self.previous_slice


@dataclass(frozen=True)
class AugmentConfig(Strict):
    """Augmentation of training samples. The network is conditioned on it; sampling uses the condition "none"."""

    probability: Share = 0.4
    """Share of the samples that are augmented, each in one of the ways below."""
    mirror_axes: tuple[Axis, ...] = ()
    """Spatial axes that may be flipped."""
    quarter_turns: bool = False
    scale: NotNegative = 0.1
    """Standard deviation of log2 of the zoom."""
    rotation_degrees: NotNegative = 10.0
    """Standard deviation of the rotation angle."""
    translation: NotNegative = 0.05
    """Standard deviation of the shift, as a share of the side."""
    brightness: NotNegative = 0.0
    """Standard deviation of an image-only shift, in encoded intensity. Off, because it leaks into samples:
    results/leakage_longer.md."""
    contrast: NotNegative = 0.1
    """Standard deviation of log2 of an image-only gain."""


@dataclass(frozen=True)
class NetworkConfig(Strict):
    """The U-Net; see `jdm.diffusion.unet`."""

    base_channels: Count = 64
    channel_multipliers: tuple[Count, ...] = (1, 2, 2, 4)
    blocks_per_level: Count = 2
    attention_factors: tuple[Count, ...] = (8,)
    """Downsampling factors at which self-attention follows each residual block."""
    attention_heads: Count = 4
    dropout: Rate = 0.0
    haar_levels: Annotated[int, Ge(0), Le(2)] = 0
    """Haar wavelet levels before the U-Net (default preset): each halves the grid on which it works."""
    recompute: bool = False
    """Compute activations again for the gradient instead of keeping them: less memory, a seventh more time."""


@dataclass(frozen=True)
class NoiseConfig(Strict):
    """Noise levels of the default preset (Karras et al. 2022) and how image and mask levels are paired."""

    log_mean: float = -0.8
    log_std: Positive = 1.6
    """In training, ln(sigma) is normal with this mean and standard deviation.

    Karras et al. 2022 use -1.2 and 1.2. The layout is decided above sigma = 1, where those draw only 16 % of the
    levels, too few for a run of minutes; these draw 31 %. They are for sides of 64 pixels; see `jdm.plan.rules`.
    """
    sigma_min: Positive = 0.002
    sigma_max: Positive = 80.0
    equal: Share = 0.5
    """Share of training samples with the same level for image and mask (the joint model)."""
    independent: Share = 0.3
    """Share with independent levels for image and mask."""
    known_mask: Share = 0.1
    """Share with the mask known (level zero): mask -> image."""
    known_image: Share = 0.1
    """Share with the image known: image -> mask."""
    band_weight: NotNegative = 0.5
    """Weight of a sub-band of the image in the loss, as a power of its variance; 0: the same for all."""


@dataclass(frozen=True)
class DiffusionConfig(Strict):
    """The discrete variance-preserving process of `preset = "thesis"`."""

    steps: Annotated[int, Ge(2), Le(10**6)] = 1000
    schedule: Literal["linear", "cosine"] = "linear"
    """linear: the VP SDE of Song et al. 2021 in discrete steps."""
    prediction: Literal["epsilon", "v"] = "epsilon"
    """What the network predicts: the noise, as in the thesis, or v (Salimans & Ho 2022)."""
    zero_terminal_snr: bool = False
    """Leave no signal in the last step, so that mean brightness is not fixed (Lin et al. 2023); needs prediction v."""
    vlb_weight: NotNegative = 0.001


@dataclass(frozen=True)
class TrainConfig(Strict):
    """Optimisation."""

    steps: Count = 20_000
    batch_size: Count = 16
    learning_rate: Positive = 1e-3
    decay: Literal["constant", "linear"] = "linear"
    """linear: the learning rate falls to zero over the steps, or over the budget if it ends first."""
    warmup_steps: Annotated[int, Ge(0)] = 200
    gradient_clip: Positive = 1.0
    ema_decay: Share = 0.9999
    """Final decay of the exponential moving average of the weights; it increases with the step count."""
    precision: Literal["bf16", "fp32"] = "bf16"
    validate_every: Count = 250
    checkpoint_minutes: NotNegative = 2.0
    """Wall-clock minutes between checkpoints; a killed run resumes from the last one."""
    sample_every: Count = 2_000
    memory_gigabytes: Positive | None = None
    """Memory of a step on volumes, to which batch and patch are fitted; none: the GPU's, or a third of the RAM."""
    budget_minutes: Positive | None = None
    """Minutes after which training ends at any step; none: no limit."""
    clock: Literal["wall", "cpu"] = "wall"
    """wall: the budget is wall-clock time, planning included. cpu: it is CPU time, summed over threads and without
    planning, so that runs on a busy machine can be compared."""
    class_dropout: Rate = 0.1
    """Share of training samples whose class is dropped, so that the model can also sample without a class."""
    unlabelled_share: Share = 0.5
    """Share of training samples without a mask, if there are unlabelled images."""
    missing_mask: Literal["marginal", "estimated"] = "marginal"
    """marginal: a missing mask is hidden by noise and has no loss. estimated: in the second half of the training it is
    estimated by the averaged weights, where they are sure of it."""
    select: Literal["best", "last"] = "best"
    """Exported weights: at the smoothed minimum of the held-out loss, or the last."""
    cache_bytes: Annotated[int, Ge(0)] = 4 * 2**30
    """Bytes of memory for caching cases; the rest are read from disk."""
    seed: Annotated[int, Ge(0), Lt(2**63)] = 0


@dataclass(frozen=True)
class Settings(Strict):
    """All settings of a run."""

    preset: Preset = "default"
    codec: CodecConfig = field(default_factory=CodecConfig)
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    train: TrainConfig = field(default_factory=TrainConfig)


@dataclass(frozen=True)
class Config(Settings):
    """Full configuration of a run: the settings, and the facts on which they are based."""

    facts: Fingerprint = field(kw_only=True)

    @property
    def levels(self) -> tuple[Level, ...]:
        """Resolutions of the network, those of the wavelets first; thick slices of volumes are halved late."""
        halvings = self.network.haar_levels + len(self.network.channel_multipliers) - 1
        if self.data.dims == 2:
            return even_levels(2, halvings)
        return levels_of(self.facts.spacing, self.data.patch_size, halvings)

    @property
    def haar_levels(self) -> tuple[int, ...]:
        """Wavelet levels along each axis."""
        first = self.levels[: self.network.haar_levels]
        return tuple(sum(level.stride[axis] == 2 for level in first) for axis in range(self.data.dims))

    @property
    def image_channels(self) -> int:
        return self.facts.channels

    @property
    def code_words(self) -> list[list[int]]:
        """Code word of each label value: the sign, -1 or 1, of each mask channel."""
        return code_words(self.codec.mask_code, self.facts.classes)

    @property
    def mask_channels(self) -> int:
        return len(self.code_words[0])

    @property
    def beside_channels(self) -> int:
        """Channels that the network is given beside a sample: those of the slice before, or coordinates."""
        channels = self.image_channels + self.mask_channels
        return channels * self.data.previous_slice + self.data.dims * self.data.position

    @property
    def words(self) -> list[list[float]]:
        """Encoded code word of each label value, (classes, mask channels)."""
        return [[self.codec.mask_amplitude * sign for sign in word] for word in self.code_words]

    @property
    def image_axes(self) -> tuple[tuple[float, ...], ...]:
        """Principal axes of the image's channels; the channels themselves if they were not measured."""
        channels = range(self.image_channels)
        return self.facts.image_axes or tuple(tuple(float(a == c) for c in channels) for a in channels)

    @property
    def image_bands(self) -> tuple[tuple[float, ...], ...]:
        """Standard deviations (axes, bands) of the image's sub-bands; the same for all if they were not measured."""
        return self.facts.image_bands or ((self.facts.image_std,) * 4**self.data.dims,) * self.image_channels


def code_words(code: str, classes: int) -> list[list[int]]:
    """Signs (classes, channels), each -1 or 1; the binary code equals analog bits of two classes.

    One class needs no channel: images without masks.
    """
    if classes == 1:
        return [[]]
    if code == "one-hot":
        return [[1 if channel == value else -1 for channel in range(classes)] for value in range(classes)]
    width = max(1, (classes - 1).bit_length())
    return [[1 if value >> bit & 1 else -1 for bit in range(width)] for value in range(classes)]
