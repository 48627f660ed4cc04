"""What readers decide about pairs: their files, tables, corrected labels, the page's door, and the reviewed dataset."""

from __future__ import annotations

import csv
import json
import re
import statistics
from pathlib import Path

import numpy as np
import pytest
from export_runs import contents, visible
from review_runs import decide, fix, made, session_of
from scipy.stats import beta
from small_runs import write_pictures

from jdm.data.case_io import read_label
from jdm.data.raw_dataset import Geometry, Pair, RawDataset, read_case, read_dataset, write_case, write_dataset_json
from jdm.errors import DataError
from jdm.review.decisions import Entry, Log, last_words, read_entries, reviewed
from jdm.review.session import blind_items
from jdm.review.shown import shown, upright
from jdm.review.summary import agreement, blind_result, refresh


@pytest.fixture
def syn(nnunet_folders: dict[str, Path]) -> RawDataset:
    return made(nnunet_folders["nnUNet_raw"])


def test_a_torn_last_line_is_ignored_and_cut_off(tmp_path):
    path = tmp_path / "anna.jsonl"
    log = Log(path)
    log.append(Entry("a", "accept", "märkbar", 1.5))
    log.append(Entry("b", "reject"))
    whole = path.read_bytes()
    for torn in (whole[:-1], whole + b'{"case": "c"', whole + b'{"case": "c", "decision": "accept"}'):
        path.write_bytes(torn)
        kept = [entry.case for entry in read_entries(path)]
        assert kept == (["a"] if torn == whole[:-1] else ["a", "b"])
        Log(path).append(Entry("d", "accept"))
        assert [entry.case for entry in read_entries(path)] == [*kept, "d"]
        assert path.read_bytes().endswith(b"\n") and b'"c"' not in path.read_bytes()
    first = read_entries(path)[0]
    assert (first.comment, first.seconds) == ("märkbar", 1.5) and first.time.endswith("+00:00")


@pytest.mark.parametrize(
    "line",
    [b"{}", b"[]", b'{"case": 1, "decision": "accept"}', b'{"case": "a", "decision": "maybe"}', b"\xff", b"",
     b'{"case": "a", "decision": "fix", "label": "../../x"}', b'{"case": "a", "decision": "accept", "seconds": NaN}',
     b'{"case": "a", "decision": "fix"}', b'{"case": "a", "decision": "real"}'],
)  # fmt: skip
def test_a_damaged_line_is_named(tmp_path, line):
    path = tmp_path / "anna.jsonl"
    path.write_bytes(b'{"case": "a", "decision": "accept"}\n' + line + b"\n")
    with pytest.raises(DataError, match=r"anna.jsonl: line 2"):
        read_entries(path)


def test_undo_is_a_line_and_goes_back_one_by_one(tmp_path):
    log = Log(tmp_path / "anna.jsonl")
    for entry in (Entry("a", "accept"), Entry("a", "reject", "blurred"), Entry("b", "accept"),
                  Entry("a", "real", origin="Dataset001_R")):  # fmt: skip
        log.append(entry)
    seen = []
    for _ in range(5):
        seen.append({key[1]: word.decision for key, word in last_words(read_entries(log.path)).items()})
        log.append(Entry("", "undo"))
    assert seen == [{"a": "reject", "b": "accept"}, {"a": "reject"}, {"a": "accept"}, {}, {}]
    assert len(read_entries(log.path)) == 9  # nothing was rewritten
    assert last_words(log.entries, blind=True)["Dataset001_R", "a"].decision == "real"


def test_a_comment_alone_keeps_the_decision_and_a_decision_the_comment(tmp_path):
    lines = [Entry("a", "accept", "good"), Entry("a", "", "poor"), Entry("a", "reject"), Entry("b", "", "later")]
    words = last_words(lines)
    assert (words["", "a"].decision, words["", "a"].comment) == ("reject", "poor")
    assert words["", "b"].decision == ""


def test_one_reader_rejects_for_all_and_the_latest_correction_counts(syn):
    anna, bo = session_of(syn, "anna"), session_of(syn, "bo")
    for session in (anna, bo):
        fix(session, 0, value=0 if session is anna else 1)
        decide(session, 1, "accept")
    decide(anna, 2, "reject")
    decide(bo, 2, "fix", fix_with=1)
    found = reviewed(syn.folder)
    assert {case: verdict.decision for case, verdict in found.items()} == {
        "case_0": "fix", "case_1": "accept", "case_2": "reject",
    }  # fmt: skip
    assert read_label(found["case_0"].label).array.all()  # bo's, the later one
    bo.undo(), bo.undo(), bo.undo()
    assert not read_label(reviewed(syn.folder)["case_0"].label).array.any()  # anna's again
    assert reviewed(syn.folder)["case_1"].decision == "accept"


def test_kappa_is_that_of_cohens_formula():
    # 20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no: (0.7 - 0.5) / (1 - 0.5)
    pairs = [("accept", "accept")] * 20 + [("accept", "reject")] * 5 + [("reject", "accept")] * 10
    pairs += [("reject", "reject")] * 15
    a = {f"case{n}": x for n, (x, _) in enumerate(pairs)}
    b = {f"case{n}": y for n, (_, y) in enumerate(pairs)} | {"only b's": "accept"}
    (found,) = agreement({"b": b, "a": a})
    assert found["readers"] == ["a", "b"] and found["n"] == 50
    assert found["kappa"] == pytest.approx(0.4) and found["equal"] == pytest.approx(0.7)
    assert agreement({"a": {"x": "accept"}, "b": {"x": "accept"}})[0]["kappa"] is None
    assert agreement({"a": {"x": "accept"}, "b": {"y": "accept"}}) == []


@pytest.mark.parametrize(("correct", "n"), [(0, 7), (7, 7), (13, 20), (1, 1)])
def test_the_blind_interval_is_clopper_and_pearsons(correct, n):
    lines = [
        Entry(f"case{k}", "real" if (k < correct) == (k % 2 == 0) else "synthetic", None, float(k),
              origin="Dataset001_R" if k % 2 == 0 else "Dataset501_S")
        for k in range(n)
    ]  # fmt: skip
    found = blind_result(lines, "Dataset501_S")
    low = beta.ppf(0.025, correct, n - correct + 1) if correct else 0.0
    high = beta.ppf(0.975, correct + 1, n - correct) if correct < n else 1.0
    assert (found["low"], found["high"]) == (pytest.approx(low), pytest.approx(high))
    assert (found["n"], found["correct"]) == (n, correct)
    assert found["median_seconds"] == statistics.median(range(n))
    assert blind_result([Entry("a", "accept")], "Dataset501_S") == {}


def test_the_tables_hold_what_was_decided(syn):
    anna, bo = session_of(syn, "anna"), session_of(syn, "bo")
    decide(anna, 0, "accept", comment='=sharp, "good"\nand more', seconds=2.0)
    decide(anna, 1, "reject", seconds=4.0)
    decide(bo, 0, "accept", seconds=8.0)
    decide(bo, 1, "accept")
    fix(bo, 2)
    refresh(syn)
    with (syn.folder / "review" / "decisions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["case"], row["reader"], row["decision"]) for row in rows] == [
        ("case_0", "anna", "accept"), ("case_0", "bo", "accept"), ("case_1", "anna", "reject"),
        ("case_1", "bo", "accept"), ("case_2", "bo", "fix"),
    ]  # fmt: skip
    assert rows[0]["comment"] == '=sharp, "good"\nand more' and rows[0]["seconds"] == "2.0"
    summary = json.loads((syn.folder / "review" / "review.json").read_text())
    assert summary["final"] == {"accept": 1, "reject": 1, "fix": 1, "undecided": 2}
    assert summary["readers"]["anna"]["median_seconds"] == 3.0 and summary["readers"]["anna"]["undecided"] == 3
    assert summary["agreement"] == [{"readers": ["anna", "bo"], "n": 2, "equal": 0.5, "kappa": 0.0}]
    assert visible(syn.folder / "review" / "labels") == ["case_2.png"]
    bo.undo()
    refresh(syn)
    assert visible(syn.folder / "review" / "labels") == []


@pytest.mark.parametrize(
    ("ending", "axes"), [(".png", 2), (".bmp", 2), (".tif", 2), (".tif", 3), (".nii.gz", 3), (".nrrd", 3), (".mha", 3)]
)
def test_a_corrected_label_has_the_format_and_the_place_of_the_old_one(nnunet_folders, ending, axes):
    shape = (5, 12, 16)[-axes:]
    syn = made(
        nnunet_folders["nnUNet_raw"], cases=2, shape=shape, ending=ending, spacing=(2.0, 0.5, 0.7)[-len(shape) :]
    )
    before = contents(syn.folder / "labelsTr")
    session = session_of(syn, "anna")
    seen = session.describe(0)
    plane = np.zeros((seen["height"], seen["width"]), "<u2")
    plane[2:4, 3:9] = 1
    session.decide(0, "fix", None, 1.0, {seen["first"]: plane.tobytes()})
    refresh(syn)
    old = read_label(syn.label_file("case_0"), syn.reader)
    new = read_label(syn.folder / "review" / "labels" / f"case_0{ending}", syn.reader)
    expected = old.array[0].copy()
    expected[seen["first"] if len(shape) == 3 else slice(None)] = plane
    assert np.array_equal(new.array[0], expected) and new.array.dtype == old.array.dtype
    assert (new.spacing, new.geometry) == (old.spacing, old.geometry)
    assert contents(syn.folder / "labelsTr") == before
    first = np.frombuffer(session.plane(0, seen["first"]), "<u2", plane.size)
    assert np.array_equal(first.reshape(plane.shape), plane)  # and is shown from now on


@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, -1, 1), (1, -1, -1)])
def test_volumes_are_hung_as_radiologists_do_and_painted_where_they_are_seen(nnunet_folders, flips):
    """The patient's left is on the right and the front at the top, whatever the file's axes."""
    folder = nnunet_folders["nnUNet_raw"] / "Dataset522_Axes_syn"
    direction = np.diag(flips).astype(float)  # columns x, y, z; towards left, back, head
    label = np.zeros((4, 5, 6), np.uint8)
    x, y, z = (0 if flips[0] < 0 else 5, 0 if flips[1] > 0 else 4, 0 if flips[2] < 0 else 3)
    label[z, y, x] = 1  # the voxel that is leftmost, most in front, and highest
    image = label[None].astype(np.int16)
    geometry = Geometry((0.0, 0.0, 0.0), tuple(direction.ravel().tolist()))
    write_case(folder, Pair("case_0", image, label, (3.0, 1.0, 1.0), geometry), ".nii.gz")
    write_dataset_json(folder, channel_names=["CT"], labels={"background": 0, "a": 1}, file_ending=".nii.gz",
                       num_training=1)  # fmt: skip
    dataset = read_dataset(folder)
    pair = read_case(dataset, "case_0")
    seen = shown(pair, ["CT"], 0)
    assert np.argwhere(seen.label).tolist() == [[3, 0, 5]] and seen.windows == ((-160.0, 240.0),)
    coronal = upright(pair.label, 3, pair.geometry, 1)
    assert np.argwhere(coronal)[0, 1:].tolist() == [0, 5]  # the head at the top
    session = session_of(dataset, "anna")
    plane = np.zeros((5, 6), "<u2")
    session.decide(0, "fix", None, 0.0, {3: plane.tobytes()})
    assert not read_label(reviewed(folder)["case_0"].label).array.any()


def test_values_survive_the_way_to_the_page(syn, nnunet_folders):
    real = write_pictures(nnunet_folders["nnUNet_raw"], "Dataset023_Deep", cases=1, dtype="float32", ending=".tif")
    pair = read_case(real, "case_0")
    seen = shown(pair, real.channel_names, 0)
    (offset, scale) = seen.values[0]
    error = np.abs(offset + scale * seen.image[0, 0].astype(np.float64) - pair.image[0])
    assert error.max() <= np.ptp(pair.image) / 65535
    content = seen.plane(0)
    assert len(content) == 2 * pair.label.size * 2
    assert np.array_equal(np.frombuffer(content, "<u2")[: pair.label.size].reshape(pair.label.shape), pair.label)


def test_a_blind_reading_is_balanced_of_one_size_and_tells_nothing(syn, nnunet_folders):
    real = write_pictures(nnunet_folders["nnUNet_raw"], "Dataset021_Stripes", cases=8, shape=(20, 22))
    items = blind_items(syn, real, "anna")
    assert [item.dataset.name for item in items].count(real.name) == len(items) / 2 == 5
    assert items == blind_items(syn, real, "anna") != blind_items(syn, real, "bo")
    session = session_of(syn, "anna", like=real)
    sizes = {(len(session.plane(n, 0)), session.describe(n)["height"]) for n in range(10)}
    assert len(sizes) == 1
    told = json.dumps([session.state(), *[session.describe(n) for n in range(10)]])
    assert not re.search(r"case_|Stripes\"|021", told.replace(syn.name, ""))
    for n in range(10):
        session.decide(n, "real", None, 1.0, {})
    found = blind_result(session.log.entries, syn.name)
    assert (found["n"], found["correct"]) == (10, 5)
    assert found["answers"] == {"real called real": 5, "synthetic called real": 5}
    assert reviewed(syn.folder) == {} and session.state()["next"] is None
    with pytest.raises(DataError, match="synthetic"):
        session.decide(0, "accept", None, 1.0, {})


def test_what_is_not_a_decision_is_refused_and_leaves_no_trace(syn):
    session = session_of(syn, "anna")
    plane = np.zeros((16, 24), "<u2")
    for planes in ({0: b"short"}, {7: plane.tobytes()}, {0: (plane + 9).tobytes()}, {}):
        with pytest.raises(DataError, match="case_0"):
            session.decide(0, "fix", None, 1.0, planes)
    for wrong in (("maybe", None, 1.0), ("accept", "x" * 20_000, 1.0), ("accept", None, float("nan"))):
        with pytest.raises(DataError):
            session.decide(0, *wrong, {})
    with pytest.raises(IndexError):
        session.decide(99, "accept", None, 1.0, {})
    assert not session.log.path.exists() and not (syn.folder / "review" / "versions").exists()
