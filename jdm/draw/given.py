"""Reads and checks conditions from files: folders of images or masks, and the region to inpaint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from jdm.data.case_io import label_dtype, read_label
from jdm.data.image_folder import check_folder, image_folder
from jdm.data.raster import NATURAL_ENDINGS, Raster
from jdm.data.raw_dataset import Pair, RawDataset, read_image, validate_labels
from jdm.data.raw_layout import listed
from jdm.data.space import aligned
from jdm.errors import ConfigError, DataError


def given_images(dataset: RawDataset, folder: Path, dtype: str) -> list[Pair]:
    """Read a folder of images with nnU-Net's names, `<case>_0000<ending>`; labels are empty.

    Args: dtype: stored type of the training images, which pictures must have too.
    Raises: DataError if the folder is missing, empty, of another dataset, or an image is unreadable or of another kind.
    """
    images = image_folder(dataset, folder)
    pairs = []
    for case in images.cases:
        image, spacing, geometry = read_image(images, case)
        if images.file_ending in NATURAL_ENDINGS and image.dtype != np.dtype(dtype):
            raise DataError(
                f"{images.image_files(case)[0]}: pixels are {image.dtype}; expected {dtype} as in {dataset.name}; "
                "convert it"
            )
        pairs.append(Pair(case, image, np.zeros(image.shape[1:], np.uint8), spacing, geometry))
    return pairs


def given_masks(dataset: RawDataset, folder: Path, dtype: str) -> list[Pair]:
    """Read the label files of a folder, `<case><ending>`, with images of zeros in the stored type `dtype`.

    Raises: DataError if the folder is missing, empty or of another dataset, or holds values that are not its labels.
    """
    check_folder(dataset, folder, "labels")
    pairs = []
    for name in listed(folder, dataset.file_ending):
        raster = read_label(folder / name, dataset.reader)
        label = raster.array[0]
        validate_labels(label, dataset.labels, str(folder / name))
        label = label.astype(label_dtype(dataset.classes))
        image = np.zeros((len(dataset.channel_names), *label.shape), dtype)
        pairs.append(Pair(name[: -len(dataset.file_ending)], image, label, raster.spacing, raster.geometry))
    return pairs


def region_of(pair: Pair, box: tuple[int, ...], path: Path | None) -> np.ndarray:
    """The region to inpaint, bool (*spatial) on the case's own grid.

    Raises: DataError if the file lies on another grid or is empty; ConfigError if the box leaves the image.
    """
    shape = pair.label.shape
    if path is not None:
        marked, case = read_label(path), Raster(pair.image, pair.spacing, pair.geometry)
        where = f"{path} and case {pair.case_id}"
        region = aligned(marked.array, marked.geometry, marked.spacing, case, where)[0] != 0
        if not region.any():
            raise DataError(f"{path}: no pixel is marked; expected a region of nonzero pixels; mark one")
        return region
    first, behind = box[: len(shape)], box[len(shape) :]
    if any(b > side for b, side in zip(behind, shape, strict=True)):
        raise ConfigError(f"--box is {box}; expected it inside case {pair.case_id} of {shape}; correct it")
    region = np.zeros(shape, dtype=bool)
    region[tuple(slice(a, b) for a, b in zip(first, behind, strict=True))] = True
    return region


def box_inside(label: np.ndarray, value: int, rng: np.random.Generator) -> tuple[int, ...]:
    """A box around a random pixel of a label (*spatial), a third of the label's extent along each axis, in the image.

    Returns: first indices, then last ones plus 1. Raises: DataError if the value is absent.
    """
    places = np.argwhere(label == value)
    if not len(places):
        raise DataError(f"--inside has label value {value}, which the case does not hold; name another label or case")
    sides = np.maximum((np.ptp(places, axis=0) + 1) // 3, 1)
    first = np.clip(places[rng.integers(len(places))] - sides // 2, 0, np.array(label.shape) - sides)
    return tuple(int(index) for index in (*first, *(first + sides)))


def painted(region: np.ndarray, box: tuple[int, ...], background: bool) -> np.ndarray:
    """Pixels that get the lesion's label, bool: the region, or the ellipse in a box (the whole box for background)."""
    if not box or background:
        return region
    half = len(box) // 2
    inside = np.zeros(region.shape)
    for axis, (a, b) in enumerate(zip(box[:half], box[half:], strict=True)):
        along = (np.arange(region.shape[axis]) + 0.5 - (a + b) / 2) / ((b - a) / 2)
        inside = inside + along.reshape([-1 if k == axis else 1 for k in range(half)]) ** 2
    return inside <= 1


def label_value(labels: Mapping[str, int], name: str, flag: str) -> int:
    """The label value of a class name. Raises: ConfigError, naming the flag, for an unknown name."""
    if name not in labels:
        raise ConfigError(f"--{flag} is {name!r}; expected one of {', '.join(labels)}; correct it")
    return labels[name]
