"""Facts measured on encoded cases before training: statistics of the images, and what judges exported pairs."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from jdm.config.settings import Config
from jdm.data.codec import PairCodec
from jdm.data.pairs import PairDataset
from jdm.data.raw_dataset import RawDataset
from jdm.diffusion.haar import MOST_LEVELS, haar
from jdm.diffusion.windows import window_starts
from jdm.evaluation.likeness import likeness

_FEWEST_JUDGED, _JUDGED_CASES, _JUDGED_ITEMS = 5, 12, 60
_LEAST_STD = 0.005  # of a sub-band, about a grey level: flat ones would dominate the loss


def with_measures(config: Config, dataset: RawDataset, ids: tuple[list[str], list[str]]) -> Config:
    """The config with facts about encoded cases: statistics of training cases, and likeness for judging exports.

    Args: ids: training cases, and held-out ones, if there are any.
    """
    training, held_out = ids
    facts = replace(config.facts, **_image_statistics(_some_encoded(config, dataset, training), config))
    # A range takes several cases: a tenth of a few volumes is one.
    judged = held_out if len(held_out) >= _FEWEST_JUDGED or config.data.dims == 2 else [*held_out, *training]
    numbers = [likeness(*PairCodec(config).decode(x)) for x in _some_encoded(config, dataset, judged or training)]
    with_mask = [found for found in numbers if np.isfinite(found).all()] or [np.nan_to_num(n) for n in numbers]
    low, high = np.percentile(with_mask, [5, 95], axis=0).tolist()
    return replace(config, facts=replace(facts, likeness=tuple(zip(low, high, strict=True))))


def _some_encoded(config: Config, dataset: RawDataset, case_ids: list[str]) -> list[np.ndarray]:
    """Some whole encoded items, (channels, *spatial) each, spread over the first cases."""
    pairs = PairDataset(dataset, case_ids[:_JUDGED_CASES], config)
    chosen = np.unique(np.linspace(0, len(pairs) - 1, _JUDGED_ITEMS).astype(int))
    rng = np.random.default_rng(0)
    return [pairs.codec.encode(*pairs.crop(int(item), pairs.item_shape(int(item)), rng)) for item in chosen]


def _image_statistics(encoded: list[np.ndarray], config: Config) -> dict[str, Any]:
    """Principal axes of the images' channels, and the standard deviation of each Haar sub-band along each of them."""
    dims, block = config.data.dims, 2**MOST_LEVELS
    mean = np.reshape(config.facts.image_mean, (-1, *[1] * dims))
    images = [x[: config.image_channels] - mean for x in encoded]
    flat = [image.reshape(len(image), -1).astype(np.float64) for image in images]
    _, found = np.linalg.eigh(np.sum([pixels @ pixels.T / pixels.shape[1] for pixels in flat], axis=0))
    axes = found.T[::-1] * np.where(found.T[::-1].sum(axis=1, keepdims=True) < 0, -1, 1)
    energy, count = np.zeros((len(axes), block**dims)), 0
    for image in images:
        # Sides shorter than a block, such as those across few thick slices, are filled up by their mirror image.
        longer = np.pad(image, [(0, 0), *((0, max(0, block - side)) for side in image.shape[1:])], mode="symmetric")
        whole = longer[:, *(slice(side - side % block) for side in longer.shape[1:])]
        bands = haar(torch.from_numpy(np.tensordot(axes, whole, 1))[None], MOST_LEVELS)[0].unflatten(0, energy.shape)
        energy += bands.square().sum([*range(2, 2 + dims)]).numpy()
        count += bands[0, 0].numel()
    stds = np.sqrt(energy / max(count, 1)).clip(_LEAST_STD, None)
    rows = {"image_axes": axes.round(6), "image_bands": stds.round(5)}
    spread = {"window_spread": window_spread(images, config.data.patch_size)}
    return {name: tuple(map(tuple, values.tolist())) for name, values in rows.items()} | spread


def window_spread(images: list[np.ndarray], patch: tuple[int, ...]) -> float:
    """Standard deviation of the means of patches about that of their image, over all images (channels, *spatial)."""
    deviations, freedom = 0.0, 0
    for image in images:
        sides = zip(image.shape[1:], patch, strict=True)
        starts = [window_starts(max(side, window), window, overlap=0) for side, window in sides]
        places = [tuple(map(slice, at, np.add(at, patch))) for at in itertools.product(*starts)]
        means = np.array([image[:, *place].mean(axis=tuple(range(1, image.ndim))) for place in places])
        deviations += np.square(means - means.mean(0)).sum() / means.shape[1]
        freedom += len(places) - 1
    return round(math.sqrt(deviations / freedom), 5) if freedom else 0.0
