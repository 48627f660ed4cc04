"""Reports of folders: what they say is what the commands' own pages say, escaped, and nothing else is read."""

import base64
import json
import re
import sys
from pathlib import Path

import pytest
from test_copies import textures
from test_set_audit import synthetic, write

from jdm.cli.report import main
from jdm.errors import DataError
from jdm.evaluation.audit_page import verdict, write_audit
from jdm.evaluation.folder_report import report_folder
from jdm.evaluation.markdown import read_markdown
from jdm.evaluation.set_audit import audit_set

PAGE = """Pairs `helped` by 0.02 & more.

# Comparison <1>

First words
go on.

**Dice, by arm**

| arm | Dice |
|---|---:|
| real\\|long | 0.81 |
| <script>alert(1)</script> | 0.9 |

## Copies

- syn_1: case_2
- syn_3: case_4

| a | b |
|---|---|
| 1 | 2 |
"""


def test_a_page_is_read_as_it_is_written(tmp_path: Path) -> None:
    title, first, sections = read_markdown(PAGE, tmp_path)
    assert (title, first) == ("Comparison <1>", "Pairs helped by 0.02 & more.")
    result, copies = sections
    assert result.paragraphs == ("First words go on.",)
    assert result.tables[0].caption == "Dice, by arm" and result.tables[0].rows[0] == ("real|long", "0.81")
    assert copies.paragraphs == ("- syn_1: case_2", "- syn_3: case_4") and copies.tables[0].caption == "Copies"


def test_results_become_one_file_and_a_twin_that_says_the_same(tmp_path: Path) -> None:
    (tmp_path / "results.md").write_text(PAGE)
    (tmp_path / "results.json").write_text(json.dumps({"command": "jdm-experiment 1 --name '<b>'"}))
    text = report_folder(tmp_path).read_text()
    twin = json.loads((tmp_path / "report.json").read_text())
    assert twin["verdict"] == "Pairs helped by 0.02 & more." and twin["sections"][0]["tables"][0]["rows"][1][1] == "0.9"
    assert text.count("<script>") == 1 and "&lt;script&gt;alert(1)" in text and "&lt;b&gt;" in text
    assert not re.search(r"https?://", text)


@pytest.fixture
def sets(tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    real = write(tmp_path / "Dataset041_Real", textures(16, 64, seed=0))
    return real, synthetic(tmp_path / "Dataset541_Syn", textures(5, 64, seed=5))


def pictures(text: str) -> int:
    return len(re.findall(r'<img src="data:image/png;base64,([^"]+)"', text))


def test_a_synthetic_dataset_is_shown_with_its_audit_and_without_patients_unless_asked_for(sets, monkeypatch, capsys):
    real, made = sets
    text = report_folder(made.folder).read_text()
    assert "These pairs were not audited" in text and pictures(text) == 5
    found = audit_set(made, real)
    write_audit(found, made.folder)
    text = report_folder(made.folder).read_text()
    assert verdict(found).split(".")[0] in text and pictures(text) == 5 and "case_001" in text
    monkeypatch.setattr(sys, "argv", ["jdm-report", str(made.folder), "--like", "41", "--out", str(made.folder / "r")])
    main()
    text = Path(capsys.readouterr().out.strip()).read_text()
    assert pictures(text) == 5 + 12 + 10  # the pairs, real ones, and nearest ones with theirs


def test_pictures_are_those_of_the_files(sets) -> None:
    from PIL import Image

    _, made = sets
    text = report_folder(made.folder).read_text()
    first = re.findall(r'<img src="data:image/png;base64,([^"]+)"', text)[0]
    (made.folder / "shown.png").write_bytes(base64.b64decode(first))
    with Image.open(made.folder / "shown.png") as shown, Image.open(next((made.folder / "imagesTr").iterdir())) as file:
        assert shown.size == (192, 192)
        assert file.size == (64, 64)


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, "holds no results; expected"),
        ({"results.md": "Helped.", "results.json": "{"}, r"results\.json: is not JSON"),
        ({"results.md": "Helped.", "results.json": "[]"}, r"results\.json: holds no record"),
        ({"results.md": b"\xff\xfe\xff"}, r"results\.md: cannot be read"),
        ({"results.md": "Helped.\n\n![curve](curve.png)"}, r"curve\.png: cannot be read"),
    ],
)
def test_damaged_folders_are_refused_by_name_and_nothing_is_written(tmp_path, files, says) -> None:
    for name, content in files.items():
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=says):
        report_folder(tmp_path)
    assert not list(tmp_path.glob("report.*"))
