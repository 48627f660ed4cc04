"""The labels declared in a dataset.json: classes, regions of several values, and the ignore label."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jdm.data.raw_layout import few
from jdm.errors import DataError

DeclaredLabels = Mapping[str, int | tuple[int, ...]]
"""As in dataset.json: the value of each class, the values of each region, and the value of "ignore"."""
IGNORE = "ignore"
NO_MASKS = {"background": 0}
"""Labels of a dataset whose images have no masks."""


def declared_labels(path: Path, content: dict[str, Any]) -> dict[str, int | tuple[int, ...]]:
    """Labels of a dataset.json as nnU-Net reads them, including regions and an ignore label.

    Raises: DataError unless each label is an integer (for a region, a list of integers), background is 0, and the
        ignore label, if any, is not a class.
    """
    labels = content.get("labels")
    if not isinstance(labels, dict) or not labels:
        raise DataError(f'{path}: labels is {labels!r}; expected {{"background": 0, "name": 1, ...}}; correct it')
    found: dict[str, int | tuple[int, ...]] = {}
    for name, value in labels.items():
        region = isinstance(value, list) and name not in ("background", IGNORE)
        values: list[Any] = value if region else [value]
        if not values or any(type(v) is not int or v < 0 for v in values):
            raise DataError(
                f"{path}: label {name!r} is {value!r}; expected consecutive integers 0 (background), 1, 2, ..., or a "
                "list of them for a region; correct it"
            )
        found[name] = tuple(values) if region else values[0]
    classes, ignore = classes_and_ignore(found)
    no_class = not classes and labels != NO_MASKS
    if found.get("background", 0) != 0 or no_class or any(ignore in values for values in classes.values()):
        raise DataError(
            f"{path}: labels are {labels!r}; expected background 0, at least one class (none: images without masks), "
            "and no ignore label that is also a class; correct it"
        )
    return found


def classes_and_ignore(labels: DeclaredLabels) -> tuple[dict[str, tuple[int, ...]], int | None]:
    """The values of each class or region, without background, and the value to ignore or None."""
    classes = {name: (value,) if isinstance(value, int) else tuple(value) for name, value in labels.items()}
    ignore = classes.pop(IGNORE, (None,))[0]
    return {name: values for name, values in classes.items() if set(values) != {0}}, ignore


def parse_labels(path: Path, content: dict[str, Any]) -> dict[str, int]:
    """Labels of a dataset.json that jdm can train on, sorted by value.

    Raises: DataError unless they are consecutive integers with background 0, without regions or an ignore label.
    """
    labels = declared_labels(path, content)
    regions = [name for name, value in labels.items() if isinstance(value, tuple)]
    if regions or content.get("regions_class_order"):
        raise DataError(
            f"{path}: labels has regions ({few(regions) or 'regions_class_order'}); regions are not supported yet; "
            "declare one integer per class"
        )
    if IGNORE in labels:
        raise DataError(
            f"{path}: labels has an ignore label ({labels[IGNORE]!r}); an ignore label is not supported yet; "
            "leave out the cases that use it, or annotate them fully"
        )
    values = {name: value for name, value in labels.items() if isinstance(value, int)}
    if sorted(values.values()) != list(range(len(values))):
        raise DataError(
            f"{path}: labels are {labels!r}; expected the consecutive integers 0 (background), 1, 2, ...; correct it"
        )
    return dict(sorted(values.items(), key=lambda item: item[1]))
