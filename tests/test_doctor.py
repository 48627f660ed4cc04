"""The doctor: silent about what is well, and a fix for all that is not."""

import importlib.metadata
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from raw_miniatures import edit_json, make_dataset, make_pair
from small_runs import tiny_run, write_pictures

import jdm.cli.doctor
from jdm.data.raw_dataset import Finding
from jdm.errors import ConfigError
from jdm.train.checkpoint import WEIGHTS, run_folder
from nnunet_integration.doctor import examine
from nnunet_integration.doctor_page import Report
from nnunet_integration.settings import ext_folder

FOUR = ("jdm-convert", "jdm-train", "jdm-export", "jdm-experiment")
NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="tells of a machine without a GPU")


@pytest.fixture
def folders(nnunet_folders, monkeypatch):
    """An environment without a fault."""
    monkeypatch.setenv("nnUNet_extTrainer", str(ext_folder()))
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    for variable in ("OMP_THREAD_LIMIT", "nnUNet_n_proc_DA", "WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2**40))
    return nnunet_folders


def musts(report: Report) -> list[Finding]:
    return [finding for finding in report.findings if finding.must]


def typed(monkeypatch, capsys, *words: str) -> tuple[int, str, str]:
    """Exit status and output of jdm-doctor, in this process."""
    monkeypatch.setattr(sys, "argv", ["jdm-doctor", *words])
    status = 0
    try:
        jdm.cli.doctor.main()
    except SystemExit as stop:
        status = int(stop.code or 0)
    return status, *capsys.readouterr()


def tree(folder: Path) -> dict[str, bytes | None]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


def test_what_is_well_has_no_findings_and_nothing_is_changed(folders, tmp_path, monkeypatch, capsys):
    real = write_pictures(folders["nnUNet_raw"])
    checkpoint = tiny_run(real, train={"steps": 1}).checkpoint
    before = tree(tmp_path)
    status, page, told = typed(monkeypatch, capsys, "21")
    assert (status, told) == (0, "")
    assert page.endswith("Must be fixed: none\n\nNotes: none\n") and len(page.splitlines()) < 60
    for fact in (
        sys.version.split()[0], "torch ", "nnunetv2 ", str(folders["nnUNet_raw"]), str(ext_folder()), "5 training",
        "0 background, 1 class1", "(1, 16, 24) of uint8", "weights of step 1", checkpoint.sha256[:12], "GiB free",
        "NaturalImage2DIO",
    ):  # fmt: skip
        assert fact in page.replace("~", str(Path.home())), fact
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("variable", "value", "must", "needs", "found"),
    [
        ("nnUNet_raw", None, True, "jdm-convert", r"export nnUNet_raw="),
        ("nnUNet_raw", "~/raw", True, "jdm-train", rf"~/raw.*type: export nnUNet_raw={Path.home()}/raw$"),
        ("nnUNet_preprocessed", None, True, "jdm-experiment", r"export nnUNet_preprocessed="),
        ("nnUNet_preprocessed", "/proc", True, "jdm-experiment", r"/proc .*export nnUNet_preprocessed="),
        ("nnUNet_results", "/nowhere/at/all", False, "nnUNetv2_train", r"type: mkdir -p /nowhere/at/all"),
        ("jdm_results", "/proc", True, "jdm-train", r"/proc .*export jdm_results="),
        ("WORLD_SIZE", "2", True, "jdm-train", r"WORLD_SIZE=2.*torchrun.*unset WORLD_SIZE$"),
        ("nnUNet_extTrainer", None, False, "nnUNetv2_train", r"export nnUNet_extTrainer=.*nnunet_integration/ext$"),
        ("nnUNet_extTrainer", f"{ext_folder()}:/nowhere", False, "nnUNetv2_train", r"names /nowhere,"),
        pytest.param("OMP_WAIT_POLICY", "active", False, "nnUNetv2_train", "=passive", marks=NO_GPU),
        ("OMP_THREAD_LIMIT", "1", False, "nnUNetv2_train", r"type: unset OMP_THREAD_LIMIT"),
        ("nnUNet_n_proc_DA", "0", False, "nnUNetv2_plan", r"type: export nnUNet_n_proc_DA=1"),
    ],
)
def test_a_wrong_variable_is_one_finding_with_the_line_to_type(
    folders, monkeypatch, variable, value, must, needs, found
):
    """Only what one of the four commands needs has to be mended."""
    if value is None:
        monkeypatch.delenv(variable)
    else:
        monkeypatch.setenv(variable, value)
    (finding,) = examine().findings
    assert re.search(found, finding.text) and "\n" not in finding.text
    assert finding.must == must == any(command in finding.needs for command in FOUR) and needs in finding.needs


def test_runs_are_found_in_a_results_folder_named_from_the_home_folder(folders, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("jdm_results", "~/runs")
    assert run_folder("Dataset021_Stripes", "0") == tmp_path / "runs/Dataset021_Stripes/fold_0"
    assert [value for name, value in examine().facts if name == "jdm_results"] == [f"{tmp_path}/runs, 1024.0 GiB free"]


def test_little_room_is_a_note(folders, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=5 * 2**20))
    findings = examine().findings
    assert [f.text.split(":")[0] for f in findings] == [
        "nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results", "jdm_results"
    ]  # fmt: skip
    assert all(" 5 MiB" in finding.text and not finding.must for finding in findings)


def test_packages_that_are_missing_or_of_another_version_are_found(folders, monkeypatch):
    wanted = ["nnunetv2<1", "no-such-package-of-ours>=2", "numpy"]
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: wanted)
    first, second = musts(examine())
    assert re.search(r"nnunetv2 .*2\.\d.*<1.*pip install 'nnunetv2<1'", first.text)
    assert re.search(r"no-such-package-of-ours .*>=2.*pip install", second.text)


@NO_GPU
def test_a_driver_without_a_gpu_in_torch_is_a_note(folders, monkeypatch, tmp_path):
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    (finding,) = examine().findings
    assert "nvidia-smi" in finding.text and not finding.must


def test_what_killed_commands_left_and_doubled_ids_are_found(folders):
    raw = folders["nnUNet_raw"]
    for name in (".jdm-partial-Dataset521_A", ".Dataset009_B.partial-77"):
        (raw / name).mkdir()
    make_dataset(raw, [make_pair()], id=7)
    (folders["nnUNet_preprocessed"] / "Dataset007_Other").mkdir()
    report = examine("7")
    doubled, *left = report.findings
    assert doubled.must and re.search("7 .*Dataset007_Cells .*Dataset007_Other", doubled.text)
    assert [(f"rm -r {raw}/" in f.text, f.must, f.needs) for f in left] == [
        (True, False, "jdm-convert"), (True, False, "jdm-export")
    ]  # fmt: skip


def test_every_finding_of_a_sick_dataset_has_its_fix(folders, monkeypatch, capsys):
    pairs = [make_pair(c, seed=n) for n, c in enumerate(["a", "A", "b", "c", "d", "e"])]
    pairs[4].label[:] = 0
    folder = make_dataset(folders["nnUNet_raw"], pairs)
    (folder / "imagesTr" / "c_0000.png").write_bytes((folder / "imagesTr" / "b_0000.png").read_bytes())
    (folder / "imagesTr" / "e_0000.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (folder / "labelsTr" / "extra.png").write_bytes((folder / "labelsTr" / "b.png").read_bytes())
    (folder / "splits_final.json").write_text('[{"train": ["a", "zz"], "val": ["b"]}]')
    status, page, _ = typed(monkeypatch, capsys, "7")
    assert status == 1
    must, notes = page[page.index("Must be fixed: 2") :].split("Notes: 4")
    for text, expected in ((must, ("e_0000.png", "zz")), (notes, ("A and a", "equal to", "empty", "extra"))):
        lines = re.findall(r"^  \d+\. (.*) \[jdm-\S+.*\]$", text, re.M)
        assert len(lines) == len(expected)
        for name in expected:
            assert sum(name in line for line in lines) == 1, name


def test_a_dataset_that_cannot_be_opened_is_a_finding_and_an_unknown_one_an_error(folders, monkeypatch, capsys):
    folder = make_dataset(folders["nnUNet_raw"], [make_pair()])
    edit_json(folder, numTraining=3)
    status, page, _ = typed(monkeypatch, capsys, "Cells")
    assert status == 1 and re.search("1\\. .*dataset.json: numTraining .*3.* 1 ", page) and "Software" in page
    status, page, told = typed(monkeypatch, capsys, "8")
    assert (status, page) == (2, "") and told.count("\n") == 1 and "Dataset007_Cells" in told
    monkeypatch.delenv("nnUNet_raw")
    status, page, _ = typed(monkeypatch, capsys, "8")
    assert status == 1 and "export nnUNet_raw=" in page


def test_a_damaged_checkpoint_and_one_of_another_dataset_are_found(folders):
    real = write_pictures(folders["nnUNet_raw"])
    tiny_run(real, train={"steps": 1})
    weights = run_folder(real.name, "all") / WEIGHTS
    other = run_folder(real.name, "0")
    other.mkdir()
    (other / WEIGHTS).write_bytes(weights.read_bytes())
    weights.write_bytes(weights.read_bytes()[:1000])
    for part in ("imagesTr/case_0_0000.png", "labelsTr/case_0.png"):
        (real.folder / part).unlink()
    edit_json(real.folder, numTraining=4)
    other_dataset, damaged = musts(examine("21"))
    assert "fold_all" in damaged.text and "case_0" in other_dataset.text


@pytest.mark.parametrize(
    ("manifest", "provenance", "found"),
    [
        ('{"case_id": "a"}\n', '{"generator": {"training_ids": ["x"]}}', None),
        ('{"case_id": "b"}\n', '{"generator": {"training_ids": ["x"]}}', "manifest.jsonl"),
        ('{"case_id": "a"}\n{"case', '{"generator": {"training_ids": ["x"]}}', "line 2"),
        (None, '{"generator": {"training_ids": ["x"]}}', "manifest.jsonl"),
        ('{"case_id": "a"}\n', "[]", "provenance.json"),
    ],
)
def test_a_synthetic_sets_papers_are_checked(folders, manifest, provenance, found):
    folder = make_dataset(folders["nnUNet_raw"], [make_pair()])
    (folder / "provenance.json").write_text(provenance)
    if manifest is not None:
        (folder / "manifest.jsonl").write_text(manifest)
    report = examine("7")
    assert ("folds", "'all' only, of 1 cases") in report.facts
    assert [bool(found and found in finding.text) for finding in musts(report)] == [True] * bool(found)


def test_a_page_stays_a_page_and_its_commands_work_with_the_home_folder_hidden(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ann")
    findings = [Finding(f"finding {n}", "jdm-train", must=n < 30) for n in range(60)]
    text = "rm -r /home/ann/x; or: export A=/home/ann/b:/home/ann/c; or: rm '/home/ann/d e'"
    findings[0] = Finding(text, "", must=True)
    report = Report([("Folders", ""), ("nnUNet_raw", "/home/ann/raw, 1 GiB free")], findings)
    page = report.text()
    assert "rm -r ~/x; or: export A=~/b:~/c; or: rm '/home/ann/d e'" in page and " ~/raw" in page
    for heading, last in (("Must be fixed: 30", 19), ("Notes: 30", 49)):
        assert heading in page and f"  20. finding {last} [jdm-train]\n  and 10 more" in page
    assert page.count("--all") == 2 and "  30. finding 59 " in report.text(None)


def test_an_unknown_dataset_is_refused_by_the_function_too(folders):
    with pytest.raises(ConfigError, match="is not there"):
        examine("77")
