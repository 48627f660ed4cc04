"""Single image files to and from arrays, whatever their format. Machinery of `jdm.data.raw_dataset`."""

from __future__ import annotations

from pathlib import Path

from jdm.data.picture_io import read_picture, write_picture
from jdm.data.raster import FILE_ENDINGS, KIND_OF_ENDING, VOLUME_ENDINGS, Raster, ending_of, sniff
from jdm.data.readers import TIFF_ENDINGS, is_stack
from jdm.data.volume_io import read_volume, write_volume
from jdm.errors import DataError
from jdm.system.files import replaced


def read_raster(path: Path, label: bool = False, reader: str = "") -> Raster:
    """Read a file whose content must agree with its ending.

    Args:
        label: a palette image gives its indices instead of its colours.
        reader: the reader of nnU-Net whose axes and spacing are wanted; by default the one it would choose.
    Raises: DataError naming the file if it is missing, empty, truncated, mislabelled, too large or of a kind
        that would lose information.
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
            "its ending says; save it anew in the right format"
        )
    return read_picture(path, found, label)


def write_raster(path: Path, raster: Raster, spacing_file: Path | None = None) -> None:
    """Write one file, byte for byte the same for the same input, complete or not at all.

    Pictures hold one or three channels, volumes one; they are read as the array that is given, whichever reader it
    came from. A temporary file in the same folder is renamed at the end.

    Args: spacing_file: of TIFF volumes, by default the label's: a JSON file of the same name.
    Raises: DataError if the format cannot hold the values; OSError if the disk does not take all of it.
    """
    with replaced(path, sync=False) as temporary:
        ending = ending_of(path)
        if ending in VOLUME_ENDINGS or (raster.array.ndim == 4 and ending in TIFF_ENDINGS):
            write_volume(temporary, raster, path, spacing_file or path.with_suffix(".json"))
        else:
            write_picture(temporary, raster.array, path)
