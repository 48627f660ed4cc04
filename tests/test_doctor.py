"""The doctor: silent about what is well, and a fix for all that is not."""

import re
import sys
from pathlib import Path

import pytest
from raw_miniatures import edit_json, make_dataset, make_pair
from small_runs import tiny_run, write_pictures

import jdm.cli.doctor
import nnunet_integration.doctor
from jdm.errors import ConfigError
from jdm.train.checkpoint import WEIGHTS, run_folder
from nnunet_integration.doctor import Report, examine
from nnunet_integration.settings import ext_folder

CURE = re.compile(
    r"type: |rename|remove|correct|replace|restore|export .* again|train again|free space|add |choose|annotate"
)


@pytest.fixture
def folders(nnunet_folders, monkeypatch):
    """An environment without a fault."""
    monkeypatch.setenv("nnUNet_extTrainer", str(ext_folder()))
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    for variable in ("OMP_THREAD_LIMIT", "nnUNet_n_proc_DA"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(nnunet_integration.doctor, "_LEAST_FREE", 0)
    monkeypatch.setattr(nnunet_integration.doctor.shutil, "which", lambda name: None)
    return nnunet_folders


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
    checkpoint = tiny_run(real, train={"steps": 1})
    before = tree(tmp_path)
    status, page, told = typed(monkeypatch, capsys, "21")
    assert (status, told) == (0, "")
    assert page.endswith("Findings: none\n") and len(page.splitlines()) < 60
    for fact in (
        sys.version.split()[0], "torch ", "nnunetv2 ", str(folders["nnUNet_raw"]), str(ext_folder()), "5 training",
        "0 background, 1 class1", "(1, 16, 24) of uint8", "weights of step 1", checkpoint.sha256[:12], "GiB free",
    ):  # fmt: skip
        assert fact in page.replace("~", str(Path.home())), fact
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("variable", "value", "found"),
    [
        ("nnUNet_raw", None, r"nnUNet_raw is not set.*export nnUNet_raw="),
        ("nnUNet_results", "/nowhere/at/all", r"not a folder; type: mkdir -p /nowhere/at/all"),
        ("nnUNet_extTrainer", None, r"does not name the folder.*export nnUNet_extTrainer=.*nnunet_integration/ext$"),
        ("nnUNet_extTrainer", f"{ext_folder()}:/nowhere", r"names /nowhere, which nnU-Net skips"),
        ("OMP_WAIT_POLICY", "active", r"export OMP_WAIT_POLICY=passive"),
        ("OMP_THREAD_LIMIT", "1", r"hangs at that; type: unset OMP_THREAD_LIMIT"),
        ("nnUNet_n_proc_DA", "0", r"planner stops.*export nnUNet_n_proc_DA=1"),
    ],
)
def test_a_wrong_variable_is_one_finding_with_the_line_to_type(folders, monkeypatch, variable, value, found):
    monkeypatch.setattr(nnunet_integration.doctor, "_gpus", lambda report: [])
    if value is None:
        monkeypatch.delenv(variable)
    else:
        monkeypatch.setenv(variable, value)
    (finding,) = examine().findings
    assert re.search(found, finding) and "\n" not in finding


def test_a_folder_that_cannot_be_written_or_is_full_is_found(folders, monkeypatch):
    def refused(dir: Path):
        if dir == folders["nnUNet_results"]:
            raise PermissionError(13, "Permission denied")
        return open(dir / "probe", "wb")  # noqa: PTH123

    monkeypatch.setattr(nnunet_integration.doctor.tempfile, "TemporaryFile", refused)
    (finding,) = examine().findings
    assert re.search(r"nnUNet_results: cannot write .*Permission denied.*export nnUNet_results=", finding)
    monkeypatch.undo()


def test_little_room_is_found(folders, monkeypatch):
    monkeypatch.setattr(nnunet_integration.doctor, "_LEAST_FREE", 2**80)
    findings = examine().findings
    assert [f.split(":")[0] for f in findings] == [
        "nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results", "jdm_results"
    ]  # fmt: skip
    assert all("MiB free" in f and "free space" in f for f in findings)


def test_packages_that_are_missing_or_of_another_version_are_found(folders, monkeypatch):
    monkeypatch.setattr(
        nnunet_integration.doctor, "_requirements", lambda: ["nnunetv2<1", "no-such-package-of-ours>=2", "numpy"]
    )
    first, second = examine().findings
    assert re.search(r"nnunetv2 is 2\S*; expected <1; type: pip install 'nnunetv2<1'", first)
    assert re.search(r"no-such-package-of-ours is missing; expected >=2; type: pip install", second)


def test_a_driver_without_a_gpu_in_torch_is_found(folders, monkeypatch):
    monkeypatch.setattr(nnunet_integration.doctor, "_gpus", lambda report: [])
    monkeypatch.setattr(nnunet_integration.doctor.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    assert ["torch sees no GPU" in finding for finding in examine().findings] == [True]


def test_what_killed_commands_left_and_doubled_ids_are_found(folders):
    raw = folders["nnUNet_raw"]
    for name in (".jdm-partial-Dataset521_A", ".Dataset009_B.partial-77"):
        (raw / name).mkdir()
    make_dataset(raw, [make_pair()], id=7)
    (folders["nnUNet_preprocessed"] / "Dataset007_Other").mkdir()
    report = examine("7")
    doubled, *left = report.findings
    assert "id 7 belongs to Dataset007_Cells and to Dataset007_Other" in doubled
    assert all("rm -r" in finding for finding in left) and len(left) == 2


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
    findings = re.findall(r"^  \d+\. (.*)$", page, re.M)
    for expected in ("upper and lower", "equals that of", "is empty", "cannot be read", "have no image", "zz"):
        assert sum(expected in finding for finding in findings) == 1, expected
    assert len(findings) == 6 and "Findings: 6" in page
    assert [finding for finding in findings if not CURE.search(finding)] == []


def test_a_dataset_that_cannot_be_opened_is_a_finding_and_an_unknown_one_an_error(folders, monkeypatch, capsys):
    folder = make_dataset(folders["nnUNet_raw"], [make_pair()])
    edit_json(folder, numTraining=3)
    status, page, _ = typed(monkeypatch, capsys, "Cells")
    assert status == 1 and "numTraining is 3, found 1" in page and "Software" in page
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
    other_dataset, damaged = examine("21").findings
    assert "fold_all" in damaged and "not a whole jdm checkpoint" in damaged
    assert "training cases ['case_0'] are not in the dataset" in other_dataset


@pytest.mark.parametrize(
    ("manifest", "provenance", "found"),
    [
        ('{"case_id": "a"}\n', '{"generator": {"training_ids": ["x"]}}', None),
        ('{"case_id": "b"}\n', '{"generator": {"training_ids": ["x"]}}', "names 1 cases, the folder holds 1"),
        ('{"case_id": "a"}\n{"case', '{"generator": {"training_ids": ["x"]}}', "line 2 is no record"),
        (None, '{"generator": {"training_ids": ["x"]}}', "manifest.jsonl: cannot be read"),
        ('{"case_id": "a"}\n', "[]", "cannot tell which real cases"),
    ],
)
def test_a_synthetic_sets_papers_are_checked(folders, manifest, provenance, found):
    folder = make_dataset(folders["nnUNet_raw"], [make_pair()])
    (folder / "provenance.json").write_text(provenance)
    if manifest is not None:
        (folder / "manifest.jsonl").write_text(manifest)
    report = examine("7")
    assert ("folds", "'all' only, of 1 cases") in report.facts
    assert [bool(found and found in finding) for finding in report.findings] == [True] * bool(found)


def test_a_page_stays_a_page_and_hides_the_home_folder(monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: Path("/home/ann"))
    report = Report([("Folders", ""), ("nnUNet_raw", "/home/ann/raw, 1 GiB free")], [f"finding {n}" for n in range(30)])
    page = report.text()
    assert "/home/ann" not in page and "~/raw" in page
    assert "  20. finding 19\n  and 10 more; add --all to see them\n" in page and "Findings: 30" in page
    assert "  30. finding 29\n" in report.text(None)


def test_an_unknown_dataset_is_refused_by_the_function_too(folders):
    with pytest.raises(ConfigError, match="is not there"):
        examine("77")
