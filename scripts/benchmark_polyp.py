"""The thesis's polyps: PraNet's archives (Tables 5.1, 5.2, 5.4 and 5.5, Fig. 5.4), or NeoPolyp.

python scripts/benchmark_polyp.py PraNet --out results/help/benchmark_polyp --id 21
python scripts/benchmark_polyp.py ../data/neopolyp --out results/help/benchmark_polyp --id 32 --quick

The source is the folder that holds PraNet's TrainDataset (1450 images of Kvasir-SEG and CVC-ClinicDB) and TestDataset
(https://github.com/DengPingFan/PraNet, "Training dataset" and "Testing dataset"), or a folder with train/ and test/,
each with images/ and masks/, such as BKAI-IGH NeoPolyp-Small (https://www.kaggle.com/c/bkai-igh-neopolyp), masks coded
0, 127 (non-neoplastic) and 255 (neoplastic).
"""

from __future__ import annotations

from pathlib import Path

import tyro
from benchmark import Benchmark, Options

from jdm.cli import run_command
from jdm.errors import DataError

PRANET = ("Kvasir", "CVC-ClinicDB", "CVC-ColonDB", "CVC-300", "ETIS-LaribPolypDB")


def polyps(source: Path, options: Options) -> Benchmark:
    """The benchmark for one of the two layouts. Raises: DataError if the source is neither."""
    small = ["--patch-size", "128", "128"] if options.preset == "default" else []
    if (source / "TrainDataset").is_dir() or source.suffix == ".zip":
        tests = {name: f"{name}_" for name in PRANET}
        tables = ["5.1", "5.2"], ["5.4", "5.5"]
        return Benchmark("Polyps: PraNet's sets", ["polyp", str(source)], tests, *tables, experiment=small)
    folders = [str(source / split / kind) for split in ("train", "test") for kind in ("images", "masks")]
    if not all(Path(folder).is_dir() for folder in folders):
        raise DataError(
            f"{source} holds neither TrainDataset nor train/ and test/ with images/ and masks/; expected PraNet's "
            "archives or NeoPolyp; see the top of this script for where to get them"
        )
    names = ("--images", "--masks", "--test-images", "--test-masks")
    pairs = [part for flag in zip(names, folders, strict=True) for part in flag]
    labels = ["0=background", "127=non-neoplastic", "255=neoplastic"]
    convert = ["pairs", *pairs, "--labels", *labels, "--name", "NeoPolyp"]
    return Benchmark(
        "Polyps: NeoPolyp, of which nothing is published there", convert, {"NeoPolyp": ""}, experiment=small
    )


def main(source: Path, /, *, options: Options) -> None:
    """Run the thesis's experiments on polyps."""
    polyps(source, options).run(options)


if __name__ == "__main__":
    run_command(lambda: tyro.cli(main, config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff)))
