"""CutMix for segmentation: a box of another case of the batch, image and label together."""

from __future__ import annotations

import numpy as np
from torch import Tensor

PROBABILITY = 0.5
"""Share of a batch that is mixed, as for CIFAR in the paper."""


def paired_cutmix(
    images: Tensor, labels: Tensor | list[Tensor], random: np.random.Generator
) -> tuple[Tensor, Tensor | list[Tensor]]:
    """A batch in which some cases hold a box of another one, in the same place, with its label.

    The box covers 1 - lambda of the patch before it is cut off at the border, with lambda uniform (Beta(1, 1)) and the
    centre uniform.

    Args:
        images: (batch, channels, *spatial).
        labels: (batch, 1, *spatial), or a list of them at decreasing resolutions (deep supervision).
    Returns: copies of the same shapes.
    Source: Yun et al. 2019 (arXiv:1905.04899), Eqs. (1) and (2), with labels mixed as the images are instead of by
        lambda; side lengths for any number of axes.
    """
    partners, sides = random.permutation(len(images)), np.array(images.shape[2:])
    several = isinstance(labels, list)
    before = [images, *(labels if several else [labels])]
    mixed = [part.clone() for part in before]
    for case, partner in enumerate(partners):
        if random.random() >= PROBABILITY:
            continue
        half = (1 - random.random()) ** (1 / len(sides)) / 2
        centre = random.random(len(sides))
        low, high = np.clip(centre - half, 0, 1), np.clip(centre + half, 0, 1)
        for part, source in zip(mixed, before, strict=True):
            ends = (np.rint(end * part.shape[2:]).astype(int) for end in (low, high))
            box = (..., *(slice(a, b) for a, b in zip(*ends, strict=True)))
            part[case][box] = source[partner][box]
    return mixed[0], mixed[1:] if several else mixed[1]
