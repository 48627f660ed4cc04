"""Whether a synthetic mask is plausible beside the real ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jdm.config.facts import Fingerprint
from jdm.plan.survey import class_shares


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
        shares = class_shares(label, len(self.least))
        for value, (share, least, most) in enumerate(zip(shares, self.least, self.most, strict=True)):
            slack = self.margin * max(most - least, 0.1 * most)
            if share == 0 < least:
                return f"label {value} is missing, no real sample lacks it"
            if share == 1 > most:
                return f"label {value} fills the sample, as in no real one"
            if not least - slack <= share <= most + slack:
                return f"label {value} covers {share:.4f}, real samples {least:.4f} to {most:.4f}"
        return None


def real_range(facts: Fingerprint, size: tuple[int, ...], margin: float) -> ForegroundRange:
    """The range over real crops of a size: that of the largest measured crops that are not larger."""
    fitting = [
        found
        for found in facts.foreground
        if all(side <= wanted for side, wanted in zip(found.size, size, strict=True))
    ]
    chosen = fitting[-1] if fitting else facts.foreground[0]
    return ForegroundRange(chosen.least, chosen.most, margin)
