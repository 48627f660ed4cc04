"""Self-configuration: a dataset's fingerprint, and the plan of a run that follows from it."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from jdm.config import (
    AugmentConfig,
    CodecConfig,
    Config,
    DataConfig,
    NetworkConfig,
    NoiseConfig,
    Preset,
    TrainConfig,
    validate,
)
from jdm.data.codec import PairCodec
from jdm.data.pairs import case_percentiles, rescaled
from jdm.data.raw_dataset import RawDataset, nnunet_folder, read_case
from jdm.errors import ConfigError, DataError

# Images of up to this many pixels are trained whole; the sides of larger ones' patches and canvases are below.
_WHOLE_PIXELS = 98_304
_PATCH_SIDE, _CPU_PATCH_SIDE = 128, 64
_CANVAS_SIDE = 512
_PIXELS_PER_CASE = 20_000
# From small to large. A budget buys the largest network that still gets this many steps in it.
_NETWORKS = (
    NetworkConfig(32, (1, 2, 2, 2), 1, (8,), 4),
    NetworkConfig(48, (1, 2, 2, 4), 2, (8,), 4),
    NetworkConfig(64, (1, 2, 2, 4), 2, (8,), 4),
    NetworkConfig(128, (1, 2, 2, 4), 2, (8,), 4),
)
_BUDGET_STEPS, _MOST_STEPS = 6_000, 60_000
_BUDGET_SHARE = 0.9  # of the wall clock goes to steps; the rest to held-out losses, checkpoints and sample grids


@dataclass(frozen=True)
class Fingerprint:
    """What the plan needs to know of the training cases; spatial values are in trained axis order."""

    cases: int
    items: int
    """Images, or slices of volumes."""
    channels: int
    classes: int
    dtype: str
    median_shape: tuple[int, ...]
    largest_shape: tuple[int, ...]
    spacing: tuple[float, ...]
    slice_axis: int | None
    low: tuple[float, ...]
    high: tuple[float, ...]
    per_case_intensity: bool
    image_rms: float
    """Root mean square of the image encoded by `low` and `high`."""
    zero_border: bool
    sided_labels: bool
    """Some label is a left or right one, so that a mirrored image has wrong labels."""


def fingerprint(dataset: RawDataset, case_ids: list[str]) -> Fingerprint:
    """Measure the cases, one in memory at a time.

    Raises: DataError if cases differ in type or number of channels.
    """
    rng = np.random.default_rng(0)
    shapes, spacings, zeros, samples = [], [], [], []
    dtypes: set[str] = set()
    for case_id in case_ids:
        pair = read_case(dataset, case_id)
        shapes.append(pair.label.shape)
        spacings.append(pair.spacing)
        dtypes.add(str(pair.image.dtype))
        flat = pair.image.reshape(len(pair.image), -1)
        samples.append(flat[:, rng.integers(0, flat.shape[1], min(_PIXELS_PER_CASE, flat.shape[1]))])
        zeros.append(float((border_pixels(pair.image) == 0).mean()))
    kinds = {sample.shape[0] for sample in samples}
    if len(kinds) > 1:
        raise DataError(
            f"{dataset.name} mixes images of {sorted(kinds)} channels; expected one number; convert them to one kind"
        )
    dtype = np.result_type(*dtypes)
    arbitrary = _arbitrary_units(samples, dtype, dataset.channel_names)
    if arbitrary:
        bounds = np.median([case_percentiles(sample) for sample in samples], axis=0)
        low, high = (tuple(map(float, bound)) for bound in bounds)
        scale = Config(codec=CodecConfig(low=low, high=high))
        values = np.concatenate([rescaled(sample, scale) for sample in samples], axis=1)
    else:
        values = np.concatenate(samples, axis=1)
        ranges = [_intensity_range(v, dtype, name) for v, name in zip(values, dataset.channel_names, strict=True)]
        low, high = (tuple(bound) for bound in zip(*ranges, strict=True))
    spacing = np.median(np.array(spacings), axis=0)
    slice_axis = int(np.argmax(spacing)) if len(spacing) == 3 else None
    order = [axis for axis in range(len(spacing)) if axis != slice_axis]
    sizes = np.array(shapes)[:, order]
    codec = PairCodec(CodecConfig(image_dtype=str(dtype), low=low, high=high))
    encoded = codec.encode(values[:, :, None], np.zeros((*values.shape[1:], 1), np.uint8))[: len(values)]
    return Fingerprint(
        cases=len(case_ids),
        items=sum(shape[slice_axis] for shape in shapes) if slice_axis is not None else len(case_ids),
        channels=len(values),
        classes=dataset.classes,
        dtype=str(dtype),
        median_shape=tuple(int(side) for side in np.median(sizes, axis=0)),
        largest_shape=tuple(int(side) for side in sizes.max(axis=0)),
        spacing=tuple(float(s) for s in spacing[order]),
        slice_axis=slice_axis,
        low=low,
        high=high,
        per_case_intensity=arbitrary,
        image_rms=float(np.sqrt(np.mean(encoded**2))),
        zero_border=float(np.mean(zeros)) > 0.2,
        sided_labels=any(word in name.lower() for name in dataset.labels for word in ("left", "right")),
    )


def plan(
    found: Fingerprint,
    *,
    preset: Preset = "default",
    budget_minutes: float | None = None,
    device: Literal["cpu", "cuda"] = "cpu",
    precision: Literal["bf16", "fp32"] = "bf16",
    step_seconds: Callable[[Config], float] | None = None,
    canvas_limit: tuple[int, ...] | None = None,
) -> Config:
    """The configuration that a fingerprint asks for.

    Args:
        budget_minutes: wall-clock minutes of training; None plans for quality.
        step_seconds: measures a training step of a plan on this machine; needed with a budget.
        canvas_limit: nnU-Net's patch for the dataset, where it is already planned.
    """
    networks = _NETWORKS if preset == "default" else (NetworkConfig(128, (1, 1, 2, 2, 4, 4), 2, (16, 32), 4),)
    sigma_image = round(min(max(found.image_rms, 0.05), 1.0), 4)

    def planned(network: NetworkConfig, steps: int) -> Config:
        config = Config(
            preset=preset,
            codec=_codec(found),
            data=_data(found, 2 ** (len(network.channel_multipliers) - 1), device, canvas_limit),
            augment=_augment(found),
            network=network,
            noise=NoiseConfig(sigma_data=(sigma_image, 0.5)),
            train=_train(preset, steps, budget_minutes, precision),
        )
        return validate(config)

    if budget_minutes is None:
        # Without a clock, the size follows the device, and the steps the amount of data.
        network = networks[min(len(networks) - 1, 2 if device == "cuda" else 0)]
        return planned(network, min(_MOST_STEPS, 10_000 + 100 * found.items) if preset == "default" else 60_000)
    if step_seconds is None:
        raise ConfigError("a budget needs a measured step time, found none; pass step_seconds")
    return _within_budget(networks, planned, step_seconds, budget_minutes)


def steps_within(budget_minutes: float, step_seconds: float) -> int:
    """Training steps that a wall-clock budget holds."""
    return max(1, min(_MOST_STEPS, int(_BUDGET_SHARE * budget_minutes * 60 / step_seconds)))


def _within_budget(
    networks: tuple[NetworkConfig, ...],
    planned: Callable[[NetworkConfig, int], Config],
    step_seconds: Callable[[Config], float],
    budget_minutes: float,
) -> Config:
    """The largest network that gets enough steps, or the smallest one with as many as there are."""
    chosen = None
    for network in networks:
        steps = steps_within(budget_minutes, step_seconds(planned(network, 1)))
        if chosen is not None and steps < _BUDGET_STEPS:
            break
        chosen = planned(network, steps)
        if steps < _BUDGET_STEPS:
            break
    assert chosen is not None
    return chosen


def _data(found: Fingerprint, multiple: int, device: str, canvas_limit: tuple[int, ...] | None) -> DataConfig:
    whole_size = tuple(_round_up(side, multiple) for side in found.median_shape)
    whole = math.prod(whole_size) <= _WHOLE_PIXELS
    if whole:
        patch = canvas = whole_size
    else:
        side = _PATCH_SIDE if device == "cuda" else _CPU_PATCH_SIDE
        patch = tuple(min(side, size) for size in whole_size)
        limit = canvas_limit or tuple(_CANVAS_SIDE for _ in patch)
        # Not wider than the images: a window flush with the border needs no multiple of the network's.
        canvas = tuple(max(p, min(side, most)) for p, side, most in zip(patch, found.median_shape, limit, strict=True))
    return DataConfig(
        dims=len(patch),
        patch_size=patch,
        whole=whole,
        canvas_size=canvas,
        slice_axis=found.slice_axis,
        spacing=found.spacing,
        per_case_intensity=found.per_case_intensity,
    )


def _codec(found: Fingerprint) -> CodecConfig:
    code = "binary" if found.classes == 2 else "one-hot" if found.classes <= 8 else "bits"
    return CodecConfig(
        mask_code=code,
        classes=found.classes,
        image_dtype=found.dtype,
        low=found.low,
        high=found.high,
        zero_border=found.zero_border,
    )


def _augment(found: Fingerprint) -> AugmentConfig:
    """Stronger the fewer the images; mirrored only where neither anatomy nor a label has a side."""
    photograph = found.slice_axis is None and not found.sided_labels
    few = min(1.0, 200 / max(found.items, 1))
    return AugmentConfig(
        probability=round(0.05 + 0.15 * few, 3),
        mirror_axes=tuple(range(len(found.median_shape))) if photograph else (),
        quarter_turns=photograph and found.median_shape[-1] == found.median_shape[-2],
    )


def _train(preset: Preset, steps: int, budget_minutes: float | None, precision: Literal["bf16", "fp32"]) -> TrainConfig:
    """Optimisation for about `steps` steps.

    At a constant rate the clock alone ends a run with a budget: a machine that was busy while it was measured does
    not cost the steps it has time for.
    """
    thesis = preset == "thesis"
    often = max(20, min(250, steps // 20))
    train = TrainConfig(
        steps=steps if thesis or budget_minutes is None else _MOST_STEPS,
        warmup_steps=min(200, steps // 10),
        validate_every=often,
        checkpoint_every=often,
        sample_every=max(often, min(2_000, steps // 4)),
        budget_minutes=budget_minutes,
        precision=precision,
    )
    if thesis:  # Zhou 2023, Table 4.1
        train = dataclasses.replace(train, batch_size=10, learning_rate=1e-4, decay="linear", warmup_steps=0)
    return train


def _round_up(side: int, multiple: int) -> int:
    return -(-side // multiple) * multiple


def _arbitrary_units(samples: list[np.ndarray], dtype: np.dtype, channels: tuple[str, ...]) -> bool:
    """Whether intensities mean nothing across cases, as in MR: not 8-bit, not CT, and widths differ by half."""
    if dtype == np.uint8 or any(name.upper() == "CT" for name in channels):
        return False
    bounds = np.array([case_percentiles(sample) for sample in samples])  # (cases, 2, channels)
    widths = bounds[:, 1] - bounds[:, 0]
    return bool((widths.max(axis=0) > 1.5 * widths.min(axis=0)).any())


def _intensity_range(values: np.ndarray, dtype: np.dtype, channel: str) -> tuple[float, float]:
    """Stored intensities that become -1 and +1 for one channel.

    8-bit: the whole type, if the values use half of it. CT: the 0.5 and 99.5 percentiles, as nnU-Net clips. Others:
    the whole range, unless its ends are outliers (more than half as wide again as the 0.05 to 99.95 percentiles): then
    those percentiles.
    """
    share = 0.5 if channel.upper() == "CT" else 0.05
    low, high = (float(v) for v in np.percentile(values, [share, 100 - share]))
    if dtype == np.uint8 and high - low > 127:
        return 0.0, 255.0
    least, most = float(values.min()), float(values.max())
    if channel.upper() != "CT" and most - least <= 1.5 * (high - low):
        low, high = least, most
    return (low, high) if high > low else (low, low + 1.0)


def border_pixels(image: np.ndarray) -> np.ndarray:
    """All values on the outer faces of the spatial axes of (channels, *spatial), flattened."""
    faces = []
    for axis in range(1, image.ndim):
        if image.shape[axis] > 1:
            faces += [np.take(image, end, axis=axis).reshape(-1) for end in (0, -1)]
    return np.concatenate(faces)


def planned_patch(dataset: RawDataset) -> tuple[int, ...] | None:
    """nnU-Net's 2d patch for the dataset, if it has been planned under nnUNet_preprocessed."""
    try:
        path = nnunet_folder("nnUNet_preprocessed") / dataset.name / "nnUNetPlans.json"
        return tuple(json.loads(path.read_text())["configurations"]["2d"]["patch_size"])
    except (ConfigError, OSError, KeyError, ValueError):
        return None
