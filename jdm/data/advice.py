"""Commands and flags for error messages, which can be typed as printed."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from jdm.data.raw_layout import used_ids

MOST_VALUES = 16
"""Most values of a mask that are listed one by one; more are grey levels, not classes."""
MOST_COLOURS = 64
"""Most colours of a mask drawn in colour; more indicate a photograph."""


def label_words(found: Collection[float], labels: Mapping[str, float], all_masks: bool = False) -> str | None:
    """Suggested --labels of `jdm-convert pairs` for masks with unexpected values; None if there is no suggestion.

    If the values are class numbers (0, 1, 2 ...) or as many as the classes, they get the class names in order.
    Otherwise expected values keep their names, and every other value gets the name of a new class.

    Args:
        found: the values in the masks.
        labels: expected value by class name, background first.
        all_masks: `found` covers all masks, so names of expected values that do not occur may go to other values.
    """
    names, values = list(labels), sorted(float(value) for value in found)
    if len(values) > MOST_VALUES or not all(value.is_integer() and 0 <= value < 100_000 for value in values):
        return None
    if set(values) <= set(range(len(names))) and 0 in values:
        return labels_flag(dict(enumerate(names)), names[0])
    if len(values) == len(names):
        return labels_flag(dict(zip(values, sorted(names, key=lambda n: labels[n]), strict=True)), names[0])
    meaning = {v: name for name, v in labels.items() if v in values or name == names[0] or not all_masks}
    free = [name for name in names if name not in meaning.values()]
    for value in values:
        if value not in meaning:
            nearest = min(free, key=lambda name: abs(labels[name] - value), default=f"class_{value:.0f}")
            meaning[value] = nearest
            free = [name for name in free if name != nearest]
    return labels_flag(meaning, names[0]) if len({*meaning.values()}) > 1 else None


def labels_flag(meaning: Mapping[float, str], background: str) -> str:
    """The flag for class names by value."""
    order = sorted(meaning, key=lambda value: (meaning[value] != background, value))
    return "--labels " + " ".join(shlex.quote(f"{value:.0f}={meaning[value]}") for value in order)


def map_values(label: Path, found: Collection[float], labels: Mapping[str, float]) -> str:
    """Advice for a label with undeclared values: a command, if its images are found."""
    folder, words, used = label.absolute().parent, label_words(found, labels), used_ids()
    images = folder.with_name(re.sub("labels|masks", "images", folder.name))
    if not words or images == folder or not images.is_dir():
        return "save it with these values"
    paths = f"--images {shlex.quote(str(images))} --masks {shlex.quote(str(folder))}"
    id = next(number for number in range(1, 1000) if number not in used)
    return f"map its values: jdm-convert pairs {paths} --id {id} --name Mapped {words}"


def save_as_rgb(path: Path) -> str:
    """A command that converts a picture to RGB in place."""
    return _python("from PIL import Image; p=sys.argv[1]; Image.open(p).convert('RGB').save(p)", path)


def flatten(path: Path) -> str:
    """A command that flattens a transparent picture onto black, in place."""
    return _python(
        "from PIL import Image; p=sys.argv[1]; i=Image.open(p).convert('RGBA'); b=Image.new('RGBA',i.size,'black'); "
        "b.alpha_composite(i); b.convert('RGB').save(p)", path,
    )  # fmt: skip


def drop_transparency(path: Path) -> str:
    """A command that removes a picture's transparent colour, in place."""
    return _python(
        "from PIL import Image; p=sys.argv[1]; i=Image.open(p); i.load(); i.info.pop('transparency'); i.save(p)", path
    )


def one_channel(path: Path, label: np.ndarray) -> str:
    """Advice for a label (channels, *spatial) whose channels differ: a command, if it has few colours."""
    if label.ndim > 3:
        return f"type: {merge_layers(path)}"
    if len(np.unique(label.reshape(len(label), -1), axis=1).T) > MOST_COLOURS:
        return "check that images and masks are not swapped, or save it with one grey value per class"
    return "type: " + _python("from PIL import Image; p=sys.argv[1]; Image.open(p).convert('L').save(p)", path)


def split_channels(path: Path) -> str:
    """A command that splits a volume with several values per voxel into one file each: case_0000, case_0001, ..."""
    ending = ".nii.gz" if path.name.lower().endswith(".nii.gz") else path.suffix
    stem = path.with_name(path.name[: -len(ending)].removesuffix("_0000"))
    return _python(
        "import os, SimpleITK as s; p,t,e=sys.argv[1:]; i=s.ReadImage(p); f=[t+'_%04d'%c+e for c in "
        "range(i.GetNumberOfComponentsPerPixel())]; [s.WriteImage(s.VectorIndexSelectionCast(i,c),n) for c,n in "
        "enumerate(f)]; p in f or os.remove(p)", path, stem, ending,
    )  # fmt: skip


def merge_layers(path: Path) -> str:
    """A command that merges a layered segmentation into one layer: later layers on top, with distinct values."""
    return _python(
        "import numpy as n, SimpleITK as s; p=sys.argv[1]; i=s.ReadImage(p); d=i.GetDimension(); "
        "a=n.int32(s.GetArrayFromImage(i)); a=n.moveaxis(a,0,-1) if d==4 else a; k=n.cumsum([0,*a.max((0,1,2))])[:-1]; "
        "o=s.GetImageFromArray(n.uint16(n.where(a>0,a+k,0).max(-1))); "
        "o.CopyInformation(i[:,:,:,0] if d==4 else i); s.WriteImage(o,p)", path,
    )  # fmt: skip


def _python(code: str, *arguments: object) -> str:
    """A shell command; the code must not contain double quotes, dollar signs, backquotes or backslashes."""
    return f'python -c "import sys; {code}" ' + " ".join(shlex.quote(str(argument)) for argument in arguments)
