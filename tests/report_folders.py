"""Tiny stand-ins for every kind of folder that `jdm-report` reads, by jdm's own writers where they are quick."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from nnunet_scores import evaluation, scored_images, summary
from PIL import Image
from small_runs import picture

from jdm.classify import report as classifiers
from jdm.config.files import to_toml
from jdm.config.settings import Settings
from jdm.data.raw_dataset import RawDataset, read_dataset, write_case, write_dataset_json
from jdm.evaluation.audit_page import write_audit
from jdm.evaluation.scores import CaseScore, Evaluation, overlap
from jdm.evaluation.scores import summarise as classes_of
from jdm.evaluation.set_audit import audit_set
from jdm.system.files import write_json, write_text

EVIL = "</script><script>alert('x')</script>]]>\"&"
"""A name of a class. A case, which is a file, cannot have a slash."""
EVIL_CASE = "<img src=x onerror=alert(1)>'\"&]]>"
REAL, MADE = "Dataset021_Stripes", "Dataset521_Stripes_syn"
TRAINED = 4


def dataset(raw: Path, name: str, cases: dict[str, int], shape: tuple[int, ...], label: str = "organ") -> RawDataset:
    """Pictures or volumes by case and seed, of two classes."""
    ending = ".png" if len(shape) == 2 else ".nii.gz"
    for case_id, seed in cases.items():
        write_case(raw / name, picture(case_id, seed, shape, classes=3), ending)
    labels = {"background": 0, label: 1, "tumour": 2}
    write_dataset_json(raw / name, channel_names=["grey"], labels=labels, file_ending=ending, num_training=len(cases))
    return read_dataset(raw / name)


def synthetic_folder(
    raw: Path, shape: tuple[int, ...] = (16, 24), case: str = "syn_000001", label: str = "organ", audited: bool = True
) -> Path:
    """A real dataset and an export made from it, whose pair syn_000000 is a copy of case_0."""
    real = dataset(raw, REAL, {f"case_{n}": n for n in range(6)}, shape, label)
    made = dataset(raw, MADE, {"syn_000000": 0, case: 12, "syn_000002": 13}, shape, label)
    trained = list(real.cases[:TRAINED])
    origin = {"dataset": REAL, "fold": "all", "training_ids": trained, "step": 5, "checkpoint_sha256": "ab" * 32}
    write_json(
        made.folder / "provenance.json", {"jdm_version": "0.1.0", "generator": origin, "judged": True, "seed": 3}
    )
    records = [{"case_id": name, "foreground_share": {label: 0.2, "tumour": 0.1}} for name in made.cases]
    write_text(made.folder / "manifest.jsonl", "".join(json.dumps(record) + "\n" for record in records))
    if audited:
        write_audit(audit_set(made, real), made.folder)
    return made.folder


def experiment_folder(folder: Path, label: str = "organ", case: str = "i00") -> Path:
    """An experiment in which pretraining helped."""
    arms = {
        arm: {(case if image == "i00" else image, name): dice for (image, name), dice in scores.items()}
        for arm, scores in {
            "real": scored_images(12, label, 0.7), "pretrain-finetune": scored_images(12, label, 0.8, 0.06),
            "real-long": scored_images(12, label, 0.72),
        }.items()
    }  # fmt: skip
    results: dict[str, Any] = summary(arms)
    results["settings"] |= {"real": REAL, "synthetic": MADE, "fold": "all"}
    results |= {
        "data": {"training_cases": 4, "synthetic_cases": 3, "test_cases": 12, "test_set": "imagesTs"}, "notes": [],
        "stock": {"patch_size": [64, 64], "batch_size": 2, "network_features": [8, 16, 32]}, "patch_note": "",
        "trainings": {"real": {"minutes": 1.5, "seeds": 1}}, "commit": None, "versions": {"jdm": "0.1.0"},
        "command": f"jdm-experiment 21 --synthetic 521 --fold all --out '{label}'",
        "hardware": {"cpu": "a processor", "cores": 2, "gpu": []},
    }  # fmt: skip
    write_json(folder / "results.json", results)
    for arm, scores in arms.items():
        write_json(folder / "scores" / f"{arm}_seed_0.json", evaluation(scores))
    (folder / "pictures").mkdir()
    Image.new("RGB", (900, 120), "grey").save(folder / "pictures" / "i05.png")
    return folder


def classify_folder(folder: Path) -> Path:
    rng, y = np.random.default_rng(0), np.arange(24) % 2
    arms = {}
    for arm, sharp in (("real", 1.0), ("real-long", 1.2), ("mixed", 3.0)):
        bright = 1 / (1 + np.exp(-sharp * (2 * y - 1) - rng.normal(size=(2, 24))))
        arms[arm] = {"p": np.stack([1 - bright, bright], -1), "losses": [[0.7, 0.4, 0.3]]}
    found = {"names": ("dark", EVIL), "y": y, "groups": [f"p{n // 2}" for n in range(24)], "arms": arms}
    about = {
        "real": "33", "synthetic": "533", "network": "small", "size": 16, "iterations": 12, "batch_size": 8,
        "folds": ["0"], "classes": ["dark", EVIL], "synthetic_images": 9, "scored": "imagesTs",
    }  # fmt: skip
    folder.mkdir()
    write_json(folder / "results.json", classifiers.report(found, about, folder))
    return folder


def evaluation_folder(folder: Path) -> Path:
    cases = []
    for number, (case_id, tp) in enumerate({"a": 90, EVIL: 40, "c": 0}.items()):
        counts = (tp, 10, 5 + number) if tp else (0, 0, 0)
        cases.append(CaseScore(case_id, EVIL, *overlap(*counts), float("nan"), *counts, tn=9))
    found = Evaluation("nnunet", "medpy", tuple(cases), classes_of("nnunet", cases, {EVIL: (1,)}), ("missing",))
    found.write(folder)
    return folder


def run_folder(folder: Path) -> Path:
    (folder / "samples").mkdir(parents=True)
    Image.new("L", (300, 60), 90).save(folder / "samples" / "step_000020.png")
    write_text(folder / "plan.toml", to_toml(Settings(), {"train.steps": f"given <{EVIL}>", "network.dropout": "few"}))
    rows = [f"{n},{1 / n},0,0,,{0.5 + 0.1 / n if n % 5 == 0 else ''},{0.5 if n % 5 == 0 else ''}" for n in range(1, 31)]
    head = "step,loss,gradient_norm,learning_rate,seen_loss,held_out_loss,smoothed"
    write_text(folder / "log.csv", "\n".join([head, *rows]) + "\n")
    facts = {
        "dataset": REAL, "fold": "all", "training_ids": ["case_0", EVIL], "held_out_ids": ["case_4"], "step": 20,
        "minutes": 1.25, "held_out_loss": 0.5, "jdm_version": "0.1.0", "commit": "", "sha256": "cd" * 32,
    }  # fmt: skip
    write_json(folder / "checkpoint.json", facts)
    return folder


def demo_folder(folder: Path) -> Path:
    write_text_in(folder / "demo.txt", "Made by jdm-demo.\n")
    synthetic_folder(folder / "nnUNet_raw")
    run_folder(folder / "jdm_results" / REAL / "fold_all")
    experiment_folder(folder / "jdm_results" / REAL / "experiment_fold_all")
    steps = [{"command": "jdm-train 1 all", "seconds": 90.0}, {"command": "jdm-export 1 all", "seconds": 30.0}]
    write_json(folder / "demo.json", {"setup": ["export A=$PWD/A"], "steps": steps})
    return folder


def write_text_in(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)
