"""Folds are nnU-Net's folds, and leakage is refused."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jdm.data.raw_dataset import RawDataset
from jdm.data.splits import check_fold_safety, fold_split
from jdm.errors import ConfigError, DataError


def dataset(folder: Path, count: int = 23) -> RawDataset:
    cases = tuple(sorted(f"case_{i}" for i in range(count)))
    return RawDataset(folder, 1, "Dataset001_X", ("a",), {"background": 0, "b": 1}, ".png", cases, (), {}, {})


def test_seeded_folds_equal_nnunets(tmp_path: Path) -> None:
    from nnunetv2.utilities.crossval_split import generate_crossval_split

    for count in (5, 12, 30):
        data = dataset(tmp_path, count)
        expected = generate_crossval_split(list(np.sort(list(data.cases))), seed=12345, n_splits=5)
        for fold in range(5):
            assert fold_split(data, fold) == (expected[fold]["train"], expected[fold]["val"])
    assert fold_split(data, "all") == (list(data.cases), [])
    assert fold_split(data, "3") == fold_split(data, 3)


def nnunet_trainer_split(folder: Path, cases: tuple[str, ...], fold: int) -> tuple[list[str], list[str]]:
    """The real `nnUNetTrainer.do_split`, on an object with just what it reads."""
    from types import SimpleNamespace

    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    def storage(*_: object, **__: object) -> SimpleNamespace:
        return SimpleNamespace(identifiers=list(cases))

    trainer = SimpleNamespace(
        dataset_class=storage, preprocessed_dataset_folder=str(folder), preprocessed_dataset_folder_base=str(folder),
        folder_with_segs_from_previous_stage=None, fold=fold, print_to_log_file=lambda *_: None,
    )  # fmt: skip
    training, validation = nnUNetTrainer.do_split(trainer)  # type: ignore[arg-type]
    return [str(c) for c in training], [str(c) for c in validation]


def test_folds_equal_those_of_nnunets_trainer(nnunet_folders: dict[str, Path]) -> None:
    folder = nnunet_folders["nnUNet_preprocessed"] / "Dataset001_X"
    folder.mkdir()
    data = dataset(folder)
    before = [fold_split(data, fold) for fold in range(5)]
    assert before == [nnunet_trainer_split(folder, data.cases, fold) for fold in range(5)]
    assert (folder / "splits_final.json").is_file(), "nnU-Net has written its splits"
    assert before == [fold_split(data, fold) for fold in range(5)]
    assert nnunet_trainer_split(folder, data.cases, 7)[1], "nnU-Net draws a split for a fold that is not there"
    with pytest.raises(ConfigError, match=r"fold 7.*splits_final\.json.*0 to 4"):
        fold_split(data, 7)


def write_splits(folder: Path, *splits: tuple[list[str], list[str]]) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "splits_final.json").write_text(json.dumps([{"train": t, "val": v} for t, v in splits]))


def test_a_split_file_decides_and_the_preprocessed_one_first(nnunet_folders: dict[str, Path]) -> None:
    raw, preprocessed = (nnunet_folders[v] / "Dataset001_X" for v in ("nnUNet_raw", "nnUNet_preprocessed"))
    data = dataset(raw)
    write_splits(raw, (["case_2"], ["case_1"]))
    assert fold_split(data, 0) == (["case_2"], ["case_1"])
    write_splits(preprocessed, (["case_3"], ["case_1"]))
    assert fold_split(data, 0) == (["case_3"], ["case_1"])
    with pytest.raises(ConfigError, match=r"fold 1.*splits_final\.json"):
        fold_split(data, 1)
    write_splits(preprocessed)
    with pytest.raises(ConfigError, match=r"fold 0.*all"):
        fold_split(data, 0)


@pytest.mark.parametrize(
    ("split", "match"),
    [
        ((["case_1", "gone"], ["lost"]), "fold 0.* 2 .*gone, lost"),
        ((["case_1", "case_2"], ["case_2"]), "fold 0.* 1 .*case_2"),
        (([], ["case_2"]), "fold 0"),
    ],
)
def test_wrong_split_files_are_refused(tmp_path: Path, split: tuple[list[str], list[str]], match: str) -> None:
    write_splits(tmp_path, split)
    with pytest.raises(DataError, match=match):
        fold_split(dataset(tmp_path), 0)
    (tmp_path / "splits_final.json").write_text('{"train": []}')
    with pytest.raises(DataError, match=r"splits_final\.json.*TypeError"):
        fold_split(dataset(tmp_path), 0)


def test_impossible_folds_are_refused(tmp_path: Path) -> None:
    for fold in (5, -1, "x", "0.5", "²", ""):
        with pytest.raises(ConfigError, match=f"fold '?{fold}.*0 to 4"):
            fold_split(dataset(tmp_path), fold)
    with pytest.raises(DataError, match=r"4 training cases.* 5 .*all"):
        fold_split(dataset(tmp_path, 4), 0)
    assert len(fold_split(dataset(tmp_path, 4), "all")[0]) == 4


@pytest.mark.parametrize(("written", "name"), [("00", "0"), ("03", "3"), (" 1", "1"), ("+2", "2"), ("ALL", "all")])
def test_a_fold_has_one_name_which_is_that_of_its_folder(tmp_path: Path, written: str, name: str) -> None:
    with pytest.raises(ConfigError, match=rf"'{re.escape(written)}'.*type {name}$"):
        fold_split(dataset(tmp_path), written)
    assert fold_split(dataset(tmp_path), name)


@given(st.sets(st.text(max_size=4), min_size=1), st.sets(st.text(max_size=4)))
def test_fold_safety_is_disjointness(generator: set[str], evaluated: set[str]) -> None:
    if generator & evaluated:
        with pytest.raises(DataError, match="fold 0 of X"):
            check_fold_safety(generator, evaluated, "fold 0 of X")
    else:
        check_fold_safety(generator, evaluated, "fold 0 of X")


def test_fold_safety_names_the_cases_and_refuses_an_unknown_generator() -> None:
    with pytest.raises(DataError, match=r"the test set.* 2 .*a, c.*jdm-train"):
        check_fold_safety(iter(["c", "b", "a"]), iter(["a", "c", "d"]), "the test set")
    with pytest.raises(DataError, match=r"the test set.*jdm-export"):
        check_fold_safety([], ["a"], "the test set")
