"""Whether a synthetic mask is plausible, compared with real ones."""

from __future__ import annotations

import math
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
    """Tolerance of a synthetic sample on either side of a range, as a share of the range's width."""
    voxel: float | None = None
    """Of volumes and slices: mm^3 of a voxel, or mm^2 of a pixel."""
    volumes: tuple[tuple[float, float], ...] = ()
    """Least and most mm^3 or mm^2 of each label value, where samples are whole volumes or slices."""

    def problem(self, label: np.ndarray) -> str | None:
        """Why a synthetic label is degenerate, or None.

        It must contain every label value that all real samples contain, must not be filled by a label value that fills
        no real sample, and its shares must lie within the real range widened by `margin` of its width. The width is
        taken as at least a tenth of the upper end, because a few real samples may have equal shares by chance. Of whole
        volumes or slices, whose sizes differ, the volumes of the foreground's classes must lie in their range too.
        """
        shares = class_shares(label, len(self.least))
        whole = label.size * (self.voxel or 0)
        for value, (share, least, most) in enumerate(zip(shares, self.least, self.most, strict=True)):
            if share == 0 < least:
                return f"label {value} is missing, but every real sample has it"
            if share == 1 > most:
                return f"label {value} fills the sample, but fills no real sample"
            if not self._within(share, least, most):
                if whole:
                    return _measured(value, label.ndim, share * whole, least * whole, most * whole)
                return f"label {value} covers {share:.4f} of the sample (real samples {least:.4f} to {most:.4f})"
        for value, (least, most) in enumerate(self.volumes[1:], 1):
            if not self._within(shares[value] * whole, least, most):
                return _measured(value, label.ndim, shares[value] * whole, least, most)
        return None

    def _within(self, found: float, least: float, most: float) -> bool:
        slack = self.margin * max(most - least, 0.1 * most)
        return least - slack <= found <= most + slack


def _measured(value: int, dims: int, found: float, least: float, most: float) -> str:
    return f"label {value} has {found:.4g} mm^{dims} in the sample (real samples {least:.4g} to {most:.4g})"


def real_range(facts: Fingerprint, size: tuple[int, ...], margin: float) -> ForegroundRange:
    """The range over the largest measured real crops that are not larger than `size`."""
    fitting = [
        found
        for found in facts.foreground
        if all(side <= wanted for side, wanted in zip(found.size, size, strict=True))
    ]
    chosen = fitting[-1] if fitting else facts.foreground[0]
    whole = bool(fitting) and chosen is facts.foreground[-1]
    voxel = math.prod(facts.spacing) if facts.class_volumes else None
    return ForegroundRange(chosen.least, chosen.most, margin, voxel, facts.class_volumes if whole else ())
