"""The joint model as a segmenter: probabilities of labels, from samples or from the mean of the mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from jdm.data.case_io import label_dtype
from jdm.data.raw_dataset import Pair
from jdm.sample_draw import Drawer, jobs_of
from jdm.sample_request import SampleRequest
from jdm.sample_starts import Start


@dataclass(frozen=True)
class Segmentation:
    """What the model says of an image."""

    shares: np.ndarray
    """Probability of each label value per pixel, (classes, *spatial)."""
    samples: list[Pair] = field(default_factory=list)
    """The samples that it comes from, if it does."""

    def most_probable(self) -> tuple[np.ndarray, np.ndarray]:
        """Most probable label, the lowest of equals, and the entropy of the probabilities: both (*spatial).

        The entropy is in units of log(classes): 0 where one label is certain, at most 1.
        """
        classes = len(self.shares)
        positive = self.shares > 0
        surprise = np.where(positive, -np.log(np.where(positive, self.shares, 1.0)), 0.0)
        label = self.shares.argmax(axis=0).astype(label_dtype(classes))
        return label, (self.shares * surprise).sum(axis=0) / np.log(classes)


def shares_of(labels: Sequence[np.ndarray], classes: int) -> np.ndarray:
    """Share of the samples that give a pixel each label value, (classes, *spatial). Args: labels: (*spatial) each."""
    return np.stack([np.mean([label == value for label in labels], axis=0) for value in range(classes)])


def estimated(drawer: Drawer, starts: Sequence[Start], request: SampleRequest) -> list[Segmentation]:
    """Segmentations by the mean of the mask given the image (`jdm.diffusion.mask_estimate`), on the cases' own grids.

    A mean over `request.samples` noises, which differ little: one network evaluation each.
    """
    shares = estimated_planes(drawer, starts, request)
    return [
        Segmentation(start.case.native_shares(np.stack([planes[plane.number] for plane in start.planes])))
        for start, planes in zip(starts, shares, strict=True)
    ]


def estimated_planes(drawer: Drawer, starts: Sequence[Start], request: SampleRequest) -> list[dict[int, np.ndarray]]:
    """The same of each start by plane, (classes, *spatial) without padding, in the plan's spacing."""
    asked = jobs_of(starts, request)
    made = drawer.estimates([job for *_, job in asked])
    shares: list[dict[int, np.ndarray]] = [{} for _ in starts]
    for (s, _, plane, _), x in zip(asked, made, strict=True):
        codec = starts[s].case.codec
        one = codec.probabilities(x[(slice(codec.image_channels, None), *plane.canvas.inside)])
        shares[s][plane.number] = shares[s].get(plane.number, 0) + one / request.samples
    return shares
