"""The joint model as a segmenter: label probabilities from samples or from the mean mask."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from jdm.data.case_io import label_dtype
from jdm.data.raw_dataset import Pair
from jdm.draw.canvas import CaseCanvas
from jdm.draw.drawer import Drawer
from jdm.draw.given import given_images
from jdm.draw.run import Run
from jdm.sample.request import SegmentRequest, estimates
from jdm.sample.starts import Start, channel_start, draw_pairs, job
from jdm.system.progress import progress


def prepare(run: Run, request: SegmentRequest) -> list[Start]:
    """Read and check the images. Raises: DataError if they cannot be used."""
    images = given_images(run.kind, request.images, run.config.facts.dtype)
    return [channel_start(CaseCanvas(image, run.config), range(run.config.image_channels)) for image in images]


@dataclass(frozen=True)
class Segmentation:
    """The model's segmentation of an image."""

    shares: np.ndarray
    """Probability of each label value per pixel, (classes, *spatial)."""
    samples: list[Pair] = field(default_factory=list)
    """The samples from which it was computed, if any."""

    def most_probable(self) -> tuple[np.ndarray, np.ndarray]:
        """Most probable label (ties: the lowest) and entropy of the probabilities, both (*spatial).

        The entropy is divided by log(classes): 0 if one label is certain, at most 1.
        """
        classes = len(self.shares)
        positive = self.shares > 0
        surprise = np.where(positive, -np.log(np.where(positive, self.shares, 1.0)), 0.0)
        label = self.shares.argmax(axis=0).astype(label_dtype(classes))
        return label, (self.shares * surprise).sum(axis=0) / np.log(classes)


def segmentations(drawer: Drawer, starts: Sequence[Start], request: SegmentRequest) -> Iterable[Segmentation]:
    """Segmentations of given images, one case at a time."""
    if estimates(drawer.config, request):
        for start, shares in zip(starts, estimated_shares(drawer, starts, request), strict=True):
            yield Segmentation(start.case.native_shares(np.stack([shares[plane.number] for plane in start.planes])))
        return
    for pairs in draw_pairs(drawer, starts, request, drawer.samples):
        yield Segmentation(shares_of([pair.label for pair in pairs], drawer.config.facts.classes), pairs)


def shares_of(labels: Sequence[np.ndarray], classes: int) -> np.ndarray:
    """Frequency of each label value per pixel over samples, (classes, *spatial). Args: labels: (*spatial) each."""
    return np.stack([np.mean([label == value for label in labels], axis=0) for value in range(classes)])


def estimated_shares(
    drawer: Drawer, starts: Sequence[Start], request: SegmentRequest
) -> Iterator[dict[int, np.ndarray]]:
    """For each start in turn, label probabilities by plane, (classes, *spatial), in the plan's spacing.

    They come from the mean mask given the image (see `estimated_mask`), averaged over `request.samples` noise draws,
    which differ little; each takes one network evaluation. Few starts are held in memory at once, because
    probabilities of many classes are large.
    """
    asked = [(number, plane) for number, start in enumerate(starts) for plane in start.planes]
    together = max(1, request.batch_size // request.samples)
    shares: dict[int, dict[int, np.ndarray]] = {number: {} for number in range(len(starts))}
    waiting = 0
    for first in progress(range(0, len(asked), together), "batches"):
        part = asked[first : first + together]
        made = iter(
            drawer.estimates([job(p, request, number, k) for number, p in part for k in range(request.samples)])
        )
        for number, plane in part:
            codec = starts[number].case.codec
            inside = (slice(codec.image_channels, None), *plane.canvas.inside)
            some = [codec.probabilities(next(made)[inside]) for _ in range(request.samples)]
            shares[number][plane.number] = np.mean(some, axis=0)
        while waiting in shares and len(shares[waiting]) == len(starts[waiting].planes):
            yield shares.pop(waiting)
            waiting += 1
