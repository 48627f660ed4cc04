"""Copies of training cases among drawn samples, if the real dataset is on this machine."""

from __future__ import annotations

import numpy as np

from jdm.data.raw_dataset import slice_axis
from jdm.draw.run import Run
from jdm.evaluation.case_search import CaseSearch
from jdm.evaluation.copies import Scale
from jdm.evaluation.planes import planes, training_groups
from jdm.export.amount import Order


class Training:
    """The training images or slices of a run, to be searched for each draw."""

    def __init__(self, run: Run, order: Order) -> None:
        """Raises: ConfigError if the real dataset is not on this machine; DataError if all its images are constant."""
        real, trained = run.real_for("the search for copies"), run.checkpoint.metadata["training_ids"]
        facts = run.config.facts
        self._spacing = facts.spacing
        sizes = [self._plane(size) for size, _, _ in facts.sizes]
        usual = self._plane(tuple(map(min, facts.median_size, order.canvas_size)))
        known = planes(real, trained, group_of=training_groups(real, trained))
        self._search = CaseSearch(real.name, Scale.of(sizes, [usual]), usual, known)

    def problem(self, image: np.ndarray) -> str | None:
        """Which training case an image or volume (channels, *spatial) copies; None if it copies none."""
        volume = image.ndim == 4
        parts = list(np.moveaxis(image, 1 + self._axis(image.shape[1:]), 0)) if volume else [image]
        found = self._search.copied(parts)
        if found is None:
            return None
        case, count = found
        return f"it is a copy of training case {case}" + (f": {count} of {len(parts)} slices are" if volume else "")

    def _axis(self, shape: tuple[int, ...]) -> int:
        """The axis along which a volume is searched, slice by slice, as audits do."""
        return slice_axis([shape], self._spacing)

    def _plane(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The sides of an image, or of a volume's slices."""
        return shape if len(shape) == 2 else shape[: self._axis(shape)] + shape[self._axis(shape) + 1 :]
