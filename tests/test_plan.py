"""Self-configuration: from what a dataset is to a plan, and what the user may and may not change of it."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from fault_processes import NETWORK
from made_datasets import write
from small_runs import TINY, facts, of_classes, write_pictures

import jdm
from jdm.config.files import to_dict, to_toml
from jdm.config.settings import NoiseConfig
from jdm.data.pairs import PairDataset
from jdm.draw.canvas import planned_pair
from jdm.errors import ConfigError, TrainingError
from jdm.plan.rules import WIDTHS, Machine, plan, steps_within, usual_size
from jdm.train import prepare
from jdm.train.request import TrainRequest

PHOTOGRAPHS = {
    "channel_names": ("R", "G", "B"), "low": (0.0,) * 3, "high": (255.0,) * 3, "image_mean": (0.3, -0.2, 0.0),
    "image_std": 0.4, "class_shares": (0.75, 0.25), "sizes": (((1000, 1000), 1, 30),), "mirror_axes": (0, 1),
    "quarter_turns": True, "symmetry": "mirrored masks lie like the others",
}  # fmt: skip
SMALL = {"network": to_dict(TINY), "train": {"batch_size": 2}}
"""Settings that are quickly measured."""


def planned(device="cpu", preset="default", **changes):
    """The plan of photographs of which some facts differ; `canvas_limit` and `settings` go to the plan."""
    options = {name: changes.pop(name) for name in ("canvas_limit", "settings") if name in changes}
    machine = Machine(device)
    return plan(facts(**{**PHOTOGRAPHS, **changes}), usual_size(preset, machine), machine, preset=preset, **options)


def of_size(*sizes: tuple[int, int]):
    return tuple((size, 1, 1) for size in sorted(set(sizes)))


@pytest.mark.parametrize(
    ("sizes", "whole", "patch", "canvas"),
    [
        ([(20, 20)], True, (20, 20), (20, 20)),
        ([(64, 64)], True, (64, 64), (64, 64)),
        ([(100, 75)], True, (104, 80), (104, 80)),  # sides rounded up, not squared
        ([(288, 300)], True, (288, 320), (288, 320)),
        ([(1000, 1000)], False, (256, 256), (512, 512)),
        ([(400, 600)], False, (256, 256), (400, 512)),
        ([(40, 9000)], False, (48, 256), (48, 512)),
        ([(64, 64), (60, 88)], True, (64, 88), (64, 88)),  # as large as all of them
        ([(64, 64), (65, 66), (90, 150)], False, (72, 72), (90, 150)),  # mostly padding
        ([(300, 300), (301, 302), (320, 330)], False, (256, 256), (320, 330)),  # the largest does not fit
    ],
)
def test_images_are_trained_whole_where_all_fit_and_else_as_patches(sizes, whole, patch, canvas):
    data = planned(sizes=of_size(*sizes)).config.data
    assert (data.whole, data.patch_size, data.canvas_size, data.dims) == (whole, patch, canvas, 2)


@pytest.mark.parametrize(
    ("side", "haar_levels", "grids"), [(12, 0, 12), (20, 0, 20), (28, 1, 14), (64, 1, 32), (128, 2, 32), (256, 2, 64)]
)
def test_the_network_works_on_coarse_grids_and_attends_on_the_coarsest(side, haar_levels, grids):
    network = planned(sizes=of_size((side, side))).config.network
    coarsest = grids / 2 ** (len(network.channel_multipliers) - 1)
    assert network.haar_levels == haar_levels and 4 <= coarsest <= 12
    assert network.attention_factors == (grids / coarsest,)


def test_noise_grows_with_the_side_at_its_upper_end_only():
    usual, large = (planned(sizes=of_size((side, side))).config.noise for side in (64, 256))
    assert usual == NoiseConfig()
    assert planned(sizes=of_size((32, 32))).config.noise == NoiseConfig()
    ends = [[noise.log_mean + k * noise.log_std for k in (-1.645, 1.645)] for noise in (usual, large)]
    assert ends[1][0] == pytest.approx(ends[0][0], abs=0.01)
    assert ends[1][1] == pytest.approx(ends[0][1] + math.log(4), abs=0.01)
    assert large.sigma_max == 4 * usual.sigma_max
    assert planned(preset="thesis").config.noise == NoiseConfig()


def test_the_canvas_reaches_the_hosts_patch_but_not_beyond_the_images():
    assert planned(canvas_limit=(320, 256)).config.data.canvas_size == (320, 256)
    tall = planned(sizes=of_size((300, 2000)), canvas_limit=(1024, 1024))
    assert tall.config.data.canvas_size == (300, 1024)
    assert planned(canvas_limit=(32, 32)).config.data.canvas_size == (256, 256)  # at least the training patch


@pytest.mark.parametrize(
    ("classes", "code"), [(2, "binary"), (3, "one-hot"), (8, "one-hot"), (9, "bits"), (300, "bits")]
)
def test_the_mask_code_follows_the_number_of_classes(classes, code):
    machine = Machine()
    assert plan(of_classes(classes), usual_size("default", machine), machine).config.codec.mask_code == code


def test_augmentation_and_dropout_follow_the_facts():
    photograph = planned().config.augment
    assert photograph.mirror_axes == (0, 1) and photograph.quarter_turns
    assert not planned(sizes=of_size((200, 300))).config.augment.quarter_turns  # whole, and not square
    sided = planned(mirror_axes=(1,), quarter_turns=False, symmetry="'heart' has a left and a right")
    assert sided.config.augment.mirror_axes == (1,) and not sided.config.augment.quarter_turns
    assert "heart" in sided.reasons["augment.mirror_axes"]
    many = planned("cuda", sizes=(((1000, 1000), 1, 5000),)).config
    assert many.augment.probability < photograph.probability  # weaker with more data
    assert many.network.dropout == 0 < planned("cuda").config.network.dropout


def test_the_thesis_preset_is_its_network_and_optimiser():
    config = planned(preset="thesis").config
    assert config.augment.probability == 0 and not config.augment.mirror_axes  # its network is not told of any
    assert config.codec.mask_amplitude == 1
    assert (config.network.base_channels, config.network.channel_multipliers) == (128, (1, 1, 2, 2, 4, 4))
    assert config.network.haar_levels == 0
    assert config.network.attention_factors == (16, 32) and config.network.attention_heads == 4
    assert (config.train.batch_size, config.train.learning_rate, config.train.decay) == (10, 1e-4, "linear")
    assert config.train.ema_decay == 0.9999 and config.train.warmup_steps == 0
    assert all(side % 32 == 0 for side in config.data.patch_size)


def test_what_is_given_is_followed_and_told_beside_what_was_planned():
    given = {"data": {"whole": False, "patch_size": [32, 48]}, "network": {"base_channels": 40}, "train": {"steps": 7}}
    found = planned(sizes=of_size((100, 75)), settings=given)
    data = found.config.data
    assert (data.whole, data.patch_size, data.canvas_size) == (False, (32, 48), (100, 75))
    assert not found.config.augment.quarter_turns and (found.steps, found.config.network.base_channels) == (7, 40)
    for name, usual in {"data.whole": "True", "data.patch_size": "104, 80", "network.base_channels": "48",
                        "train.steps": "10100"}.items():  # fmt: skip
        assert found.reasons[name].startswith("given") and usual in found.reasons[name]
    deep = planned(sizes=of_size((100, 75)), settings={"network": {"channel_multipliers": [1, 1, 1, 1, 1]}})
    assert deep.config.data.patch_size == (128, 128)  # multiples of 64
    assert all(found.reasons.values()) and {"preset", "codec.mask_code", "train.batch_size"} <= set(found.reasons)


# ---------------------------------------------------------------- budgets


def seconds_of(config) -> float:
    """In proportion to what is computed: 1 s for the smallest step of whole images of 256 x 256."""
    work = config.train.batch_size * math.prod(config.data.patch_size) * config.network.base_channels**2
    return work / (4 * 256 * 256 * 48**2)


@pytest.mark.parametrize(
    ("minutes", "width", "batch"),
    # 2500 steps of 2 and 4 s, then 6000 of 7.1 and 28.4 s, in nine tenths of the time
    [(1, 48, 4), (92, 48, 4), (93, 48, 8), (184, 48, 8), (186, 48, 16), (780, 48, 16), (800, 64, 16), (3100, 64, 16),
     (3200, 128, 16), (99999, 128, 16)],
)  # fmt: skip
def test_a_budget_buys_the_largest_step_of_which_it_holds_enough(monkeypatch, minutes, width, batch):
    monkeypatch.setattr(prepare, "measure_step_seconds", lambda config, device: seconds_of(config))
    request = TrainRequest("21", "all", budget_minutes=minutes)
    found = prepare.fitting_plan(request, facts(sizes=of_size((256, 256))), Machine(), {})
    config = found.config
    assert (config.network.base_channels, config.train.batch_size) == (width, batch)
    within = steps_within(minutes, seconds_of(config))
    assert found.seconds == seconds_of(config) and found.steps == within
    assert config.train.budget_minutes == minutes  # ends the run by the clock, which also lowers the rate
    assert config.train.steps >= within and config.train.validate_every <= max(20, within)


def test_a_budget_ends_where_memory_does(monkeypatch):
    def measured(config, device):
        if config.network.base_channels > most:
            raise TrainingError("memory ran out")
        return 0.001

    monkeypatch.setattr(prepare, "measure_step_seconds", measured)
    request = TrainRequest("21", "all", budget_minutes=1000)
    for most in (64, 16):
        if most == 64:
            assert prepare.fitting_plan(request, facts(), Machine(), {}).config.network.base_channels == WIDTHS[1][0]
            continue
        with pytest.raises(TrainingError, match="memory"):
            prepare.fitting_plan(request, facts(), Machine(), {})


def test_steps_follow_from_a_budget_and_the_time_of_one(monkeypatch):
    assert steps_within(1, 0.1) == 540 and steps_within(0.01, 100) == 1
    monkeypatch.setattr(prepare, "measure_step_seconds", lambda config, device: 0.5)
    # A rate that falls to zero has to know its last step.
    request = TrainRequest("21", "all", preset="thesis", budget_minutes=10)
    thesis = prepare.fitting_plan(request, facts(), Machine(), {}).config
    assert thesis.train.steps == steps_within(10, 0.5) == 1080 and thesis.network.channel_multipliers == (
        1,
        1,
        2,
        2,
        4,
        4,
    )
    unhurried = prepare.fitting_plan(TrainRequest("21", "all"), facts(), Machine(), {})
    assert (unhurried.steps, unhurried.seconds) == (10_000 + 30 * 100, 0.5)


# ---------------------------------------------------------------- from a dataset


def from_dataset(dataset: str, plan_file: Path | None = None, **settings):
    return prepare.prepare(TrainRequest(dataset, "all", plan=plan_file, settings={**SMALL, **settings}, dry_run=True))


@pytest.mark.parametrize(
    ("axis", "patch", "spacing", "slice_spacing"),
    [(0, (64, 48), (1, 1), 5), (1, (24, 48), (5, 1), 1), (2, (24, 64), (5, 1), 1)],
)
@pytest.mark.parametrize("by_file", [True, False])
def test_all_geometry_follows_the_slice_axis_that_is_asked_for(
    nnunet_folders, tmp_path, axis, patch, spacing, slice_spacing, by_file
):
    image = np.random.default_rng(0).normal(100, 30, (1, 24, 64, 48)).astype(np.float32)
    dataset = write(nnunet_folders["nnUNet_raw"], [image], spacing=(5.0, 1.0, 1.0))
    path = tmp_path / "mine.toml"
    path.write_text(f"[data]\nslice_axis = {axis}\n")
    found = from_dataset("31", path) if by_file else from_dataset("31", data={"slice_axis": axis})
    config = found.config
    assert config.data.slice_axis == config.facts.slice_axis == axis and config.data.whole
    assert (config.data.patch_size, config.data.canvas_size) == (patch, patch)
    assert (config.facts.spacing, config.facts.slice_spacing) == (spacing, slice_spacing)
    pairs = PairDataset(dataset, ["v0"], config)
    assert pairs.item_shape(0) == patch  # trained as stored: nothing is resampled
    made = planned_pair("a", *pairs.crop(0, patch, np.random.default_rng(0)), config)
    assert made.spacing == (5, 1, 1)  # of what is exported


def test_the_preset_and_the_budget_of_a_plan_file_count_unless_a_flag_says_otherwise(nnunet_folders, tmp_path):
    write_pictures(nnunet_folders["nnUNet_raw"])
    path = tmp_path / "plan.toml"

    def planned_by(text: str, **flags):
        path.write_text(text)
        return jdm.plan(TrainRequest("21", "all", plan=path, settings=SMALL, **flags)).config

    assert planned_by("[train]\nbudget_minutes = 0.25").train.budget_minutes == 0.25
    for earlier in ("0.25", "'none'"):
        assert planned_by(f"[train]\nbudget_minutes = {earlier}", budget_minutes=0.5).train.budget_minutes == 0.5
    thesis = planned_by("preset = 'thesis'", preset="thesis")
    assert thesis.preset == "thesis" and thesis.codec.mask_amplitude == 1.0 and thesis.augment.probability == 0
    with pytest.raises(ConfigError, match=r"--preset is thesis.* default .*plan\.toml"):
        planned_by("preset = 'default'", preset="thesis")


@pytest.mark.parametrize("whole", [{}, {"whole": False}])
def test_a_patch_smaller_than_the_images_is_a_patch(whole):
    """As whole images they would be cut: exports would be smaller than the real ones."""
    found = plan(
        facts(), usual_size("default", Machine()), Machine(), settings={"data": {"patch_size": (32, 32), **whole}}
    )
    assert not found.config.data.whole and found.config.data.canvas_size == (64, 64)
    assert "patch" in found.reasons["data.whole"] or whole


def test_a_plan_file_decides_and_measures_nothing(nnunet_folders, tmp_path):
    """A whole plan of 8-bit pictures serves 16-bit ones: what is measured stays theirs."""
    raw, path = nnunet_folders["nnUNet_raw"], tmp_path / "plan.toml"
    write_pictures(raw)
    eight = from_dataset("21", train={"steps": 77}).plan
    path.write_text(to_toml(eight.config, eight.reasons))
    write_pictures(raw, "Dataset022_Deep", dtype="uint16", spacing=(1.0, 1.0), channels=2)
    deep = from_dataset("22", path).config
    assert deep.train.steps == 77 and deep.facts.dtype == "uint16" != eight.config.facts.dtype
    assert deep.facts.high[0] > 1000 and deep.image_channels == 2 and deep.facts.high != eight.config.facts.high
    for name in ("dtype = 'uint8'", "high = [255.0]", "channel_names = ['a']"):
        path.write_text(f"[facts]\n{name}\n")
        with pytest.raises(ConfigError, match=r"plan\.toml.*'?facts"):
            from_dataset("22", path)
    write_pictures(raw, "Dataset023_Many", classes=4)
    with pytest.raises(ConfigError, match=r"codec\.mask_code is binary.*4 classes"):
        from_dataset("23", codec={"mask_code": "binary"})


def test_flags_count_more_than_a_plan_file(nnunet_folders, tmp_path):
    write_pictures(nnunet_folders["nnUNet_raw"])
    plan = from_dataset("21", train={"steps": 77}).plan
    (tmp_path / "plan.toml").write_text(to_toml(plan.config, plan.reasons))  # which names a preset and no budget
    usual = {"plan": tmp_path / "plan.toml", "dry_run": True}
    found = prepare.prepare(TrainRequest("21", "all", budget_minutes=3, settings={"train": {"steps": 78}}, **usual))
    assert (found.config.train.budget_minutes, found.config.train.steps) == (3.0, 78)


def test_the_dry_run_is_a_table_of_decisions_with_reasons(nnunet_folders, typed):
    def rows_of(*flags: str) -> tuple[str, dict[str, str]]:
        status, printed, _ = typed("jdm-train", "21", "all", "--dry-run", *NETWORK, *flags)
        assert status == 0
        lines = [line.split(maxsplit=1) for line in printed.splitlines()]
        return printed, {line[0]: line[1] for line in lines if line and "." in line[0]}

    write_pictures(nnunet_folders["nnUNet_raw"], shape=(16, 16))
    printed, rows = rows_of("--train.batch-size", "2")
    assert rows["augment.mirror_axes"].startswith("0 1 ") and rows["augment.quarter_turns"].startswith("True ")
    assert rows["network.base_channels"].split()[:2] == ["8", "given"] and rows["data.patch_size"].startswith("16 16 ")
    assert "4 cases, 4 images" in printed and "background 0.00%" in printed and "s per step on this machine" in printed
    assert not list(nnunet_folders["jdm_results"].iterdir())
    others = "--augment.no-quarter-turns --augment.mirror-axes --data.slice-axis none --budget-minutes 0.01"
    plain, rows = rows_of(*others.split())
    assert rows["data.slice_axis"].split()[:2] == ["none", "given"] and rows["train.budget_minutes"].startswith("0.01 ")
    assert rows["augment.mirror_axes"].startswith("none ") and rows["augment.quarter_turns"].startswith("False ")
    assert "--budget-minutes" in plain.splitlines()[-1]  # too few steps: how many minutes would do


def test_nnunets_patch_is_read_where_it_is_planned(nnunet_folders):
    dataset = write_pictures(nnunet_folders["nnUNet_raw"], cases=1)
    folder = nnunet_folders["nnUNet_preprocessed"] / dataset.name
    folder.mkdir()
    plans = {"configurations": {"2d": {"patch_size": [96, 160]}}}
    sliced = {"transpose_forward": [1, 0, 2], **plans}
    assert prepare.planned_patch(dataset, None) is None
    whole = {
        "transpose_forward": [2, 0, 1],
        "configurations": {**plans["configurations"], "3d_fullres": {"patch_size": [16, 96, 160]}},
    }
    for text, axis, dims, expected in (
        (json.dumps(plans), None, 2, (96, 160)), (json.dumps(sliced), 1, 2, (96, 160)),
        (json.dumps(sliced), 0, 2, None),  # of other slices
        (json.dumps(whole), None, 3, (96, 160, 16)), (json.dumps(sliced), None, 3, None),
        ("{", None, 2, None), ("[]", None, 2, None), ("{}", None, 3, None),
    ):  # fmt: skip
        (folder / "nnUNetPlans.json").write_text(text)
        assert prepare.planned_patch(dataset, axis, dims) == expected
