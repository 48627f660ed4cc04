"""Copies of training cases among drawn samples, if the real dataset is on this machine."""

from __future__ import annotations

import numpy as np

from jdm.draw.run import Run
from jdm.evaluation.audit import COPY_RATIO
from jdm.evaluation.copies import Search
from jdm.evaluation.planes import planes
from jdm.export.amount import Order


class Training:
    """The training images or slices of a run, to be searched for each draw."""

    def __init__(self, run: Run, order: Order) -> None:
        """Raises: ConfigError if the real dataset is not on this machine."""
        self._planes = planes(run.real_for("the search for copies"), run.checkpoint.metadata["training_ids"])
        images, groups = zip(*((plane.image, plane.group) for plane in self._planes), strict=True)
        shapes = [tuple(map(min, size, order.canvas_size)) for size, _, _ in run.config.facts.sizes]
        self._search = Search(images, groups, shapes)

    def problem(self, image: np.ndarray) -> str | None:
        """Which training case an image (channels, *spatial) copies; None if it copies none."""
        found = self._search.nearest([image.astype(np.float32)])
        copied = found.ratio[0] < COPY_RATIO
        return f"it is a copy of training case {self._planes[found.index[0]].case_id}" if copied else None
