"""The experiment on real nnU-Net: planning, training, prediction and scores of all arms, in this process."""

import json
import os
import sys
from dataclasses import replace

import numpy as np
import pytest
from nnunet_blobs import LABELS, write_blobs, write_provenance, write_real_and_synthetic

os.environ.setdefault("nnUNet_def_n_proc", "1")  # read by nnU-Net on import

from segmenter import real_arm

from jdm.cli.experiment import main
from jdm.data.image_io import read_raster
from jdm.data.raw_dataset import read_image
from jdm.data.splits import fold_split
from jdm.errors import ConfigError, DataError, ExistsError
from jdm.system.locks import held
from nnunet_integration.arms import ARMS, ExperimentOptions, Resolved
from nnunet_integration.case_sets import cases_of
from nnunet_integration.claims import claim
from nnunet_integration.experiment import run_experiment
from nnunet_integration.pictures import draw_case, evenly_spaced
from nnunet_integration.preparation import Experiment, prepare
from nnunet_integration.report import notes, settings_line
from nnunet_integration.segmenter import Segmenter

OPTIONS = ExperimentOptions(
    real="11", synthetic=("511",), seeds=(0,), iterations=6, epochs=2, batch_size=4, network_features=(8, 16, 32),
    threads=1, device="cpu",
)  # fmt: skip


@pytest.fixture
def datasets(nnunet_folders):
    return write_real_and_synthetic(nnunet_folders["nnUNet_raw"])


def strict_load(text: str):
    def refuse(name):
        raise AssertionError(f"{name} is not strict JSON")

    return json.loads(text, parse_constant=refuse)


def test_all_arms_from_planning_to_the_table(datasets, nnunet_folders, monkeypatch, capsys):
    real, _ = datasets
    folder = nnunet_folders["jdm_results"] / real.name / "experiment_fold_0"
    arguments = (
        "jdm-experiment 11 --synthetic 511 --seeds 0 --iterations 6 --epochs 2 --batch-size 4 "
        "--network-features 8 16 32 --threads 1 --device cpu"
    )
    record = [{"split": "test", "case": f"t{i:02d}", "group": f"patient {i // 2}"} for i in range(4)]
    record += [{"split": "train", "case": "t00", "group": "of another case"}]
    (real.folder / "conversion.json").write_text(json.dumps({"entries": record}), encoding="utf-8")
    monkeypatch.setattr(sys, "argv", [*arguments.split(), "--arms", "real"])
    main()
    assert capsys.readouterr().out.startswith("Cannot tell")  # nothing to compare with yet
    first = (folder / "scores" / "real_seed_0.json").stat().st_mtime_ns
    monkeypatch.setattr(sys, "argv", arguments.split())
    main()
    printed = capsys.readouterr()
    assert "pretrain-finetune minus real-long" in printed.out
    assert "the plans have patch 64x64, batch 2, channels 32 64 128 256 512" in printed.err
    assert (folder / "scores" / "real_seed_0.json").stat().st_mtime_ns == first  # kept, not run again

    results = strict_load((folder / "results.json").read_text(encoding="utf-8"))
    assert list(results["arms"]) == list(ARMS) and (results["images"], results["groups"]) == (4, 2)
    assert results["command"] == arguments and results["versions"]["nnunetv2"].startswith("2.8")
    for arm in ARMS:
        facts = results["arms"][arm]
        assert 0 < facts["dice"]["mean"] <= 1 and facts["padding_share"] == 0
        assert facts["dice"]["mean"] == pytest.approx(nnunets_own_dice(real, folder / "predictions" / arm / "seed_0"))
    updates = {arm: (f["updates_real"], f["updates_synthetic"]) for arm, f in results["arms"].items()}
    assert updates == {
        "real": (6, 0), "synthetic": (0, 6), "pretrain-finetune": (6, 6), "mix": (6, 6), "real-long": (12, 0),
    }  # fmt: skip
    table = (folder / "results.md").read_text(encoding="utf-8")
    assert all(f"| {arm} |" in table for arm in ARMS) and "| pretrain-finetune minus real-long |" in table
    assert table.splitlines()[0] == printed.out.splitlines()[0] == results["verdict"] == next(iter(results.values()))
    assert all(words in results["verdict"] for words in ("4 cells", "4 images of 2 groups", "1 seed", "real-long"))
    assert sorted(f.name for f in (folder / "pictures").iterdir()) == [f"t{i:02d}.png" for i in range(4)]

    check_judge(real, folder)
    with pytest.raises(ExistsError, match="network_features"):
        run_experiment(replace(OPTIONS, network_features=(8, 16, 16), out=folder))


def check_judge(real, folder) -> None:
    """The arm `real` as a judge segments as it did in the experiment, and its features tell images apart."""
    judge = Segmenter(real_arm(folder, 0), "cpu", folder / "judge.log")
    features = []
    for case in real.test_cases:
        image = read_image(real, case, test=True)[0]
        label, found = judge(image[:, None], (999.0, 1.0, 1.0))
        predicted = read_raster(folder / "predictions" / "real" / "seed_0" / f"{case}.png", label=True).array[0]
        np.testing.assert_array_equal(label[0], predicted)
        assert found.shape == (8 + 16 + 32,)
        features.append(found)
        np.testing.assert_array_equal(judge(image[:, None], (999.0, 1.0, 1.0))[1], found)
    assert np.std(features, axis=0).max() > 0
    with pytest.raises(DataError, match=r"\breal\b.*\b3\b"):
        real_arm(folder, 3)


def nnunets_own_dice(real, predictions) -> float:
    from nnunetv2.evaluation.evaluate_predictions import compute_metrics
    from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO

    scores = [
        compute_metrics(
            str(real.label_file(case, test=True)), str(predictions / f"{case}.png"), NaturalImage2DIO(), [1]
        )["metrics"][1]["Dice"]
        for case in real.test_cases
    ]
    return float(np.mean(scores))


def test_unusable_requests_are_refused_before_any_training(datasets, nnunet_folders, tmp_path):
    real, synthetic = datasets
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("keep", encoding="utf-8")
    with pytest.raises(ExistsError, match=r"mine.*--out"):
        run_experiment(replace(OPTIONS, out=tmp_path / "mine", overwrite=True))
    assert (tmp_path / "mine" / "thesis.txt").read_text(encoding="utf-8") == "keep"
    with pytest.raises(ConfigError, match="--fold"):
        prepare(replace(OPTIONS, fold=("first",)))
    with pytest.raises(ConfigError, match="nnUNetv2_plan_experiment"):
        prepare(replace(OPTIONS, plans="nnUNetResEncUNetMPlans"))
    write_provenance(synthetic, real, list(real.cases))
    with pytest.raises(DataError, match="fold 0 of Dataset011_Blobs"):
        prepare(OPTIONS)
    description = synthetic.folder / "dataset.json"
    description.write_text(description.read_text(encoding="utf-8").replace("grey", "red"), encoding="utf-8")
    write_provenance(synthetic, real, ["r00"])
    with pytest.raises(DataError, match="channels"):
        prepare(OPTIONS)
    other = write_blobs(nnunet_folders["nnUNet_raw"] / "Dataset012_Other", [f"r{i}" for i in range(8)])
    with pytest.raises(DataError, match="labelsTs"):
        prepare(replace(OPTIONS, real=str(other.id), fold=("all",)))


def test_an_output_folder_is_refused_before_anything_is_planned(datasets, nnunet_folders, tmp_path):
    for name, content, named in (("thesis.txt", "keep", "--out"), ("experiment.json", '{"fold": 3}', "--overwrite")):
        folder = tmp_path / name
        folder.mkdir()
        (folder / name).write_text(content, encoding="utf-8")
        with pytest.raises(ExistsError, match=f"{folder}.*{named}"):
            run_experiment(replace(OPTIONS, out=folder))
        assert [f.name for f in folder.iterdir()] == [name]
    assert list(nnunet_folders["nnUNet_preprocessed"].iterdir()) == []


def test_a_changed_split_or_test_set_is_another_experiment(datasets, nnunet_folders, tmp_path):
    real, _ = datasets
    options = replace(OPTIONS, out=tmp_path / "out", patch_size=(32, 32), overwrite=False)

    def start() -> dict:
        experiment = prepare(options)
        settings = experiment.settings.to_dict()
        claim(experiment.folder, settings, options.overwrite)
        return settings

    settings = start()
    kept = options.out / "scores.txt"
    kept.write_text("of this experiment", encoding="utf-8")
    assert start() == settings
    training_ids, validation_ids = fold_split(real, 0)
    splits = nnunet_folders["nnUNet_preprocessed"] / real.name / "splits_final.json"
    splits.write_text(json.dumps([{"train": training_ids[1:], "val": validation_ids}]), encoding="utf-8")
    with pytest.raises(ExistsError, match="split_sha256"):
        start()
    splits.unlink()
    label = real.label_file("t00", test=True)
    content = label.read_bytes()
    label.unlink()  # t00 is a test image still, but no longer scored
    with pytest.raises(ExistsError, match="split_sha256"):
        start()
    label.write_bytes(content)
    assert start() == settings
    assert kept.read_text(encoding="utf-8") == "of this experiment"
    options = replace(options, overwrite=True)
    options = replace(options, learning_rate=0.1)
    start()
    assert not kept.exists()


def test_a_damaged_record_of_groups_is_refused_before_anything_is_planned(datasets, nnunet_folders):
    real, _ = datasets
    for text in ("{", "[]", '{"entries": [{"case": "t00"}]}', '{"entries": ["t00"]}', '{"entries": 3}'):
        (real.folder / "conversion.json").write_text(text, encoding="utf-8")
        with pytest.raises(DataError, match=r"conversion\.json"):
            prepare(OPTIONS)
    assert list(nnunet_folders["nnUNet_preprocessed"].iterdir()) == []


def test_an_experiment_that_another_process_runs_is_refused(datasets, nnunet_folders, tmp_path):
    real, _ = datasets
    for options, folder in (
        (OPTIONS, nnunet_folders["jdm_results"] / real.name / "experiment_fold_0"),
        (replace(OPTIONS, out=tmp_path / "x" / ".." / "mine"), tmp_path / "mine"),
    ):
        folder.parent.mkdir(exist_ok=True)
        lock = folder.with_name(f".{folder.name}.lock")
        with (
            held(lock, folder),
            pytest.raises(ExistsError, match=f"{folder}.*{os.getpid()}"),
        ):
            run_experiment(options)
    assert list(nnunet_folders["nnUNet_preprocessed"].iterdir()) == []


def test_the_patch_follows_smaller_synthetic_pairs(nnunet_folders, capsys):
    raw = nnunet_folders["nnUNet_raw"]
    real = write_blobs(raw / "Dataset011_Blobs", [f"r{i}" for i in range(5)], ["t0"])
    synthetic = write_blobs(raw / "Dataset511_Blobs_syn", ["syn_0", "syn_1"], side=44)
    write_provenance(synthetic, real, fold_split(real, 0)[0])
    experiment = prepare(OPTIONS)
    assert experiment.settings.patch_size == (44, 44)  # carries three stages, as 64 does
    assert experiment.stock["patch_size"] == (64, 64)
    assert "median size, 44x44" in settings_line(experiment.settings.to_dict(), experiment.stock, experiment.patch_note)
    four_stages = prepare(replace(OPTIONS, network_features=(8, 16, 32, 64))).settings
    assert four_stages.patch_size == (48, 48)
    asked = prepare(replace(OPTIONS, patch_size=(64, 64)))
    assert asked.settings.patch_size == (64, 64) and asked.patch_note == ""


def test_cases_that_chose_the_generators_weights_are_counted(datasets, tmp_path):
    real, synthetic = datasets
    training_ids, validation_ids = fold_split(real, 0)
    write_provenance(synthetic, real, training_ids)  # the others were held out
    settings = Resolved.__new__(Resolved)

    def scored(evaluated_ids, on_test_set):
        cases = cases_of(real, evaluated_ids, on_test_set, "", tmp_path)
        places = ({}, "2d", tmp_path, "")
        return Experiment(
            real, synthetic, settings, tuple(training_ids), cases, on_test_set, None, (), 1.0, {}, None, *places
        )

    chosen = scored(validation_ids, False).chose_generator
    assert chosen == sorted(validation_ids)
    assert scored(real.test_cases, True).chose_generator == []
    [line] = notes({"chose_generator": chosen, "transductive": [], "test_cases": 2})
    assert "2 of the 2" in line
    assert notes({"chose_generator": [], "transductive": [], "test_cases": 4}) == []


def test_pictures_are_of_cases_nobody_chose(datasets, tmp_path):
    real, _ = datasets
    assert evenly_spaced(["d", "b", "a", "c"], 2) == ["a", "d"]
    assert evenly_spaced(["a"], 6) == ["a"]
    file = tmp_path / "picture.png"
    draw_case(real, "t00", True, {"real": real.label_file("t01", test=True)}, file)
    from PIL import Image

    with Image.open(file) as picture:
        width, height = picture.size
    assert width > 2 * height and LABELS["blob"] == 1
    assert read_image(real, "t00", test=True)[0].shape == (1, 64, 64)
