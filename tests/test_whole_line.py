"""From a dataset to nnU-Net's predictions, tiny, for every kind of dataset and precision."""

import os

import numpy as np
import pytest
from small_runs import picture, tiny_run, write_pictures

os.environ.setdefault("nnUNet_def_n_proc", "1")  # read by nnU-Net on import

import jdm
from jdm.data.image_io import read_raster
from jdm.data.raw_dataset import check_dataset, open_dataset, read_case, read_dataset, write_case
from nnunet_integration.arms import ExperimentOptions
from nnunet_integration.experiment import run_experiment

KINDS = ((3, "uint8", ".png"), (1, "uint16", ".nii.gz"), (2, "uint8", ".nii.gz"))
CODES = {2: "binary", 3: "one-hot", 10: "bits"}


# to find a reader nnU-Net tries imageio on volumes too, which leaves the file open
@pytest.mark.filterwarnings(r"ignore:unclosed file .*\.nii\.gz:ResourceWarning")
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind[0]}x{kind[1]}")
@pytest.mark.parametrize("classes", CODES)
def test_the_whole_line_for_every_kind_of_dataset(nnunet_folders, kind, classes):
    channels, dtype, ending = kind
    precision = ("bf16", "fp32")[(channels + classes) % 2]  # both for each kind and each code
    shape, spacing = ((24, 16), (1.0, 1.0)) if ending == ".png" else ((1, 24, 16), (2.0, 1.0, 1.0))
    made = {"channels": channels, "dtype": dtype, "classes": classes, "spacing": spacing}
    folder = write_pictures(nnunet_folders["nnUNet_raw"], cases=3, shape=shape, ending=ending, **made).folder
    write_case(folder, picture("test", 100, shape, **made), ending, images_folder="imagesTs", labels_folder="labelsTs")
    real = read_dataset(folder)

    run = tiny_run(real, train={"steps": 2, "precision": precision})
    assert run.config.codec.mask_code == CODES[classes]
    assert all(value.isfinite().all() for value in run.checkpoint.weights.values())

    asked = {"count": 2, "steps": 8, "margin": 100.0, "batch_size": 2, "anyway": True}
    assert jdm.export(jdm.ExportRequest("21", "all", id=521, **asked)).finished
    synthetic = open_dataset(521)
    assert check_dataset(synthetic) == [] and synthetic.file_ending == ending
    for case in synthetic.cases:
        pair, example = read_case(synthetic, case), read_case(real, "case_0")
        assert pair.image.shape == example.image.shape and pair.image.dtype == example.image.dtype
        assert pair.spacing == example.spacing
        assert pair.label.max() < classes
        assert pair.image.min() < pair.image.max() <= (255 if dtype == "uint8" else 3000)

    out, results = run_experiment(
        ExperimentOptions(
            real="21", synthetic=("521",), fold=("all",), arms=("pretrain-finetune",), seeds=(0,), iterations=1,
            epochs=1, batch_size=2, network_features=(8, 16, 32), threads=1, device="cpu",
        )
    )  # fmt: skip
    scored = results["arms"]["pretrain-finetune"]
    assert len(scored["dice_per_class"]) == classes - 1 and results["images"] == 1
    predicted = read_raster(out / "predictions" / "pretrain-finetune" / "seed_0" / f"test{ending}").array
    assert predicted.shape == (1, *shape) and set(np.unique(predicted)) <= set(range(classes))
