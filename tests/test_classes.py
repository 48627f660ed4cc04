"""Classes of cases: read, trained, sampled with guidance, balanced, and exported to be used again."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from export_runs import THESIS, asked, contents, copied, exported, factory_of, manifest, rewritten, with_config
from hypothesis import given, settings
from hypothesis import strategies as st
from small_runs import changed, config_of, facts, tiny_plan, tiny_run

import jdm
from jdm.data.classes import classes_csv, read_classes
from jdm.data.pairs import Batches, PairDataset, condition_features, sampling_condition
from jdm.data.raw_dataset import Pair, open_dataset, read_case, read_dataset, write_case, write_dataset_json
from jdm.diffusion.mask_estimate import UNSEEN, estimated_mask
from jdm.diffusion.model import build_denoiser
from jdm.diffusion.sampling import CaseNoise
from jdm.draw.guidance import check_guidance, directed
from jdm.errors import ConfigError, DataError
from jdm.export import pairs as export_pairs
from jdm.export.amount import balanced, order_of
from jdm.train.checkpoint import load_checkpoint, run_folder

NAMES = ("bright", "dark")
REQUEST = asked(dataset="31")


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
def run(toy):
    """Trained on five bright images and two dark ones; the last one is held out."""
    return perturbed(tiny_run(*toy, train={"steps": 1}))


def perturbed(run):
    """The run with noise on its weights: a network that has hardly been trained ignores what it is told."""
    source = torch.Generator().manual_seed(0)
    return rewritten(run, lambda weight: weight + 0.1 * torch.randn(weight.shape, generator=source))


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
        (lambda text: text.replace("case_2", "case_99"), "case_99.*Dataset031_Toy"),
        (lambda text: text.replace("case_2,bright\n", ""), "1 of 8 .*case_2"),
        (lambda text: text + "case_2,dark\n", "line 10 .*case_2"),
        (lambda text: text.replace("case_2,bright", "case_2"), "line 4 has 1 .*expected 2"),
        (lambda text: text.replace("case,class", "image,grade"), "'image,grade'.*case and class"),
        (lambda text: "", "nothing.*case and class"),
        (lambda text: '"case_0,bright', "CSV"),
        (lambda text: text.replace("case_2,bright", "case_2,bri\x07ght"), "line 4 .*bri.x07ght"),
        (lambda text: b"\x89PNG\r\n\x1a\n\xff", "CSV.*UTF-8"),
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
    plain, told = (build_denoiser(config_of(facts(class_names=names), **small), 11) for names in ((), NAMES))
    added = {*told.state_dict()} - {*plain.state_dict()}
    assert added == {"network.embedding.classes.weight"}
    assert told.state_dict()[added.pop()].shape == (3, 4 * 8)  # two classes and none, as wide as the embedding


@pytest.mark.parametrize("preset", ["default", "thesis"])
def test_a_class_reaches_the_network_and_none_is_the_default(toy, preset):
    config = tiny_plan(toy[0], list(toy[0].cases), toy[1], augment={"probability": 0.0}, preset=preset)
    torch.manual_seed(0)
    denoiser = build_denoiser(config, condition_features(2))
    for parameter in denoiser.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    x, sigma = torch.randn(3, 2, 8, 8), torch.ones(3, 2)
    each = torch.stack([torch.zeros(12), *(sampling_condition(config, name) for name in NAMES)])
    same = x[:1].expand(3, -1, -1, -1)
    none, bright, dark = denoiser(same, sigma, each)
    assert not torch.allclose(bright, dark) and not torch.allclose(bright, none)
    torch.testing.assert_close(denoiser(same, sigma)[0], none)
    torch.testing.assert_close(directed(denoiser, config, "dark")(same, sigma)[0], dark)
    guided = directed(denoiser, config, "dark", 3.0)(same, sigma)[0]
    torch.testing.assert_close(guided, none + 3 * (dark - none), rtol=1e-4, atol=1e-5)


def test_batches_tell_classes_and_leave_some_out(toy):
    real, classes = toy
    config = tiny_plan(real, list(real.cases), classes, train={"class_dropout": 0.25})
    pairs = PairDataset(real, list(real.cases), config, classes={**classes, "case_0": "", "case_1": "of another fold"})
    x0, condition = Batches(pairs, 4000, seed=0)[0]
    number = condition[:, -1]
    plain = changed(config, {"facts": {"class_names": [], "class_sizes": []}})
    x0_plain, condition_plain = Batches(PairDataset(real, list(real.cases), plain), 4000, seed=0)[0]
    assert torch.equal(x0, x0_plain) and torch.equal(condition[:, :-1], condition_plain)
    bright = x0[:, 0].mean((1, 2)) > 0
    assert set(number[bright].tolist()) == {0, 1} and set(number[~bright].tolist()) == {0, 2}
    for value in (1, 2):  # of five bright ones, two are not labelled
        assert (number == value).float().mean() == pytest.approx(0.75 * 3 / 8, abs=0.03)
    fixed = Batches(pairs, 4000, seed=0, augmented=False)[0][1]
    assert (fixed[:, -1] == 2).float().mean() == pytest.approx(3 / 8, abs=0.03) and (fixed[:, :-1] == 0).all()


def test_a_trained_model_samples_the_class_it_is_told(toy):
    quick = {"steps": 100, "batch_size": 8, "learning_rate": 5e-3, "validate_every": 50, "checkpoint_minutes": 9.0}
    tiny_run(*toy, train=quick, augment={"probability": 0.0})
    exported(REQUEST, count=16, steps=6, batch_size=8, balance=True)
    made = open_dataset(521)
    table = read_classes(made.folder / "classes.csv", made)
    means = {name: [read_case(made, c).image.mean() for c in made.cases if table[c] == name] for name in NAMES}
    assert min(map(len, means.values())) >= 6 and min(means["bright"]) > 130 > 110 > max(means["dark"])


# Guidance and balance.


def test_guidance_is_refused_where_it_is_not_possible(run):
    plain, always = (
        with_config(run, changes).checkpoint
        for changes in ({"facts": {"class_names": [], "class_sizes": []}}, {"train": {"class_dropout": 0.0}})
    )
    one, (held_out,) = run.checkpoint, run.checkpoint.metadata["held_out_ids"]
    leaking = {**one.metadata, "training_ids": [*one.metadata["training_ids"], held_out]}
    for guided, names, scale, weaker, problem in (
        (plain, ["dark"], 1.0, None, "--classes.*--class-label"),
        (plain, [], 2.0, None, "--guidance.*--class-label.*--guide"),
        (one, [], 2.0, None, "--guidance.*--class-label.*--guide"),
        (one, ["grey"], 1.0, None, "--class-label is 'grey'.*bright, dark"),
        (always, ["dark"], 2.0, None, "class_dropout 0.*--guidance"),
        (one, ["dark"], 2.0, plain, "class_names"),
        (one, ["dark"], 1.0, one, "--guidance is 1.0.*--guide"),
        (one, [], 2.0, replace(one, metadata=leaking), held_out),
        (one, [], 2.0, replace(one, metadata={**one.metadata, "dataset": "Dataset022_Slabs"}), "Dataset022_Slabs"),
        (one, [], 2.0, with_config(run, {"codec": {"mask_amplitude": 0.7}}).checkpoint, "mask_amplitude: 0.7.*0.5"),
        (one, [], 2.0, with_config(run, {"facts": {"high": [99.0]}}).checkpoint, "high: .99.0"),
    ):
        with pytest.raises(ConfigError, match=problem):
            check_guidance(guided, names, scale, weaker)
    check_guidance(always, ["dark"], 2.0, one)
    thesis = with_config(run, THESIS).checkpoint
    with pytest.raises(ConfigError, match=r"--guidance is 2\.0 with --sampler ancestral"):
        order_of(thesis, asked(REQUEST, sampler="ancestral", guidance=2.0))


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


def test_real_amounts_are_cases_of_whole_images_and_pixels_of_patches(toy, run):
    real, classes = toy
    unknown = tiny_plan(real, list(real.cases), {**classes, "case_0": ""}).facts
    assert (unknown.class_names, unknown.class_sizes) == (NAMES, ((4, 4 * 64), (3, 3 * 64)))
    patches = {"data": {"whole": False, "patch_size": [4, 4], "canvas_size": [4, 4]}}
    for plan, amounts in (({}, {"bright": 5, "dark": 2}), (patches, {"bright": 20, "dark": 8})):
        order = order_of(with_config(run, plan).checkpoint, asked(REQUEST, count=14, balance=True))
        assert dict(order.classes) == {name: n for name, n in balanced(amounts, 14).items() if n}


def test_batches_are_of_one_class(run):
    order = order_of(run.checkpoint, REQUEST)
    assert order.batches() == [range(0, 2), range(2, 4), range(4, 5)] and order.class_of(0) == ""
    order = replace(order, count=8, classes=(("a", 3), ("b", 5)))
    assert order.batches() == [range(0, 2), range(2, 3), range(3, 5), range(5, 7), range(7, 8)]
    assert [order.class_of(index) for index in range(8)] == ["a"] * 3 + ["b"] * 5


# Exports.


def test_exports_by_class_are_the_same_bytes_however_they_are_made(run):
    request = asked(REQUEST, count=7, balance=True, guidance=2.0)
    first = exported(request)
    assert exported(request) == first
    made = open_dataset(521)
    shutil.rmtree(made.folder)
    done = [jdm.export(asked(request, shard=f"{index}/3")) for index in range(3)]
    assert [one.finished for one in done] == [False, False, True] and contents(made.folder) == first
    classes = ["bright"] * 2 + ["dark"] * 5
    assert [record["class"] for record in manifest(first)] == classes
    assert list(read_classes(made.folder / "classes.csv", made).values()) == classes
    plain = exported(REQUEST, count=7)
    assert "classes.csv" not in plain and b'"class"' not in plain["manifest.jsonl"]
    assert all(plain[name] != first[name] for name in first if name.startswith("images"))
    # The seed is the case's, whatever class it has.
    other = exported(request, balance=False, class_label="bright")
    assert [name for name in first if name.startswith("images") and other[name] == first[name]] == [
        f"imagesTr/syn_{index:06d}_0000.png" for index in (0, 1)
    ]


@pytest.mark.parametrize("sampler", ["ancestral", "ddim"])
def test_the_thesis_preset_samples_classes(toy, sampler):
    perturbed(tiny_run(*toy, **THESIS, train={"steps": 1}))
    bright, dark = (exported(REQUEST, count=2, sampler=sampler, class_label=name) for name in NAMES)
    assert bright["imagesTr/syn_000000_0000.png"] != dark["imagesTr/syn_000000_0000.png"]


def test_a_weaker_checkpoint_guides_an_export(run, tmp_path, monkeypatch):
    plain = exported(REQUEST, count=2)
    worse = rewritten(copied(run, tmp_path / "worse"), lambda weight: 1.5 * weight + 0.1)
    request = asked(REQUEST, count=2, guidance=3.0, guide=worse.folder)
    pushed = exported(request)
    assert pushed["imagesTr/syn_000000_0000.png"] != plain["imagesTr/syn_000000_0000.png"]
    assert json.loads(pushed["provenance.json"])["guide_sha256"] == worse.checkpoint.sha256
    monkeypatch.setattr(export_pairs, "call_seconds", lambda *_: 1.0)
    assert factory_of(run, request).seconds([range(2)]) == 2 * 3 + 1  # the outlines without guidance


def test_masks_are_estimated_without_guidance(run, monkeypatch):
    """Pushed along the difference of two means, an estimate is none: the push may turn a sure class into another."""
    seeds, request = [1, 2], asked(REQUEST, guidance=3.0, class_label="dark", sampler="heun")
    estimating = factory_of(run, request, masks="estimated")
    sampled, estimated = (
        np.stack(factory.samples([0, 1], seeds)) for factory in (factory_of(run, request), estimating)
    )
    draw = CaseNoise(seeds, sampled.shape[1:], "cpu")
    draw()  # what the sampler started from
    denoise = directed(run.checkpoint.denoiser("cpu"), run.config, "dark")
    mean = estimated_mask(denoise, torch.from_numpy(sampled), 1, UNSEEN, draw())
    # behind that noise it hardly matters that the mask was then decided anew
    torch.testing.assert_close(torch.from_numpy(estimated), mean, rtol=0, atol=0.01)
    monkeypatch.setattr(export_pairs, "call_seconds", lambda *_: 1.0)
    assert estimating.seconds([range(2)]) == 2 * 5 + 1


# Commands.

TINY_PLAN = """
[network]
base_channels = 8
channel_multipliers = [1, 1]
blocks_per_level = 1
attention_factors = [2]
attention_heads = 2
[train]
steps = 2
batch_size = 2
precision = "fp32"
"""


def test_the_commands_go_from_a_table_of_classes_to_one(toy, typed, tmp_path):
    real, classes = toy
    plan, folder, table = tmp_path / "tiny.toml", run_folder(real.name, "all"), {**classes, "case_0": ""}
    plan.write_text(TINY_PLAN)
    (real.folder / "classes.csv").write_text(classes_csv(table))
    train, export = ("jdm-train", 31, "all"), ("jdm-export", 31, "all", "--id", 532, "--count", 6, "--steps", 8)
    export = (*export, "--margin", 100, "--anyway")
    status, _, told = typed(*train, "--plan", plan, "--classes", "classes.csv")
    assert status == 0, told
    (real.folder / "classes.csv").unlink()
    status, _, told = typed(*train, "--resume", "--train.steps", 3)  # the run has its own
    assert status == 0 and read_classes(folder / "classes.csv", real) == table, told
    checkpoint = load_checkpoint(folder)
    assert checkpoint.config.facts.class_names == NAMES

    status, printed, told = typed(*export, "--balance", "--guidance", 2)
    assert status == 0, told
    made = open_dataset(532)
    found = list(read_classes(made.folder / "classes.csv", made).values())
    real_counts = {name: sum(table[case] == name for case in checkpoint.metadata["training_ids"]) for name in NAMES}
    counts = {name: found.count(name) for name in NAMES}
    assert counts == balanced(real_counts, 6)
    assert "by class: " + ", ".join(f"{n} {name}" for name, n in counts.items() if n) in printed.splitlines()
    sample = ("jdm-sample", "vary", 31, "all", "--level", 2, "--steps", 4, "--samples", 1)
    assert typed(*sample, "--class-label", "dark")[0] == 0
    assert json.loads((folder / "sampled" / "vary" / "samples.json").read_text())["class_label"] == "dark"
    before = contents(folder)
    for words, names in (
        ((*export, "--class-label", "grey"), "--class-label is 'grey'"),
        ((*export, "--class-label", "dark", "--balance"), "both --class-label and --balance"),
        ((*sample, "--guidance", 2, "--overwrite"), "--guide"),
        ((*train, "--resume", "--classes", "c.csv"), "--resume"),
        ((*train, "--overwrite", "--classes", "none.csv"), "none.csv"),
    ):
        status, _, told = typed(*words)
        assert status == 2 and names in told and "Traceback" not in told
    assert contents(folder) == before  # nothing was discarded


@pytest.mark.parametrize(("label", "problem"), [("dark", "the one class dark"), ("", "no class")])
def test_classes_that_do_not_fit_stop_a_training(toy, typed, tmp_path, label, problem):
    real, classes = toy
    path = tmp_path / "c.csv"
    path.write_text(classes_csv(dict.fromkeys(classes, label)))
    status, _, told = typed("jdm-train", 31, "all", "--classes", path)
    assert status == 2 and str(path) in told and problem in told
    assert not run_folder(real.name, "all").exists()
