"""Labelled images in memory: read, resized, standardised; and the augmentation of classifiers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from jdm.data.raw_dataset import RawDataset, read_image
from jdm.errors import DataError

_DEGREES, _SHIFT, _ZOOM = 10.0, 0.05, 0.1


@dataclass(frozen=True)
class Images:
    """Images with their classes."""

    cases: tuple[str, ...]
    x: Tensor
    """(n, channels, size, size), float32, as stored."""
    y: Tensor
    """(n,), number of the class."""

    def subset(self, cases: Sequence[str]) -> Images:
        place = {case: n for n, case in enumerate(self.cases)}
        chosen = torch.tensor([place[case] for case in cases], dtype=torch.long)
        return Images(tuple(cases), self.x[chosen], self.y[chosen])

    def joined(self, other: Images) -> Images:
        parts = (self.x, other.x), (self.y, other.y)
        return Images((*self.cases, *other.cases), *(torch.cat(part) for part in parts))

    def standardised(self, mean: Tensor, std: Tensor) -> Images:
        x = ((self.x - mean) / std).contiguous(memory_format=torch.channels_last)
        return Images(self.cases, x, self.y)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each channel, (1, channels, 1, 1)."""
        std, mean = torch.std_mean(self.x, dim=(0, 2, 3), keepdim=True)
        return mean, std.clamp(min=1e-6)


def read_images(dataset: RawDataset, classes: Mapping[str, str], names: Sequence[str], size: int, test: bool) -> Images:
    """The cases that have a class, resized to `size` a side.

    Raises: DataError for a class that is not in `names`, for volumes, or as `read_image`.
    """
    cases = [case for case in (dataset.test_cases if test else dataset.cases) if classes.get(case)]
    images, numbers = [], []
    for case in cases:
        if classes[case] not in names:
            raise DataError(
                f"{dataset.name}: case {case} has class {classes[case]!r}; expected one of {', '.join(names)}, the "
                "classes of the real training cases; correct classes.csv"
            )
        image, _, _ = read_image(dataset, case, test)
        if image.ndim != 3:
            raise DataError(f"{dataset.name}: case {case} is a volume; expected pictures; convert its slices")
        x = torch.from_numpy(image.astype(np.float32))[None]
        images.append(F.interpolate(x, (size, size), mode="bilinear", antialias=True, align_corners=False)[0])
        numbers.append(names.index(classes[case]))
    if not cases:
        raise DataError(f"{dataset.name}: no {'test' if test else 'training'} case has a class; expected some")
    return Images(tuple(cases), torch.stack(images), torch.tensor(numbers))


def augmented(x: Tensor, generator: torch.Generator) -> Tensor:
    """Images (n, C, H, W) mirrored in half of the cases, rotated, shifted and zoomed a little."""
    count = len(x)
    mirror = torch.randint(0, 2, (count,), generator=generator) * 2.0 - 1
    angle = math.radians(_DEGREES) * torch.randn(count, generator=generator)
    zoom = torch.exp2(_ZOOM * torch.randn(count, generator=generator))
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 0, 1] = mirror * angle.cos() / zoom, -angle.sin() / zoom
    theta[:, 1, 0], theta[:, 1, 1] = mirror * angle.sin() / zoom, angle.cos() / zoom
    theta[:, :, 2] = 2 * _SHIFT * torch.randn(count, 2, generator=generator)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)
