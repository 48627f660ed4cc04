"""Variations that `jdm-sample vary` wrote -> a synthetic dataset with the classes of the cases that they vary.

jdm-sample vary 751 all --cases train_covid_001 train_covid_002 --samples 2 --out varied
python scripts/varied_dataset.py varied --id 767

A variation resembles the case that it varies, so that this case counts as one the dataset was generated from, whether
the generator was trained on it or not.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Annotated

import tyro

from jdm.cli import run_command
from jdm.data.classes import FILE_NAME, classes_csv, read_all_classes
from jdm.data.raw_dataset import dataset_name, nnunet_folder, open_dataset, used_ids
from jdm.data.raw_layout import PARTIAL
from jdm.errors import DataError, ExistsError
from jdm.system.files import write_json, write_text


def main(samples: tyro.conf.Positional[Path], id: Annotated[int, tyro.conf.arg(metavar="INT")]) -> None:
    """Copy the samples to a dataset of their own.

    Args:
        samples: Folder that jdm-sample vary wrote.
        id: Of the new dataset.
    """
    record = samples / "samples.json"
    content = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
    if content.get("mode") != "vary":
        raise DataError(f"{samples}: holds no variations (samples.json of mode vary); name a folder of jdm-sample vary")
    generator, sources = content["generator"], content["cases"]
    real = open_dataset(generator["dataset"])
    classes = read_all_classes(real.folder / FILE_NAME, real)
    target = nnunet_folder("nnUNet_raw") / dataset_name(id, f"{real.name[11:]}_varied")
    if others := [str(path) for path in used_ids().get(id, [])]:
        raise ExistsError(f"dataset id {id} is taken by {', '.join(others)}; choose another --id")
    of = {f"{case}_s{n}": case for case in sources for n in range(content["samples"])}
    partial = target.with_name(PARTIAL + target.name)
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(samples, partial, ignore=shutil.ignore_patterns("samples.json", "sheet.png"))
    records = [{"case_id": name, "class": classes[case], "varied": case} for name, case in of.items()]
    write_text(partial / "manifest.jsonl", "".join(json.dumps(each) + "\n" for each in records))
    write_text(partial / FILE_NAME, classes_csv({name: classes[case] for name, case in of.items()}))
    trained = sorted({*generator["training_ids"], *sources})
    write_json(partial / "provenance.json", {**content, "generator": {**generator, "training_ids": trained}})
    partial.rename(target)
    print(target)


if __name__ == "__main__":
    run_command(lambda: tyro.cli(main, description=__doc__))
