"""The door of jdm-review's page, the reviewed dataset, and what is refused."""

from __future__ import annotations

import json
import resource
import shutil
import socket

import numpy as np
import pytest
from export_runs import contents, visible
from review_runs import decide, door, fix, made, session_of
from small_runs import write_pictures

from jdm.data.raw_dataset import RawDataset, read_case, read_dataset, write_dataset_json
from jdm.errors import ConfigError, DataError, ExistsError
from jdm.review.decisions import check_reader, read_entries
from jdm.review.open import open_real, open_synthetic
from jdm.review.write import write_reviewed
from jdm.system.locks import held


@pytest.fixture
def syn(nnunet_folders) -> RawDataset:
    return made(nnunet_folders["nnUNet_raw"])


def test_without_the_token_nothing_is_told(syn):
    paths = ("/", "/?token=", "/?token=wrong", "/state", "/pair/0", "/plane/0/0", "/page.js", "/decide", "/no/such")
    with door(syn) as client:
        for path in paths:
            answer = client.get(path)
            assert answer.status_code == 403 and "default-src 'none'" in answer.headers["content-security-policy"]
        assert client.post("/decide", json={}).status_code == 403
        first = client.get("/?token=secret")
        assert first.status_code == 200 and "secret" not in first.text
        cookie = first.headers["set-cookie"]
        assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and "secret" not in cookie
        assert client.get("/state").json()["names"] == list(syn.cases)
        client.cookies.clear()
        assert client.get("/?token=secret").status_code == 403  # it works once


def test_other_hosts_and_sites_and_paths_are_refused(syn):
    with door(syn) as client:
        client.get("/?token=secret")
        assert client.get("/state", headers={"host": "evil.example"}).status_code in (400, 403)
        assert client.get("/state", headers={"host": "localhost:1234"}).status_code == 200
        assert client.post("/undo", headers={"origin": "http://127.0.0.1:9"}).status_code == 403
        for path in ("/../../etc/passwd", "/%2e%2e/decisions.py", "/pair/..%2f", "/pair/999", "/plane/0/9", "/page.py",
                     "/pair/-1"):  # fmt: skip
            assert client.get(path).status_code == 404, path
        for body in ("{", "[]", '{"number": 0}', '{"number": 1e999, "decision": "accept", "seconds": 0}'):
            assert client.post("/decide", content=body).status_code == 400
        right = {"number": 0, "decision": "accept", "comment": None, "seconds": 1.0}
        assert client.post("/decide", json=right).json() == {"number": 0, "decision": "accept", "next": 1, "lines": 1}
    assert (syn.folder / "review" / "decisions.csv").is_file()  # written when the server ends


def test_a_full_disk_is_told_and_costs_no_earlier_line(syn):
    right = {"number": 0, "decision": "accept", "comment": "x" * 200, "seconds": 1.0}
    path = syn.folder / "review" / "anna.jsonl"
    with door(syn) as client:
        client.get("/?token=secret")
        assert client.post("/decide", json=right).status_code == 200
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 20, limits[1]))
        try:
            refused = client.post("/decide", json={**right, "number": 1})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert refused.status_code == 507 and "not saved" in refused.json()["error"]
        assert client.get("/state").json()["decisions"] == ["accept", "", "", "", ""]
        assert client.post("/decide", json={**right, "number": 2}).status_code == 200
    assert [entry.case for entry in read_entries(path)] == ["case_0", "case_2"]


def test_a_reviewed_dataset_lacks_what_was_rejected_and_has_what_was_corrected(syn, nnunet_folders):
    records = [{"case_id": case, "seed": n, "foreground_share": {"class1": 0.5}} for n, case in enumerate(syn.cases)]
    (syn.folder / "manifest.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (syn.folder / "classes.csv").write_text("case,class\n" + "".join(f"{case},x\n" for case in syn.cases))
    session = session_of(syn, "anna")
    decide(session, 0, "reject")
    decide(session, 1, "accept")
    fix(session, 2, value=0)
    before = contents(syn.folder)
    written = write_reviewed(syn, 611)
    assert contents(syn.folder) == before
    assert written.folder.name == "Dataset611_Stripes_syn_reviewed"
    new = read_dataset(written.folder)
    assert list(new.cases) == ["case_1", "case_2", "case_3", "case_4"]
    assert not read_case(new, "case_2").label.any()
    for case in ("case_1", "case_3"):
        assert np.array_equal(read_case(new, case).image, read_case(syn, case).image)
        assert np.array_equal(read_case(new, case).label, read_case(syn, case).label)
    lines = [json.loads(line) for line in (written.folder / "manifest.jsonl").read_text().splitlines()]
    assert [line["case_id"] for line in lines] == list(new.cases)
    assert lines[1]["foreground_share"] == {"class1": 0.0} and lines[1]["corrected"] and "corrected" not in lines[0]
    assert "case_0" not in (written.folder / "classes.csv").read_text()
    provenance = json.loads((written.folder / "provenance.json").read_text())
    assert provenance["generator"] == json.loads((syn.folder / "provenance.json").read_text())["generator"]
    told = provenance["reviewed"]
    assert (told["source"], told["readers"], told["rejected"], told["undecided"]) == (
        syn.name,
        {"anna": 3},
        ["case_0"],
        2,
    )
    assert list(told["corrected"]) == ["case_2"]
    open_synthetic("611")  # which can be reviewed again
    with pytest.raises(ExistsError, match=r"611.*Dataset611_Stripes_syn_reviewed"):
        write_reviewed(syn, 611)


def test_images_without_masks_are_reviewed_and_written_too(nnunet_folders):
    raw = nnunet_folders["nnUNet_raw"]
    made(raw, cases=3)
    folder = raw / "Dataset521_Stripes_syn"
    shutil.rmtree(folder / "labelsTr")
    write_dataset_json(folder, channel_names=["c0"], labels={"background": 0}, file_ending=".png", num_training=3)
    (folder / "classes.csv").write_text("case,class\ncase_0,ill\ncase_1,well\ncase_2,ill\n")
    syn = read_dataset(folder)
    session = session_of(syn, "anna")
    assert session.describe(1)["class"] == "well" and not session.state()["masks"]
    with pytest.raises(DataError, match="no mask"):
        fix(session, 0, value=0)
    decide(session, 0, "reject")
    new = read_dataset(write_reviewed(syn, 611).folder)
    assert new.cases == ("case_1", "case_2") and not (new.folder / "labelsTr").exists()


def test_a_failed_write_leaves_nothing(syn, nnunet_folders):
    raw = nnunet_folders["nnUNet_raw"]
    with pytest.raises(DataError, match="no decision"):
        write_reviewed(syn, 611)
    session = session_of(syn, "anna")
    for n in range(5):
        decide(session, n, "reject")
    with pytest.raises(DataError, match="rejected"):
        write_reviewed(syn, 611)
    session.undo()
    fix(session, 4)
    for path in (syn.folder / "review" / "versions").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="versions"):
        write_reviewed(syn, 611)
    assert visible(raw) == [syn.name]


def test_what_cannot_be_reviewed_is_one_line_and_writes_nothing(typed, syn, nnunet_folders, monkeypatch):
    raw = nnunet_folders["nnUNet_raw"]
    write_pictures(raw, "Dataset021_Stripes")
    write_pictures(raw, "Dataset022_Colours", channels=3)
    shutil.copytree(syn.folder, raw / "Dataset530_NoJson")
    (raw / "Dataset530_NoJson" / "dataset.json").unlink()
    (raw / ".jdm-partial-Dataset540_Half_syn").mkdir()
    (syn.folder / "review").mkdir()
    (syn.folder / "review" / "bad.jsonl").write_text("nonsense\n")
    taken = socket.create_server(("127.0.0.1", 0))
    before = contents(raw)
    for words, named in [
        (("599",), "599"), (("530",), "dataset.json"), (("540",), "jdm-export"), (("21",), "provenance.json"),
        (("521", "--blind"), "--like"), (("521", "--like", "22"), "Dataset022_Colours"),
        (("521", "--like", "521"), "synthetic"), (("521", "--port", taken.getsockname()[1]), "--port"),
        (("521", "--port", 99999), "65535"), (("521", "--reader", "../x"), "--reader"),
        (("521", "--reader", "bad"), "line 1"),
        (("521", "--write", 611, "--blind"), "--write"), (("521", "--write", 21), "taken"),
    ]:  # fmt: skip
        status, _, error = typed("jdm-review", *words)
        assert status == 2 and named in error and len(error.splitlines()) == 1, (words, error)
    taken.close()
    (syn.folder / "review" / "bad.jsonl").unlink()
    with held(syn.folder / "review" / ".anna.lock", syn.folder):
        status, _, error = typed("jdm-review", "521", "--reader", "anna")
    assert status == 2 and "anna" in error and len(error.splitlines()) == 1
    assert {name: content for name, content in contents(raw).items() if "/review/" not in name} == {
        name: content for name, content in before.items() if "/review/" not in name
    }


def test_names_of_readers_are_safe_file_names():
    assert [check_reader(name) for name in ("anna", "Åsa-2", "dr.house")] == ["anna", "Åsa-2", "dr.house"]
    for name in ("", ".hidden", "a/b", "a\\b", "x" * 65, "a b"):
        with pytest.raises(ConfigError):
            check_reader(name)


def test_the_real_dataset_must_be_real_and_alike(syn, nnunet_folders):
    real = write_pictures(nnunet_folders["nnUNet_raw"], "Dataset021_Stripes")
    assert open_real("21", syn) == real
    with pytest.raises(DataError, match="synthetic"):
        open_real("521", syn)
