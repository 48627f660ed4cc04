"""Gate and selection of pairs: laws of the choice, equal bytes after a kill, and the command with real nnU-Net."""

import hashlib
import itertools
import json
import math
from dataclasses import dataclass, field

import numpy as np
import pytest
from export_runs import asked, contents, factory_of, manifest
from small_runs import tiny_run, write_pictures

import jdm
from jdm.errors import ConfigError, DataError
from jdm.evaluation.agreement import Agreement, least
from jdm.export.choice import selected, spread_out
from jdm.export.dataset import export_pairs
from nnunet_integration import teacher


@dataclass
class Judge:
    """Agrees with a pair by the hash of its image."""

    real: dict = field(default_factory=lambda: {str(n): Agreement({"a": n / 10}, 0.0) for n in range(11)})
    sha256: str = "ab" * 32
    killed_after: float = math.inf
    scored: int = 0

    def least(self, share):
        return least(self.real, share)

    def score(self, images, label):
        self.scored += 1
        if self.scored > self.killed_after:
            raise KeyboardInterrupt
        values = np.frombuffer(hashlib.sha256(images[0].read_bytes()).digest(), np.uint8) / 255
        return Agreement({"a": float(values[0])}, float(values[1]), values[2:6])


def export(run, judge=None, **changes):
    return export_pairs(factory_of(run, overwrite=True, **changes), lambda _: judge or Judge())


def test_the_count_holds_after_gate_and_selection_and_repeats_to_the_byte(run):
    done = export(run, count=4, gate=0.5, select="hard", keep=0.5)
    files = contents(done.folder)
    records = manifest(files)
    assert len(records) == done.count == 4 and all(record["agreement"] >= 0.5 for record in records)
    names = {record["case_id"] for record in records}
    assert {name.split("/")[1].split(".")[0].removesuffix("_0000") for name in files if "Tr/" in name} == names
    facts = json.loads(files["provenance.json"])
    assert (facts["gate"], facts["select"], facts["keep"], facts["judge_sha256"]) == (0.5, "hard", 0.5, "ab" * 32)
    assert facts["choice"]["kept"] == 4 and facts["choice"]["least_agreement"] == 0.5
    assert facts["choice"]["candidates"] > facts["choice"]["passed"] >= 8
    assert json.loads(files["audit.json"])["agreement"]["sets"]["synthetic"]["n"] == 4
    assert export(run, count=4, gate=0.5, select="hard", keep=0.5).folder == done.folder
    assert contents(done.folder) == files


@pytest.mark.parametrize("after", [1, 9])
def test_a_killed_export_goes_on_to_the_same_choice(run, after):
    wanted = {"count": 3, "gate": 0.5, "select": "diverse", "keep": 0.4}
    whole = contents(export(run, **wanted).folder)
    with pytest.raises(KeyboardInterrupt):
        export(run, Judge(killed_after=after), **wanted)
    judge = Judge()
    assert contents(export_pairs(factory_of(run, overwrite=True, **wanted), lambda _: judge).folder) == whole
    assert "features" not in whole["manifest.jsonl"].decode()


def test_what_is_kept_is_what_was_asked_for(run):
    kept = {how: manifest(contents(export(run, count=4, select=how).folder)) for how in ("hard", "easy", "random")}
    hard, easy = ([record["loss"] for record in kept[how]] for how in ("hard", "easy"))
    assert min(hard) > max(easy)
    ids = [{record["case_id"] for record in kept[how]} for how in ("hard", "easy")]
    assert not ids[0] & ids[1] and len(ids[0] | ids[1]) == 8  # of the same eight candidates
    assert len(kept["random"]) == 4 and all("loss" in record for record in kept["hard"])
    assert "loss" not in kept["random"][0]  # nobody judged them


def test_each_class_keeps_its_number(nnunet_folders):
    real = write_pictures(nnunet_folders["nnUNet_raw"], cases=6)
    classes = {case: "a" if n < 4 else "b" for n, case in enumerate(real.cases)}
    run = tiny_run(real, classes=classes, train={"steps": 2})
    records = manifest(contents(export(run, count=6, balance=True, gate=0.3, select="easy", keep=0.7).folder))
    assert sorted(record["class"] for record in records) == ["a"] * 2 + ["b"] * 4


def test_chosen_centres_are_within_twice_the_best_radius():
    points = np.random.default_rng(0).normal(size=(11, 2))
    points = (points - points.mean(0)) / points.std(0)

    def radius(centres):
        return np.linalg.norm(points[:, None] - points[list(centres)], axis=2).min(1).max()

    for count in (1, 2, 3, 4):
        best = min(radius(centres) for centres in itertools.combinations(range(11), count))
        chosen = spread_out(points, count)
        assert len(set(chosen)) == count and radius(chosen) <= 2 * best + 1e-9
    assert sorted(spread_out(np.zeros((4, 3)), 4)) == [0, 1, 2, 3]  # equal rows too
    records = [{"loss": 1.0}] * 5
    assert selected(records, 2, "hard", 0) == selected(records, 2, None, 0) == records[:2]


def test_an_export_that_cannot_pass_stops(run):
    hopeless = Judge(real={"a": Agreement({"a": 1.1}, 0.0)})
    with pytest.raises(DataError, match=r"0 of 50 pairs.*at least one in 5.*--gate.*--overwrite"):
        export(run, hopeless, count=20, gate=0.05, batch_size=10)
    with pytest.raises(DataError, match="0 of 10 pairs"):
        export(run, hopeless, count=2, gate=0.05, batch_size=10)


def test_what_cannot_be_chosen_is_refused_before_anything_is_written(run, nnunet_folders):
    for changes, words in (
        ({"gate": 0.05, "shard": "0/2"}, "--gate with 2 shards"), ({"gate": 1.5}, "--gate is 1.5"),
        ({"select": "hard", "keep": 0.0}, "--keep is 0.0"), ({"select": "best"}, "--select is 'best'"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=words):
            jdm.export(asked(**changes))
    assert not [path for path in nnunet_folders["nnUNet_raw"].iterdir() if "521" in path.name]


def test_the_command_trains_the_networks_that_judge(nnunet_folders, typed, monkeypatch):
    for name, value in (("UPDATES", 10), ("EPOCHS", 1), ("CPU_FEATURES", (8, 16, 32))):
        monkeypatch.setattr(teacher, name, value)
    real = write_pictures(nnunet_folders["nnUNet_raw"], shape=(32, 32))
    tiny_run(real, train={"steps": 2})
    words = ("--id", 521, "--count", 3, "--steps", 3, "--margin", 100, "--anyway", "--select", "diverse")
    status, printed, error = typed("jdm-export", 21, "all", *words)
    assert (status, "kept 3 of 6 that passed, of 6 drawn" in printed) == (0, True), error
    folder = nnunet_folders["jdm_results"] / real.name / "teacher_fold_all"
    assert len(list(folder.rglob("checkpoint_final.pth"))) == 2
