"""Single image files of any format to and from arrays. Used by `jdm.data.raw_dataset`."""

from __future__ import annotations

from pathlib import Path

from jdm.data.picture_io import read_picture, write_picture
from jdm.data.raster import FILE_ENDINGS, KIND_OF_ENDING, VOLUME_ENDINGS, Raster, ending_of, sniff
from jdm.data.readers import TIFF_ENDINGS, is_stack
from jdm.data.volume_io import read_volume, write_volume
from jdm.errors import DataError
from jdm.system.files import replaced


def read_raster(path: Path, label: bool = False, reader: str = "") -> Raster:
    """Read a file; its content must agree with its ending.

    Args:
        label: read the indices of a palette image instead of its colours.
        reader: the nnU-Net reader whose axes and spacing to follow; by default the one nnU-Net would choose.
    Raises: DataError naming the file if it is missing, empty, truncated, mislabelled, too large, or of a kind that
        would lose information.
    """
    ending = ending_of(path)
    volume = reader != "NaturalImage2DIO" if reader else ending in VOLUME_ENDINGS or is_stack(path)
    if volume:
        return read_volume(path, label, reader)
    expected = KIND_OF_ENDING.get(ending)
    found = sniff(path)
    if expected is None or found != expected:
        raise DataError(
            f"{path}: the content is of kind {found}; expected {expected or 'one of ' + ' '.join(FILE_ENDINGS)} as "
            "its ending says; save it again in the right format"
        )
    return read_picture(path, found, label)


def write_raster(path: Path, raster: Raster, spacing_file: Path | None = None) -> None:
    """Write one file, byte for byte the same for the same input, complete or not at all.

    Pictures hold one or three channels, volumes one. Reading the file returns the given array, whichever reader it came
    from. A temporary file in the same folder is renamed at the end.

    Args: spacing_file: JSON file for the spacing of a TIFF volume; by default the one of a label, of the same name.
    Raises: DataError if the format cannot hold the values; OSError if writing fails.
    """
    with replaced(path, sync=False) as temporary:
        ending = ending_of(path)
        if ending in VOLUME_ENDINGS or (raster.array.ndim == 4 and ending in TIFF_ENDINGS):
            write_volume(temporary, raster, path, spacing_file or path.with_suffix(".json"))
        else:
            write_picture(temporary, raster.array, path)
