"""Copies of training cases among drawn samples, if the real dataset is on this machine."""

from __future__ import annotations

import numpy as np

from jdm.data.raw_dataset import slice_axis
from jdm.draw.run import Run
from jdm.evaluation.audit import COPY_RATIO
from jdm.evaluation.copies import Scale, Search
from jdm.evaluation.planes import PlaneSet, area, planes, training_groups
from jdm.export.amount import Order

_COPIED_SLICES = 0.1
"""Share of a volume's slices from which on it is a copy; single slices near its ends are alike by chance."""


class Training:
    """The training images or slices of a run, to be searched for each draw."""

    def __init__(self, run: Run, order: Order) -> None:
        """Raises: ConfigError if the real dataset is not on this machine; DataError if all its images are constant."""
        real, trained = run.real_for("the search for copies"), run.checkpoint.metadata["training_ids"]
        facts, rng = run.config.facts, np.random.default_rng(0)
        self._spacing = facts.spacing
        sizes = [self._plane(size) for size, _, _ in facts.sizes]
        usual = self._plane(tuple(map(min, facts.median_size, order.canvas_size)))
        scale = Scale.of(sizes, [usual])
        self._search, own = Search(scale), PlaneSet(real.name, scale)
        for plane in planes(real, trained, group_of=training_groups(real, trained)):
            if not plane.blank:
                self._search.add(plane.image, plane.group)
            own.add(plane if scale.whole else area(plane, usual, rng), of=plane)
        self._cases = own.cases
        self._search.compare(own.images)

    def problem(self, image: np.ndarray) -> str | None:
        """Which training case an image or volume (channels, *spatial) copies; None if it copies none."""
        parts = [image]
        if image.ndim == 4:
            parts = [part for part in np.moveaxis(image, 1 + self._axis(image.shape[1:]), 0) if np.ptp(part) > 0]
        if not parts:
            return None
        found = self._search.nearest([self._search.scale.image(part.astype(np.float32)) for part in parts])
        copied = found.ratio < COPY_RATIO
        if not copied.any() or (image.ndim == 4 and copied.mean() < _COPIED_SLICES):
            return None
        names, counts = np.unique([self._cases[index] for index in found.index[copied]], return_counts=True)
        slices = f": {copied.sum()} of {len(parts)} slices are" if image.ndim == 4 else ""
        return f"it is a copy of training case {names[counts.argmax()]}{slices}"

    def _axis(self, shape: tuple[int, ...]) -> int:
        """The axis along which a volume is searched, slice by slice, as audits do."""
        return slice_axis([shape], self._spacing)

    def _plane(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The sides of an image, or of a volume's slices."""
        return shape if len(shape) == 2 else shape[: self._axis(shape)] + shape[self._axis(shape) + 1 :]
