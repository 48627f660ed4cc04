"""What foreground a real sample holds, and whether a synthetic one is plausible beside it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jdm.data.pairs import PairDataset

_CROPS = 400


@dataclass(frozen=True)
class ForegroundRange:
    """Share of pixels per label value over real samples of one size: least and most, (classes,) each."""

    least: tuple[float, ...]
    most: tuple[float, ...]
    margin: float
    """Share of the range's width by which a synthetic sample may leave it on either side."""

    def problem(self, label: np.ndarray) -> str | None:
        """Why a synthetic label is degenerate, or None.

        A label value that every real sample has must not be missing, one that fills no real sample must not fill
        this one, and its share must lie within the real range widened by `margin` of its width, taken as a tenth of
        its end at least: a few real samples may happen to hold the same.
        """
        shares = foreground_shares(label, len(self.least))
        for value, (share, least, most) in enumerate(zip(shares, self.least, self.most, strict=True)):
            slack = self.margin * max(most - least, 0.1 * most)
            if share == 0 < least:
                return f"label {value} is missing, no real sample lacks it"
            if share == 1 > most:
                return f"label {value} fills the sample, as in no real one"
            if not least - slack <= share <= most + slack:
                return f"label {value} covers {share:.4f}, real samples {least:.4f} to {most:.4f}"
        return None


def foreground_shares(label: np.ndarray, classes: int) -> np.ndarray:
    """Share of pixels per label value, (classes,)."""
    return np.bincount(label.reshape(-1), minlength=classes)[:classes] / label.size


def real_foreground(pairs: PairDataset, size: tuple[int, ...], margin: float) -> ForegroundRange:
    """Range over random crops of `size`, or smaller, of the training items in turn; at least `_CROPS`."""
    rng = np.random.default_rng(0)
    count = max(len(pairs), _CROPS)
    shares = []
    for index in range(count):
        item = index % len(pairs)
        fitting = tuple(min(side, most) for side, most in zip(pairs.item_shape(item), size, strict=True))
        shares.append(foreground_shares(pairs.crop(item, fitting, rng)[1], pairs.config.codec.classes))
    table = np.array(shares)
    return ForegroundRange(tuple(table.min(axis=0).tolist()), tuple(table.max(axis=0).tolist()), margin)
