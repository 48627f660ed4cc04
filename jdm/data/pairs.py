"""Training samples: crops of encoded pairs, and augmentation that does not leak into generated samples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor
from torch.utils.data import Dataset

from jdm.config.facts import Fingerprint
from jdm.config.settings import AugmentConfig, Config, DataConfig
from jdm.data.codec import PairCodec
from jdm.data.raw_dataset import Pair, RawDataset, read_case
from jdm.errors import TrainingError


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
        held = 0
        for case_id in case_ids:
            image, label = self._read(case_id)
            held += image.nbytes + label.nbytes
            if held <= config.train.cache_bytes:
                self._cache[case_id] = (image, label)
            self.items += [Item(case_id, index) for index in _slices(image, config.data)]
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
        starts = [rng.integers(0, max(side - want, 0) + 1) for side, want in zip(label.shape, size, strict=True)]
        window = tuple(slice(start, start + want) for start, want in zip(starts, size, strict=True))
        image, label = image[(slice(None), *window)], label[window]
        margins = centred_margins(label.shape, size)
        if any(before or after for before, after in margins):
            image = np.pad(image, [(0, 0), *margins], mode="symmetric")
            label = np.pad(label, margins, mode="symmetric")
        return image, label

    def encoded(self, index: int, rng: np.random.Generator) -> np.ndarray:
        """A random training sample of an item: float32, (channels, *patch_size)."""
        return self.codec.encode(*self.crop(index, self.config.data.patch_size, rng))

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

    def __init__(self, pairs: PairDataset, batch_size: int, seed: int, rank: int = 0, augmented: bool = True) -> None:
        self.pairs, self.batch_size, self.seed, self.rank, self.augmented = pairs, batch_size, seed, rank, augmented

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        """x0 (B, C, *patch_size) and the condition (B, condition_length(config))."""
        rng = np.random.default_rng([self.seed, self.rank, step])
        indices = rng.integers(0, len(self.pairs), self.batch_size)
        x0 = torch.from_numpy(np.stack([self.pairs.encoded(index, rng) for index in indices]))
        config = self.pairs.config
        condition = torch.zeros(len(x0), condition_features(config.data.dims))
        if self.augmented:
            x0, condition = augment(x0, config.image_channels, config.augment, rng)
        if not config.facts.class_names:
            return x0, condition
        numbers = np.array([self.pairs.class_number(index) for index in indices])
        if self.augmented:
            numbers[rng.random(len(numbers)) < config.train.class_dropout] = 0
        return x0, torch.cat([condition, torch.from_numpy(numbers)[:, None].float()], dim=1)


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


def centred_margins(shape: tuple[int, ...], size: tuple[int, ...]) -> list[tuple[int, int]]:
    """Padding (before, after) per axis that centres `shape` in `size`; zero if it is not smaller."""
    missing = [max(want - side, 0) for side, want in zip(shape, size, strict=True)]
    return [(m // 2, m - m // 2) for m in missing]


def condition_features(dims: int) -> int:
    """Length of the augmentation condition: flips, turn (2), zoom, rotation (2), brightness, contrast, shifts."""
    return 2 * dims + 7


def condition_length(config: Config) -> int:
    """Length of the network's condition: the augmentation, then the class if the plan has classes."""
    return condition_features(config.data.dims) + bool(config.facts.class_names)


def class_condition(config: Config, name: str) -> Tensor:
    """The condition (condition_length(config),) of an unaugmented sample of a class. Raises: ValueError if unknown."""
    condition = torch.zeros(condition_length(config))
    condition[-1] = 1 + config.facts.class_names.index(name)
    return condition


def augment(x: Tensor, image_channels: int, config: AugmentConfig, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Augment image and mask in the same way, and return the augmentation as a condition.

    A sample is augmented with `config.probability`, in one way, drawn from those enabled. More ways at once leave too
    few samples like those asked for: with eight, each for a fifth of the samples, 24 of 193 synthetic hearts were
    mirrored. What one at a time leaks is in results/leakage.md. Flips and quarter turns are exact; zoom, rotation and
    shift resample (image linear, mask nearest neighbour, mirrored outside); brightness and contrast change only the
    image. The condition of an untouched sample is all zeros, and sampling uses that condition.

    Args:
        x: (B, C, *spatial) encoded samples.
    Returns: augmented samples, and the condition (B, condition_features(dims)).
    Source: non-leaking augmentation, Karras et al. 2022, appendix F.2, which applies several at once.
    """
    count, dims = len(x), x.ndim - 2
    x = x.clone()
    ways = _ways(config)
    chosen = np.where(rng.random(count) < config.probability, rng.integers(0, max(1, len(ways)), count), len(ways))

    def drawn(way: str, values: np.ndarray) -> np.ndarray:
        """The values for samples that are augmented in this way, else zero."""
        keep = chosen == (ways.index(way) if way in ways else -1)
        return values * keep.reshape(-1, *[1] * (values.ndim - 1))

    flips = np.zeros((count, dims))
    for axis in config.mirror_axes:
        flips[:, axis] = drawn(f"mirror {axis}", np.ones(count))
    turns = drawn("turn", rng.integers(1, 4, count))
    for index in range(count):
        axes = [1 + axis for axis in range(dims) if flips[index, axis]]
        x[index] = torch.rot90(x[index].flip(axes), int(turns[index]), (-2, -1))
    zoom = drawn("scale", config.scale * rng.standard_normal(count))
    angle = drawn("rotation", np.deg2rad(config.rotation_degrees) * rng.standard_normal(count))
    shift = drawn("translation", config.translation * rng.standard_normal((count, dims)))
    moved = np.flatnonzero((zoom != 0) | (angle != 0) | (shift != 0).any(axis=1))
    if len(moved):
        x[moved] = _affine(x[moved], image_channels, 2.0 ** zoom[moved], angle[moved], shift[moved])
    brightness = drawn("brightness", config.brightness * rng.standard_normal(count))
    contrast = drawn("contrast", config.contrast * rng.standard_normal(count))
    gain = torch.from_numpy(2.0**contrast).to(x).reshape(-1, *[1] * (dims + 1))
    offset = torch.from_numpy(brightness).to(x).reshape(-1, *[1] * (dims + 1))
    x[:, :image_channels] = (x[:, :image_channels] * gain + offset).clamp(-1, 1)
    quarter, turned = turns * math.pi / 2, [np.cos(angle) - 1, np.sin(angle)]
    parts = [flips, np.stack([np.cos(quarter) - 1, np.sin(quarter), zoom, *turned, brightness, contrast], 1), shift]
    return x, torch.from_numpy(np.concatenate(parts, axis=1)).float()


def _ways(config: AugmentConfig) -> list[str]:
    """The enabled ways of augmentation."""
    enabled = {
        "turn": config.quarter_turns, "scale": config.scale > 0, "rotation": config.rotation_degrees > 0,
        "translation": config.translation > 0, "brightness": config.brightness > 0, "contrast": config.contrast > 0,
    }  # fmt: skip
    return [*(f"mirror {axis}" for axis in config.mirror_axes), *(way for way, used in enabled.items() if used)]


def _affine(x: Tensor, image_channels: int, zoom: np.ndarray, angle: np.ndarray, shift: np.ndarray) -> Tensor:
    """Zoom, rotate (in the plane of the last two axes) and shift samples (B, C, *spatial) about their centres."""
    count, dims = len(x), x.ndim - 2
    sides = np.array(x.shape[2:][::-1], dtype=np.float64)  # grid_sample orders coordinates from the last axis
    inverse = np.tile(np.eye(dims), (count, 1, 1))
    inverse[:, 0, 0] = inverse[:, 1, 1] = np.cos(angle)
    inverse[:, 0, 1], inverse[:, 1, 0] = np.sin(angle), -np.sin(angle)
    inverse = inverse / zoom[:, None, None] * (sides[None, None, :] / sides[None, :, None])  # normalised coordinates
    theta = np.concatenate([inverse, -2 * shift[:, ::-1, None]], axis=2)
    grid = F.affine_grid(torch.from_numpy(theta).to(x), list(x.shape), align_corners=False)
    image, mask = x[:, :image_channels], x[:, image_channels:]
    return torch.cat(
        [
            F.grid_sample(image, grid, mode="bilinear", padding_mode="reflection", align_corners=False),
            F.grid_sample(mask, grid, mode="nearest", padding_mode="reflection", align_corners=False),
        ],
        dim=1,
    )
