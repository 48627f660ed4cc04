"""Measures a dataset's fingerprint."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jdm.config.facts import Fingerprint
from jdm.data.raw_dataset import RawDataset, nnunet_folder, read_case, slice_axis
from jdm.errors import ConfigError
from jdm.plan.intensities import CT, Z_SCORE, intensities
from jdm.plan.masks import mask_facts
from jdm.plan.survey import Survey, distinct_layouts

WIDEST_SPACING = -1
"""Instead of a slice axis: for volumes, the axis of widest spacing, as in nnU-Net's 2d configuration."""
_NORMALIZATION = {
    "ct": CT, "nonorm": "NoNormalization", "zscore": Z_SCORE, "rescale_to_0_1": "RescaleTo01Normalization",
    "rgb_to_0_1": "RGBTo01Normalization",
}  # fmt: skip
"""nnU-Net's normalisation by channel name (map_channel_name_to_normalization.py of 2.8.1); z-score for any other."""
_SIDED_LABEL = re.compile(r"(?<![a-z])(left|right|lv|rv|la|ra)(?![a-z])")
_WORD_ENDS = re.compile(r"_|(?<=[a-z])(?=[A-Z])")  # as in LeftKidney
_BODY_CHANNEL = re.compile(r"(ct|mri?)(?![a-z])|x-?ray|radiograph")


def fingerprint(
    dataset: RawDataset, case_ids: Sequence[str], wanted_axis: int | None = WIDEST_SPACING,
    classes: Mapping[str, str] | None = None, dims: int | None = 2,
) -> Fingerprint:  # fmt: skip
    """Measure the cases, one in memory at a time.

    Args:
        wanted_axis: array axis along which volumes are sliced; None for pictures, and for volumes as a whole.
        dims: 3: volumes are to be trained as a whole; 2: as slices; None: as nnU-Net would, see `_as_volumes`.
        classes: class by case, for a model conditioned on it; empty if a case has none.
    Raises: ConfigError if the cases have no such axis; DataError as `read_case`.
    """
    rng = np.random.default_rng(0)
    survey = Survey(dataset.classes)
    for case_id in case_ids:
        survey.add(read_case(dataset, case_id), rng)
    reason = ""
    if dims is None:
        whole, reason = _as_volumes(dataset, survey)
        dims, wanted_axis = (3, None) if whole else (2, wanted_axis)
    axis = _slice_axis(dataset, survey, wanted_axis, dims)
    return Fingerprint(
        channel_names=dataset.channel_names,
        labels=tuple(dataset.labels),
        file_ending=dataset.file_ending,
        reader=dataset.reader,
        class_shares=tuple(np.mean(survey.class_shares, axis=0).tolist()),
        slice_axis=axis,
        volumes=reason,
        **intensities(survey, normalization(dataset)),
        **_planes(survey, axis, _trained_spacing(dataset, survey, dims)),
        **_symmetry(dataset, survey),
        **_classes(classes or {}, case_ids, survey),
    )


def normalization(dataset: RawDataset) -> list[str]:
    """nnU-Net's normalisation of each channel: that of its plans, or what its planner would choose."""
    schemes = _nnunet_plans(dataset).get("configurations", {}).get("2d", {}).get("normalization_schemes")
    if isinstance(schemes, list) and len(schemes) == len(dataset.channel_names):
        return [str(scheme) for scheme in schemes]
    return [_NORMALIZATION.get(name.casefold(), Z_SCORE) for name in dataset.channel_names]


def planned_patch(dataset: RawDataset, slice_axis: int | None, dims: int = 2) -> tuple[int, ...] | None:
    """nnU-Net's patch for the dataset, in the order of our axes; None if it has not been planned for such samples.

    Args:
        slice_axis: None for pictures, and for volumes as a whole.
        dims: 3: the patch of 3d_fullres; 2: that of 2d, if its slices lie along `slice_axis`.
    """
    plans = _nnunet_plans(dataset)
    try:
        patch = plans["configurations"]["3d_fullres" if dims == 3 else "2d"]["patch_size"]
        sides = tuple(int(side) for side in patch)
        if dims == 3:
            order = plans["transpose_forward"]
            sides = tuple(sides[order.index(axis)] for axis in range(3))
        same = dims == 3 or slice_axis is None or plans["transpose_forward"][0] == slice_axis
        return sides if same and len(sides) == dims else None
    except (AttributeError, KeyError, IndexError, TypeError, ValueError):
        return None


def _nnunet_plans(dataset: RawDataset) -> dict[str, Any]:
    """nnU-Net's plans of the dataset; empty where there are none, or none that can be read."""
    try:
        path = nnunet_folder("nnUNet_preprocessed") / dataset.name / "nnUNetPlans.json"
        plans = json.loads(path.read_text(encoding="utf-8"))
        usable = isinstance(plans, dict) and isinstance(plans.get("configurations"), dict)
        return plans if usable and isinstance(plans["configurations"].get("2d"), dict) else {}
    except (ConfigError, OSError, ValueError, RecursionError):
        return {}


_FEWEST_SLICES = 8
"""Voxels along the shortest side of a volume that nnU-Net has not planned, if it is trained as a volume."""


def _as_volumes(dataset: RawDataset, survey: Survey) -> tuple[bool, str]:
    """Whether the cases are trained as volumes, and why: where nnU-Net's plans have 3d_fullres.

    nnU-Net plans it for volumes of more than one slice. Without plans they are trained so if they have slices enough to
    be more than a stack of images.
    """
    sides = np.median(np.array(survey.shapes), axis=0)
    if len(sides) == 2:
        return False, ""
    if plans := _nnunet_plans(dataset):
        there = "3d_fullres" in plans["configurations"]
        return there, f"nnU-Net's plans {'have' if there else 'do not have'} 3d_fullres"
    thinnest = int(sides.min())
    if thinnest < _FEWEST_SLICES:
        return False, f"slices: the shortest side has {thinnest} voxels, and 3-D training takes {_FEWEST_SLICES}"
    return True, f"as nnU-Net's 3d_fullres: the shortest side has {thinnest} voxels, at least {_FEWEST_SLICES}"


def _trained_spacing(dataset: RawDataset, survey: Survey, dims: int) -> np.ndarray:
    """Spacing to which cases are resampled: the median; for volumes as a whole, that of nnU-Net's 3d_fullres.

    Without plans it is what nnU-Net would plan (determine_fullres_target_spacing of 2.8.1): along an axis more than
    three times as coarse as the others, and with less than a third of their voxels, the tenth percentile.
    """
    spacings, sides = np.array(survey.spacings), np.median(np.array(survey.shapes), axis=0)
    median = np.median(spacings, axis=0)
    if dims == 2:
        return median
    try:
        plans = _nnunet_plans(dataset)
        planned = [float(step) for step in plans["configurations"]["3d_fullres"]["spacing"]]
        return np.array([planned[plans["transpose_forward"].index(axis)] for axis in range(3)])
    except (AttributeError, KeyError, IndexError, TypeError, ValueError):
        worst = int(median.argmax())
        others = [axis for axis in range(3) if axis != worst]
        if median[worst] > 3 * median[others].max() and 3 * sides[worst] < sides[others].min():
            median[worst] = max(median[others].max(), np.percentile(spacings[:, worst], 10))
        return median


def _slice_axis(dataset: RawDataset, survey: Survey, wanted: int | None, dims: int) -> int | None:
    """The array axis along which the cases are sliced; None for pictures, and for volumes as a whole."""
    spacing = np.median(np.array(survey.spacings), axis=0)
    if dims == 3 and (len(spacing) == 2 or wanted is not None):
        found = "pictures" if len(spacing) == 2 else f"to be sliced along axis {wanted}"
        raise ConfigError(
            f"setting data.dims is 3, but the cases of {dataset.name} are {found}; expected volumes as a whole; leave "
            "one of the settings out"
        )
    if (wanted is None and len(spacing) == dims) or (len(spacing) == 2 and wanted == WIDEST_SPACING):
        return None
    if len(spacing) == 3 and wanted is not None:
        return slice_axis(survey.shapes, tuple(spacing.tolist())) if wanted == WIDEST_SPACING else wanted
    kind, expected = ("pictures", "none") if len(spacing) == 2 else ("volumes", "0, 1 or 2")
    raise ConfigError(
        f"setting data.slice_axis is {'none' if wanted is None else wanted}, but the cases of {dataset.name} are "
        f"{kind}; expected {expected}; correct it, or leave it out"
    )


def _planes(survey: Survey, axis: int | None, spacing: np.ndarray) -> dict[str, Any]:
    """Spacing, sizes and masks of what is trained on: images, or slices across the axis."""
    order = [k for k in range(len(spacing)) if k != axis]
    sizes: Counter[tuple[tuple[int, ...], int]] = Counter()
    for shape, own, varied in zip(survey.shapes, survey.spacings, survey.varied, strict=True):
        plane = tuple(round(shape[k] * float(own[k] / spacing[k])) for k in order)  # as scipy.ndimage.zoom rounds
        sizes[plane, 1 if axis is None else int(np.count_nonzero(varied[axis]))] += 1
    largest = tuple(max(plane[k] for plane, _ in sizes) for k in range(len(order)))
    direction, stored = Counter(survey.directions).most_common(1)[0][0]
    return {
        "spacing": tuple(float(s) for s in spacing[order]),
        "slice_spacing": 1.0 if axis is None else float(spacing[axis]),
        "direction": direction,
        "stored_axes": stored,
        "sizes": tuple((plane, slices, count) for (plane, slices), count in sorted(sizes.items())),
        **mask_facts(survey, axis, spacing, largest),
    }


def _symmetry(dataset: RawDataset, survey: Survey) -> dict[str, Any]:
    """Axes along which mirrored cases look like real ones, whether cases rotated by 90 degrees do, and why."""
    if not survey.layouts:
        return {"mirror_axes": (), "quarter_turns": False, "symmetry": "volumes are not mirrored"}
    vetoes = [label for label in dataset.labels if _SIDED_LABEL.search(_WORD_ENDS.sub(" ", label).lower())]
    vetoes += [name for name in dataset.channel_names if _BODY_CHANNEL.match(name.lower())]
    if vetoes:
        return {"mirror_axes": (), "quarter_turns": False, "symmetry": f"{vetoes[0]!r} has a left and a right"}
    distinct = [distinct_layouts(survey.layouts, kind) for kind in range(3)]
    axes = tuple(axis for axis in range(2) if not distinct[axis])
    square = all(shape[0] == shape[1] for shape in survey.shapes)
    if len(axes) < 2:
        what = " and ".join(str(axis) for axis in range(2) if axis not in axes)
        reason = f"masks or brightness differ when mirrored along axis {what}"
    else:
        reason = "mirrored masks lie where real ones do"
    return {"mirror_axes": axes, "quarter_turns": square and not any(distinct), "symmetry": reason}


def _classes(classes: Mapping[str, str], case_ids: Sequence[str], survey: Survey) -> dict[str, Any]:
    """Names of the case-level classes, sorted, and the number of cases and pixels of each."""
    sizes: dict[str, tuple[int, int]] = {}
    for case, shape in zip(case_ids, survey.shapes, strict=True):
        if name := classes.get(case):
            cases, pixels = sizes.get(name, (0, 0))
            sizes[name] = cases + 1, pixels + int(np.prod(shape))
    names = tuple(sorted(sizes))
    return {"class_names": names, "class_sizes": tuple(sizes[name] for name in names)}
