"""Outlines of nuclei in the XML files of Aperio ImageScope.

A file has layers (Annotation) of regions (Region) of vertices. Type, NegativeROA and layer names show what a region is:
a nucleus, something else such as a field of interest, or something doubtful.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from dataset_conversion.xml_files import read_xml
from jdm.data.raster import one_line
from jdm.errors import DataError

POLYGON, RECTANGLE, ELLIPSE = "0", "1", "2"
_TYPES = {POLYGON: "outline", RECTANGLE: "rectangle", ELLIPSE: "ellipse", "3": "arrow", "4": "ruler"}
_DOUBTFUL = re.compile(
    r"ambig|uncertain|unsure|unclear|unknown|doubt|maybe|\?|ignore|exclu|arti?e?fact|blur|out of focus", re.I
)
_NUCLEI = re.compile(r"nucle[uio]|cells?\b|epithelial|lymphocyte|macrophage|neutrophil", re.I)
_OTHER = re.compile(
    r"\broi\b|region of interest|\bfield|bound|border|tissue|tumou?r|stroma|necro|vessel|lumen|gland|duct|background|"
    r"\barea\b|ruler|scale|comment",
    re.I,
)
_ELLIPSE_POINTS = 720
"""Corners of the polygon that approximates an ellipse, to within 1e-5 of the radius."""


@dataclass
class Outlines:
    """Nuclei in an annotation file. Outlines are (n, 2), x and y in pixels; pixel 0 extends from 0 to 1."""

    nuclei: list[np.ndarray] = field(default_factory=list)
    holes: list[np.ndarray] = field(default_factory=list)
    """Regions to be cut out of them."""
    left_out: list[str] = field(default_factory=list)
    """Regions left out, with reasons."""
    taken: list[str] = field(default_factory=list)
    """Regions used, where the reason is worth a note."""


def read_outlines(path: Path) -> Outlines:
    """Nuclei of an Aperio XML file.

    Raises: DataError as `read_xml`; also for non-finite vertices, or far too many regions.
    """
    layers = [(_name(layer), list(layer.iter("Region"))) for layer in read_xml(path, "Annotations").iter("Annotation")]
    any_nuclei = any(_kind(name) == "nuclei" for name, regions in layers if regions)
    found = Outlines()
    for name, regions in layers:
        kind = _kind(name)
        shown = f"layer {name[:60]!r}: " if name else ""
        if kind in ("doubtful", "other") or (kind == "unknown" and any_nuclei):
            why = "in doubt" if kind == "doubtful" else "not nuclei, by its name"
            found.left_out += [f"{shown}{len(regions)} regions left out ({why})"] if regions else []
            continue
        counts = Counter(_add(found, region, path) for region in regions)
        for what, count in sorted(counts.items()):
            if what.startswith("taken"):
                found.taken += [f"{shown}{count} {what.removeprefix('taken ')}"] if name or "ellipse" in what else []
            else:
                found.left_out.append(f"{shown}{count} {what}")
    if len(found.nuclei) > np.iinfo(np.uint16).max:
        raise DataError(f"{path}: has {len(found.nuclei)} regions; expected at most {np.iinfo(np.uint16).max}; cut it")
    return found


def _name(layer: Element) -> str:
    """The layer's names: its own, and those of its attributes, in which some tools store the class."""
    names = [layer.get("Name", "")]
    for attribute in layer.iterfind("Attributes/Attribute"):
        names += [text for key in ("Name", "Value") if (text := attribute.get(key, "")) != "Description"]
    return ", ".join(dict.fromkeys(name.strip() for name in names if name.strip()))


def _kind(name: str) -> str:
    """Kind of a layer by its name: nuclei, other, doubtful, unknown or, without a name, unnamed."""
    if not name:
        return "unnamed"
    for kind, words in (("doubtful", _DOUBTFUL), ("nuclei", _NUCLEI), ("other", _OTHER)):
        if words.search(name):
            return kind
    return "unknown"


def _add(found: Outlines, region: Element, path: Path) -> str:
    """Add a region to the outlines, or leave it out; what was done, beginning with "taken" for nuclei."""
    kind = region.get("Type", "").strip() or POLYGON
    form = _TYPES.get(kind, f"region of type {kind[:20]!r}")
    text = region.get("Text", "").strip()
    if _kind(text) in ("doubtful", "other"):
        return f"{form} left out ({text[:60]!r})"
    negative = region.get("NegativeROA", "").strip() not in ("0", "")
    if form not in ("outline", "ellipse") and not (negative and form == "rectangle"):
        return f"{form} left out"
    vertices = _vertices(region, path)
    if form == "ellipse" and 2 <= len(vertices) <= 4:
        vertices = _ellipse(vertices)
    if len(np.unique(vertices, axis=0)) < 3:
        return "outline of fewer than three points left out"
    if negative:
        found.holes.append(vertices)
        return f"negative {form} cut out"
    found.nuclei.append(vertices)
    return f"taken {form}"


def _vertices(region: Element, path: Path) -> np.ndarray:
    where = f"{path}: region {region.get('Id', '')[:20]!r}"
    try:
        points = [(float(v.attrib["X"]), float(v.attrib["Y"])) for v in region.iter("Vertex")]
    except (KeyError, ValueError) as error:
        raise DataError(f"{where} has a vertex without numbers X and Y ({one_line(error)}); correct it") from None
    vertices = np.array(points, np.float64).reshape(-1, 2)
    if not (np.abs(vertices) < 1e9).all():
        raise DataError(f"{where} has a vertex that is not finite or far off; correct it")
    return vertices


def _ellipse(corners: np.ndarray) -> np.ndarray:
    """The outline of the ellipse in a box, of which ImageScope stores two or four corners."""
    low, high = corners.min(axis=0), corners.max(axis=0)
    if (low == high).any():
        return corners[:1]
    angles = 2 * np.pi * np.arange(_ELLIPSE_POINTS) / _ELLIPSE_POINTS
    return (low + high) / 2 + (high - low) / 2 * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
