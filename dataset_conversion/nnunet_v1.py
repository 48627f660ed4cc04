"""A raw dataset of nnU-Net v1 (`TaskNNN_Name`) -> nnU-Net v2.

Layout: `imagesTr/<case>_0000.nii.gz ..`, `labelsTr/<case>.nii.gz`, `imagesTs/<case>_0000.nii.gz ..` (and `labelsTs` in
some copies); dataset.json with `modality` and `labels` keyed by number. Source: documentation/convert_msd_dataset.md
and dataset_format.md of nnU-Net.
"""

from __future__ import annotations

from pathlib import Path

from dataset_conversion.cases import Content, convert
from dataset_conversion.ledger import Ledger
from dataset_conversion.msd import default_name, read_names, task_folder
from dataset_conversion.options import NnunetV1Options
from dataset_conversion.rules import pair_by_stem
from dataset_conversion.target import Conversion
from dataset_conversion.volumes import ENDING, by_channel, inferred_labels, list_volumes, valid_labels, volume_items
from jdm.errors import DataError

Files = dict[str, tuple[list[Path], Path | None]]
"""Images by channel, and label, by case."""


def convert_nnunet_v1(options: NnunetV1Options) -> Conversion:
    """Convert a dataset. Raises: as `convert`; DataError for missing channels or labels."""
    return convert(options, "nnunet-v1", default_name(options.source), _gather)


def _gather(root: Path, ledger: Ledger) -> Content:
    source = task_folder(root)
    names = read_names(source)
    training, test = _files(source, "Tr", ledger), _files(source, "Ts", ledger)
    if not training:
        raise DataError(f"{source / 'imagesTr'}: holds no NIfTI images; expected <case>_0000.nii.gz; correct the path")
    labels, decode = names.labels, valid_labels(names.labels or {})
    if labels is None:
        labels, decode = inferred_labels([label for _, label in training.values() if label], ledger)
    cases = [
        (split, stem, images, label)
        for split, files in (("train", training), ("test", test))
        for stem, (images, label) in files.items()
    ]
    return Content(volume_items(cases, decode), labels, ENDING, names.channels)


def _files(source: Path, suffix: str, ledger: Ledger) -> Files:
    """Cases of imagesTr or imagesTs, sorted; the folder of test labels may be missing.

    Raises: DataError for names without a channel number, missing channels, or unmatched images and labels.
    """
    folders = source / f"images{suffix}", source / f"labels{suffix}"
    split = "train" if suffix == "Tr" else "test"
    images, labels = (list_volumes(folder, split, ledger) for folder in folders)
    ordered = by_channel(images, folders[0])
    if suffix == "Ts" and not labels:
        return {case: (files, None) for case, files in ordered.items()}
    firsts = {case: files[0] for case, files in ordered.items()}
    return {case: (ordered[case], labels[case]) for case in pair_by_stem(firsts, labels, folders)}
