"""The trainers' contract with nnU-Net, the guard against leakage, and runs that repeat and continue exactly."""

import inspect
import json
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nnunet_blobs import write_blobs, write_provenance, write_real_and_synthetic

os.environ.setdefault("nnUNet_def_n_proc", "1")  # read by nnU-Net on import

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

import jdm.cli.train
from jdm.data.provenance import read_generator
from jdm.data.splits import fold_split
from jdm.errors import CheckpointError, ConfigError, DataError
from jdm.system.locks import locked
from nnunet_integration import provenance, trainers
from nnunet_integration.checkpoints import load_body, load_head, read_checkpoint
from nnunet_integration.host import HostRun, read_plans, train
from nnunet_integration.plans import with_experiment_configuration
from nnunet_integration.register import plan_dataset, register
from nnunet_integration.settings import TrainerSettings, ext_folder
from nnunet_integration.trainers import MixedDataset, repetitions

NAMES = ["nnUNetTrainerJDM", "nnUNetTrainerJDMPretrain", "nnUNetTrainerJDMFinetune", "nnUNetTrainerJDMMix"]


@pytest.mark.parametrize("name", NAMES)
def test_nnunet_finds_the_trainer_and_the_class_pickles(name, monkeypatch):
    monkeypatch.setenv("nnUNet_extTrainer", str(ext_folder()))
    found = recursive_find_trainer_class_by_name(name)
    assert found is getattr(trainers, name)
    assert pickle.loads(pickle.dumps(found)) is found


def test_the_external_folder_holds_one_module_of_names_only():
    modules = list(ext_folder().glob("**/*.py"))
    assert len(modules) == 1
    assert "class " not in modules[0].read_text(encoding="utf-8").split('"""')[2]


@pytest.mark.parametrize("name", NAMES)
def test_overridden_methods_keep_nnunets_signatures(name):
    overridden = set(vars(getattr(trainers, name))) & set(vars(nnUNetTrainer)) - {"__doc__", "__module__"}
    for method in overridden:
        ours = inspect.signature(getattr(getattr(trainers, name), method)).parameters
        stock = inspect.signature(getattr(nnUNetTrainer, method)).parameters
        assert [(p.name, p.default) for p in ours.values()] == [(p.name, p.default) for p in stock.values()]
    assert list(inspect.signature(trainers.nnUNetTrainerJDM).parameters) == [
        "plans", "configuration", "fold", "dataset_json", "device",
    ]  # fmt: skip


@given(st.integers(1, 3000), st.integers(1, 3000), st.floats(0.02, 0.98))
def test_repetitions_meet_the_share(real, synthetic, share):
    times_real, times_synthetic = repetitions(real, synthetic, share)
    assert min(times_real, times_synthetic) >= 1
    odds = times_synthetic * synthetic / (times_real * real)
    assert odds == pytest.approx(share / (1 - share), rel=0.01)


class Cases:
    """A preprocessed dataset that remembers which case was asked for."""

    def __init__(self, name, identifiers):
        self.name, self.identifiers = name, identifiers

    def load_case(self, identifier):
        return self.name, identifier


def test_mixed_dataset_draws_the_share_and_loads_from_the_right_folder():
    real = Cases("real", [f"r{i}" for i in range(12)])
    synthetic = Cases("synthetic", [f"syn_{i}" for i in range(32)])
    mixed = MixedDataset(real, synthetic, 0.7)
    counts = {name: sum(mixed.load_case(i)[0] == name for i in mixed.identifiers) for name in ("real", "synthetic")}
    assert counts == {"real": 12 * 8, "synthetic": 32 * 7}  # 0.700
    with pytest.raises(DataError, match="r3"):
        MixedDataset(real, Cases("synthetic", ["r3"]), 0.5)


def test_pretrained_weights_are_found_on_nnunets_command_line():
    for arguments in (
        ["11", "2d", "0", "-pretrained_weights", "a/b.pth"],
        ["-pretrained_weights=a/b.pth", "11"],
        ["-pretrained", "a/b.pth"],
    ):
        assert provenance.pretrained_weights(None, arguments) == Path("a/b.pth")
    assert provenance.pretrained_weights("c.pth", ["-pretrained_weights", "a/b.pth"]) == Path("c.pth")
    assert provenance.pretrained_weights(None, ["11", "-p", "nnUNetPlans"]) is None


def test_unknown_origin_stops_a_finetuning(nnunet_folders, tmp_path):
    with pytest.raises(ConfigError, match="-pretrained_weights"):
        provenance.origin_of_weights(None, "511", None)
    with pytest.raises(ConfigError, match="JDM_SYNTHETIC"):
        provenance.origin_of_weights(tmp_path / "checkpoint_final.pth", None, None)
    dataset = write_blobs(nnunet_folders["nnUNet_raw"] / "Dataset511_A_syn", ["syn_0"])
    with pytest.raises(DataError, match=r"provenance\.json"):
        read_generator(dataset)
    write_provenance(dataset, dataset, [])
    with pytest.raises(DataError, match="training_ids"):
        read_generator(dataset)


def test_a_test_case_under_a_training_id_is_a_leak_only_if_it_is_the_same_image(nnunet_folders):
    raw = nnunet_folders["nnUNet_raw"]
    dataset = write_blobs(raw / "Dataset011_A", ["a", "b"], ["b", "c"])
    assert provenance.test_ids(dataset) == ["c"]
    generator = {"dataset": dataset.name, "training_ids": ["a", "b"]}
    provenance.check_generator(generator, dataset.name, [], "run")
    image = dataset.folder / "imagesTs" / "b_0000.png"
    image.write_bytes((dataset.folder / "imagesTr" / "b_0000.png").read_bytes())
    with pytest.raises(DataError, match=r"\(b\)"):
        provenance.check_generator(generator, dataset.name, [], "run")
    gone = {"dataset": "Dataset012_Gone", "training_ids": ["a", "b"]}
    with pytest.raises(DataError, match=r"\(a\)"):
        provenance.check_generator(gone, "Dataset012_Gone", ["a"], "run")


def test_a_generator_of_generated_cases_hides_no_leak(nnunet_folders, monkeypatch, capsys):
    real, synthetic = write_real_and_synthetic(nnunet_folders["nnUNet_raw"])
    write_provenance(synthetic, real, list(real.cases))
    offspring = write_blobs(nnunet_folders["nnUNet_raw"] / "Dataset611_Blobs_syn_syn", ["syn_0"])
    write_provenance(offspring, synthetic, list(synthetic.cases))
    with pytest.raises(DataError, match=f"{synthetic.name}.*{real.name}"):
        provenance.check_generator(read_generator(offspring), real.name, fold_split(real, 0)[1], "run")
    monkeypatch.setattr(sys, "argv", ["jdm-train", "511", "0", "--dry-run"])
    with pytest.raises(SystemExit):
        jdm.cli.train.main()
    assert synthetic.name in capsys.readouterr().err


def test_folds_of_the_raw_dataset_reach_nnunet_though_its_plans_are_there(nnunet_folders):
    real, _ = write_real_and_synthetic(nnunet_folders["nnUNet_raw"])
    folder = nnunet_folders["nnUNet_preprocessed"] / real.name
    folder.mkdir()
    (folder / "nnUNetPlans.json").write_text("{}", encoding="utf-8")
    splits = [{"train": list(real.cases[:6]), "val": list(real.cases[6:])}]
    (real.folder / "splits_final.json").write_text(json.dumps(splits), encoding="utf-8")
    before = fold_split(real, 0)
    plan_dataset(real)
    assert json.loads((folder / "splits_final.json").read_text(encoding="utf-8")) == splits
    (real.folder / "splits_final.json").unlink()
    assert fold_split(real, 0) == before == (splits[0]["train"], splits[0]["val"])
    (real.folder / "splits_final.json").write_text("[]", encoding="utf-8")
    plan_dataset(real)
    assert fold_split(real, 0) == before  # what nnU-Net has is kept


@pytest.fixture(scope="module")
def blobs(tmp_path_factory):
    """A real and a synthetic dataset, planned and preprocessed."""
    folder = tmp_path_factory.mktemp("nnunet")
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
            (folder / variable).mkdir()
            patch.setenv(variable, str(folder / variable))
        patch.setattr(sys, "argv", ["pytest"])
        real, synthetic = write_real_and_synthetic(folder / "nnUNet_raw")
        registered = register(synthetic, real)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        yield real, synthetic, registered
        torch.set_num_threads(threads)


def host_run(blobs, results: Path, trainer: str, fold: int | str = 0, **settings) -> HostRun:
    real, synthetic, registered = blobs
    dataset = synthetic if trainer.endswith("Pretrain") else real
    preprocessed = registered.preprocessed.parents[1] / dataset.name
    name = registered.plans_name if dataset is synthetic else "nnUNetPlans"
    plans, configuration = with_experiment_configuration(read_plans(preprocessed, name), "2d", None, 2, (4, 8, 16))
    settings = {"epochs": 2, "iterations": 2, "val_iterations": 1, **settings}
    dataset_json = json.loads((dataset.folder / "dataset.json").read_text(encoding="utf-8"))
    return HostRun(trainer, fold, TrainerSettings(**settings), plans, configuration, dataset_json, results)


def run(host_run: HostRun, on_epoch=lambda: None) -> dict:
    train(host_run, torch.device("cpu"), 0, on_epoch, host_run.results / "nnunet.log")
    return read_checkpoint(host_run.checkpoint)["network_weights"]


def assert_equal(ours, theirs):
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_registering_again_keeps_what_is_current_and_renews_what_is_not(blobs):
    real, synthetic, registered = blobs
    files = sorted(registered.preprocessed.glob("*.pkl"))
    before = {file: file.stat().st_mtime_ns for file in files}
    changed, label = files[3], synthetic.label_file(files[3].stem)
    os.utime(label)
    (registered.preprocessed / "syn_old.b2nd").write_bytes(b"left by an earlier export")
    again = register(synthetic, real)
    assert again == registered
    assert not (registered.preprocessed / "syn_old.b2nd").exists()
    renewed = {file for file in files if file.stat().st_mtime_ns != before[file]}
    assert renewed == {changed}


def test_what_was_replaced_is_preprocessed_again_however_old_it_is(blobs):
    real, synthetic, registered = blobs
    folders = (registered.preprocessed.parents[1] / real.name / "nnUNetPlans_2d", registered.preprocessed)

    def renewed() -> list[str]:
        files = [file for folder in folders for file in sorted(folder.glob("*.pkl"))]
        before = [file.stat().st_mtime_ns for file in files]
        register(synthetic, real)
        return [file.stem for file, time in zip(files, before, strict=True) if file.stat().st_mtime_ns != time]

    def age(file: Path) -> None:
        os.utime(file, ns=(10**18, 10**18))

    assert renewed() == []
    age(real.label_file("r03"))
    age(synthetic.image_files("syn_005")[0])  # what an export puts in place later was written earlier
    assert renewed() == ["r03", "syn_005"]
    provenance_file = synthetic.folder / "provenance.json"
    provenance_file.write_text(provenance_file.read_text(encoding="utf-8") + " ", encoding="utf-8")
    age(provenance_file)
    assert renewed() == list(synthetic.cases)  # of another export, all of it
    for folder in folders:
        folder.with_name(f"{folder.name}.jdm.jsonl").unlink()
    age(real.label_file("r04"))
    assert renewed() == list(synthetic.cases)  # real cases of stock nnU-Net are kept unless they are older
    records = folders[1].with_name(f"{folders[1].name}.jdm.jsonl")
    records.write_bytes(records.read_bytes()[:-20])  # a kill has torn the last line
    assert renewed() == ["syn_015"]
    assert renewed() == []


def test_a_dataset_is_registered_by_one_process_at_a_time(blobs):
    _, synthetic, registered = blobs
    lock = registered.preprocessed.parents[1] / f".{synthetic.name}.jdm.lock"
    code = (
        "from jdm.data.raw_dataset import open_dataset\n"
        "from nnunet_integration.register import register\n"
        "register(open_dataset(511), open_dataset(11))\n"
        "print('done')\n"
    )
    with locked(lock):
        other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert other.stdout is not None
        assert other.stdout.readline() == f"waiting for another process that plans or preprocesses {synthetic.name}\n"
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(0.5)
    assert other.communicate(timeout=60)[0] == "done\n" and other.returncode == 0
    assert {path.suffix for path in lock.parent.glob(".*")} == {".lock"}


def test_a_continued_run_equals_an_uninterrupted_one(blobs, tmp_path):
    whole = run(host_run(blobs, tmp_path / "whole", "nnUNetTrainerJDM", seed=3))
    killed, epochs = host_run(blobs, tmp_path / "killed", "nnUNetTrainerJDM", seed=3), []

    def kill_after_first_epoch():
        epochs.append(1)
        if len(epochs) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(killed, kill_after_first_epoch)
    assert not killed.checkpoint.exists()
    assert_equal(run(killed, kill_after_first_epoch), whole)
    assert len(epochs) == 3  # one before the kill, which is counted again, and the second
    record = json.loads((killed.checkpoint.parent / provenance.RUN_FILE).read_text(encoding="utf-8"))
    assert record["settings"]["seed"] == 3 and record["generator"] is None
    # a stock trainer goes on from the checkpoint
    plans = {**killed.plans, "continue_training": True}
    stock = nnUNetTrainer(plans, killed.configuration, 0, killed.dataset_json, torch.device("cpu"))
    stock.load_checkpoint(str(killed.checkpoint))
    assert_equal(stock.network.state_dict(), whole)


def test_finetuning_starts_from_the_pretrained_weights_and_knows_their_origin(blobs, tmp_path):
    real = blobs[0]
    pretrain = host_run(blobs, tmp_path / "pretrain", "nnUNetTrainerJDMPretrain", fold="all")
    weights = run(pretrain)
    assert not (pretrain.checkpoint.parent / "validation").exists()
    started = {}
    for keep_head in (True, False):
        # with a vanishing learning rate the weights stay what they were at the start
        finetune = host_run(
            blobs, tmp_path / f"finetune_{keep_head}", "nnUNetTrainerJDMFinetune",
            epochs=1, iterations=1, learning_rate=1e-30, keep_head=keep_head,
            pretrained_weights=str(pretrain.checkpoint),
        )  # fmt: skip
        started[keep_head] = run(finetune)
        record = json.loads((finetune.checkpoint.parent / provenance.RUN_FILE).read_text(encoding="utf-8"))
        assert record["generator"]["training_ids"] == fold_split(real, 0)[0]
    assert_equal(started[True], weights)
    # the lowest resolution's head has no weight in nnU-Net's loss and never leaves its initial values
    changed = {name for name, value in started[False].items() if not torch.equal(value, weights[name])}
    assert changed == {"decoder.seg_layers.1.weight", "decoder.seg_layers.1.bias"}


def test_arms_of_a_seed_start_from_the_same_network(blobs, tmp_path):
    still = {"epochs": 1, "iterations": 1, "learning_rate": 1e-30, "synthetic": "511"}
    real = run(host_run(blobs, tmp_path / "real", "nnUNetTrainerJDM", seed=1, **still))
    mix = run(host_run(blobs, tmp_path / "mix", "nnUNetTrainerJDMMix", seed=1, **still))
    other = run(host_run(blobs, tmp_path / "other", "nnUNetTrainerJDM", seed=2, **still))
    # biases begin at zero, where even that learning rate leaves a trace
    assert all(torch.allclose(value, real[name], rtol=0, atol=1e-12) for name, value in mix.items())
    assert not all(torch.allclose(value, real[name]) for name, value in other.items())


def test_runs_stop_where_the_generator_has_seen_what_they_evaluate(blobs, tmp_path):
    real, synthetic, _ = blobs
    training, validation = fold_split(real, 0)
    file = synthetic.folder / "provenance.json"
    before = file.read_text(encoding="utf-8")
    try:
        write_provenance(synthetic, real, [*training, validation[0]])
        mix = host_run(blobs, tmp_path / "mix", "nnUNetTrainerJDMMix", synthetic="511")
        with pytest.raises(DataError, match=f"fold 0.*{validation[0]}"):
            run(mix)
        run(host_run(blobs, tmp_path / "all", "nnUNetTrainerJDMMix", "all", synthetic="511", epochs=1))
        write_provenance(synthetic, real, [*training, real.test_cases[0]])
        for trainer, fold in (("nnUNetTrainerJDMMix", "all"), ("nnUNetTrainerJDMPretrain", "all")):
            with pytest.raises(DataError, match=real.test_cases[0]):
                run(host_run(blobs, tmp_path / trainer, trainer, fold, synthetic="511"))
    finally:
        file.write_text(before, encoding="utf-8")


def test_a_training_stops_where_nnunet_splits_otherwise(blobs, tmp_path, monkeypatch):
    real, _, registered = blobs
    lock = registered.preprocessed.parents[1] / f".{real.name}.jdm.lock"
    stock, free = nnUNetTrainer.do_split, []

    def do_split(trainer):
        with locked(lock, wait=False) as alone:
            free.append(alone)
        return stock(trainer)

    monkeypatch.setattr(nnUNetTrainer, "do_split", do_split)
    expected = fold_split(real, 0)[0]
    other = replace(host_run(blobs, tmp_path, "nnUNetTrainerJDM"), training_ids=(*expected[1:], "r99"))
    with pytest.raises(DataError, match=f"{expected[0]}.*r99") as error:
        run(other)
    assert free == [False]  # nnU-Net may write the folds here: one process at a time
    assert "\n" not in str(error.value) and not other.checkpoint.exists()
    run(replace(host_run(blobs, tmp_path, "nnUNetTrainerJDM", epochs=1), training_ids=tuple(expected)))


def test_weights_that_do_not_fit_or_hold_code_are_refused(blobs, tmp_path, monkeypatch):
    def silent(*_, **__):
        raise EOFError

    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3))
    file = tmp_path / "checkpoint.pth"
    torch.save({"network_weights": {"0.weight": torch.zeros(3)}}, file)
    with pytest.raises(CheckpointError, match=r"0\.weight"):
        load_body(network, file)
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(CheckpointError, match=r"checkpoint\.pth"):
        read_checkpoint(file)
    torch.save({"network_weights": {}, "code": Path("x")}, file)
    with pytest.raises(CheckpointError, match=r"checkpoint\.pth"):
        read_checkpoint(file)
    with monkeypatch.context() as patch, pytest.raises(CheckpointError, match=r"checkpoint\.pth.*EOFError"):
        patch.setattr(torch, "load", silent)
        read_checkpoint(file)
    labels = {"background": 0, "blob": 1}
    torch.save(
        {"network_weights": {}, "init_args": {"dataset_json": {"labels": labels}}, "curve": [np.float64(1)]}, file
    )
    assert "cell" in str(load_head(network, file, {"background": 0, "cell": 1}))
    assert load_head(network, file, labels) is None
