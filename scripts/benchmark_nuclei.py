"""The thesis's nuclei: MoNuSeg (Tables 5.3 and 5.6, Fig. 5.5), or GlaS, of which it shows samples only.

python scripts/benchmark_nuclei.py ../data/monuseg --out results/help/benchmark_nuclei --id 11 --quick

The source is the folder above both downloads of MoNuSeg 2018 (https://monuseg.grand-challenge.org: MoNuSeg Training
Data and MoNuSegTestData), a folder with train/ and test/, each with images/ and masks/, or GlaS ("Warwick QU Dataset",
from https://warwick.ac.uk/fac/cross_fac/tia/data/glascontest). `--preset thesis` is the thesis's own configuration.
"""

from __future__ import annotations

from pathlib import Path

import tyro
from benchmark import Benchmark, Options

from jdm.cli import run_command
from jdm.errors import DataError

_SIDE = {"default": 256, "thesis": 512}  # of the generator's canvases; the thesis resizes to 512 pixels


def nuclei(source: Path, options: Options) -> Benchmark:
    """The benchmark for one of the three layouts. Raises: DataError if the source is none of them."""
    folders = [str(source / split / kind) for split in ("train", "test") for kind in ("images", "masks")]
    side = str(_SIDE[options.preset])
    flags = {
        "train": ["--data.canvas-size", side, side], "export": ["--canvas-size", side, side],
        "experiment": ["--patch-size", "128", "128"] if options.preset == "default" else [],
    }  # fmt: skip
    if all(Path(folder).is_dir() for folder in folders):
        names = ("--images", "--masks", "--test-images", "--test-masks")
        pairs = [part for flag in zip(names, folders, strict=True) for part in flag]
        convert = ["pairs", *pairs, "--labels", "0=background", "255=nuclei", "--name", "MoNuSeg"]
    elif any(source.glob("**/*.xml")):
        convert = ["monuseg", str(source), "--cases", "classic"]
    elif any(source.glob("**/Grade.csv")):
        return Benchmark("GlaS: glands", ["glas", str(source)], {"GlaS": ""}, **flags)
    else:
        raise DataError(
            f"{source} is neither MoNuSeg nor GlaS; expected the folder above MoNuSeg's downloads, train/ and test/ "
            "with images/ and masks/, or the Warwick QU Dataset; see the top of this script for where to get them"
        )
    return Benchmark("MoNuSeg: nuclei", convert, {"MoNuSeg": ""}, ["5.3"], ["5.6"], **flags)


def main(source: Path, /, *, options: Options) -> None:
    """Run the thesis's experiments on nuclei."""
    nuclei(source, options).run(options)


if __name__ == "__main__":
    run_command(lambda: tyro.cli(main, config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff)))
