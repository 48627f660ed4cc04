"""Membership inference: a model that memorises is told from one that has learnt nothing; what the audit says of it."""

import json

import numpy as np
import pytest
import torch
from export_runs import REQUEST
from nnunet_blobs import write_blobs
from small_runs import prepared, tiny_plan, tiny_run, write_pictures

import jdm
from jdm.data.pairs import PairDataset
from jdm.data.raw_dataset import open_dataset
from jdm.diffusion.denoiser import Denoiser
from jdm.draw.run import Run
from jdm.evaluation.audit_page import membership_verdict
from jdm.sample.membership import membership
from jdm.train import loop
from jdm.train.checkpoint import Checkpoint, run_folder


class Recall(torch.nn.Module):
    """Estimates samples as their mean given what was seen: the best denoiser of the training samples themselves."""

    def __init__(self, denoiser: Denoiser, seen: torch.Tensor):
        super().__init__()
        self.denoiser, self.seen = denoiser, seen
        for name in ("image_channels", "bands", "image_weights", "words", "entropy", "previous_at"):
            setattr(self, name, getattr(denoiser, name))

    def predict(self, x, sigma, condition):
        level = sigma.clamp(min=0.01)
        scale = torch.cat([level[:, :1].expand(-1, self.image_channels), level[:, 1:]], 1)[:, None, :, None, None]
        near = (-((x[:, None] - self.seen) / scale).square().flatten(2).sum(2) / 2).softmax(1)
        found = torch.einsum("bn,nc...->bc...", near, self.seen)
        image, mask = found[:, : self.image_channels], found[:, self.image_channels :]
        return image, 20 * torch.einsum("bm...,km->bk...", mask, self.words.to(mask))


class Memorised(Checkpoint):
    """A checkpoint whose network knows the training samples by heart."""

    def denoiser(self, device="cpu"):
        real = open_dataset(self.metadata["dataset"])
        pairs = PairDataset(real, list(self.metadata["training_ids"]), self.config)
        seen = [torch.from_numpy(pairs.sample(n, np.random.default_rng(0))) for n in range(len(pairs))]
        return Recall(super().denoiser(device), torch.stack(seen))


def test_a_memoriser_tells_its_training_cases_and_a_new_model_does_not(nnunet_folders):
    real = write_blobs(nnunet_folders["nnUNet_raw"] / "Dataset022_Blobs", [chr(97 + n) for n in range(16)], side=32)
    trained, folder = list(real.cases[::2]), run_folder(real.name, "all")
    config = tiny_plan(real, trained, train={"steps": 1})
    new = loop.train(prepared(real, config, folder, (trained, ["b"])))
    found = membership(Run(folder, new), real, "cpu")
    assert found["cases"] == {"training": 8, "held_out": 8} and found["held_out_from"] == ["imagesTr"]
    assert found["low"] < 0.5 < found["high"] and found == membership(Run(folder, new), real, "cpu")
    recalled = membership(Run(folder, Memorised(new.config, new.weights, new.metadata)), real, "cpu")
    assert recalled["auc"] == 1 and recalled["low"] > 0.6
    assert "it leaks them" in membership_verdict(recalled) and "does not tell" in membership_verdict(found)


def test_the_audit_names_the_run_or_says_why_it_is_left_out(nnunet_folders, typed):
    real = write_pictures(nnunet_folders["nnUNet_raw"], cases=6)
    run = tiny_run(real, train={"steps": 2})
    made = jdm.export(REQUEST).folder
    entries = [{"case": case, "split": "train", "group": f"p{n // 2}"} for n, case in enumerate(real.cases)]
    (real.folder / "conversion.json").write_text(json.dumps({"entries": entries}))

    def audited(*words):
        status, printed, error = typed("jdm-audit", 521, "--like", 21, *words)
        return status, json.loads((made / "audit.json").read_text())["membership"], printed + error

    status, found, printed = audited()
    assert status == 0 and found["patients"] == {"training": 3, "held_out": 1} and "own loss" in printed
    assert "own loss" in (made / "audit.md").read_text() and "own loss" in (made / "report.html").read_text()
    kept = run.folder.rename(run.folder.with_name("kept"))
    status, found, printed = audited()
    assert status == 0 and "left_out" in found and "--run" in printed
    assert audited("--run", kept)[1]["auc"] == pytest.approx(audited("--run", kept)[1]["auc"])
    tiny_run(real, train={"steps": 3})
    assert "trained again" in audited()[1]["left_out"]
    status, _, error = audited("--run", run.folder)
    assert status == 2 and "expected Dataset521" in error


def test_few_held_out_cases_are_joined_by_the_test_set(nnunet_folders):
    ids = [f"b{n}" for n in range(6)]
    real = write_blobs(nnunet_folders["nnUNet_raw"] / "Dataset023_Blobs", ids, ["t0", "t1", "b0"], side=32)
    found = membership(tiny_run(real, train={"steps": 1}), real, "cpu")
    assert found["held_out_from"] == ["imagesTr", "imagesTs"] and found["cases"]["held_out"] == 4
    assert np.isfinite(found["auc"])
