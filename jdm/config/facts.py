"""The fingerprint of a dataset: measurements of its training cases, no decisions."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any, ClassVar


class Strict:
    """Base class of everything read from files: refuses unknown names and non-finite numbers."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "allow_inf_nan": False}


@dataclass(frozen=True)
class Foreground(Strict):
    """Range over real crops of one size, at the trained spacing, of the pixel share of each label value.

    `least` and `most` have (classes,) each.
    """

    size: tuple[int, ...]
    """Sides of the crops in pixels; smaller images are used whole."""
    least: tuple[float, ...]
    most: tuple[float, ...]


@dataclass(frozen=True)
class Fingerprint(Strict):
    """Everything that planning, training, export and sampling need to know about the training cases; no images.

    Spatial values follow the order of the trained axes (for volumes, the axes of a slice) and the trained spacing.
    """

    channel_names: tuple[str, ...]
    labels: tuple[str, ...]
    """Names by label value; the background first."""
    file_ending: str
    dtype: str
    """NumPy name of the stored image type, which decoding returns."""
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
    """Number of cases by size: (shape, slices worth training on or 1, cases), sorted."""
    volumes: str = ""
    """Why volumes are trained as a whole, or as slices; empty: as requested, or not volumes."""
    slice_axis: int | None = None
    """Volumes: the array axis along which slices are measured and trained."""
    slice_spacing: float = 1.0
    """Volumes: median slice spacing, also that of exported volumes."""
    direction: tuple[float, ...] = ()
    """Volumes: the most frequent direction cosines, row by row, also those of exported volumes."""
    stored_axes: str = ""
    """Volumes: axis order of the files with that direction, see `jdm.data.raster.Geometry`."""
    reader: str = ""
    """nnU-Net's image reader, if dataset.json names one (overwrite_image_reader_writer)."""
    case_mean: tuple[float | None, ...] = ()
    """Of channels whose intensities have arbitrary units and that nnU-Net standardises: the mean that each case is
    brought to; None: taken as stored; empty: all are. With zero_border it is 0, and only the standard deviation is
    changed, that of what is not zero."""
    case_std: tuple[float | None, ...] = ()
    """Standard deviation about case_mean that each case is brought to, per channel."""
    zero_border: bool = False
    """Whether a fifth of the cases or more have a border of exact zeros and 0 is the low end of the encoded range."""
    clipped: tuple[float, ...] = ()
    """Share of the pixels of each label value that lie outside low and high."""
    mirror_axes: tuple[int, ...] = ()
    """Spatial axes along which mirrored cases look like real ones."""
    quarter_turns: bool = False
    """Whether cases turned by 90 degrees look like those that there are."""
    symmetry: str = ""
    """The reason for the two above."""
    class_names: tuple[str, ...] = ()
    """Case-level classes that the model is conditioned on, such as benign and malignant; sorted."""
    class_sizes: tuple[tuple[int, int], ...] = ()
    """Training cases of each class, and their pixels."""
    image_axes: tuple[tuple[float, ...], ...] = ()
    """Principal axes of the encoded image's channels, such as the colours, by falling variance: (axes, channels)."""
    image_bands: tuple[tuple[float, ...], ...] = ()
    """Standard deviation of each Haar sub-band (`MOST_LEVELS` levels) along each axis: (axes, bands)."""
    window_spread: float = 0.0
    """How far the mean intensities of patches lie apart within one image: standard deviation, root mean square over
    channels; 0 if images are as large as the patch."""
    likeness: tuple[tuple[float, float], ...] = ()
    """5th and 95th percentiles of each number of `jdm.evaluation.likeness` over held-out real cases."""
    least_region: int = 0
    """Pixels, at the trained spacing, below which 1 % of the real connected regions of one value lie; smaller ones are
    taken for specks."""
    class_volumes: tuple[tuple[float, float], ...] = ()
    """Least and most mm^3 of each label value in a whole volume, or mm^2 in a slice; empty for pictures."""
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
