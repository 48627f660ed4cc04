"""`jdm-report` on each kind of folder: page and twin say the same, nothing in data is code, bad input is refused."""

import base64
import hashlib
import io
import itertools
import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import report_folders as made
from PIL import Image

from jdm.data.raw_dataset import read_dataset
from jdm.errors import JdmError
from jdm.report.folder import report_folder

KINDS: dict[str, Callable[[Path], Path]] = {
    "synthetic dataset": lambda root: made.synthetic_folder(root / "raw"),
    "experiment": lambda root: made.experiment_folder(root / "experiment_fold_all"),
    "classify": lambda root: made.classify_folder(root / "classify"),
    "evaluation": lambda root: made.evaluation_folder(root / "evaluation"),
    "run": lambda root: made.run_folder(root / "fold_all"),
    "demo": lambda root: made.demo_folder(root / "demo"),
}
VOID = {"meta", "img", "input", "rect", "path"}


class Page(HTMLParser):
    """Checks that tags are closed in order, and collects elements and the text of each kind of tag."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        for tag in set(self.open):
            self.texts[tag][-1] += data

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def shown(page: Path) -> tuple[Page, dict, str]:
    text = page.read_text(encoding="utf-8")
    return Page(text), json.loads(page.with_suffix(".json").read_text(encoding="utf-8")), text


@pytest.mark.parametrize("kind", KINDS)
def test_page_and_twin_say_the_same(kind: str, tmp_path: Path) -> None:
    page, twin, text = shown(report_folder(KINDS[kind](tmp_path)))
    assert twin["kind"] == kind
    assert page.texts["title"] == page.texts["p"][:1] == [twin["title"]]
    assert " ".join(page.texts["h1"]) in twin["verdict"] and len(page.texts["h1"]) == 1
    said = re.sub(r"[:.\s]", "", "".join(page.texts["h1"] + page.texts["p"][1:]))
    assert re.sub(r"[:.\s]", "", twin["verdict"]) in said
    sections = twin["sections"]
    origin = ["Commands and provenance"] if twin["commands"] or twin["provenance"] else []
    assert page.texts["h2"] == [part["title"] for part in sections] + origin
    every = {key: [item for part in sections for item in part[key]] for key in sections[0] if key != "title"}
    assert set(every["paragraphs"] + every["notes"]) <= set(page.texts["p"])
    assert page.texts.get("h3", []) == [group["title"] for group in every["groups"]]
    assert page.texts.get("caption", []) == [table["caption"] for table in every["tables"]]
    cells = [cell for table in every["tables"] for row in (table["header"], *table["rows"]) for cell in row]
    assert sorted(page.texts.get("th", []) + page.texts.get("td", [])) == sorted(cells)
    assert page.texts.get("code", []) == (["\n".join(twin["commands"])] if twin["commands"] else [])
    facts = dict(zip(page.texts.get("dt", []), page.texts.get("dd", []), strict=True))
    assert facts == twin["provenance"]
    pictures = [picture["alt"] for part in sections for group in part["groups"] for picture in group["pictures"]]
    alts = [image["alt"] for image in page.attributes("img") if image.get("class") != "contours"]
    assert sorted(alts) == sorted(pictures + [sheet["alt"] for sheet in every["sheets"]]) and all(alts)
    plots = [svg["aria-label"] or "" for svg in page.attributes("svg") if svg.get("role") == "img"]
    assert [plot["title"] in label for plot, label in zip(every["plots"], plots, strict=True)].count(False) == 0
    assert "http" not in re.sub(r'http-equiv="', "", text)


@pytest.mark.parametrize("kind", KINDS)
def test_page_is_one_file_whose_policy_admits_only_its_own_code(kind: str, tmp_path: Path) -> None:
    page, _, text = shown(report_folder(KINDS[kind](tmp_path)))
    policy = next(meta["content"] or "" for meta in page.attributes("meta") if "content" in meta)
    assert policy.startswith("default-src 'none'; img-src data:;")
    for tag, name in (("style", "style"), ("script", "script")):
        [code] = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        assert base64.b64encode(hashlib.sha256(code.encode()).digest()).decode() in policy, name
    assert all((image["src"] or "").startswith("data:image/png;base64,") for image in page.attributes("img"))
    assert not any(key == "style" or key.startswith("on") for _, attributes in page.tags for key in attributes)
    assert not {"link", "iframe", "object", "form"} & {tag for tag, _ in page.tags}
    levels = [int(tag[1]) for tag, _ in page.tags if tag in ("h1", "h2", "h3")]
    assert levels[0] == 1 and all(b <= a + 1 for a, b in itertools.pairwise(levels))
    assert [tag for tag, _ in page.tags if tag in ("header", "main")] == ["header", "main"]


def test_the_verdict_of_an_experiment_comes_first_with_what_it_rests_on(tmp_path: Path) -> None:
    page, twin, _ = shown(report_folder(made.experiment_folder(tmp_path / "e")))
    assert page.texts["h1"] == ["Synthetic pairs helped"]
    first = " ".join(page.texts["p"][1:5])
    for words in ("pretrain-finetune minus real-long", "Dice [+", "The control, real-long", "smallest difference"):
        assert words in first
    [plot] = twin["sections"][0]["plots"]
    assert plot["rows"]["pretrain-finetune minus real-long"][0] == pytest.approx(0.08, abs=0.01)
    assert {*plot["marks"]} == {"no difference", "smallest that could have been seen"}


def test_pairs_neighbours_and_curves_are_shown_where_they_are_at_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    demo = made.demo_folder(tmp_path / "demo")
    _, twin, _ = shown(report_folder(demo))
    titles = [part["title"] for part in twin["sections"]]
    order = [
        "Effect",
        "Real and synthetic pairs",
        "Nearest training cases",
        "Distances and distributions",
        "Foreground",
    ]
    assert titles == [
        *order, "Scores of the arms", "Test cases", "Predictions", "The generator's training", "Time"
    ]  # fmt: skip
    assert twin["commands"] == ["export A=$PWD/A", "jdm-train 1 all", "jdm-export 1 all"]
    monkeypatch.delenv("nnUNet_raw", raising=False)
    alone = shutil.copytree(demo / "jdm_results" / made.REAL / "experiment_fold_all", tmp_path / "alone")
    _, fewer, _ = shown(report_folder(alone))
    assert [part["title"] for part in fewer["sections"]] == [
        "Effect",
        "Scores of the arms",
        "Test cases",
        "Predictions",
    ]
    monkeypatch.setenv("nnUNet_raw", str(demo / "nnUNet_raw"))
    monkeypatch.setenv("jdm_results", str(demo / "jdm_results"))
    _, again, _ = shown(report_folder(alone))
    assert [part["title"] for part in again["sections"]] == titles[:-1]


@pytest.mark.parametrize("shape", [(16, 24), (6, 16, 24)])
def test_a_copy_stands_first_beside_the_case_it_was_copied_from(shape: tuple[int, ...], tmp_path: Path) -> None:
    folder = made.synthetic_folder(tmp_path / "raw", shape)
    _, twin, _ = shown(report_folder(folder))  # lies beside pairs that may be shared
    assert "Nearest training cases" not in [part["title"] for part in twin["sections"]]
    page, twin, _ = shown(report_folder(folder, real=read_dataset(folder.parent / made.REAL)))
    part = next(part for part in twin["sections"] if part["title"] == "Nearest training cases")
    first, *others = part["groups"]
    assert first["title"] == "syn_000000, taken for a copy" and first["suspect"]
    assert "case_0: distance 0.00" in first["pictures"][1]["caption"]
    assert not any(group["suspect"] for group in others)
    assert twin["verdict"].startswith("1 of 3 pairs are copies")
    table = next(t for p in twin["sections"] for t in p["tables"] if t["caption"].startswith("Each pair"))
    assert table["rows"][0][:2] == ["syn_000000", "case_0"] and table["rows"][0][-1] == "yes"
    images = [image for image in page.attributes("img") if "syn" in (image["alt"] or "") or "case_0" in image["alt"]]
    pictures = {image["alt"]: _decoded(image["src"]) for image in images}
    copy, source = (next(v for k, v in pictures.items() if k.startswith(name)) for name in
                    ("Synthetic case syn_000000", "Nearest training case case_0"))  # fmt: skip
    assert np.array_equal(copy, source)


def _decoded(source: str | None) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode((source or "").partition(",")[2]))))


def test_contours_are_a_layer_over_an_untouched_image(tmp_path: Path) -> None:
    folder = made.synthetic_folder(tmp_path / "raw", audited=False)
    page, twin, _ = shown(report_folder(folder))
    assert "not audited" in twin["verdict"]
    images = page.attributes("img")
    place = next(n for n, image in enumerate(images) if "syn_000000" in (image["alt"] or ""))
    image, contours = (_decoded(images[n]["src"]) for n in (place, place + 1))
    assert images[place + 1]["alt"] == "" and images[place + 1]["class"] == "contours"
    assert image.ndim == 2 and image.shape == (16, 24)
    factor = contours.shape[0] // 16
    assert contours.shape == (16 * factor, 24 * factor, 4) and factor * 24 >= 400
    drawn = contours[..., 3] > 0
    assert 0 < drawn.mean() < 0.2 and len(np.unique(contours[drawn], axis=0)) == 2  # one colour per class
    assert len(page.attributes("input")) == 1 and page.texts["label"] == ["Show contours"]


def test_text_from_data_is_never_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = tmp_path / "raw"
    monkeypatch.setenv("nnUNet_raw", str(raw))
    folders = [
        made.synthetic_folder(raw, case=made.EVIL_CASE, label=made.EVIL),
        made.experiment_folder(tmp_path / "e", label=made.EVIL, case=made.EVIL_CASE),
        *(KINDS[kind](tmp_path) for kind in ("classify", "evaluation", "run")),
    ]
    for folder in folders:
        page, twin, text = shown(report_folder(folder))
        assert text.count("<script") == text.count("</script>") == 1, folder
        assert "<img src=x" not in text and not any("onerror" in attributes for _, attributes in page.tags)
        assert made.EVIL in json.dumps(twin, ensure_ascii=False).replace('\\"', '"'), folder


def test_each_command_that_ends_in_results_writes_a_report(tmp_path: Path, typed, monkeypatch) -> None:
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    folder = made.synthetic_folder(tmp_path / "raw", audited=False)
    status, printed, errors = typed("jdm-audit", "521", "--like", "21", "--out", tmp_path / "audit")
    assert (status, errors) == (0, "") and str(tmp_path / "audit" / "report.html") in printed
    _, twin, _ = shown(tmp_path / "audit" / "report.html")
    assert twin["kind"] == "audit" and "Distances and distributions" in [part["title"] for part in twin["sections"]]
    assert typed("jdm-report", tmp_path / "audit", "--like", "21")[0] == 0
    _, twin, _ = shown(tmp_path / "audit" / "report.html")
    assert "Nearest training cases" in [part["title"] for part in twin["sections"]]
    labels = folder / "labelsTr"
    words = ["--predictions", labels, "--references", labels, "--out", tmp_path / "scores"]
    status, printed, _ = typed("jdm-evaluate", *words)
    assert status == 0 and str(tmp_path / "scores" / "report.html") in printed
    status, printed, _ = typed("jdm-report", folder, "--out", tmp_path / "new" / "place")
    assert status == 0 and printed.strip() == str(tmp_path / "new" / "place" / "report.html")
    assert not (folder / "report.html").exists()
    assert sorted(path.name for path in (tmp_path / "new" / "place").iterdir()) == ["report.html", "report.json"]


def _damaged(name: str, text: str | None) -> Callable[[Path], Path]:
    """A change of a folder: a file of another content, or none."""

    def change(folder: Path) -> Path:
        file = folder / name
        content = file.read_text(encoding="utf-8", errors="replace")
        file.unlink() if text is None else file.write_text(content[:60] if text == "cut" else text, encoding="utf-8")
        return file

    return change


DAMAGE = [
    ("experiment", "results.json", "cut"), ("experiment", "results.json", "[]"), ("experiment", "results.json", "{}"),
    ("experiment", "results.json", '{"cells": 3}'), ("experiment", "scores/real_seed_0.json", "cut"),
    ("experiment", "scores/real_seed_0.json", '{"cases": [1]}'), ("experiment", "pictures/i05.png", "cut"),
    ("classify", "results.json", '{"runs": 1, "settings": []}'), ("classify", "curves.png", "cut"),
    ("synthetic dataset", "audit.json", "cut"), ("synthetic dataset", "audit.json", "{}"),
    ("synthetic dataset", "provenance.json", "cut"), ("synthetic dataset", "provenance.json", '{"generator": {}}'),
    ("synthetic dataset", "provenance.json", None), ("synthetic dataset", "manifest.jsonl", "cut"),
    ("synthetic dataset", "labelsTr/syn_000002.png", None), ("synthetic dataset", "labelsTr/syn_000002.png", "cut"),
    ("synthetic dataset", "dataset.json", None),
    ("evaluation", "evaluation.json", "cut"), ("evaluation", "evaluation.json", '{"classes": []}'),
    ("run", "plan.toml", "a = ["), ("run", "log.csv", "x"), ("run", "checkpoint.json", "{}"),
    ("run", "samples/step_000020.png", "cut"), ("demo", "demo.json", None), ("demo", "demo.json", '{"steps": 1}'),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "name", "text"), DAMAGE)
def test_a_damaged_part_is_one_line_that_names_it_and_nothing_is_altered(
    kind: str, name: str, text: str | None, tmp_path: Path, typed
) -> None:
    folder = KINDS[kind](tmp_path)
    report_folder(folder)
    before = (folder / "report.html").read_bytes(), (folder / "report.json").read_bytes()
    _damaged(name, text)(folder)
    status, printed, error = typed("jdm-report", folder)
    assert (status, printed) == (2, "") and error.count("\n") == 1 and error.startswith("jdm-report: error: ")
    stem = Path(name).name.partition(".")[0]
    assert stem in error and "expected" in error and error.count(";") >= 1, error
    assert ((folder / "report.html").read_bytes(), (folder / "report.json").read_bytes()) == before


def test_folders_that_jdm_did_not_write_or_finish_are_refused(tmp_path: Path) -> None:
    made.dataset(tmp_path, made.REAL, {"case_0": 0}, (16, 24))
    for name in ("experiment.json", "classify.json", "demo.txt", "request.json"):
        made.write_text_in(tmp_path / name.partition(".")[0] / name, "{}")
    export = made.synthetic_folder(tmp_path / "raw", audited=False)
    hidden = export.rename(export.with_name(f".jdm-partial-{export.name}"))
    expected = {
        tmp_path / made.REAL: "holds none of results.json", tmp_path / "nothing": "found nothing",
        tmp_path / "experiment" / "experiment.json": "found a file", tmp_path / "experiment": "jdm-experiment",
        tmp_path / "classify": "jdm-classify", tmp_path / "demo": "unfinished demo",
        tmp_path / "request": "unfinished export", hidden: "unfinished export", tmp_path: "holds none of",
    }  # fmt: skip
    before = sorted(tmp_path.rglob("*"))
    for folder, words in expected.items():
        with pytest.raises(JdmError, match=words) as caught:
            report_folder(folder)
        assert "expected" in str(caught.value) and str(folder) in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_place_that_cannot_be_used_is_refused_and_left_alone(tmp_path: Path) -> None:
    folder = made.evaluation_folder(tmp_path / "evaluation")
    mine = tmp_path / "mine"
    mine.mkdir()
    for name in ("report.html", "report.json"):
        (mine / name).write_text("my thesis")
        with pytest.raises(JdmError, match="not written by jdm"):
            report_folder(folder, mine)
        assert [(file.name, file.read_text()) for file in mine.iterdir()] == [(name, "my thesis")]
        (mine / name).unlink()
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "below" / "it", tmp_path / ("x" * 300)):
        with pytest.raises(JdmError, match="--out"):
            report_folder(folder, out)
    assert not (folder / "report.html").exists()
