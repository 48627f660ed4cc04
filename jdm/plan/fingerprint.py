"""A dataset's fingerprint: what the plan needs to know of the training cases."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np

from jdm.config.settings import CodecConfig
from jdm.data.codec import PairCodec
from jdm.data.pairs import case_moments, rescaled
from jdm.data.raw_dataset import Pair, RawDataset, read_case
from jdm.errors import ConfigError

WIDEST_SPACING = -1
"""In place of a slice axis: of volumes the one with the widest spacing, as nnU-Net's 2d configuration has it."""
_PIXELS_PER_CASE = 20_000


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
    spacing: tuple[float, ...]
    slice_spacing: float
    """Across slices; 1 where there are none."""
    slice_axis: int | None
    low: tuple[float, ...]
    high: tuple[float, ...]
    case_mean: tuple[float, ...]
    """Mean that each case is brought to, per channel, as `DataConfig` has it; empty: intensities mean something."""
    case_std: tuple[float, ...]
    image_mean: tuple[float, ...]
    """Of each image channel as `low` and `high` encode it."""
    image_std: float
    """Standard deviation of the encoded image about image_mean, over all channels."""
    class_shares: tuple[float, ...]
    """Share of the pixels per label value, a mean over cases."""
    zero_border: bool
    """A fifth of the cases or more have a face of exact zeros, and 0 is the low end of what is encoded."""
    sided: bool
    """Mirrored images are none of the kind: a label is a left or right one, or a channel is of CT, MR or X-rays."""


@dataclass
class _Survey:
    """What is kept of each case while the next one is read; per channel where it is of intensities."""

    shapes: list[tuple[int, ...]] = field(default_factory=list)
    spacings: list[tuple[float, ...]] = field(default_factory=list)
    dtypes: list[np.dtype] = field(default_factory=list)
    samples: list[np.ndarray] = field(default_factory=list)
    """Some pixels of each case, (channels, n)."""
    extremes: list[np.ndarray] = field(default_factory=list)
    """Least and most, (2, channels)."""
    zero_faces: list[bool] = field(default_factory=list)
    class_shares: list[np.ndarray] = field(default_factory=list)

    def add(self, pair: Pair, classes: int, rng: np.random.Generator) -> None:
        flat = pair.image.reshape(len(pair.image), -1)
        self.shapes.append(pair.label.shape)
        self.spacings.append(pair.spacing)
        self.dtypes.append(pair.image.dtype)
        self.samples.append(flat[:, rng.integers(0, flat.shape[1], min(_PIXELS_PER_CASE, flat.shape[1]))])
        self.extremes.append(np.array([flat.min(axis=1), flat.max(axis=1)]))
        self.zero_faces.append(has_zero_face(pair.image))
        self.class_shares.append(np.bincount(pair.label.ravel(), minlength=classes)[:classes] / pair.label.size)


def fingerprint(dataset: RawDataset, case_ids: list[str], slice_axis: int | None = WIDEST_SPACING) -> Fingerprint:
    """Measure the cases, one in memory at a time.

    Args: slice_axis: array axis along which volumes are cut; None for pictures.
    Raises: ConfigError if the cases have no such axis; DataError as `read_case`.
    """
    rng = np.random.default_rng(0)
    survey = _Survey()
    for case_id in case_ids:
        survey.add(read_case(dataset, case_id), dataset.classes, rng)
    dtype = np.result_type(*survey.dtypes)
    bordered = float(np.mean(survey.zero_faces)) >= 0.2
    if _arbitrary_units(survey.samples, dtype, dataset.channel_names):
        zero_border = bordered and not _median_range(survey.samples)[0].any()
        case_mean, case_std, low, high = _case_scale(survey.samples, dtype, zero_border)
        values = np.concatenate([rescaled(s, case_mean, case_std, zero_border) for s in survey.samples], axis=1)
    else:
        case_mean, case_std = (), ()
        low, high, values = _intensities(survey, dtype, dataset.channel_names)
        zero_border = bordered and not any(low)
    codec = PairCodec(CodecConfig(image_dtype=str(dtype), low=low, high=high))
    encoded = codec.encode(values[:, :, None], np.zeros((*values.shape[1:], 1), np.uint8))[: len(values)]
    spacing = np.median(np.array(survey.spacings), axis=0)
    slice_axis = _slice_axis(dataset, spacing, slice_axis)
    order = [axis for axis in range(len(spacing)) if axis != slice_axis]
    # In planned spacing, which is what is trained on and exported.
    sizes = np.array(survey.shapes)[:, order] * np.array(survey.spacings)[:, order] / spacing[order]
    return Fingerprint(
        cases=len(case_ids),
        items=sum(shape[slice_axis] for shape in survey.shapes) if slice_axis is not None else len(case_ids),
        channels=len(values),
        classes=dataset.classes,
        dtype=str(dtype),
        median_shape=tuple(round(side) for side in np.median(sizes, axis=0).tolist()),
        spacing=tuple(float(s) for s in spacing[order]),
        slice_spacing=1.0 if slice_axis is None else float(spacing[slice_axis]),
        slice_axis=slice_axis,
        low=low,
        high=high,
        case_mean=case_mean,
        case_std=case_std,
        image_mean=tuple(map(float, encoded.mean(axis=(1, 2)))),
        image_std=float(np.sqrt(encoded.var(axis=(1, 2)).mean())),
        class_shares=tuple(np.mean(survey.class_shares, axis=0).tolist()),
        zero_border=zero_border,
        sided=_sided(dataset),
    )


def _slice_axis(dataset: RawDataset, spacing: np.ndarray, wanted: int | None) -> int | None:
    """The array axis along which cases of such a spacing are cut; None for pictures."""
    if len(spacing) == 2 and wanted in (None, WIDEST_SPACING):
        return None
    if len(spacing) == 3 and wanted is not None:
        return int(np.argmax(spacing)) if wanted == WIDEST_SPACING else wanted
    kind, expected = ("pictures", "none") if len(spacing) == 2 else ("volumes", "0, 1 or 2")
    raise ConfigError(
        f"setting data.slice_axis is {'none' if wanted is None else wanted}, but the cases of {dataset.name} are "
        f"{kind}; expected {expected}; correct it, or leave it out"
    )


def _sided(dataset: RawDataset) -> bool:
    """Whether a label is named after a side, or a channel after what shows the body from a side."""
    return any(word in name.lower() for name in dataset.labels for word in ("left", "right")) or any(
        re.match(r"(ct|mri?)(?![a-z])|x-?ray|radiograph", name.lower()) for name in dataset.channel_names
    )


def _intensities(
    survey: _Survey, dtype: np.dtype, channels: tuple[str, ...]
) -> tuple[tuple[float, ...], tuple[float, ...], np.ndarray]:
    """Stored intensities that become -1 and +1, per channel, and the sampled ones (channels, n)."""
    values = np.concatenate(survey.samples, axis=1)
    least = np.min([extreme[0] for extreme in survey.extremes], axis=0)
    most = np.max([extreme[1] for extreme in survey.extremes], axis=0)
    ranges = [
        _intensity_range(values[channel], (float(least[channel]), float(most[channel])), dtype, name)
        for channel, name in enumerate(channels)
    ]
    return tuple(low for low, _ in ranges), tuple(high for _, high in ranges), values


def _arbitrary_units(samples: list[np.ndarray], dtype: np.dtype, channels: tuple[str, ...]) -> bool:
    """Whether intensities mean nothing across cases, as in MR: not 8-bit, not CT, and widths differ by half."""
    if dtype == np.uint8 or any(name.upper() == "CT" for name in channels):
        return False
    bounds = np.array([np.percentile(sample, [0.5, 99.5], axis=1) for sample in samples])  # (cases, 2, channels)
    widths = bounds[:, 1] - bounds[:, 0]
    return bool((widths.max(axis=0) > 1.5 * widths.min(axis=0)).any())


def _case_scale(samples: list[np.ndarray], dtype: np.dtype, zero_border: bool) -> tuple[tuple[float, ...], ...]:
    """Of cases of arbitrary units: mean and deviation that each is brought to, and what then becomes -1 and +1.

    These are the cases' medians, in units moved and shrunk as far as an integer type of the files makes necessary.
    """
    mean, std = np.median([case_moments(sample, zero_border) for sample in samples], axis=0)
    low, high = _median_range([rescaled(sample, mean, std, zero_border) for sample in samples])
    high = np.where(high > low, high, low + 1)
    if dtype.kind in "iu":
        least, most = float(np.iinfo(dtype).min), float(np.iinfo(dtype).max)
        if zero_border:  # 0 is the low end, and stays
            shrink, shift = np.minimum(1, most / high), np.zeros_like(low)
        else:
            shrink = np.minimum(1, (most - least) / (high - low))
            shift = np.clip(shrink * low, least, np.maximum(least, most - shrink * (high - low))) - shrink * low
        mean, std, low, high = shrink * mean + shift, shrink * std, shrink * low + shift, shrink * high + shift
    return tuple(tuple(map(float, numbers)) for numbers in (mean, std, low, high))


def _median_range(samples: list[np.ndarray]) -> np.ndarray:
    """Medians over cases of the 0.05 and 99.95 percentiles of each channel: (2, channels)."""
    return np.median([np.percentile(sample, [0.05, 99.95], axis=1) for sample in samples], axis=0)


def _intensity_range(
    values: np.ndarray, extremes: tuple[float, float], dtype: np.dtype, channel: str
) -> tuple[float, float]:
    """Stored intensities that become -1 and +1 for one channel.

    8-bit: the whole type where at least half of it is used. CT: the 0.5 and 99.5 percentiles, as nnU-Net clips. Others:
    from least to most, unless these are outliers (more than half as wide again as the 0.05 to 99.95 percentiles): then
    those percentiles. Dim 8-bit images: from least to most.

    Args:
        values: sampled pixels (n,); extremes: least and most of all pixels.
    """
    share = 0.5 if channel.upper() == "CT" else 0.05
    low, high = (float(v) for v in np.percentile(values, [share, 100 - share]))
    if dtype == np.uint8:
        low, high = (0.0, 255.0) if high - low > 127 else extremes
    elif channel.upper() != "CT" and extremes[1] - extremes[0] <= 1.5 * (high - low):
        low, high = extremes
    return (low, high) if high > low else (low, low + 1.0)


def has_zero_face(image: np.ndarray) -> bool:
    """Whether an outer face of (channels, *spatial) is exactly zero in every channel."""
    return any(
        image.shape[axis] > 1 and not np.take(image, end, axis=axis).any()
        for axis in range(1, image.ndim)
        for end in (0, -1)
    )
