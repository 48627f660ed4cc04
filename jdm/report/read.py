"""Reads the files that jdm left in a folder; a damaged one is an error that names it."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jdm.data.raw_dataset import RawDataset, dataset_folder, read_dataset
from jdm.data.raw_layout import NAME
from jdm.errors import ConfigError, DataError
from jdm.report.content import Picture


def read_object(file: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises: DataError if there is none."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"{file}: cannot be read ({type(error).__name__}: {error}); expected the JSON file that jdm wrote; repeat "
            "the command that wrote it"
        ) from None
    if not isinstance(content, dict):
        raise DataError(
            f"{file}: holds a {type(content).__name__}; expected a JSON object; repeat the command that wrote it"
        )
    return content


@contextlib.contextmanager
def contents_of(file: Path) -> Iterator[None]:
    """A block that works on what was read from `file`.

    Raises: DataError naming the file if something that jdm writes is missing there or of another type.
    """
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"{file}: is not as jdm wrote it ({type(error).__name__}: {error}); expected all of its entries; repeat "
            "the command that wrote it"
        ) from None


def read_png(file: Path, alt: str, caption: str = "") -> Picture:
    """A picture that jdm drew. Raises: DataError if it is missing or damaged."""
    from PIL import Image

    try:
        content = file.read_bytes()
        with Image.open(io.BytesIO(content), formats=["PNG"]) as picture:
            picture.load()
            size = picture.size
    except (OSError, SyntaxError, ValueError) as error:  # Pillow calls a broken chunk a syntax error
        raise DataError(
            f"{file}: cannot be read ({type(error).__name__}); expected a PNG picture; repeat the command that drew it"
        ) from None
    return Picture(content, alt, caption, size=size)


def find_dataset(name: str, beside: Path | None = None) -> RawDataset | None:
    """A raw dataset by id or name, in the folder `beside` or under $nnUNet_raw; None if it is not at hand.

    Raises: DataError if it is there but damaged.
    """
    if beside is not None and NAME.fullmatch(name) and (beside / name / "dataset.json").is_file():
        return read_dataset(beside / name)
    try:
        folder = dataset_folder(name)
    except ConfigError:  # no such dataset, or no $nnUNet_raw
        return None
    return read_dataset(folder)
