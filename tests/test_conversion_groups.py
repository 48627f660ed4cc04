"""Patients: told by --groups or by the source, kept on one side of every fold, recorded, and asked for."""

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conversion_miniatures import LABELS, mask, picture, record, run, save
from hypothesis import given
from hypothesis import strategies as st

from dataset_conversion.groups import group_folds, likely_pattern
from dataset_conversion.options import ClinicDbOptions, PairsOptions
from dataset_conversion.pairs import convert_pairs
from dataset_conversion.polyps import convert_clinicdb
from jdm.cli.convert import KINDS
from jdm.data.groups import read_groups
from jdm.data.raw_dataset import open_dataset
from jdm.data.splits import fold_split
from jdm.errors import ConfigError, DataError


@pytest.fixture
def slices(tmp_path: Path, nnunet_folders: dict[str, Path]) -> PairsOptions:
    """Three slices of each of six patients, and one test slice of the first."""
    names = [f"p{patient}_{number:03d}" for patient in range(6) for number in range(3)]
    for seed, name in enumerate([*names, "p0_900"]):
        split = "test" if name == "p0_900" else "train"
        save(tmp_path / split / "images" / f"{name}.png", picture(seed, (6, 8)))
        save(tmp_path / split / "masks" / f"{name}.png", mask())
    return PairsOptions(tmp_path / "train/images", tmp_path / "train/masks", 11, "Slices", LABELS)


def sides() -> list[tuple[set[str], set[str]]]:
    """Patients in training and in validation, by fold, as jdm and nnU-Net would use them."""
    dataset = open_dataset(11)
    folds = [fold_split(dataset, fold) for fold in range(5)]
    assert sorted(case for _, validation in folds for case in validation) == list(dataset.cases)
    return [({*map(patient, training)}, {*map(patient, validation)}) for training, validation in folds]


def patient(case: str) -> str:
    return case.split("_")[0]


def table(path: Path, cases: list[str], header: str = "case,group", ending: str = "") -> Path:
    path.write_text("\n".join([header, *(f"{case}{ending},{patient(case)}" for case in cases)]) + "\n")
    return path


def test_a_pattern_keeps_patients_on_one_side(slices: PairsOptions) -> None:
    folder = convert_pairs(replace(slices, groups=r"(.+)_\d+")).folder
    for training, validation in sides():
        assert not training & validation
    assert [len(fold["val"]) for fold in json.loads((folder / "splits_final.json").read_text())] == [6, 3, 3, 3, 3]
    found = {entry["case"]: entry["group"] for entry in record(folder)["entries"]}
    assert found == {case: patient(case) for case in open_dataset(11).cases}
    assert record(folder)["source"]["groups"] == r"(.+)_\d+"
    assert len(set(read_groups(open_dataset(11)).values())) == 6


@pytest.mark.parametrize(("header", "ending"), [("case,group", ""), ("Group,x,Case", ""), ("case,group", ".png")])
def test_a_table_says_the_same(slices: PairsOptions, tmp_path: Path, header: str, ending: str) -> None:
    first = convert_pairs(replace(slices, groups=r"(.+)_\d+")).folder / "splits_final.json"
    before = json.loads(first.read_text())
    path = table(tmp_path / "patients.csv", [*open_dataset(11).cases, "of_another_source"], header, ending)
    if header.startswith("Group"):
        rows = [line.split(",") for line in path.read_text().splitlines()[1:]]
        path.write_text("\n".join([header, *(f"{group},,{case}" for case, group in rows)]))
    made = convert_pairs(replace(slices, groups=str(path), overwrite=True))
    assert json.loads((made.folder / "splits_final.json").read_text()) == before


def test_what_the_source_knows_is_overridden(tmp_path: Path, nnunet_folders: dict[str, Path]) -> None:
    for frame in (1, 2, 26, 27):  # of two sequences
        save(tmp_path / f"Original/{frame}.tif", picture(frame))
        save(tmp_path / f"Ground Truth/{frame}.tif", mask())
    options = ClinicDbOptions(tmp_path, 23, groups=r".*(\d)")
    groups = {e["case"]: e["group"] for e in record(convert_clinicdb(options).folder)["entries"]}
    assert groups == {"1": "1", "2": "2", "26": "6", "27": "7"}
    options = replace(options, groups=None, overwrite=True)
    groups = {e["case"]: e["group"] for e in record(convert_clinicdb(options).folder)["entries"]}
    assert groups == {"1": "sequence_01", "2": "sequence_01", "26": "sequence_02", "27": "sequence_02"}


def test_every_kind_takes_groups(nnunet_folders: dict[str, Path]) -> None:
    for kind, (options, _) in KINDS.items():
        assert "groups" in options.__dataclass_fields__, kind


@pytest.mark.parametrize("groups", ["(", r".+_\d+", "nobody.csv", "(x.+)", r"(.+)_\d\d"])
def test_groups_that_cannot_be_used(slices: PairsOptions, groups: str) -> None:
    with pytest.raises((ConfigError, DataError), match=re.escape(groups)) as caught:
        convert_pairs(replace(slices, groups=groups))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda text: text.replace("p3_001,p3\n", ""), r"p3_001"), (lambda text: text + "p0_000,p9\n", "line 20"),
        (lambda text: text.replace("case", "name"), "name,group"), (lambda text: "", "patients.csv"),
    ],
)  # fmt: skip
def test_tables_that_cannot_be_used(slices: PairsOptions, tmp_path: Path, change, named: str) -> None:
    path = table(tmp_path / "patients.csv", [f"p{p}_{n:03d}" for p in range(6) for n in range(3)])
    path.write_text(change(path.read_text()))
    with pytest.raises(DataError, match=named):
        convert_pairs(replace(slices, groups=str(path)))


def test_a_case_with_an_empty_group_is_by_itself(slices: PairsOptions, tmp_path: Path) -> None:
    path = table(tmp_path / "patients.csv", [f"p{p}_{n:03d}" for p in range(6) for n in range(3)])
    path.write_text(path.read_text().replace("p5_000,p5", "p5_000,"))
    convert_pairs(replace(slices, groups=str(path)))
    groups = read_groups(open_dataset(11))
    assert groups["p5_001"] == groups["p5_002"] != groups["p5_000"]


def test_a_test_case_of_the_same_name_may_have_a_line_of_its_own(slices: PairsOptions, tmp_path: Path) -> None:
    for part in ("images", "masks"):
        (tmp_path / "test" / part / "p0_900.png").rename(tmp_path / "test" / part / "p0_000.png")
    both = replace(slices, test_images=tmp_path / "test/images", test_masks=tmp_path / "test/masks")
    path = table(tmp_path / "patients.csv", [f"p{p}_{n:03d}" for p in range(6) for n in range(3)])
    convert_pairs(replace(both, groups=str(path)))
    assert read_groups(open_dataset(11))["p0_000"] == "group p0"
    assert read_groups(open_dataset(11), test=True) == {"test_p0_000": "group p0"}
    path.write_text(path.read_text() + "test_p0_000,q\n")
    convert_pairs(replace(both, groups=str(path), overwrite=True))
    assert read_groups(open_dataset(11))["p0_000"] == "group p0"
    assert read_groups(open_dataset(11), test=True) == {"test_p0_000": "group q"}


def test_patients_in_training_and_test_are_told(slices: PairsOptions, tmp_path: Path) -> None:
    both = replace(slices, test_images=tmp_path / "test/images", test_masks=tmp_path / "test/masks")
    made = convert_pairs(replace(both, groups=r"(.+)_\d+"))
    assert any("p0" in warning and "training and in test" in warning for warning in made.warnings)
    assert read_groups(open_dataset(11), test=True) == {"p0_900": "group p0"}


def test_one_line_asks_for_groups_with_a_pattern_that_fits(slices: PairsOptions) -> None:
    arguments = ["pairs", "--images", slices.images, "--masks", slices.masks, "--id", 11, "--name", "Slices"]
    arguments += ["--labels", *LABELS]
    first = run(*arguments)
    lines = [line for line in first.stderr.splitlines() if "--groups" in line]
    assert len(lines) == 1 and first.returncode == 0
    pattern = shlex.split(lines[0][lines[0].index("--groups") :])[1]
    second = run(*arguments, "--groups", pattern, "--overwrite")
    assert second.returncode == 0
    assert not [line for line in second.stderr.splitlines() if "--groups" in line]
    assert all(not training & validation for training, validation in sides())


@pytest.mark.parametrize(
    ("names", "groups"),
    [
        (["p1_1", "p1_2", "p2_1"], ["p1", "p1", "p2"]), (["P-01-3", "P-01-4", "P-02-3"], ["P-01", "P-01", "P-02"]),
        (["a1_slice3", "a1_slice4", "a2_slice3"], ["a1", "a1", "a2"]), (["01L", "01R", "02L"], ["01", "01", "02"]),
        (["7_left", "7_right", "8_left"], ["7", "7", "8"]), (["x (1)", "x (2)", "y (1)"], ["x", "x", "y"]),
        (["s1.z4", "s1.z5", "s2.z1"], ["s1", "s1", "s2"]), (["k1 003", "k1 004", "k2 001"], ["k1", "k1", "k2"]),
        (["A_x_3y", "A_z", "B_x"], ["A", "A", "B"]), (["case_1", "case_2", "case_3"], None), (["1", "2", "3"], None),
        (["s1_y0_x0", "s1_y9_x9", "s2_y0_x0"], ["s1", "s1", "s2"]), (["s_y0_x0", "s_y0_x9", "s_y9_x0"], None),
        (["a_1", "b_1", "c_1"], None), (["cju0qk", "cju1cf", "cju1dh"], None), (["a_1", "a_2", "b"], None),
    ],
)  # fmt: skip
def test_names_that_look_like_patients(names: list[str], groups: list[str] | None) -> None:
    pattern = likely_pattern(names)
    if groups is None:
        assert pattern is None
    else:
        assert pattern is not None
        assert [match[1] for name in names if (match := re.fullmatch(pattern, name))] == groups


# ---------------------------------------------------------------- folds


@given(st.lists(st.one_of(st.none(), st.sampled_from("abcdefgh")), min_size=1, max_size=40))
def test_folds_keep_groups_together(groups: list[str | None]) -> None:
    by_case = {f"case{i}": group for i, group in enumerate(groups)}
    folds = group_folds(by_case)
    assert folds == group_folds(dict(reversed(by_case.items()))), "whatever order the cases come in"
    distinct = len({g for g in groups if g}) + groups.count(None)
    assert len(folds) == (min(5, distinct) if distinct > 1 else 0)
    for fold in folds:
        assert sorted(fold["train"] + fold["val"]) == sorted(by_case)
        assert fold["val"] and fold["train"]
        sides = [{by_case[case] for case in fold[side]} - {None} for side in ("train", "val")]
        assert not sides[0] & sides[1]
    if folds:
        assert sorted(case for fold in folds for case in fold["val"]) == sorted(by_case)
        sizes = [len(fold["val"]) for fold in folds]
        largest = max(np.unique([g or str(i) for i, g in enumerate(groups)], return_counts=True)[1])
        assert max(sizes) - min(sizes) <= largest, "no fold could be relieved of a group"


def test_folds_are_balanced_by_cases() -> None:
    groups = {f"{g}{i}": g for g, size in zip("abcdefg", (9, 5, 4, 4, 2, 2, 1), strict=True) for i in range(size)}
    assert sorted(len(fold["val"]) for fold in group_folds(groups)) == [4, 4, 5, 5, 9]


def test_all_cases_of_one_patient_have_no_folds(slices: PairsOptions) -> None:
    made = convert_pairs(replace(slices, groups="(p).*"))
    assert not (made.folder / "splits_final.json").exists() and made.fold == "all"
    assert any("'all'" in warning for warning in made.warnings)
    made = convert_pairs(replace(slices, groups="(.*)", overwrite=True))
    assert not (made.folder / "splits_final.json").exists() and made.fold == "0"
    assert any("--groups" in warning for warning in made.warnings)


# ---------------------------------------------------------------- the record


def test_cases_without_a_group_are_by_themselves(slices: PairsOptions) -> None:
    folder = convert_pairs(slices).folder
    dataset = open_dataset(11)
    assert read_groups(dataset) == {case: f"case {case}" for case in dataset.cases}
    (folder / "conversion.json").unlink()
    assert read_groups(dataset) == {case: f"case {case}" for case in dataset.cases}
    (folder / "conversion.json").write_text("{")
    with pytest.raises(DataError, match=r"conversion\.json"):
        read_groups(dataset)
