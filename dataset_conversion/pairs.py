"""A folder of images and a folder of masks, pictures or volumes -> nnU-Net raw dataset."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from dataset_conversion.cases import Content, fill
from dataset_conversion.coding import Coding, collapsed, decode_mask, parse_coding
from dataset_conversion.fitting import Mask, fitting_flags
from dataset_conversion.ledger import Ledger
from dataset_conversion.options import PairsOptions
from dataset_conversion.pictures import Decoded, folder_pairs, picture_content
from dataset_conversion.rules import list_pictures, pair_by_stem, read_source
from dataset_conversion.source import Source, child, open_source
from dataset_conversion.target import Conversion, new_dataset
from dataset_conversion.volumes import ENDING, Case, by_channel, list_volumes, volume_items
from jdm.data.image_io import read_raster
from jdm.data.raster import KIND_OF_ENDING, VOLUME_ENDINGS, ending_of
from jdm.errors import ConfigError, DataError

IMAGES, MASKS = ("images", "image", "imgs"), ("masks", "mask", "labels")
"""Names of the folders in an archive that holds both."""
Folders = Mapping[str, tuple[Path, Path | None]]
"""Images and masks of each split."""


def convert_pairs(options: PairsOptions) -> Conversion:
    """Convert two folders.

    Raises: DataError for missing counterparts, clashing stems, images of several bit depths, pictures among volumes,
        or as `fill`; ExistsError, ConfigError as `new_dataset`.
    """
    coding = parse_coding(options.labels, options.threshold)
    if options.test_masks is not None and options.test_images is None:
        raise ConfigError("--test-masks without --test-images: expected both; add --test-images FOLDER")
    asked = {
        "converter": "pairs", "images": str(options.images), "masks": str(options.masks),
        "test images": str(options.test_images), "test masks": str(options.test_masks),
        "labels": " ".join(options.labels),
    }  # fmt: skip
    if options.threshold is not None:
        asked["threshold"] = f"{options.threshold:g}"
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

        target = stack.enter_context(new_dataset(options.id, options.name, options.overwrite, options.check))
        given = {"train": (options.images, options.masks), "test": (options.test_images, options.test_masks)}
        folders = {
            split: (opened(images, IMAGES), opened(masks, MASKS) if masks else None)
            for split, (images, masks) in given.items()
            if images
        }
        for images, masks in folders.values():
            if masks is not None and images.resolve() == masks.resolve():
                raise DataError(f"{images}: is given for both images and masks; expected two folders; separate them")
        ledger = Ledger(asked, shown=shown)
        gather = _volumes if _are_volumes(folders) else _pictures
        return fill(target, gather(folders, coding, ledger), ledger, options.strict, options.groups)


def _folder_of(source: Source, names: tuple[str, ...]) -> Path:
    """The folder of the files; in an archive, skips folders that hold only another folder, then looks for `names`."""
    folder = source.root
    while source.root != source.given:
        inner = [f for f in folder.iterdir() if not f.name.startswith(".") and f.name != "__MACOSX"]
        if len(inner) != 1 or not inner[0].is_dir():
            break
        folder = inner[0]
    named = child(folder, *names) if source.root != source.given else None
    return named or folder


def _are_volumes(folders: Folders) -> bool:
    """Whether the folders hold volumes rather than pictures. Raises: DataError if they hold both."""
    kinds: dict[bool, list[Path]] = {True: [], False: []}
    for folder in [folder for pair in folders.values() for folder in pair if folder is not None]:
        for path in sorted(folder.iterdir()):
            ending = ending_of(path)
            if not path.name.startswith(".") and path.is_file() and ending in (*VOLUME_ENDINGS, *KIND_OF_ENDING):
                kinds[ending in VOLUME_ENDINGS].append(path)
    volumes, pictures = kinds[True], kinds[False]
    if volumes and pictures:
        raise DataError(
            f"the folders hold {len(pictures)} pictures (such as {pictures[0]}) and {len(volumes)} volumes (such as "
            f"{volumes[0]}); expected one kind; move one kind elsewhere, and convert it separately"
        )
    return bool(volumes)


def _pictures(folders: Folders, coding: Coding, ledger: Ledger) -> Content:
    """Pictures with the same names as their masks, or as in nnU-Net's folders: image a_0000 and mask a."""
    stems = {split: (list_pictures(i)[0], list_pictures(m)[0] if m else {}) for split, (i, m) in folders.items()}
    numbered = _are_numbered(*stems["train"])

    def read(path: Path) -> Mask:
        raster, kind, _ = read_source(path, label=True)
        return Mask(collapsed(raster.array, kind == "jpeg", path)[0], kind == "jpeg", raster.palette)

    masks = [path for _, found in stems.values() for path in found.values()]
    advice = functools.cache(lambda: fitting_flags(_readable(masks, read), coding))

    def decode(mask: np.ndarray, kind: str, where: Path) -> Decoded:
        return Decoded(*decode_mask(mask, kind == "jpeg", where, coding, advice))

    def plain(stem: str) -> str:
        return stem.removesuffix("_0000") if numbered else stem

    def of_image(stem: str) -> str:
        return f"{stem}_0000" if numbered else stem

    pictures = [
        picture
        for split, (images, labels) in folders.items()
        for picture in folder_pairs(split, images, labels, decode, ledger, mask_stem=of_image, stem=plain)
    ]
    return picture_content(pictures, coding.labels)


def _volumes(folders: Folders, coding: Coding, ledger: Ledger) -> Content:
    """Volumes with the same names as their labels, or as in nnU-Net's folders: images a_0000, a_0001 and label a."""
    stems = {
        split: tuple(list_volumes(folder, split, ledger, VOLUME_ENDINGS) if folder else {} for folder in pair)
        for split, pair in folders.items()
    }
    numbered = _are_numbered(*stems["train"])

    def read(path: Path) -> Mask:
        return Mask(collapsed(read_raster(path, label=True).array, False, path)[0])

    masks = [path for _, found in stems.values() for path in found.values()]
    advice = functools.cache(lambda: fitting_flags(_readable(masks, read), coding))

    def decode(label: np.ndarray, where: Path) -> tuple[np.ndarray, list[str]]:
        return decode_mask(label, False, where, coding, advice)

    cases: list[Case] = []
    for split, (images, labels) in stems.items():
        where, masked = folders[split]
        files = by_channel(images, where) if numbered else {stem: [path] for stem, path in images.items()}
        if masked is not None:
            pair_by_stem({case: paths[0] for case, paths in files.items()}, labels, (where, masked))
        cases += [(split, case, files[case], labels.get(case)) for case in sorted(files)]
    return Content(volume_items(cases, decode), coding.labels, ENDING, None)


def _are_numbered(images: Mapping[str, Path], masks: Mapping[str, Path]) -> bool:
    """Whether images have channel numbers that their masks lack."""
    return not images.keys() & masks.keys() and all(re.fullmatch(r".+_\d{4}", stem) for stem in images)


def _readable(paths: Sequence[Path], read: Callable[[Path], Mask]) -> Iterator[Mask]:
    """Masks one by one, without those that are refused regardless of their values."""
    for path in tqdm(paths, desc="reading mask values", unit="mask", disable=None, leave=False):
        with contextlib.suppress(DataError):
            yield read(path)
