"""The audit of whole datasets: copies by name, controls, distributions, and what is refused."""

import json
import shutil
import sys

import numpy as np
import pytest
from export_runs import contents as contents_of
from export_runs import factory_of, manifest
from scipy import linalg
from test_copies import altered, textures

from jdm.cli.audit import main
from jdm.data.classes import classes_csv
from jdm.data.raw_dataset import Pair, RawDataset, read_case, read_dataset, write_case, write_dataset_json
from jdm.draw.seeds import case_seed
from jdm.errors import DataError
from jdm.evaluation.audit_page import page, verdict, write_audit
from jdm.evaluation.manifold import frechet, manifold
from jdm.evaluation.set_audit import FLAGGED, audit_set
from jdm.export.dataset import export_pairs
from jdm.export.pairs import PairFactory

TRAINED = [f"case_{n:03d}" for n in range(8)]


def write(folder, images: list[np.ndarray]) -> RawDataset:
    """Pictures, with their brighter half as mask."""
    for n, image in enumerate(images):
        picture = np.clip(image, 0, 255).astype(np.uint8)
        label = (picture[0] > np.median(picture[0])).astype(np.uint8)
        write_case(folder, Pair(f"case_{n:03d}", picture, label, (1.0, 1.0), None), ".png")
    write_dataset_json(
        folder, channel_names=("R", "G", "B"), labels={"background": 0, "bright": 1}, file_ending=".png",
        num_training=len(images),
    )  # fmt: skip
    return read_dataset(folder)


def synthetic(folder, images: list[np.ndarray], real: str = "Dataset041_Real") -> RawDataset:
    made = write(folder, images)
    origin = {"generator": {"dataset": real, "training_ids": TRAINED, "held_out_ids": []}}
    (folder / "provenance.json").write_text(json.dumps(origin))
    return made


@pytest.fixture
def textured(tmp_path, monkeypatch) -> RawDataset:
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    return write(tmp_path / "Dataset041_Real", textures(16, 128, seed=0))


def crops(images: list[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    starts = rng.integers(0, 65, (len(images), 2))
    return [image[:, r : r + 64, c : c + 64] for image, (r, c) in zip(images, starts, strict=True)]


def test_a_memoriser_is_caught_and_a_generator_is_not(tmp_path, textured):
    rng = np.random.default_rng(0)
    trained = [read_case(textured, case).image.astype(float) for case in TRAINED]
    copies = [altered(image, rng)[..., ::-1] for image in crops(trained, rng)]
    new = crops(textures(12, 128, seed=5), rng)
    found = audit_set(synthetic(tmp_path / "Dataset541_Syn", [*copies, *new]), textured)
    assert found.copied == [f"case_{n:03d}" for n in range(8)]
    assert [v.nearest for v in found.verdicts if v.copy] == TRAINED
    assert found.copies["held_out"]["copies"] <= FLAGGED
    assert found.planes == {"training": 8, "synthetic": 20, "held_out": 24}
    assert "8 of 20" in verdict(found) and "case_007: case_007" in page(found)
    honest = audit_set(synthetic(tmp_path / "Dataset542_Honest", new), textured)
    assert honest.copied == [] and abs(honest.three_sample["z"]) < 3
    memoriser = audit_set(synthetic(tmp_path / "Dataset543_Copies", copies), textured)
    assert memoriser.three_sample["z"] < -3
    assert memoriser.copies["synthetic"]["authentic"] == 0 < honest.copies["synthetic"]["authentic"]
    assert memoriser.copies["synthetic"]["mask_information"] > 2 * honest.copies["synthetic"]["mask_information"]


def test_a_held_out_copy_of_a_training_case_is_named_and_hides_nothing(tmp_path, textured):
    rng = np.random.default_rng(0)
    trained = [read_case(textured, case).image.astype(float) for case in TRAINED]
    made = synthetic(tmp_path / "Dataset541_Syn", [altered(image, rng) for image in trained])
    others = write(tmp_path / "Dataset042_Others", [altered(trained[2], rng), *textures(9, 128, seed=5)])
    found = audit_set(made, textured, others)
    assert found.copied == TRAINED
    assert [(v.case_id, v.nearest) for v in found.leaked] == [("case_000", "case_002")]
    assert found.planes["held_out"] == 10 and found.calibrated and found.three_sample["z"] < -3
    assert "case_000. If they are of the same patients" in verdict(found)


def test_duplicates_within_the_real_dataset_are_named_and_stop_no_audit(tmp_path, textured):
    shutil.copy(textured.folder / "imagesTr" / "case_001_0000.png", textured.folder / "imagesTr" / "case_012_0000.png")
    found = audit_set(synthetic(tmp_path / "Dataset541_Syn", textures(3, 128, seed=5)), textured)
    assert [(v.case_id, v.nearest) for v in found.leaked] == [("case_012", "case_001")]
    assert found.planes["held_out"] == 8


def test_a_criterion_that_flags_unseen_cases_is_said_not_to_be_trusted(tmp_path, textured):
    rng = np.random.default_rng(0)
    trained = [read_case(textured, case).image.astype(float) for case in TRAINED]
    made = synthetic(tmp_path / "Dataset541_Syn", textures(8, 128, seed=5))
    others = write(tmp_path / "Dataset042_Others", [altered(image, rng) for image in trained])
    found = audit_set(made, textured, others)
    assert found.copied == [] and found.calibrated is False and "look at each" in verdict(found)


def test_copies_of_the_cases_of_one_patient_are_found(tmp_path, textured):
    entries = [{"case": case, "split": "train", "group": "p1"} for case in TRAINED]
    (textured.folder / "conversion.json").write_text(json.dumps({"entries": entries}))
    trained = [read_case(textured, case).image.astype(float) for case in TRAINED]
    rng = np.random.default_rng(0)
    images = [*(altered(image, rng) for image in trained[:4]), *textures(4, 128, seed=5)]
    assert audit_set(synthetic(tmp_path / "Dataset541_Syn", images), textured).copied == TRAINED[:4]


def test_constant_images_are_left_out_and_a_set_of_them_is_refused(tmp_path, textured):
    black = np.zeros((3, 128, 128))
    found = audit_set(synthetic(tmp_path / "Dataset541_Syn", [black, *textures(3, 128, seed=1)]), textured)
    assert found.blank == {"synthetic": 1} and found.planes["synthetic"] == 3
    assert "1 constant ones of synthetic left out" in page(found)
    with pytest.raises(DataError, match="all 2 images of Dataset542_Syn are constant; expected"):
        audit_set(synthetic(tmp_path / "Dataset542_Syn", [black, black]), textured)


def test_pairs_of_a_narrow_set_resemble_each_other_more_than_real_ones(tmp_path, textured):
    rng = np.random.default_rng(0)
    alike = [altered(textures(1, 128, seed=9)[0], rng) for _ in range(6)]
    found = audit_set(synthetic(tmp_path / "Dataset541_Syn", alike), textured).resemblance
    narrow, real = (found[f"{name} - {name}"]["structural_similarity"] for name in ("synthetic", "training"))
    assert narrow > 0.5 > 0.3 > real


def test_likeness_by_class_has_its_floor_and_tells_a_class_that_is_wrong(tmp_path, textured):
    from jdm.report.synthetic import audit_sections

    names = {f"case_{n:03d}": ("bright", "dark")[n % 2] for n in range(8)}
    shades = [textures(1, 128, seed=n)[0] + (60 if n % 2 else -60) for n in range(8)]  # of the other class
    made = synthetic(tmp_path / "Dataset541_Syn", shades)
    made.folder.joinpath("classes.csv").write_text(classes_csv(names))
    assert audit_set(made, textured).resemblance_by_class == {}
    for case in TRAINED:
        pair = read_case(textured, case)
        image = np.clip(pair.image + (60.0 if names[case] == "bright" else -60.0), 0, 255).astype(np.uint8)
        write_case(textured.folder, Pair(case, image, pair.label, pair.spacing, None), ".png")
    others = {case: "" for case in textured.cases}
    textured.folder.joinpath("classes.csv").write_text(classes_csv({**others, **names}))
    audit = audit_set(made, textured)
    error = {groups: numbers["mean_squared_error"] for groups, numbers in audit.resemblance_by_class.items()}
    assert len(error) == 9  # 3 of real ones, 2 within synthetic ones, 4 across
    floor, apart = error["real bright - real bright"], error["real bright - real dark"]
    assert error["real bright - synthetic bright"] > 2 * floor < apart
    assert error["real dark - synthetic bright"] < 0.5 * error["real bright - synthetic bright"]
    assert "| real bright - synthetic bright |" in page(audit)
    write_audit(audit, made.folder)
    assert any(
        "real bright - real dark" in row
        for t in audit_sections(made.folder / "audit.json", None, None)[0].tables
        for row in t.rows
    )


def test_a_set_of_one_look_covers_less_than_the_real_one(tmp_path, textured):
    alike = [textures(1, 128, seed=9)[0] + 5 * np.random.default_rng(n).normal(size=(3, 1, 1)) for n in range(12)]
    narrow = audit_set(synthetic(tmp_path / "Dataset541_Syn", alike), textured).distribution
    wide = audit_set(synthetic(tmp_path / "Dataset542_Wide", textures(12, 128, seed=5)), textured).distribution
    assert narrow["synthetic"]["recall"] < wide["synthetic"]["recall"]
    assert narrow["synthetic"]["kernel"] > wide["synthetic"]["kernel"]
    assert wide["synthetic"]["frechet_reliable"] == 0


def test_what_cannot_be_audited_is_refused(tmp_path, textured):
    with pytest.raises(DataError, match=r"Dataset041_Real is not synthetic.*provenance\.json; expected.*jdm-export"):
        audit_set(textured, textured)
    other = synthetic(tmp_path / "Dataset541_Syn", textures(3, 64, seed=1), real="Dataset007_Other")
    with pytest.raises(DataError, match=r"made from Dataset007_Other; found Dataset041_Real; expected.*--like"):
        audit_set(other, textured)
    made = synthetic(tmp_path / "Dataset542_Syn", textures(3, 64, seed=1))
    with pytest.raises(DataError, match=r"held-out case case_000 equals training case case_000; expected.*--held-out"):
        audit_set(made, textured, held_out=textured)
    (made.folder / "provenance.json").write_text("{}")
    with pytest.raises(DataError, match=r"provenance\.json gives KeyError"):
        audit_set(made, textured)


def test_the_command_writes_both_files(tmp_path, textured, monkeypatch, capsys):
    made = synthetic(tmp_path / "Dataset541_Syn", textures(3, 64, seed=1))
    monkeypatch.setattr(sys, "argv", ["jdm-audit", "541", "--like", "41"])
    main()
    assert "0 of 3 pairs are copies" in capsys.readouterr().out
    assert json.loads((made.folder / "audit.json").read_text())["copied"] == []
    assert (made.folder / "audit.md").read_text().startswith("# Audit of Dataset541_Syn")


def test_frechet_distance_agrees_with_the_matrix_root():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(50, 4)), rng.normal(0.5, 2, size=(70, 4))
    first, second = np.cov(a.T), np.cov(b.T)
    root = linalg.sqrtm(first @ second).real
    expected = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(first + second - 2 * root)
    assert frechet(a, b) == pytest.approx(expected)


def test_precision_and_coverage_of_equal_and_of_distant_sets():
    rng = np.random.default_rng(0)
    real, same, far = rng.normal(size=(300, 2)), rng.normal(size=(600, 2)), rng.normal(20, 1, size=(300, 2))
    equal = manifold(same, real)
    assert equal["density"] == pytest.approx(1, abs=0.1)
    assert min(equal["precision"], equal["recall"], equal["coverage"]) > 0.9
    assert manifold(far, real) == {"precision": 0, "recall": 0, "density": 0, "coverage": 0}
    one_mode = manifold(np.full((300, 2), 0.1) + 0.01 * rng.normal(size=(300, 2)), real)
    assert one_mode["precision"] == 1 and one_mode["coverage"] < 0.2


class Memoriser(PairFactory):
    """Draws every even image from the training set at the first attempt."""

    def samples(self, numbers, seeds, before=None):
        made = super().samples(numbers, seeds, before)
        real = self.run.real_for("the test")
        for place, (number, seed) in enumerate(zip(numbers, seeds, strict=True)):
            if number % 2 == 0 and seed == case_seed(self.order.request.seed, number, 0):
                pair = read_case(real, self.run.checkpoint.metadata["training_ids"][number])
                made[place] = self.codec.encode(pair.image, pair.label)[
                    :, : made[place].shape[1], : made[place].shape[2]
                ]
        return made


def test_copies_are_drawn_again_unless_they_are_to_stay(real, run):

    def export(**changes):
        factory = factory_of(run, **changes)
        return export_pairs(Memoriser(run, factory.order, "cpu"))

    done = export(count=2)
    assert [record["attempt"] for record in manifest(contents_of(done.folder))] == [1, 0]
    assert done.audit.startswith("0 of 2 pairs are copies")
    kept = export(count=2, keep_copies=True, overwrite=True)
    assert kept.audit.startswith("1 of 2 pairs are copies") and kept.redrawn == 0
    unchecked = export(count=2, no_audit=True, overwrite=True)
    assert unchecked.audit == "" and not (unchecked.folder / "audit.json").exists()
    assert json.loads((unchecked.folder / "provenance.json").read_text())["audited"] is False
