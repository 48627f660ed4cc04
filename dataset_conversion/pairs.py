"""A folder of images and a folder of masks -> nnU-Net raw dataset."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np

from dataset_conversion.cases import fill
from dataset_conversion.ledger import Ledger
from dataset_conversion.options import PairsOptions
from dataset_conversion.pictures import Decoded, folder_pairs, picture_content
from dataset_conversion.rules import map_mask, parse_value_map
from dataset_conversion.source import Source, child, open_source
from dataset_conversion.target import Conversion, new_dataset
from jdm.errors import ConfigError

IMAGES, MASKS = ("images", "image", "imgs"), ("masks", "mask", "labels")
"""Folders of an archive that holds both."""


def convert_pairs(options: PairsOptions) -> Conversion:
    """Convert, and return what was made.

    Raises: DataError for missing counterparts, clashing stems, images of several bit depths, nothing left to train on,
        or, with `strict`, any refusal or duplicate; ExistsError, ConfigError as `new_dataset`.
    """
    values = parse_value_map(options.labels)
    if options.test_masks is not None and options.test_images is None:
        raise ConfigError("--test-masks without --test-images: expected both; add --test-images FOLDER")
    asked = {
        "converter": "pairs", "images": str(options.images), "masks": str(options.masks),
        "test images": str(options.test_images), "test masks": str(options.test_masks),
        "labels": " ".join(options.labels),
    }  # fmt: skip

    def decode(mask: np.ndarray, kind: str, where: Path) -> Decoded:
        return Decoded(*map_mask(mask, kind, values, where))

    with contextlib.ExitStack() as stack:
        sources: dict[Path, Source] = {}  # the same archive may hold images and masks

        def opened(path: Path, names: tuple[str, ...]) -> Path:
            if path not in sources:
                sources[path] = stack.enter_context(open_source(path))
            return _folder_of(sources[path], names)

        def shown(text: str) -> str:
            for source in sources.values():
                text = source.shown(text)
            return text

        ledger = Ledger(asked, shown=shown)
        partial, final = stack.enter_context(
            new_dataset(options.id, options.name, options.overwrite, options.check)
        )  # fmt: skip
        pictures = folder_pairs("train", opened(options.images, IMAGES), opened(options.masks, MASKS), decode, ledger)
        if options.test_images is not None:
            masks = opened(options.test_masks, MASKS) if options.test_masks else None
            pictures += folder_pairs("test", opened(options.test_images, IMAGES), masks, decode, ledger)
        return fill(partial, final, picture_content(pictures, values.labels), ledger, options.strict)


def _folder_of(source: Source, names: tuple[str, ...]) -> Path:
    """The folder of the files: of an archive, past folders that hold only another one, then the one of these names."""
    folder = source.root
    while source.root != source.given:
        inner = [f for f in folder.iterdir() if not f.name.startswith(".") and f.name != "__MACOSX"]
        if len(inner) != 1 or not inner[0].is_dir():
            break
        folder = inner[0]
    named = child(folder, *names) if source.root != source.given else None
    return named or folder
