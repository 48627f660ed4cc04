"""Whether an image or a volume is a copy of one of some cases."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from jdm.evaluation.audit import COPY_RATIO
from jdm.evaluation.copies import Scale, Search
from jdm.evaluation.planes import Plane, PlaneSet, area

_COPIED_SLICES = 0.1
"""Share of a volume's slices from which on it is a copy; single slices near its ends are alike by chance."""


class CaseSearch:
    """The images or slices of some cases, reduced once, to be searched many times."""

    def __init__(self, name: str, scale: Scale, size: tuple[int, ...], known: Iterable[Plane]) -> None:
        """Args: name: of the cases, for messages. size: usual sides (H, W) of what is searched for.

        Raises: DataError if all known planes are constant.
        """
        self._search, own, rng = Search(scale), PlaneSet(name, scale), np.random.default_rng(0)
        for plane in known:
            if not plane.blank:
                self._search.add(plane.image, plane.group)
            own.add(plane if scale.whole else area(plane, size, rng), of=plane)
        self._cases = own.cases
        self._search.compare(own.images)

    def copied(self, parts: Sequence[np.ndarray]) -> tuple[str, int] | None:
        """The case of which an image, or most of the copied slices of a volume, is a copy, and the number of these.

        Args: parts: the image, or the slices of the volume, (channels, H, W) each; constant ones are left out.
        """
        shown = [part for part in parts if np.ptp(part) > 0]
        if not shown:
            return None
        found = self._search.nearest([self._search.scale.image(part.astype(np.float32)) for part in shown])
        copied = found.ratio < COPY_RATIO
        if not copied.any() or (len(parts) > 1 and copied.mean() < _COPIED_SLICES):
            return None
        names, counts = np.unique([self._cases[index] for index in found.index[copied]], return_counts=True)
        return str(names[counts.argmax()]), int(copied.sum())
