"""Reads, checks and writes single cases of a raw dataset, without caching.

Used by `jdm.data.raw_dataset`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from jdm.data import advice
from jdm.data.image_io import read_raster, write_raster
from jdm.data.raster import Geometry, Raster, can_hold
from jdm.data.raw_layout import RawDataset, few, is_case_id
from jdm.data.space import aligned
from jdm.errors import DataError


@dataclass(frozen=True)
class Pair:
    """An image and its segmentation."""

    case_id: str
    image: np.ndarray
    """(channels, *spatial), stored dtype."""
    label: np.ndarray
    """(*spatial), class values as in dataset.json; when read, in the `label_dtype` of the dataset."""
    spacing: tuple[float, ...]
    """Per spatial axis in array order, in the dataset's unit; (1.0, 1.0) for pictures."""
    geometry: Geometry | None = None
    """Position and orientation of a volume; None for pictures and TIFF volumes."""


def read_case(dataset: RawDataset, case_id: str, test: bool = False) -> Pair:
    """Read one case like the dataset's reader, with all files on the grid of the first image.

    Raises: DataError if a file is unreadable, the number of channels differs from dataset.json, the files' grids differ
        by more than flips and permutations of axes, or the label holds values not declared in dataset.json.
    """
    image = joined(dataset, case_id, test, read_channels(dataset, case_id, test))
    if not dataset.has_masks:
        return Pair(case_id, image.array, np.zeros(image.array.shape[1:], np.uint8), image.spacing, image.geometry)
    path = dataset.label_file(case_id, test)
    return paired(dataset, case_id, test, image, read_raster(path, True, dataset.reader))


def read_image(
    dataset: RawDataset, case_id: str, test: bool = False
) -> tuple[np.ndarray, tuple[float, ...], Geometry | None]:
    """Image (channels, *spatial), spacing and geometry of one case, without its label.

    Raises: DataError as `read_case`.
    """
    image = joined(dataset, case_id, test, read_channels(dataset, case_id, test))
    return image.array, image.spacing, image.geometry


def read_channels(dataset: RawDataset, case_id: str, test: bool) -> list[Raster]:
    """The image files of one case, each on its own grid."""
    return [read_raster(path, reader=dataset.reader) for path in dataset.image_files(case_id, test)]


def joined(dataset: RawDataset, case_id: str, test: bool, channels: list[Raster]) -> Raster:
    """The image files of one case as one image on the grid of the first. Raises: DataError as `read_case`."""
    files, first = dataset.image_files(case_id, test), channels[0]
    for path, raster in zip(files, channels, strict=True):
        if raster.array.dtype != first.array.dtype:
            raise DataError(
                f"{path}: pixels are {raster.array.dtype}, but those of {files[0].name} are {first.array.dtype}; "
                "expected one type for all channels; save them with the same type"
            )
    arrays = [
        aligned(raster.array, raster.geometry, raster.spacing, first, f"{path} and {files[0].name}")
        for path, raster in zip(files, channels, strict=True)
    ]
    image = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
    if image.shape[0] != len(dataset.channel_names):
        raise DataError(
            f"{files[0]}: case {case_id!r} has {image.shape[0]} channels; expected {len(dataset.channel_names)} "
            f"({', '.join(dataset.channel_names)}), as in dataset.json; correct one of them"
        )
    return replace(first, array=image)


def paired(dataset: RawDataset, case_id: str, test: bool, image: Raster, label: Raster) -> Pair:
    """An image and its label file as a pair on the image's grid. Raises: DataError as `read_case`."""
    path = dataset.label_file(case_id, test)
    where = f"{path} and {dataset.image_files(case_id, test)[0].name}"
    array = aligned(one_channel(label.array, path)[None], label.geometry, label.spacing, image, where)[0]
    validate_labels(array, dataset.labels, str(path))
    return Pair(case_id, image.array, array.astype(label_dtype(dataset.classes)), image.spacing, image.geometry)


def read_label(path: Path, reader: str = "") -> Raster:
    """Read a label file as one channel of class values, (1, *spatial).

    Args: reader: the dataset's reader, see `read_raster`.
    Raises: DataError if it cannot be read, or as `one_channel`.
    """
    raster = read_raster(path, True, reader)
    return replace(raster, array=one_channel(raster.array, path)[None])


def slice_axis(shapes: Sequence[Sequence[int]], spacing: Sequence[float]) -> int:
    """The array axis along which volumes are sliced.

    A volume of one slice is an image, so it is the axis that has length 1 in most cases or, without one, the axis of
    widest spacing. Ties: the widest, then the first. nnU-Net's 2d configuration uses only the spacing.

    Args:
        shapes: (*spatial) of each case; spacing: median over the cases, per axis.
    """
    flat = (np.array(shapes) == 1).sum(axis=0)
    return int(np.argmax(np.where(flat == flat.max(), spacing, -np.inf)))


def one_channel(array: np.ndarray, where: Path) -> np.ndarray:
    """(*spatial) of a label (channels, *spatial). Raises: DataError naming its file if the channels differ."""
    if not (array[1:] == array[:1]).all():
        raise DataError(
            f"{where}: the label has {array.shape[0]} channels that differ; expected one value per class; "
            f"{advice.one_channel(where, array)}"
        )
    return array[0]


def label_dtype(classes: int) -> type[np.uint8] | type[np.uint16]:
    """The smallest dtype for labels of this number of classes."""
    return np.uint8 if classes <= 256 else np.uint16


def validate_labels(label: np.ndarray, labels: Mapping[str, int], where: str) -> None:
    """Check that every value of `label` is declared in `labels`.

    Raises: DataError naming the undeclared values and the file `where`.
    """
    found = np.unique(label)
    outside = found[~np.isin(found, list(labels.values()))]
    if outside.size:
        raise DataError(
            f"{where}: the label holds {few([f'{v:g}' for v in outside.tolist()])}; expected only "
            f"{', '.join(f'{v} ({k})' for k, v in labels.items())}; "
            f"{advice.map_values(Path(where), found.tolist(), labels)}"
        )


def write_case(
    folder: Path, pair: Pair, file_ending: str, labels_folder: str = "labelsTr", images_folder: str = "imagesTr", *,
    mask: bool = True,
) -> None:  # fmt: skip
    """Write one case under nnU-Net's names: `imagesTr/<id>_0000<ending> ..` and, with `mask`, `labelsTr/<id><ending>`.

    Each file is complete or absent, and equal pairs give equal bytes.
    Raises: DataError as `write_image`, or if the shapes disagree or the label is not valid.
    """
    image, label = pair.image, pair.label
    if image.shape[1:] != label.shape or label.dtype.kind not in "iub" or label.size == 0:
        raise DataError(
            f"case {pair.case_id!r}: image {image.shape}, label {label.shape} of {label.dtype}; expected "
            "(channels, *spatial) and (*spatial) of integers, not empty"
        )
    if label.min() < 0 or label.max() > 65535:
        raise DataError(f"case {pair.case_id!r}: label values {label.min()} to {label.max()}; expected 0 to 65535")
    write_image(folder / images_folder, pair.case_id, Raster(image, pair.spacing, pair.geometry), file_ending)
    if not mask:
        return
    stored = label.astype(np.uint8 if label.max() < 256 else np.uint16)
    (folder / labels_folder).mkdir(parents=True, exist_ok=True)
    path = folder / labels_folder / f"{pair.case_id}{file_ending}"
    write_raster(path, Raster(stored[None], pair.spacing, pair.geometry))


def write_image(folder: Path, case_id: str, image: Raster, file_ending: str) -> None:
    """Write the image files of one case: three channels as one RGB file if the format allows it, else one file each.

    Args:
        folder: imagesTr or imagesTs; created if missing.
    Raises: DataError if the id is not a valid file name or the format cannot hold the image.
    """
    if not is_case_id(case_id):
        raise DataError(f"case id {case_id!r}: expected a plain file name; rename the case")
    array = image.array.astype(np.uint8) if image.array.dtype == np.bool_ else image.array
    together = array.ndim == 3 and can_hold(file_ending, array.shape[0], array.dtype)
    parts = [array] if together else [array[c : c + 1] for c in range(array.shape[0])]
    folder.mkdir(parents=True, exist_ok=True)
    for channel, part in enumerate(parts):
        path = folder / f"{case_id}_{channel:04d}{file_ending}"
        write_raster(path, replace(image, array=part), folder / f"{case_id}.json")
