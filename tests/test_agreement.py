"""Agreement of masks with networks that did not see them: its numbers, and the audit with real nnU-Net."""

import json
import math
import os

import numpy as np
import pytest
import torch
from nnunet_blobs import write_real_and_synthetic

os.environ.setdefault("nnUNet_def_n_proc", "1")  # read by nnU-Net on import

from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss

from jdm.data.raw_dataset import Pair, read_case, write_case
from jdm.data.splits import fold_split
from jdm.errors import DataError, ExistsError
from jdm.evaluation.agreement import Agreement, agreement, agreement_summary, averaged, least
from nnunet_integration import teacher
from nnunet_integration.teacher import halves, open_teacher, unequal


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(teacher, "UPDATES", 30)
    monkeypatch.setattr(teacher, "EPOCHS", 2)
    monkeypatch.setattr(teacher, "CPU_FEATURES", (8, 16, 32))


def test_the_loss_is_nnunets_own():
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 3, 8, 9, generator=rng)
    label = torch.randint(0, 3, (1, 1, 8, 9), generator=rng)
    soft = {"batch_dice": False, "smooth": 1e-5, "do_bg": False}
    theirs = DC_and_CE_loss(soft, {}, dice_class=MemoryEfficientSoftDiceLoss)(logits, label).item() + 1
    found = agreement(logits.softmax(1)[0].numpy(), label[0, 0].numpy(), {"background": 0, "a": 1, "b": 2})
    assert found.loss == pytest.approx(theirs, abs=1e-5)


def test_dice_by_class_counts_what_either_has():
    softmax = np.zeros((4, 2, 4), np.float32)
    label = np.array([[1, 1, 0, 0], [0, 0, 0, 0]], np.uint8)
    softmax[:, 0] = np.eye(4)[[1, 1, 1, 0]].T
    softmax[:, 1] = np.eye(4)[[0, 0, 0, 2]].T
    found = agreement(softmax, label, {"background": 0, "a": 1, "b": 2, "c": 3})
    assert found.dice["a"] == pytest.approx(0.8) and found.dice["b"] == 0 and math.isnan(found.dice["c"])
    assert found.mean == pytest.approx(0.4)
    assert Agreement.from_dict(json.loads(json.dumps(found.to_dict()))).mean == pytest.approx(0.4)
    empty = agreement(np.eye(4, dtype=np.float32)[:, :1, None], np.zeros((1, 1), int), {"background": 0, "a": 1})
    assert empty.mean == 1 and empty.loss == pytest.approx(0)
    assert averaged([found, Agreement({"a": 0.2, "b": 1.0, "c": math.nan}, 0.0)]).mean == pytest.approx(0.5)


def test_the_share_below_the_limit_is_that_of_the_real_cases_where_both_are_alike():
    values = np.random.default_rng(0).random(4000)
    cases = [{str(n): Agreement({"a": float(v)}, 0.0) for n, v in enumerate(part)} for part in np.split(values, 2)]
    found = agreement_summary(*cases, teacher_sha256="")
    assert found["below_interval"][0] < 0.05 < found["below_interval"][1]
    assert least(cases[1], 0.5) == pytest.approx(0.5, abs=0.05)


def test_an_audit_finds_masks_that_do_not_belong_to_their_images(nnunet_folders, typed, short):
    real, made = write_real_and_synthetic(nnunet_folders["nnUNet_raw"])
    wrong = made.cases[:6]
    for case in wrong:
        pair = read_case(made, case)
        shifted = Pair(case, pair.image, np.roll(pair.label, 24, (0, 1)), pair.spacing, None)
        write_case(made.folder, shifted, ".png")
    status, printed, _ = typed("jdm-audit", made.id, "--like", real.id, "--agreement")
    assert status == 0 and "agrees with the masks" in printed
    found = json.loads((made.folder / "audit.json").read_text())["agreement"]
    cases = found["cases"]["synthetic"]
    assert max(cases[case] for case in wrong) < min(cases[case] for case in set(made.cases) - set(wrong))
    assert found["below"] >= 6 / 16
    assert sorted(found["cases"]["held_out"]) == sorted(fold_split(real, 0)[0])  # and no validation case
    assert "Agreement of masks" in (made.folder / "report.html").read_text()

    folder = nnunet_folders["jdm_results"] / real.name / "teacher_fold_0"
    networks = sorted(folder.rglob("checkpoint_final.pth"))
    before = [network.stat().st_mtime_ns for network in networks]
    assert len(networks) == 2
    first = (made.folder / "audit.json").read_bytes()
    assert typed("jdm-audit", made.id, "--like", real.id, "--agreement")[0] == 0
    assert (made.folder / "audit.json").read_bytes() == first
    assert [network.stat().st_mtime_ns for network in networks] == before  # never trained twice

    pair = read_case(real, real.cases[0])
    write_case(real.folder, Pair(real.cases[1], pair.image, 1 - pair.label, pair.spacing, None), ".png")
    with pytest.raises(ExistsError, match=r"teacher_fold_0 .*cases_sha256.*remove the folder"):
        open_teacher(real, 0, "cpu")


def test_the_networks_see_whole_patients(nnunet_folders):
    real, _ = write_real_and_synthetic(nnunet_folders["nnUNet_raw"])
    entries = [{"case": case, "split": "train", "group": f"p{n // 3}"} for n, case in enumerate(real.cases)]
    (real.folder / "conversion.json").write_text(json.dumps({"entries": entries}))
    first, second = halves(real, real.cases)
    assert sorted((*first, *second)) == sorted(real.cases) and not set(first) & set(second)
    assert not {real.cases.index(case) // 3 for case in first} & {real.cases.index(case) // 3 for case in second}
    with pytest.raises(DataError, match="1 training case"):
        halves(real, real.cases[:1])


def test_networks_that_learned_unequally_are_named():
    found = {case: Agreement({"a": dice}, 0.0) for case, dice in (("a", 0.8), ("b", 0.7), ("c", 0.4), ("d", 0.3))}
    assert "0.75 and 0.35" in unequal(found, [("a", "b"), ("c", "d")])
    assert unequal(found, [("a", "d"), ("b", "c")]) == ""
