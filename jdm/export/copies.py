"""Copies of training cases among drawn samples, if the real dataset is on this machine."""

from __future__ import annotations

import numpy as np

from jdm.draw.run import Run
from jdm.evaluation.audit import COPY_RATIO
from jdm.evaluation.copies import Scale, Search
from jdm.evaluation.planes import PlaneSet, area, planes, training_groups
from jdm.export.amount import Order


class Training:
    """The training images or slices of a run, to be searched for each draw."""

    def __init__(self, run: Run, order: Order) -> None:
        """Raises: ConfigError if the real dataset is not on this machine; DataError if all its images are constant."""
        real, trained = run.real_for("the search for copies"), run.checkpoint.metadata["training_ids"]
        facts, rng = run.config.facts, np.random.default_rng(0)
        sizes = [size for size, _, _ in facts.sizes]
        usual = tuple(map(min, facts.median_size, order.canvas_size))
        scale = Scale.of(sizes, [usual])
        self._search, own = Search(scale), PlaneSet(real.name, scale)
        for plane in planes(real, trained, group_of=training_groups(real, trained)):
            if not plane.blank:
                self._search.add(plane.image, plane.group)
            own.add(plane if scale.whole else area(plane, usual, rng), of=plane)
        self._cases = own.cases
        self._search.compare(own.images)

    def problem(self, image: np.ndarray) -> str | None:
        """Which training case an image (channels, *spatial) copies; None if it copies none."""
        found = self._search.nearest([self._search.scale.image(image.astype(np.float32))])
        copied = found.ratio[0] < COPY_RATIO
        return f"it is a copy of training case {self._cases[found.index[0]]}" if copied else None
