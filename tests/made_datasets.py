"""Datasets made of arrays, to be measured; what of them is encoded."""

import numpy as np
from small_runs import config_of

from jdm.config.facts import Fingerprint
from jdm.data.pairs import PairDataset
from jdm.data.raw_dataset import Geometry, Pair, RawDataset, read_dataset, write_case, write_dataset_json
from jdm.plan.fingerprint import fingerprint

IDENTITY = Geometry((0.0, 0.0, 0.0), tuple(np.eye(3).ravel().tolist()))


def write(raw, images, labels=None, spacing=None, channels=("MRI",), names=("background", "organ")) -> RawDataset:
    """A dataset of images (channels, *spatial), volumes or pictures; of labels, or of the brighter halves."""
    folder, ending = raw / "Dataset031_Made", ".png" if images[0].ndim == 3 else ".nii.gz"
    spacing = spacing or (1.0,) * (images[0].ndim - 1)
    for index, image in enumerate(images):
        label = image[0] > np.median(image[0]) if labels is None else labels[index]
        geometry = IDENTITY if ending == ".nii.gz" else None
        write_case(folder, Pair(f"v{index}", image, label.astype(np.uint8), spacing, geometry), ending)
    values = {name: value for value, name in enumerate(names)}
    write_dataset_json(folder, channel_names=channels, labels=values, file_ending=ending, num_training=len(images))
    return read_dataset(folder)


def measured(dataset: RawDataset, **options) -> Fingerprint:
    return fingerprint(dataset, list(dataset.cases), **options)


def encoded(dataset: RawDataset, found: Fingerprint) -> list[np.ndarray]:
    """The image channels of each item."""
    config = config_of(found, data={"slice_axis": found.slice_axis}, codec={"mask_code": "bits"})
    pairs = PairDataset(dataset, list(dataset.cases), config)
    crops = (pairs.crop(index, pairs.item_shape(index), np.random.default_rng(0)) for index in range(len(pairs)))
    return [pairs.codec.encode(*crop)[: found.channels] for crop in crops]


def has_moments_of(found: Fingerprint, samples: list[np.ndarray]) -> bool:
    """Whether the mean and deviation that the noise is scaled by are those of what is encoded."""
    flat = np.concatenate([sample.reshape(found.channels, -1) for sample in samples], axis=1)
    std = np.sqrt(flat.var(axis=1).mean())
    return bool(np.allclose(found.image_mean, flat.mean(axis=1), atol=0.03)) and abs(found.image_std - std) < 0.03


def discs(shape, *circles) -> np.ndarray:
    rows, columns = np.indices(shape)
    return np.any([(rows - r) ** 2 + (columns - c) ** 2 <= radius**2 for r, c, radius in circles], axis=0)
