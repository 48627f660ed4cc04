"""The fingerprint of a dataset: what was measured of its training cases, and nothing that was decided."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any, ClassVar


class Strict:
    """Base of what is read from files: unknown names and numbers that are not finite are refused."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "allow_inf_nan": False}


@dataclass(frozen=True)
class Foreground(Strict):
    """Share of the pixels per label value over real crops of one size: least and most, (classes,) each."""

    size: tuple[int, ...]
    """Sides of the crops in pixels; images that are smaller count whole."""
    least: tuple[float, ...]
    most: tuple[float, ...]


@dataclass(frozen=True)
class Fingerprint(Strict):
    """What planning, training, export and sampling need to know of the training cases; no image is in it.

    Spatial values are in the order of the trained axes (those of a slice, for volumes) and in the trained spacing.
    """

    channel_names: tuple[str, ...]
    labels: tuple[str, ...]
    """Names by label value; the background first."""
    file_ending: str
    dtype: str
    """NumPy name of the stored image type; decoding returns to it."""
    low: tuple[float, ...]
    """Stored intensity per image channel that is encoded as -1; below it is clipped."""
    high: tuple[float, ...]
    """Stored intensity per image channel that is encoded as +1; above it is clipped."""
    image_mean: tuple[float, ...]
    """Mean of each encoded image channel."""
    image_std: float
    """Standard deviation of the encoded image about image_mean, over all channels."""
    class_shares: tuple[float, ...]
    """Share of the pixels per label value, a mean over cases."""
    spacing: tuple[float, ...]
    """Median spacing; other cases are resampled to it."""
    sizes: tuple[tuple[tuple[int, ...], int, int], ...]
    """How many cases of which size there are: (shape, slices worth training on or 1, cases), sorted."""
    slice_axis: int | None = None
    """Volumes: the array axis along which they are measured and trained as slices."""
    slice_spacing: float = 1.0
    """Volumes: median spacing across slices, which exported volumes get."""
    direction: tuple[float, ...] = ()
    """Volumes: the most frequent direction cosines, row by row, which exported volumes get."""
    stored_axes: str = ""
    """Volumes: how the files of those store their axes, see `jdm.data.raster.Geometry`."""
    reader: str = ""
    """nnU-Net's image reader where dataset.json names one (overwrite_image_reader_writer)."""
    case_mean: tuple[float | None, ...] = ()
    """Of channels whose intensities have arbitrary units and that nnU-Net standardises: the mean that each case is
    brought to; None: taken as stored; empty: all are. With zero_border it is 0, and only the standard deviation is
    changed, that of what is not zero."""
    case_std: tuple[float | None, ...] = ()
    """Standard deviation about case_mean that each case is brought to, per channel."""
    zero_border: bool = False
    """A fifth of the cases or more have a border of exact zeros, and 0 is the low end of what is encoded."""
    clipped: tuple[float, ...] = ()
    """Share of the pixels of each label value that lie outside low and high."""
    mirror_axes: tuple[int, ...] = ()
    """Spatial axes along which mirrored cases look like those that there are."""
    quarter_turns: bool = False
    """Whether cases turned by 90 degrees look like those that there are."""
    symmetry: str = ""
    """The reason of the two above."""
    object_diameter: float = 0.0
    """Median diameter of the connected objects in pixels, the smallest left out; 0 where there are none."""
    class_names: tuple[str, ...] = ()
    """Classes of whole cases, such as benign and malignant, that the model is conditioned on; sorted."""
    class_sizes: tuple[tuple[int, int], ...] = ()
    """Training cases of each class, and their pixels."""
    likeness: tuple[tuple[float, float], ...] = ()
    """5th and 95th percentiles over held-out real cases of each number of `jdm.evaluation.likeness`."""
    foreground: tuple[Foreground, ...] = ()
    """Range of the foreground over real crops, smallest crops first, whole images last."""

    @property
    def classes(self) -> int:
        """Number of label values, background included."""
        return len(self.labels)

    @property
    def channels(self) -> int:
        return len(self.channel_names)

    @property
    def cases(self) -> int:
        return sum(cases for _, _, cases in self.sizes)

    @property
    def items(self) -> int:
        """Images, or slices of volumes, to train on."""
        return sum(slices * cases for _, slices, cases in self.sizes)

    @property
    def median_size(self) -> tuple[int, ...]:
        """Median sides of the cases."""
        return tuple(
            int(statistics.median([shape[axis] for shape, _, cases in self.sizes for _ in range(cases)]))
            for axis in range(len(self.spacing))
        )

    @property
    def slices(self) -> int:
        """Slices of a typical volume that are worth training on; 1 for images."""
        return int(statistics.median([slices for _, slices, cases in self.sizes for _ in range(cases)]))

    @property
    def largest_size(self) -> tuple[int, ...]:
        """Largest side along each axis, over the cases."""
        return tuple(max(shape[axis] for shape, _, _ in self.sizes) for axis in range(len(self.spacing)))
