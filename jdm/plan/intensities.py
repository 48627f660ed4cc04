"""How intensities are encoded: the range of each channel, and the standardisation of each case before that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jdm.data.codec import ZERO_GAP
from jdm.data.pairs import case_moments
from jdm.plan.survey import Survey

CT, Z_SCORE = "CTNormalization", "ZScoreNormalization"
_TAIL, _CT_TAIL = 0.05, 0.5  # percent cut off at either end


@dataclass(frozen=True)
class Channel:
    """Sampled pixels of one channel of all cases."""

    samples: list[np.ndarray]
    """Pixels of each case, (n,)."""
    by_class: list[list[np.ndarray]]
    """The same by label value: [value][case]."""
    extremes: np.ndarray
    """(cases, 2): least and most."""
    scheme: str
    """nnU-Net's normalisation of the channel."""

    def mapped(self, moments: np.ndarray, mean: float, std: float) -> Channel:
        """The channel with each case mapped from its own `moments` (cases, 2) to a mean and a standard deviation."""

        def scaled(values: np.ndarray, case: int) -> np.ndarray:
            return (values - moments[case, 0]) * (std / moments[case, 1]) + mean

        return Channel(
            [scaled(values, case) for case, values in enumerate(self.samples)],
            [[scaled(values, case) for case, values in enumerate(cases)] for cases in self.by_class],
            np.array([scaled(ends, case) for case, ends in enumerate(self.extremes)]),
            self.scheme,
        )

    def range(self, dtype: np.dtype, alike: bool) -> tuple[float, float]:
        """Intensities that are encoded as -1 and +1.

        8-bit: the range of the type if at least half of it is used, else minimum to maximum. CT: the 0.5 and 99.5
        percentiles of the foreground, as nnU-Net clips. Others: minimum to maximum, unless these are outliers (a range
        more than 1.5 times that of the 0.05 to 99.95 percentiles). Then those percentiles of all pixels, widened to
        include those of each class, so that no class is clipped, however small, bright or dark.

        Args: alike: cases were brought to one scale; the percentiles are medians over cases.
        """
        pooled = np.concatenate(self.samples)
        low, high = np.percentile(pooled, [_TAIL, 100 - _TAIL])
        least, most = float(self.extremes[:, 0].min()), float(self.extremes[:, 1].max())
        foreground = [np.concatenate(cases) for cases in self.by_class[1:] if cases]
        if dtype == np.uint8:
            return (0.0, 255.0) if high - low > 127 else _wide(least, most)
        if self.scheme == CT and foreground:
            return _wide(*np.percentile(np.concatenate(foreground), [_CT_TAIL, 100 - _CT_TAIL]))
        if alike:
            low, high = np.median([np.percentile(s, [_TAIL, 100 - _TAIL]) for s in self.samples], axis=0)
        elif most - least <= 1.5 * (high - low):
            return _wide(least, most)
        ends = [(low, high), *(np.percentile(values, [_TAIL, 100 - _TAIL]) for values in foreground)]
        return _wide(min(end[0] for end in ends), max(end[1] for end in ends))


def _wide(low: float, high: float) -> tuple[float, float]:
    return (float(low), float(high)) if high > low else (float(low), float(low) + 1.0)


def intensities(survey: Survey, schemes: Sequence[str]) -> dict[str, Any]:
    """The fingerprint's fields on how intensities are encoded, and the moments of the encoded intensities.

    Args: schemes: nnU-Net's normalisation of each channel.
    """
    dtype = np.result_type(*survey.dtypes)
    ends = np.array([np.percentile(sample, [_TAIL, 100 - _TAIL], axis=1) for sample in survey.samples])
    bordered = float(np.mean(survey.zero_faces)) >= 0.2 and not np.median(ends, axis=0)[0].any()
    channels = [_channel(survey, c, scheme) for c, scheme in enumerate(schemes)]
    found = [_encoding(channel, dtype, bordered) for channel in channels]
    if bordered and any(entry["low"] for entry in found):  # in some channel 0 is not the low end
        bordered, found = False, [_encoding(channel, dtype, False) for channel in channels]
    encoded = np.array([entry["encoded"] for entry in found])
    clipped = np.max([entry["clipped"] for entry in found], axis=0)
    scaled = any(entry["std"] is not None for entry in found)
    return {
        "dtype": str(dtype),
        "low": tuple(entry["low"] for entry in found),
        "high": tuple(entry["high"] for entry in found),
        "case_mean": tuple(entry["mean"] for entry in found) if scaled else (),
        "case_std": tuple(entry["std"] for entry in found) if scaled else (),
        "zero_border": bordered,
        "image_mean": tuple(encoded.mean(axis=1).tolist()),
        "image_std": float(np.sqrt(encoded.var(axis=1).mean())),
        "clipped": tuple(clipped.tolist()),
    }


def _channel(survey: Survey, c: int, scheme: str) -> Channel:
    by_class = [
        [found[value][c] if value in found else np.zeros(0) for found in survey.class_samples]
        for value in range(survey.classes)
    ]
    return Channel([s[c] for s in survey.samples], by_class, np.array([e[:, c] for e in survey.extremes]), scheme)


def _encoding(channel: Channel, dtype: np.dtype, bordered: bool) -> dict[str, Any]:
    """Range of a channel, the scale cases are brought to (None: as stored), its encoded pixels and clipped shares."""
    mean = std = None
    alike = channel.scheme == Z_SCORE and _arbitrary_units(channel.samples, dtype)
    if alike:
        moments = np.array([[m[0] for m in case_moments(s[None], bordered)] for s in channel.samples])
        mean, std = map(float, np.median(moments, axis=0))
        low, high = channel.mapped(moments, mean, std).range(dtype, alike)
        mean, std, low, high = _within_type(mean, std, 0.0 if bordered else low, high, dtype, bordered)
        channel = channel.mapped(moments, mean, std)
    else:
        low, high = channel.range(dtype, alike)
    pixels = np.concatenate(channel.samples)
    span = 2 - ZERO_GAP * bordered
    encoded = 1 - np.clip((high - pixels) / (high - low), 0, 1) * span
    classes = [np.concatenate(cases) for cases in channel.by_class]
    return {
        "mean": mean, "std": std, "low": low, "high": high,
        "encoded": np.where(pixels == 0, -1.0, encoded) if bordered else encoded,
        "clipped": [float(np.mean((values < low) | (values > high))) if values.size else 0.0 for values in classes],
    }  # fmt: skip


def _arbitrary_units(samples: list[np.ndarray], dtype: np.dtype) -> bool:
    """Whether intensities are not comparable across cases, as in MR: not 8-bit, and ranges that differ by half."""
    if dtype == np.uint8:
        return False
    widths = [np.subtract(*np.percentile(sample, [99.5, 0.5])) for sample in samples]
    return max(widths) > 1.5 * min(widths)


def _within_type(
    mean: float, std: float, low: float, high: float, dtype: np.dtype, bordered: bool
) -> tuple[float, float, float, float]:
    """The scale that cases are brought to, shifted and shrunk as needed to fit the files' integer type."""
    if dtype.kind not in "iu":
        return mean, std, low, high
    least, most = float(np.iinfo(dtype).min), float(np.iinfo(dtype).max)
    if bordered:  # 0 is the low end, and stays
        shrink, shift = min(1.0, most / high), 0.0
    else:
        shrink = min(1.0, (most - least) / (high - low))
        shift = min(max(shrink * low, least), max(least, most - shrink * (high - low))) - shrink * low
    return shrink * mean + shift, shrink * std, shrink * low + shift, shrink * high + shift
