"""Classes of cases: read, trained, sampled with guidance, balanced, and exported to be used again."""

import dataclasses
import json
import shutil
import sys

import numpy as np
import pytest
import torch
from export_runs import exported
from hypothesis import given, settings
from hypothesis import strategies as st
from jdm.draw.export_drawer import PairDrawer
from small_runs import changed, tiny_plan, tiny_run

import jdm.cli.export
import jdm.cli.sample
import jdm.cli.train
from jdm.config.settings import Config, from_dict, load
from jdm.data.classes import classes_csv, read_classes
from jdm.data.pairs import Batches, PairDataset, class_condition, condition_features
from jdm.data.raw_dataset import Pair, open_dataset, read_case, read_dataset, write_case, write_dataset_json
from jdm.diffusion.mask_estimate import UNSEEN, estimated_mask
from jdm.diffusion.model import build_denoiser
from jdm.diffusion.sampling import CaseNoise
from jdm.draw.guidance import check_guidance, directed
from jdm.errors import CheckpointError, ConfigError, DataError
from jdm.export.amount import balanced, batches_of, network_calls, real_amounts
from jdm.export.pairs import export
from jdm.export.request import ExportRequest, check_request, class_of
from jdm.train.checkpoint import load_checkpoint, run_folder

NAMES = ("bright", "dark")
TOLD = {"network": {"class_names": list(NAMES)}}
REQUEST = ExportRequest(id=531, name="Toy_syn", count=5, canvas_size=(8, 8), steps=3, batch_size=2, margin=100.0)


def write_toy(raw, counts=(5, 3)):
    """Bright and dark images with a square each, and their classes."""
    folder, classes = raw / "Dataset031_Toy", {}
    for index, name in enumerate(np.repeat(NAMES, counts).tolist()):
        rng = np.random.default_rng(index)
        label = np.zeros((8, 8), np.uint8)
        row, column = rng.integers(0, 4, 2)
        label[row : row + 4, column : column + 4] = 1
        image = (200 if name == "bright" else 40) + 15 * label + rng.integers(0, 10, (8, 8))
        case = f"case_{index}"
        write_case(folder, Pair(case, image[None].astype(np.uint8), label, (1.0, 1.0)), ".png")
        classes[case] = name
    labels = {"background": 0, "square": 1}
    write_dataset_json(folder, channel_names=["grey"], labels=labels, file_ending=".png", num_training=sum(counts))
    return read_dataset(folder), classes


@pytest.fixture
def toy(nnunet_folders):
    return write_toy(nnunet_folders["nnUNet_raw"])


@pytest.fixture
def checkpoint(toy):
    real, classes = toy
    return perturbed(tiny_run(real, classes, **TOLD, train={"steps": 1}))


def perturbed(checkpoint):
    """The checkpoint with noise on its weights: a network that has hardly been trained ignores what it is told."""
    source = torch.Generator().manual_seed(0)
    weights = {name: w + 0.1 * torch.randn(w.shape, generator=source) for name, w in checkpoint.weights.items()}
    return dataclasses.replace(checkpoint, weights=weights)


# The file.


def test_a_table_of_classes_is_read_with_and_without_a_header(toy, tmp_path):
    real, classes = toy
    path = tmp_path / "c.csv"
    path.write_text(classes_csv(classes))
    assert read_classes(path, real) == classes
    path.write_text("".join(f" {case} , {name}\r\n" for case, name in reversed(classes.items())))
    assert read_classes(path, real) == classes
    rows = "".join(f"x,{name},{case}\n" for case, name in classes.items())
    path.write_text("part,Class,Case ID\n" + rows.replace("bright,case_0", ",case_0") + "\n")
    assert read_classes(path, real) == {**classes, "case_0": ""}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda text: text.replace("case_2", "case_99"), "lists case_99, which Dataset031_Toy does not have"),
        (lambda text: text.replace("case_2,bright\n", ""), "lacks 1 of 8 training cases: case_2"),
        (lambda text: text + "case_2,dark\n", "line 10 lists case case_2 again"),
        (lambda text: text.replace("case_2,bright", "case_2"), "line 4 has 1 columns; expected 2"),
        (lambda text: text.replace("case,class", "image,grade"), r"begins with 'image,grade'; expected a header"),
        (lambda text: "", "begins with nothing"),
        (lambda text: '"case_0,bright', "expected a CSV table"),
        (lambda text: text.replace("case_2,bright", "case_2,bri\x07ght"), "expected a printable name"),
        (lambda text: b"\x89PNG\r\n\x1a\n\xff", "expected a CSV table in UTF-8"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_in_one_line(toy, tmp_path, change, problem):
    real, classes = toy
    made = change(classes_csv(classes))
    path = tmp_path / "c.csv"
    path.write_bytes(made if isinstance(made, bytes) else made.encode())
    with pytest.raises(DataError, match=problem) as caught:
        read_classes(path, real)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


# The network.


def test_without_classes_the_network_is_what_it_was():
    small = {"network": {"base_channels": 8, "attention_heads": 2}}
    with_names = {"network": {**small["network"], **TOLD["network"]}}
    plain, told = (build_denoiser(from_dict(Config, values), 11) for values in (small, with_names))
    added = {*told.state_dict()} - {*plain.state_dict()}
    assert added == {"network.embedding.classes.weight"}
    assert told.state_dict()[added.pop()].shape == (3, 4 * 8)  # two classes and none, as wide as the embedding


@pytest.mark.parametrize("preset", ["default", "thesis"])
def test_a_class_reaches_the_network_and_none_is_the_default(toy, preset):
    config = tiny_plan(toy[0], list(toy[0].cases), **TOLD, augment={"probability": 0.0}, preset=preset)
    torch.manual_seed(0)
    denoiser = build_denoiser(config, condition_features(2))
    for parameter in denoiser.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    x, sigma = torch.randn(3, 2, 8, 8), torch.ones(3, 2)
    each = torch.stack([torch.zeros(12), *(class_condition(config, name) for name in NAMES)])
    same = x[:1].expand(3, -1, -1, -1)
    none, bright, dark = denoiser(same, sigma, each)
    assert not torch.allclose(bright, dark) and not torch.allclose(bright, none)
    torch.testing.assert_close(denoiser(same, sigma)[0], none)
    torch.testing.assert_close(directed(denoiser, config, "dark")(same, sigma)[0], dark)
    guided = directed(denoiser, config, "dark", 3.0)(same, sigma)[0]
    torch.testing.assert_close(guided, none + 3 * (dark - none), rtol=1e-4, atol=1e-5)


def test_batches_tell_classes_and_leave_some_out(toy):
    real, classes = toy
    config = tiny_plan(real, list(real.cases), **TOLD, train={"class_dropout": 0.25})
    pairs = PairDataset(real, list(real.cases), config, classes={**classes, "case_0": "", "case_1": "of another fold"})
    x0, condition = Batches(pairs, 4000, seed=0)[0]
    number = condition[:, -1]
    plain = dataclasses.replace(config, network=dataclasses.replace(config.network, class_names=()))
    x0_plain, condition_plain = Batches(PairDataset(real, list(real.cases), plain), 4000, seed=0)[0]
    assert torch.equal(x0, x0_plain) and torch.equal(condition[:, :-1], condition_plain)
    bright = x0[:, 0].mean((1, 2)) > 0
    assert set(number[bright].tolist()) == {0, 1} and set(number[~bright].tolist()) == {0, 2}
    assert (number == 1).float().mean() == pytest.approx(0.75 * 3 / 8, abs=0.03)  # of five, two are not labelled
    assert (number == 2).float().mean() == pytest.approx(0.75 * 3 / 8, abs=0.03)
    fixed = Batches(pairs, 4000, seed=0, augmented=False)[0][1]
    assert (fixed[:, -1] == 2).float().mean() == pytest.approx(3 / 8, abs=0.03) and (fixed[:, :-1] == 0).all()


def test_a_trained_model_samples_the_class_it_is_told(toy):
    real, classes = toy
    quick = {"steps": 100, "batch_size": 8, "learning_rate": 5e-3, "validate_every": 50, "checkpoint_every": 100}
    checkpoint = tiny_run(real, classes, **TOLD, train=quick, augment={"probability": 0.0})
    assert checkpoint.metadata["classes"] == classes
    request = dataclasses.replace(REQUEST, count=16, steps=6, batch_size=8, classes=(("bright", 8), ("dark", 8)))
    export(checkpoint, real, request)
    made = open_dataset(531)
    table = read_classes(made.folder / "classes.csv", made)
    means = {name: [read_case(made, c).image.mean() for c in made.cases if table[c] == name] for name in NAMES}
    assert [len(of) for of in means.values()] == [8, 8]
    assert min(means["bright"]) > 130 > 110 > max(means["dark"])


# Guidance and balance.


def test_guidance_is_refused_where_it_is_not_possible(checkpoint):
    plain = dataclasses.replace(checkpoint, config=changed(checkpoint.config, {"network": {"class_names": []}}))
    always = dataclasses.replace(checkpoint, config=changed(checkpoint.config, {"train": {"class_dropout": 0.0}}))
    for one, names, scale, weaker, problem in (
        (plain, ["dark"], 1.0, None, "the model was trained without classes; expected one of jdm-train --classes"),
        (plain, [], 2.0, None, "with neither a class nor a --guide"),
        (checkpoint, [], 2.0, None, "with neither a class nor a --guide"),
        (checkpoint, ["grey"], 1.0, None, "--class-label is 'grey'; expected one of bright, dark"),
        (always, ["dark"], 2.0, None, r"class_dropout 0\)"),
        (checkpoint, ["dark"], 2.0, plain, "network.class_names"),
        (checkpoint, ["dark"], 1.0, checkpoint, "with a --guide"),
    ):
        with pytest.raises(ConfigError, match=problem):
            check_guidance(one, names, scale, weaker)
    check_guidance(always, ["dark"], 2.0, checkpoint)
    thesis = changed(checkpoint.config, {"preset": "thesis", "augment": {"probability": 0.0}})
    with pytest.raises(ConfigError, match=r"--guidance is 2\.0 with --sampler ancestral"):
        check_request(thesis, dataclasses.replace(REQUEST, sampler="ancestral", guidance=2.0))
    with pytest.raises(ConfigError, match="--count is 5"):
        check_request(checkpoint.config, dataclasses.replace(REQUEST, classes=(("dark", 4),)))


AMOUNTS = st.lists(st.integers(0, 60), min_size=1, max_size=6)


@settings(max_examples=200, deadline=None)
@given(AMOUNTS, st.integers(0, 200))
def test_balance_is_the_best_that_the_count_allows(amounts, count):
    real = {f"c{k}": amount for k, amount in enumerate(amounts)}
    added = balanced(real, count)
    total = [real[name] + added[name] for name in real]
    assert sum(added.values()) == count and min(added.values()) >= 0
    # No largest class is below the largest real one or the mean, and no smallest above what the count can lift all to.
    level = max(n for n in range(max(amounts) + count + 1) if sum(max(n - a, 0) for a in amounts) <= count)
    assert min(total) == level
    assert max(total) == max(max(amounts), -(-(sum(amounts) + count) // len(amounts)))
    assert all(added[a] >= added[b] for a in real for b in real if real[a] < real[b])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=2, max_size=3), st.integers(0, 5))
def test_no_other_way_spreads_less(amounts, count):
    def ways(places, left):
        if places == 1:
            yield (left,)
            return
        for first in range(left + 1):
            for rest in ways(places - 1, left - first):
                yield (first, *rest)

    def spread(extra):
        total = [a + b for a, b in zip(amounts, extra, strict=True)]
        return max(total) - min(total)

    found = balanced({str(k): a for k, a in enumerate(amounts)}, count)
    assert spread(found.values()) == min(map(spread, ways(len(amounts), count)))


def test_real_amounts_are_cases_of_whole_images_and_pixels_of_patches(toy, checkpoint):
    real, classes = toy
    pairs = PairDataset(real, list(real.cases), checkpoint.config)
    assert real_amounts(checkpoint.config, pairs, (8, 8), {**classes, "case_0": ""}) == {"bright": 4, "dark": 3}
    config = changed(checkpoint.config, {"data": {"whole": False, "patch_size": [4, 4], "canvas_size": [4, 4]}})
    assert real_amounts(config, pairs, (4, 4), classes) == {"bright": 20, "dark": 12}


def test_batches_are_of_one_class():
    request = dataclasses.replace(REQUEST, count=8, classes=(("a", 3), ("b", 5)))
    assert batches_of(request) == [range(0, 2), range(2, 3), range(3, 5), range(5, 7), range(7, 8)]
    assert [class_of(request, index) for index in range(8)] == ["a"] * 3 + ["b"] * 5
    assert batches_of(REQUEST) == [range(0, 2), range(2, 4), range(4, 5)] and class_of(REQUEST, 0) == ""


# Exports.


def test_exports_by_class_are_the_same_bytes_however_they_are_made(toy, checkpoint):
    real, _ = toy
    request = dataclasses.replace(REQUEST, classes=(("bright", 2), ("dark", 3)), guidance=2.0)
    first = exported(checkpoint, real, request)
    assert exported(checkpoint, real, request) == first
    shutil.rmtree(real.folder.parent / "Dataset531_Toy_syn")
    for index in (0, 1):
        done = export(checkpoint, real, request, shard=(index, 3), overwrite=True)
        assert not done.finished
    assert exported(checkpoint, real, request, shard=(2, 3)) == first
    records = [json.loads(line) for line in first["manifest.jsonl"].decode().splitlines()]
    assert [record["class"] for record in records] == ["bright"] * 2 + ["dark"] * 3
    made = open_dataset(531)
    assert list(read_classes(made.folder / "classes.csv", made).values()) == ["bright"] * 2 + ["dark"] * 3
    plain = exported(checkpoint, real, REQUEST)
    assert "classes.csv" not in plain and b'"class"' not in plain["manifest.jsonl"]
    assert all(plain[name] != first[name] for name in first if name.startswith("images"))
    # The seed is the case's, whatever class it has.
    other = exported(checkpoint, real, dataclasses.replace(request, classes=(("bright", 5),)))
    assert [name for name in first if name.startswith("images") and other[name] == first[name]] == [
        f"imagesTr/syn_{index:06d}_0000.png" for index in (0, 1)
    ]


@pytest.mark.parametrize("sampler", ["ancestral", "ddim"])
def test_the_thesis_preset_samples_classes(toy, sampler):
    real, classes = toy
    thesis = {"preset": "thesis", "train": {"steps": 1}, "augment": {"probability": 0.0}}
    checkpoint = perturbed(tiny_run(real, classes, **TOLD, **thesis))
    request = dataclasses.replace(REQUEST, count=2, sampler=sampler)
    bright, dark = (
        exported(checkpoint, real, dataclasses.replace(request, classes=((name, 2),)))["imagesTr/syn_000000_0000.png"]
        for name in NAMES
    )
    assert bright != dark


def test_an_earlier_checkpoint_guides_an_export(toy, checkpoint):
    real, _ = toy
    request = dataclasses.replace(REQUEST, count=2, guidance=3.0)
    plain = exported(checkpoint, real, dataclasses.replace(request, guidance=1.0))
    metadata = {**checkpoint.metadata, "sha256": "worse"}
    worse = dataclasses.replace(
        checkpoint, weights={k: 1.5 * w + 0.1 for k, w in checkpoint.weights.items()}, metadata=metadata
    )
    pushed = exported(checkpoint, real, request, weaker=worse)
    assert pushed["imagesTr/syn_000000_0000.png"] != plain["imagesTr/syn_000000_0000.png"]
    assert json.loads(pushed["provenance.json"])["guide_sha256"] == "worse"
    assert network_calls(checkpoint.config, request, [range(2)]) == 2 * 5


def test_masks_are_estimated_without_guidance(checkpoint):
    """Pushed along the difference of two means, an estimate is none: the push may turn a sure class into another."""
    config, seeds = checkpoint.config, [1, 2]
    sampled, estimated = (
        PairDrawer(checkpoint, dataclasses.replace(REQUEST, masks=masks, guidance=3.0), "cpu").samples(
            seeds, class_name="dark"
        )
        for masks in ("sampled", "estimated")
    )
    draw = CaseNoise(seeds, sampled.shape[1:], "cpu")
    draw()  # what the sampler started from
    denoise = directed(checkpoint.denoiser("cpu"), config, "dark")
    mean = estimated_mask(denoise, torch.from_numpy(sampled), 1, UNSEEN, draw())
    torch.testing.assert_close(torch.from_numpy(estimated), mean)
    request = dataclasses.replace(REQUEST, masks="estimated", guidance=3.0)
    assert network_calls(config, request, [range(2)]) == 2 * 5 + 1


# Commands.


def run(monkeypatch, module, *words):
    monkeypatch.setattr(sys, "argv", ["jdm", *map(str, words)])
    module.main()


TINY_PLAN = """
[network]
base_channels = 8
channel_multipliers = [1, 1]
blocks_per_level = 1
attention_factors = [2]
attention_heads = 2
class_names = []
[train]
steps = 2
batch_size = 2
precision = "fp32"
"""


def test_the_commands_go_from_a_table_of_classes_to_one(toy, monkeypatch, capsys, tmp_path):
    real, classes = toy
    plan = tmp_path / "tiny.toml"
    plan.write_text(TINY_PLAN)
    (real.folder / "classes.csv").write_text(classes_csv({**classes, "case_0": ""}))
    run(monkeypatch, jdm.cli.train, 31, "all", "--plan", plan, "--classes", "classes.csv")
    assert " bright, " in capsys.readouterr().err
    folder = run_folder(real.name, "all")
    assert load(folder / "plan.toml").network.class_names == NAMES
    (real.folder / "classes.csv").unlink()
    run(monkeypatch, jdm.cli.train, 31, "all", "--resume", "--train.steps", 3)  # the run has its own
    assert load_checkpoint(folder).metadata["classes"]["case_0"] == ""
    export_flags = (31, "all", "--id", 532, "--count", 6, "--steps", 2, "--margin", 100)
    run(monkeypatch, jdm.cli.export, *export_flags, "--balance", "--guidance", 2)
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("by class"))
    training = load_checkpoint(folder).metadata["training_ids"]
    real_counts = {name: sum({**classes, "case_0": ""}[case] == name for case in training) for name in NAMES}
    made = open_dataset(532)
    found = list(read_classes(made.folder / "classes.csv", made).values())
    assert {name: found.count(name) for name in NAMES} == balanced(real_counts, 6)
    assert line == "by class: " + ", ".join(f"{found.count(name)} {name}" for name in NAMES)
    run(monkeypatch, jdm.cli.sample, 31, "all", "--vary", 2, "--class-label", "dark", "--steps", 4, "--samples", 1)
    assert json.loads((folder / "sampled" / "vary" / "samples.json").read_text())["class_label"] == "dark"
    for module, words, problem in (
        (jdm.cli.export, (*export_flags, "--class-label", "grey"), "--class-label is 'grey'"),
        (jdm.cli.export, (*export_flags, "--class-label", "dark", "--balance"), "found both"),
        (
            jdm.cli.sample,
            (31, "all", "--vary", 2, "--guidance", 2, "--overwrite"),
            "with neither a class nor a --guide",
        ),
        (jdm.cli.train, (31, "all", "--resume", "--classes", "c.csv"), "expected the saved plan"),
        (jdm.cli.train, (31, "all", "--overwrite", "--classes", "none.csv"), "none.csv: cannot be read"),
        (jdm.cli.train, (31, "all", "--overwrite", "--network.class-names", "a", "b"), "leave the setting out"),
    ):
        with pytest.raises(SystemExit) as caught:
            run(monkeypatch, module, *words)
        error = capsys.readouterr().err
        assert caught.value.code == 2 and problem in error and "Traceback" not in error
    assert load(folder / "plan.toml").network.class_names == NAMES  # nothing was discarded


def test_classes_that_do_not_fit_stop_a_training(toy, monkeypatch, capsys, tmp_path):
    real, classes = toy
    path = tmp_path / "c.csv"
    for label, problem in (("dark", "the one class dark"), ("", "no class")):
        path.write_text(classes_csv(dict.fromkeys(classes, label)))
        with pytest.raises(SystemExit) as caught:
            run(monkeypatch, jdm.cli.train, 31, "all", "--classes", path)
        assert caught.value.code == 2 and f"training cases have {problem}" in capsys.readouterr().err
    assert not run_folder(real.name, "all").exists()


def test_a_run_is_not_resumed_with_other_classes_and_an_old_one_is(toy, tmp_path):
    from jdm.train.loop import train

    real, classes = toy
    ids = (list(real.cases[:-1]), list(real.cases[-1:]))
    config = tiny_plan(real, ids[0], **TOLD, train={"steps": 1})
    train(config, real, 0, ids, tmp_path / "run", classes=classes)
    with pytest.raises(CheckpointError, match=r"classes\.case_0: bright, expected dark"):
        train(config, real, 0, ids, tmp_path / "run", resume=True, classes={**classes, "case_0": "dark"})
    plain = tiny_plan(real, ids[0], train={"steps": 1})
    train(plain, real, 0, ids, tmp_path / "old")
    path = tmp_path / "old" / "resume.pt"
    state = torch.load(path, weights_only=True)
    del state["origin"]["config"]["network"]["class_names"], state["origin"]["config"]["train"]["class_dropout"]
    torch.save(state, path)
    longer = changed(plain, {"train": {"steps": 2}})
    train(longer, real, 0, ids, tmp_path / "old", resume=True)
    assert (
        not (tmp_path / "old" / "classes.csv").exists() and "classes" not in load_checkpoint(tmp_path / "old").metadata
    )
