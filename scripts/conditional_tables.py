"""results.md of conditionals.py, from its results.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jdm.evaluation.tables import Table, table_markdown

Found = Mapping[str, Any]


def markdown(content: Found) -> str:
    """The results part by part, with the sheets."""
    generator, settings, parts = content["generator"], content["settings"], content["parts"]
    head = [
        f"Checkpoint {generator['sha256'][:12]}, step {generator['step']}.",
        f"{settings['sampler']}, {settings['steps']} steps.",
    ]
    if parts.keys() & {"masks", "images", "compare"}:
        head.append(
            f"Conditions are the first {len(content['conditions'])} test cases, {_slices(settings['planes'])} of each."
        )
    if parts.keys() & {"inpaint", "vary", "interpolate", "channels"}:
        held_out = sum(case in generator["held_out_ids"] for case in content["edited"])
        head.append(
            f"Edits start from {len(content['edited'])} training cases (held out of the generator's training: "
            f"{held_out})."
        )
    if parts.keys() - {"classes"}:
        head.append(
            f"{settings['samples']} samples of each. Distances are root mean square differences of images in encoded "
            "intensity, whose range is [-1, 1]. Dice is the mean over classes and over cases, of a case over its "
            "slices together; in brackets 95 % bootstrap intervals over cases."
        )
    text = [f"# {generator['dataset']}, fold {generator['fold']}: what conditions do", " ".join(head)]
    for name, (title, picture, section) in SECTIONS.items():
        if found := parts.get(name):
            run = found["run"]
            text += [f"## {title}", *section(found, settings), f"![{picture.replace('_', ' ')}]({picture}.png)"]
            text.append(
                f"`{run['command']}` at commit {run['commit']}; {run['hardware']}; {found['cpu_minutes']:.1f} minutes "
                "of CPU time."
            )
    return "\n\n".join(text) + "\n"


def _masks(found: Found, _: Found) -> list[str]:
    names = {"ceiling": "real images (ceiling)", "samples": "sampled images", "samples_minus_ceiling": "difference"}
    return [
        _table("images", ["Dice"], _rows(found, names)),
        f"The segmenter is the experiment's nnU-Net of real cases only. {found['mask_pixels_changed']} pixels of the "
        "given masks were changed.",
    ]


def _images(found: Found, settings: Found) -> list[str]:
    way = "estimated" if found["estimated"] else "majority"
    names = {
        "nnunet": "nnU-Net",
        **({"jdm": "jdm, estimated"} if found["estimated"] else {}),
        "majority": f"jdm, majority of {settings['samples']} samples",
        "single_sample": "jdm, single samples",
        "jdm_minus_nnunet": f"jdm, {way}, minus nnU-Net",
    }
    return [
        _table("masks", ["Dice"], _rows(found, names)),
        f"Mean entropy of the probabilities ({way}): {found['entropy_where_right']:.3f} of its maximum where the most "
        f"probable label is right, {found['entropy_where_wrong']:.3f} where it is wrong.",
    ]


def _inpaint(found: Found, settings: Found) -> list[str]:
    names = ("border_step", "foreground_found", "foreground_given", "distance_inside")
    rows = [
        (title, *(f"{found[f'{key}_{name}']:.3f}" for name in names))
        for key, title in (("real", "real"), ("anew", "image and mask anew"), ("removed", "mask emptied"))
    ]
    changed = found["pixels_changed_outside"]
    header = ["step across the border", "foreground found", "foreground in the mask", "distance inside"]
    return [
        f"Pixels changed outside the box, of {found['cases']} cases, {settings['samples']} samples, two ways: "
        f"{changed['image']} of the image, {changed['label']} of the mask.",
        _table("", header, rows),
        "Step: mean absolute difference of neighbours on both sides of the box's border, of the range of intensities. "
        "Foreground found: share of the box that the segmenter takes for foreground.",
    ]


def _vary(found: Found, _: Found) -> list[str]:
    names = ("distance", "mask_dice_to_original", "segmenter_dice")
    rows = [(f"{row['level']:g}", *(_interval(row[name]) for name in names)) for row in found["rows"]]
    header = ["distance to the original", "Dice of the two masks", "Dice of the segmenter's mask and the sample's"]
    return [
        _table("level", header, rows),
        f"Sampled by {found['sampler']}, {found['steps']} steps. The distance grows with every level in "
        f"{found['monotone']} of {found['of']} samples, and in the mean: {_said(found['monotone_mean'])}. On the "
        f"originals the segmenter has {_interval(found['segmenter_dice_real'])}.",
    ]


def _interpolate(found: Found, _: Found) -> list[str]:
    names = {"pairs": "two pairs", "noise": "two noises"}
    kinds = [(title, found[name]) for name, title in names.items() if name in found]
    points = len(kinds[0][1]["distance"])
    rows = [
        (f"{name}, {some['strips']} strips", *(f"{value:.3f}" for value in some["distance"])) for name, some in kinds
    ]
    monotone = "; ".join(
        f"between {name} in {some['monotone']} of {some['strips']} strips (in the mean: {_said(some['monotone_mean'])})"
        for name, some in kinds
    )
    text = f"Sampled by {found['sampler']}, {found['steps']} steps. It grows at every point {monotone}."
    if found["back_from_inversion"] is not None:
        text += f" A real slice comes back from its inversion at a distance of {found['back_from_inversion']:.3f}."
    return [
        "Distance from the first end.",
        _table("between", [f"{k / (points - 1):.2f}" for k in range(points)], rows),
        text,
    ]


def _channels(found: Found, _: Found) -> list[str]:
    names = {"distance_own": "their own case", "distance_other": "the other cases", "other_minus_own": "difference"}
    return [
        _table("sampled channels, to those of", ["distance"], _rows(found, names)),
        f"Channel {found['known']} is known in the middle of {found['cases']} cases, the others and the mask are "
        f"sampled. {found['known_pixels_changed']} of its pixels were changed. Dice of the sampled masks against the "
        f"references: {_interval(found['mask_dice'])}.",
    ]


def _classes(found: Found, _: Found) -> list[str]:
    rows = [
        (row["class"], row["images"], str(row["pairs"]), *(f"{share:.3f}" for share in row["shares"]))
        for row in found["rows"]
    ]
    return [
        _table("class", ["of", "pairs", *found["labels"]], rows),
        "Scale: that of classifier-free guidance; 1 is none. Shares: of the foreground pixels of all pairs of a row.",
    ]


def _compare(found: Found, _: Found) -> list[str]:
    lines = []
    for condition, title, dice in (
        ("given-masks", "mask to image", {"dice": "Dice"}),
        ("given-images", "image to mask", {"dice": "Dice of the majority", "single_sample": "of single samples"}),
    ):
        rows = [
            (
                row["way"],
                *(_interval(row[name]) for name in dice),
                f"{row['evaluations']:.0f}",
                f"{1000 * row['cpu_seconds']:.0f}",
            )
            for row in found["rows"]
            if row["condition"] == condition
        ]
        lines.append(_table(title, [*dice.values(), "evaluations", "CPU ms"], rows))
    ceiling = next(row["ceiling"] for row in found["rows"] if "ceiling" in row)
    return [
        *lines,
        f"{_slices(found['planes']).capitalize()} of each case. Evaluations of the network and CPU time are those of a "
        f"slice of a sample. Mask to image: Dice as above, {_interval(ceiling)} on the real images.",
    ]


SECTIONS: dict[str, tuple[str, str, Callable[[Found, Found], list[str]]]] = {
    "masks": ("Mask to image", "masks_to_images", _masks),
    "images": ("Image to mask", "images_to_masks", _images),
    "inpaint": ("Inpainting", "inpainting", _inpaint),
    "vary": ("Variations", "variations", _vary),
    "interpolate": ("Interpolation", "interpolation", _interpolate),
    "channels": ("One channel known", "channels", _channels),
    "classes": ("Classes", "classes", _classes),
    "compare": ("Exact conditioning, replacement, RePaint", "comparison", _compare),
}
"""Title, picture and paragraphs of each part, in the order of the page."""


def _table(first: str, header: Sequence[str], rows: Sequence[tuple[str, ...]]) -> str:
    return table_markdown(Table("", (first, *header), tuple(rows))).rstrip()


def _rows(found: Found, names: Mapping[str, str]) -> list[tuple[str, ...]]:
    """A row per number, by key and name; differences are signed."""
    return [(name, _interval(found[key], signed="_minus_" in key)) for key, name in names.items()]


def _interval(found: Found, signed: bool = False) -> str:
    form = "+.3f" if signed else ".3f"
    return f"{found['mean']:{form}} [{found['low']:{form}}, {found['high']:{form}}]"


def _slices(number: int) -> str:
    return "all slices" if number == 0 else f"{number} slice{'s' if number > 1 else ''}"


def _said(holds: bool) -> str:
    return "yes" if holds else "no"
