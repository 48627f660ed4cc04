"""Whether a synthetic mask is plausible, compared with real ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jdm.config.facts import Fingerprint
from jdm.plan.survey import class_shares


@dataclass(frozen=True)
class ForegroundRange:
    """Range over real samples of one size of the pixel share of each label value: least and most, (classes,) each."""

    least: tuple[float, ...]
    most: tuple[float, ...]
    margin: float
    """Tolerance of a synthetic sample on either side of the range, as a share of the range's width."""

    def problem(self, label: np.ndarray) -> str | None:
        """Why a synthetic label is degenerate, or None.

        It must contain every label value that all real samples contain, must not be filled by a label value that fills
        no real sample, and its shares must lie within the real range widened by `margin` of its width. The width is
        taken as at least a tenth of the upper end, because a few real samples may have equal shares by chance.
        """
        shares = class_shares(label, len(self.least))
        for value, (share, least, most) in enumerate(zip(shares, self.least, self.most, strict=True)):
            slack = self.margin * max(most - least, 0.1 * most)
            if share == 0 < least:
                return f"label {value} is missing, but every real sample has it"
            if share == 1 > most:
                return f"label {value} fills the sample, but fills no real sample"
            if not least - slack <= share <= most + slack:
                return f"label {value} covers {share:.4f} of the sample (real samples {least:.4f} to {most:.4f})"
        return None


def real_range(facts: Fingerprint, size: tuple[int, ...], margin: float) -> ForegroundRange:
    """The range over the largest measured real crops that are not larger than `size`."""
    fitting = [
        found
        for found in facts.foreground
        if all(side <= wanted for side, wanted in zip(found.size, size, strict=True))
    ]
    chosen = fitting[-1] if fitting else facts.foreground[0]
    return ForegroundRange(chosen.least, chosen.most, margin)
