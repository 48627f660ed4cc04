"""The COVID-19 image data collection: chest X-rays (and CT slices, which are left out) with a finding.

Layout: `images/` and metadata.csv with, among others, the columns patientid, finding, modality and filename. Source:
Cohen et al. 2020, "COVID-19 image data collection: prospective predictions are the future".
"""

from __future__ import annotations

from pathlib import Path
from unicodedata import normalize

from dataset_conversion.cases import Content, convert
from dataset_conversion.ledger import Ledger
from dataset_conversion.options import CovidCxrOptions
from dataset_conversion.rules import plain_name
from dataset_conversion.source import child, missing_layout, visible
from dataset_conversion.tables import is_plain_file_name, read_table
from dataset_conversion.target import Conversion
from dataset_conversion.xrays import Xray, xray_content
from jdm.errors import DataError

TABLE, IMAGES = "metadata.csv", "images"
COLUMNS = ("patientid", "finding", "modality", "filename")


def convert_covid_cxr(options: CovidCxrOptions) -> Conversion:
    """Convert images with a class and no mask. Raises: as `convert`."""
    return convert(options, "covid-cxr", "CovidCXR", _gather)


def class_of(finding: str) -> str:
    """The most specific part of a finding: COVID-19 of Pneumonia/Viral/COVID-19 (older tables: COVID-19)."""
    return plain_name(finding.rpartition("/")[2].strip() or "unknown")


def _gather(root: Path, ledger: Ledger) -> Content:
    folder = next((f for f in visible(root, folders=True) if (f / TABLE).is_file() and child(f, IMAGES)), None)
    if folder is None:
        raise missing_layout(root, f"{TABLE} beside a folder {IMAGES}")
    images = child(folder, IMAGES)
    assert images is not None
    rows, _ = read_table(folder / TABLE, COLUMNS)
    outside = [row["filename"] for row in rows if not is_plain_file_name(row["filename"])]
    if outside:
        raise DataError(
            f"{folder / TABLE}: names {outside[0][:100]!r}; expected plain file names in {IMAGES}; correct it"
        )
    there = {normalize("NFC", path.name): path for path in sorted(images.iterdir())}
    named = {name: there.get(normalize("NFC", name), images / name) for name in (row["filename"] for row in rows)}
    xrays: list[Xray] = []
    stems: set[str] = set()
    for row in rows:
        path = named[row["filename"]]
        if row["modality"].lower() != "x-ray":
            ledger.add("ignored", "test", None, [path], [f"modality {row['modality'] or 'not given'}, not X-ray"])
        elif not path.is_file():
            ledger.add("refused", "test", None, [path], [f"{path}: no such file, though {TABLE} names it"])
        elif path.name.lower() in stems:
            ledger.add("ignored", "test", None, [path], [f"{TABLE} names it twice; the first row counts"])
        else:
            stems.add(path.name.lower())
            patient = f"patient_{row['patientid']}" if row["patientid"] else None
            xrays.append(Xray(_stem(path, rows), path, class_of(row["finding"]), "X-ray", patient))
    for path in sorted({*there.values()} - {*named.values()}):
        ledger.add("ignored", "test", None, [path], [f"not named in {TABLE}"])
    return xray_content(xrays, ledger)


def _stem(path: Path, rows: list[dict[str, str]]) -> str:
    """The stem, or the whole name if files differ only in their ending."""
    same = {row["filename"].lower() for row in rows if Path(row["filename"]).stem.lower() == path.stem.lower()}
    return path.stem if len(same) < 2 else path.name
