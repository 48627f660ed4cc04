"""Volumes with three classes: train, export slices, and let nnU-Net train on both and score whole volumes."""

import json
import os

import numpy as np
import pytest
import SimpleITK
from raw_miniatures import edit_json
from small_runs import picture, tiny_run, write_pictures

os.environ.setdefault("nnUNet_def_n_proc", "1")  # read by nnU-Net on import

import jdm
from jdm.data.raw_dataset import Geometry, Pair, open_dataset, read_case, read_dataset, write_case
from nnunet_integration.arms import ExperimentOptions
from nnunet_integration.experiment import run_experiment
from nnunet_integration.host import preprocessed_shapes
from nnunet_integration.register import register

SHAPE, SPACING = (6, 24, 16), (2.0, 1.0, 0.5)
ARMS = ("real", "synthetic", "pretrain-finetune")


def write_volumes(raw):
    """Six training and two labelled test volumes of background and two classes."""
    kind = {"classes": 3, "dtype": "int16", "spacing": SPACING}
    folder = write_pictures(raw, "Dataset031_Layers", cases=6, shape=SHAPE, **kind).folder
    for index in range(2):
        test = picture(f"test_{index}", 100 + index, SHAPE, **kind)
        write_case(folder, test, ".nii.gz", labels_folder="labelsTs", images_folder="imagesTs")
    return read_dataset(folder)


# to find a reader nnU-Net tries imageio on volumes too, which leaves the file open
@pytest.mark.filterwarnings(r"ignore:unclosed file .*\.nii\.gz:ResourceWarning")
def test_exported_slices_train_nnunet_and_whole_volumes_are_scored(nnunet_folders):
    real = write_volumes(nnunet_folders["nnUNet_raw"])
    tiny_run(real, train={"steps": 3})
    jdm.export(jdm.ExportRequest("31", "all", id=531, count=4, steps=3, batch_size=6, margin=100.0, anyway=True))
    made = read_case(open_dataset(531), "syn_000000")
    assert made.image.shape == (1, *SHAPE) and made.label.shape == SHAPE

    folder, results = run_experiment(
        ExperimentOptions(
            real="31", synthetic=("531",), fold=("all",), arms=ARMS, seeds=(0,), iterations=2, epochs=1, batch_size=4,
            network_features=(8, 16, 32), threads=1, device="cpu",
        )
    )  # fmt: skip
    assert tuple(results["arms"]) == ARMS and results["images"] == 2
    assert results["settings"]["patch_size"] == [24, 16]
    for arm in ARMS:
        per_class = results["arms"][arm]["dice_per_class"]
        assert list(per_class) == ["class1", "class2"]
        assert all(0 <= dice["mean"] <= 1 for dice in per_class.values())
        for case in real.test_cases:
            predicted = SimpleITK.ReadImage(str(folder / "predictions" / arm / "seed_0" / f"{case}.nii.gz"))
            assert predicted.GetSize() == SHAPE[::-1] and predicted.GetSpacing() == SPACING[::-1]
            assert set(np.unique(SimpleITK.GetArrayFromImage(predicted))) <= {0, 1, 2}
    cases = json.loads((folder / "scores" / "real_seed_0.json").read_text(encoding="utf-8"))["cases"]
    voxels = {(case["case_id"], case["label"]): case["n_ref"] for case in cases}
    for case in real.test_cases:  # scored at the native size
        label = read_case(real, case, test=True).label
        assert [voxels[case, f"class{k}"] for k in (1, 2)] == [np.count_nonzero(label == k) for k in (1, 2)]


# nnU-Net looks for the reader with imageio too, which leaves the file open
@pytest.mark.filterwarnings(r"ignore:unclosed file .*\.nii\.gz:ResourceWarning")
def test_a_set_that_nnunet_turns_is_cut_and_exported_along_the_axes_that_nnunet_sees(nnunet_folders):
    """The axes of the files are x, z, y; what is widest is seen only once they are turned."""
    kind = {"dtype": "int16", "spacing": SPACING}
    real = write_pictures(nnunet_folders["nnUNet_raw"], "Dataset032_Turned", cases=5, shape=SHAPE, **kind)
    lying = Geometry((0.0,) * 3, (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0), stored="LIA")
    for index, case in enumerate(real.cases):
        made = picture(case, index, SHAPE, **kind)
        write_case(real.folder, Pair(case, made.image, made.label, SPACING, lying), ".nii.gz")
    edit_json(real.folder, overwrite_image_reader_writer="NibabelIOWithReorient")
    real = read_dataset(real.folder)
    stored = SimpleITK.ReadImage(str(real.label_file("case_0")))
    assert stored.GetSize() == (16, 6, 24) and stored.GetSpacing() == (0.5, 2.0, 1.0)

    run = tiny_run(real, train={"steps": 1})
    assert run.config.data.slice_axis == 0
    jdm.export(
        jdm.ExportRequest(
            "32", "all", id=532, name="Turned_syn", count=2, steps=2, batch_size=6, margin=100.0, anyway=True
        )
    )
    synthetic = open_dataset(532)
    content = json.loads((synthetic.folder / "dataset.json").read_text(encoding="utf-8"))
    assert content["overwrite_image_reader_writer"] == synthetic.reader == "NibabelIOWithReorient"
    exported = SimpleITK.ReadImage(str(synthetic.label_file("syn_000000")))
    assert (exported.GetSize(), exported.GetSpacing()) == (stored.GetSize(), stored.GetSpacing())
    np.testing.assert_allclose(exported.GetDirection(), stored.GetDirection(), atol=1e-6)
    registered = register(synthetic, real)
    assert preprocessed_shapes(registered.preprocessed, synthetic.cases) == [SHAPE, SHAPE]
