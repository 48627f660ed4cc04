"""Training samples: crops of encoded pairs, in batches, and what the network is told of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.utils.data import Dataset

from jdm.config.facts import Fingerprint
from jdm.config.settings import Config, DataConfig
from jdm.data.augmentation import augment
from jdm.data.codec import PairCodec
from jdm.data.crops import coordinates, cut, random_window
from jdm.data.raw_dataset import Pair, RawDataset, read_case
from jdm.errors import TrainingError

MOST_NOISE, _UNTOLD = 0.5, 0.1
"""In training: most noise on the slice before, in encoded intensity, and share of the samples without a word on it."""


@dataclass(frozen=True)
class Item:
    """Source of crops: an image, a volume (slice None), or one slice of a volume."""

    case_id: str
    slice: int | None


class PairDataset:
    """The images, slices or volumes of some cases, cropped and encoded on demand.

    Cases are cached in their stored type up to `train.cache_bytes`; others are read from disk each time.
    """

    def __init__(
        self, dataset: RawDataset, case_ids: list[str], config: Config, *,
        classes: Mapping[str, str] | None = None, test: bool = False,
    ) -> None:  # fmt: skip
        """Args:
        classes: class by case, for plans with classes; a class unknown to the plan counts as none.
        test: the cases are from imagesTs and labelsTs.
        """
        self.dataset, self.config, self._classes, self.test = dataset, config, classes or {}, test
        self.codec = PairCodec(config)
        self._cache: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self.items: list[Item] = []
        self._ends: dict[str, tuple[int, int]] = {}  # indices of a case's first and last item
        held = 0
        for case_id in case_ids:
            image, label = self._read(case_id)
            held += image.nbytes + label.nbytes
            if held <= config.train.cache_bytes:
                self._cache[case_id] = (image, label)
            slices = [Item(case_id, index) for index in _slices(image, config.data)]
            self._ends[case_id] = len(self.items), len(self.items) + len(slices) - 1
            self.items += slices
        if not self.items:
            raise TrainingError(
                f"no training images in {dataset.name}: {len(case_ids)} cases found, expected at least one that is "
                "not constant; check the fold and the images"
            )

    def __len__(self) -> int:
        return len(self.items)

    def item_shape(self, index: int) -> tuple[int, ...]:
        """Spatial shape of an item before cropping and padding."""
        return self._arrays(self.items[index])[1].shape

    def crop(self, index: int, size: tuple[int, ...], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """A random crop (image, label) of an item at native resolution, padded symmetrically if it is smaller."""
        image, label = self._arrays(self.items[index])
        window = random_window(label.shape, size, rng)
        return cut(image, window), cut(label, window)

    def sample(self, index: int, rng: np.random.Generator) -> np.ndarray:
        """A random training sample of an item: float32, (channels, *patch_size).

        The channels that the network is given beside it follow: of the same crop of the slice before (zeros if there is
        none), or the coordinates of its voxels.
        """
        (image, label), data = self._arrays(self.items[index]), self.config.data
        window = random_window(label.shape, data.patch_size, rng)
        x = self.codec.encode(cut(image, window), cut(label, window))
        if data.position:
            return np.concatenate([x, coordinates(label.shape, window)])
        if not data.previous_slice:
            return x
        if not self.follows(index):
            return np.concatenate([x, np.zeros_like(x)])
        image, label = self._arrays(self.items[index - 1])
        return np.concatenate([x, self.codec.encode(cut(image, window), cut(label, window))])

    def follows(self, index: int) -> bool:
        """Whether the item before is the slice before."""
        item, before = self.items[index], self.items[index - 1]
        return index > 0 and item.slice is not None and before == Item(item.case_id, item.slice - 1)

    def position(self, index: int) -> float:
        """Where a slice lies among those of its volume: from -1, the first, to 1."""
        first, last = self._ends[self.items[index].case_id]
        return 2 * (index - first) / max(last - first, 1) - 1

    def class_number(self, index: int) -> int:
        """An item's class, counted from 1 in the order of the plan's names; 0 for none."""
        names = self.config.facts.class_names
        label = self._classes.get(self.items[index].case_id)
        return 1 + names.index(label) if label in names else 0

    def _arrays(self, item: Item) -> tuple[np.ndarray, np.ndarray]:
        cached = self._cache.get(item.case_id)
        image, label = cached if cached is not None else self._read(item.case_id)
        return (image, label) if item.slice is None else (image[:, item.slice], label[item.slice])

    def _read(self, case_id: str) -> tuple[np.ndarray, np.ndarray]:
        return planned_arrays(read_case(self.dataset, case_id, self.test), self.config)


class Batches(Dataset):
    """Training batches by step: batch `s` depends only on (seed, rank, s), so that a resumed run repeats it."""

    def __init__(
        self, pairs: PairDataset, batch_size: int, seed: int, rank: int = 0, augmented: bool = True,
        unlabelled: PairDataset | None = None,
    ) -> None:  # fmt: skip
        """Args: unlabelled: images without masks, for a share `train.unlabelled_share` of the samples."""
        self.pairs, self.batch_size, self.seed, self.rank, self.augmented = pairs, batch_size, seed, rank, augmented
        self.unlabelled = unlabelled

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        """x0 (B, C, *patch_size) and the condition (B, condition_length(config)).

        C includes the channels that the network is given beside a sample (`Config.beside_channels`). A missing mask is
        NaN.
        """
        rng = np.random.default_rng([self.seed, self.rank, step])
        indices = rng.integers(0, len(self.pairs), self.batch_size)
        config = self.pairs.config
        x0 = torch.from_numpy(np.stack([self.pairs.sample(index, rng) for index in indices]))
        missing = np.zeros(len(x0), bool)
        if self.unlabelled is not None:
            missing = rng.random(len(x0)) < config.train.unlabelled_share
            for place in np.flatnonzero(missing):
                index = int(rng.integers(0, len(self.unlabelled)))
                x0[place] = torch.from_numpy(self.unlabelled.sample(index, rng))
        condition = torch.zeros(len(x0), condition_features(config.data.dims))
        if self.augmented:
            x0, condition = _augmented(x0, config, rng)
        masks = slice(config.image_channels, config.image_channels + config.mask_channels)
        x0[torch.from_numpy(missing), masks] = torch.nan
        if config.data.previous_slice:
            condition = torch.cat([condition, self._previous(indices, rng)], dim=1)
        if not config.facts.class_names:
            return x0, condition
        numbers = np.where(missing, 0, [self.pairs.class_number(index) for index in indices])
        if self.augmented:
            numbers[rng.random(len(numbers)) < config.train.class_dropout] = 0
        return x0, torch.cat([condition, torch.from_numpy(numbers)[:, None].float()], dim=1)

    def _previous(self, indices: np.ndarray, rng: np.random.Generator) -> Tensor:
        """What the network is told about the slice before: see `previous_condition`."""
        noise = [rng.uniform(0, MOST_NOISE) if self.pairs.follows(index) else None for index in indices]
        rows = [previous_condition(self.pairs.position(index), n) for index, n in zip(indices, noise, strict=True)]
        told = rng.random(len(rows)) >= (_UNTOLD if self.augmented else 0)
        return torch.stack(rows) * torch.from_numpy(told)[:, None]


def _augmented(x: Tensor, config: Config, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """`augment` for samples with or without the channels of the slice before.

    Coordinates go the way of the mask, so each voxel keeps those of the voxel that its label comes from.
    """
    images, slices = config.image_channels, 1 + config.data.previous_slice
    each = x.unflatten(1, (slices, -1))
    together = torch.cat([each[:, :, :images].flatten(1, 2), each[:, :, images:].flatten(1, 2)], dim=1)
    made, condition = augment(together, images * slices, config.augment, rng)
    parts = made[:, : images * slices].unflatten(1, (slices, -1)), made[:, images * slices :].unflatten(1, (slices, -1))
    return torch.cat(parts, dim=2).flatten(1, 2), condition


def planned_arrays(pair: Pair, config: Config) -> tuple[np.ndarray, np.ndarray]:
    """Image (channels, *axes) and label (*axes) as trained: slice axis first, resampled to the planned spacing.

    In-plane spacing within one per cent of the plan's counts as equal.
    """
    data, facts = config.data, config.facts
    image, label, spacing = rescaled(pair.image, facts), pair.label, list(pair.spacing)
    if data.slice_axis is not None:
        image, label = np.moveaxis(image, 1 + data.slice_axis, 1), np.moveaxis(label, data.slice_axis, 0)
        spacing.insert(0, spacing.pop(data.slice_axis))
    wanted = ([spacing[0]] if data.slice_axis is not None else []) + list(facts.spacing)
    zoom = [have / want for have, want in zip(spacing, wanted, strict=True)]
    if any(abs(z - 1) > 0.01 for z in zoom):
        image = np.stack([zoomed(channel, zoom, order=1) for channel in image])
        label = zoomed(label, zoom, order=0)
    return np.ascontiguousarray(image), np.ascontiguousarray(label)


def zoomed(array: np.ndarray, zoom: Sequence[float], order: int) -> np.ndarray:
    """The array resampled by a factor per axis, in its own type. order: 1 linear, 0 nearest neighbour."""
    return np.asarray(ndimage.zoom(array, zoom, order=order, grid_mode=True, mode="nearest"))


def case_moments(image: np.ndarray, zero_border: bool) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel of (channels, *spatial), both (channels,).

    A standard deviation of 0 is replaced by 1.

    Args: zero_border: take the mean as 0, and the standard deviation about 0 of the nonzero pixels.
    """
    flat = image.reshape(len(image), -1).astype(np.float64)
    mean = np.zeros(len(flat)) if zero_border else flat.mean(axis=1)
    counted = np.maximum((flat != 0).sum(axis=1), 1) if zero_border else flat.shape[1]
    std = np.sqrt(((flat - mean[:, None]) ** 2).sum(axis=1) / counted)
    return mean, np.where(std > 1e-6, std, 1.0)


def rescaled(image: np.ndarray, facts: Fingerprint) -> np.ndarray:
    """The image (channels, *spatial) standardised for encoding: each channel gets the mean and standard deviation in
    the facts, float32; zeros of borders are kept.

    nnU-Net standardises these channels per case. With all cases on one scale, slices keep their relative intensities in
    any exported volume.
    """
    if not facts.case_std:
        return image
    mean, gain, offset = case_scale(image, facts)
    return ((image - mean) * gain + offset).astype(np.float32)


def case_scale(image: np.ndarray, facts: Fingerprint) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """mean, gain, offset of a case's (image - mean) * gain + offset, each (channels, 1, ...); 0, 1, 0: unchanged."""
    mean, std = case_moments(image, facts.zero_border)
    kept = np.array([wanted is None for wanted in facts.case_std])
    wanted = np.array([wanted or 0.0 for wanted in facts.case_std])
    offset = np.array([wanted or 0.0 for wanted in facts.case_mean])
    column = (slice(None), *[None] * (image.ndim - 1))
    return np.where(kept, 0, mean)[column], np.where(kept, 1, wanted / std)[column], offset[column]


def _slices(image: np.ndarray, data: DataConfig) -> list[int | None]:
    """Slices to train on: all that are not constant."""
    if data.slice_axis is None:
        return [None]
    flat = image.swapaxes(0, 1).reshape(image.shape[1], -1)
    return [index for index in range(len(flat)) if flat[index].min() < flat[index].max()]


def condition_features(dims: int) -> int:
    """Length of the augmentation condition: flips, turn (2), zoom, rotation (2), brightness, contrast, shifts."""
    return 2 * dims + 7


def condition_length(config: Config) -> int:
    """Length of the network's condition: the augmentation, the slice before, and the class, if the plan has them."""
    augmentation, previous = condition_features(config.data.dims), config.data.previous_features
    return augmentation + previous + bool(config.facts.class_names)


def sampling_condition(config: Config, class_name: str = "", previous: Tensor | None = None) -> Tensor:
    """The condition (condition_length(config),) of an unaugmented sample.

    Args: class_name: empty: none. previous: of `previous_condition`; None: nothing is told.
    Raises: ValueError if the class is unknown.
    """
    condition = torch.zeros(condition_length(config))
    if previous is not None:
        condition[(start := condition_features(config.data.dims)) : start + len(previous)] = previous
    if class_name:
        condition[-1] = 1 + config.facts.class_names.index(class_name)
    return condition


def previous_condition(position: float, noise: float | None) -> Tensor:
    """What the network is told of a slice: (1, position from -1 to 1, whether the slice before is given, its noise).

    Zeros: nothing is told.

    Args: noise: level of the noise on the slice before; None: there is none.
    """
    return torch.tensor([1.0, position, noise is not None, noise or 0.0], dtype=torch.float32)
