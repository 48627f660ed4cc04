"""The generator of a synthetic dataset as a segmenter, for the arm ensemble-jdm."""

from __future__ import annotations

import shutil
from pathlib import Path

from jdm.data.provenance import read_generator
from jdm.data.raw_dataset import RawDataset
from jdm.data.raw_layout import results_folder
from jdm.errors import CheckpointError, DataError
from jdm.sample.modes import sample
from jdm.sample.request import SegmentRequest
from jdm.system.locks import locked
from jdm.train.checkpoint import load_checkpoint
from nnunet_integration.case_sets import CaseSet


def generator_run(real: RawDataset, synthetic: RawDataset) -> Path:
    """Folder of the run whose weights made the pairs. Raises: DataError if it is not under $jdm_results."""
    wanted, root = read_generator(synthetic).get("checkpoint_sha256"), results_folder() / real.name
    for folder in sorted(root.glob("fold_*")):
        try:
            if load_checkpoint(folder).sha256 == wanted:
                return folder
        except CheckpointError:  # of another run, unfinished or damaged
            continue
    raise DataError(
        f"no run in {root} has the weights that made {synthetic.name} ({str(wanted)[:12]}); the arm ensemble-jdm "
        "expects it; restore the run, or leave out this arm"
    )


def segmented(run: Path, cases: CaseSet, device: str) -> Path:
    """Folder of the generator's label probabilities of some cases, one file per case as nnU-Net writes them.

    They are estimated once, for all seeds.
    """
    folder = cases.folder / "segmented"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.with_name(".segmented.lock")):
        if not folder.is_dir():
            images = folder.with_name("segmented_images")
            shutil.rmtree(images, ignore_errors=True)
            images.mkdir()
            for files in cases.images.values():
                for file in files:
                    shutil.copyfile(file, images / file.name)
            sample(SegmentRequest(str(run), images=images, out=folder, save_probabilities=True), device)
            shutil.rmtree(images)
    return folder / "labels"
