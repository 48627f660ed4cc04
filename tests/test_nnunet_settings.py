"""Settings of the trainers, arithmetic of the arms, derived configurations: all without nnU-Net."""

import json
from importlib import import_module

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nnunet_scores import resolved

from jdm.errors import ConfigError
from nnunet_integration.arms import ARMS, schedule
from nnunet_integration.plans import (
    EXPERIMENT,
    fitting_patch,
    moved_identifier,
    moved_plans,
    padding_share,
    resolve,
    stage_strides,
    with_experiment_configuration,
)
from nnunet_integration.settings import VARIABLES, TrainerSettings, environment, read_settings
from nnunet_integration.trainings import needed_trainings, padding_of_arm, updates


def test_settings_survive_the_environment():
    settings = TrainerSettings(3, 7, 2, 3e-3, 5, "Dataset511_A_syn", 0.7, False, "runs/checkpoint.pth", 40, 0.1)
    assert read_settings(settings.environment()) == settings
    assert read_settings({}) == TrainerSettings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", "0"),
        ("iterations", "many"),
        ("learning_rate", "nan"),
        ("learning_rate", "-1"),
        ("seed", "-1"),
        ("synthetic_share", "1"),
        ("keep_head", "yes"),
    ],
)
def test_an_unusable_setting_is_named_in_one_line(name, value):
    with pytest.raises(ConfigError) as error:
        read_settings({VARIABLES[name]: value})
    message = str(error.value)
    assert VARIABLES[name] in message and repr(value) in message and "\n" not in message


@pytest.mark.parametrize(("command", "most"), [("experiment", 68), ("evaluate", 48), ("register", 48)])
def test_help_fits_a_screen(command, most, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sys.argv", [f"jdm-{command}", "--help"])
    with pytest.raises(SystemExit) as ended:
        import_module(f"jdm.cli.{command}").main()
    lines = capsys.readouterr().out.splitlines()
    assert ended.value.code == 0
    assert 10 < sum(max(1, -(-len(line) // 80)) for line in lines) <= most


def test_environment_is_restored(monkeypatch):
    monkeypatch.setenv("JDM_SYNTHETIC", "511")
    monkeypatch.delenv("JDM_NNUNET_SEED", raising=False)
    with pytest.raises(KeyError), environment({"JDM_SYNTHETIC": None, "JDM_NNUNET_SEED": "3"}):
        assert read_settings() == TrainerSettings(seed=3)
        raise KeyError
    assert read_settings() == TrainerSettings(synthetic="511")


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 40), st.floats(0.05, 0.95))
def test_arms_have_the_updates_that_the_help_tells_of_many_updates_on_them(iterations, pretrain, epochs, share):
    epochs = min(epochs, iterations)
    for wanted in (None, share):
        times = schedule(iterations, pretrain, epochs, wanted)
        settings = resolved(**vars(times))
        real = updates(settings, "real")[0]
        assert real == updates(settings, "pretrain-finetune")[0] and updates(settings, "synthetic")[0] == 0
        # whole epochs only: at most half an epoch off, in expectation
        assert abs(updates(settings, "mix")[0] - real) <= times.iterations_per_epoch / 2 + 1e-6
        assert sum(updates(settings, "real-long")) == sum(updates(settings, "pretrain-finetune"))
        if wanted is None:
            assert sum(updates(settings, "mix")) == pytest.approx(sum(updates(settings, "real-long")))


def test_unusable_lengths_are_refused():
    for arguments, flag in (
        ((0, 1, 1, None), "--iterations"),
        ((1, 0, 1, None), "--pretrain-iterations"),
        ((5, 5, 6, None), "--epochs"),
        ((5, 5, 1, 1.0), "--synthetic-share"),
    ):
        with pytest.raises(ConfigError, match=flag):
            schedule(*arguments)


def test_pretraining_is_done_once_and_before_what_starts_from_it():
    names = [training.name for training in needed_trainings(resolved(), ("pretrain-finetune", "synthetic", "real"))]
    assert sorted(names) == ["finetune", "pretrain", "real"]
    assert names.index("pretrain") < names.index("finetune")
    assert [t.name for t in needed_trainings(resolved(), ("real",))] == ["real"]


def test_padding_weighs_what_an_arm_draws():
    settings = resolved()
    assert padding_share([(1, 32, 64), (1, 128, 128)], (64, 64)) == pytest.approx(0.25)
    assert padding_share([(20, 64, 64)], (64, 64)) == 0
    shares = {arm: padding_of_arm(settings, arm, (0.3, 0.6)) for arm in ARMS}
    assert shares["real"] == shares["real-long"] == pytest.approx(0.3)
    assert shares["synthetic"] == pytest.approx(0.6)
    assert shares["pretrain-finetune"] == shares["mix"] == pytest.approx((0.3 + 2 * 0.6) / 3)


PLANS = {
    "dataset_name": "Dataset011_A",
    "plans_name": "nnUNetPlans",
    "configurations": {
        "2d": {
            "data_identifier": "nnUNetPlans_2d",
            "batch_size": 12,
            "patch_size": [512, 384],
            "architecture": {
                "network_class_name": "unet",
                "arch_kwargs": {
                    "n_stages": 7,
                    "features_per_stage": [32, 64, 128, 256, 512, 512, 512],
                    "kernel_sizes": [[3, 3]] * 7,
                    "strides": [[1, 1]] + [[2, 2]] * 6,
                    "n_conv_per_stage": [2] * 7,
                    "n_conv_per_stage_decoder": [2] * 6,
                },
            },
        },
        "child": {"inherits_from": "2d", "batch_size": 3},
    },
}


def test_configuration_is_left_alone_when_nothing_is_asked():
    plans, name = with_experiment_configuration(PLANS, "2d", None, None, None)
    assert (plans, name) == (PLANS, "2d") and plans is not PLANS


@pytest.mark.parametrize(("patch", "features"), [((64, 64), None), ((40, 56), (8, 16, 32)), (None, (16, 32, 64))])
def test_derived_configuration_is_whole_and_fits_its_patch(patch, features):
    before = json.dumps(PLANS)
    plans, name = with_experiment_configuration(PLANS, "child", patch, None, features)
    configuration = resolve(plans, name)
    kwargs = configuration["architecture"]["arch_kwargs"]
    stages = kwargs["n_stages"]
    assert name == EXPERIMENT and configuration["batch_size"] == 3
    assert configuration["data_identifier"] == "nnUNetPlans_2d"
    for key in ("features_per_stage", "kernel_sizes", "strides", "n_conv_per_stage"):
        assert len(kwargs[key]) == stages
    assert len(kwargs["n_conv_per_stage_decoder"]) == stages - 1
    total = np.prod(kwargs["strides"], axis=0)
    assert all(
        side % factor == 0 and side // factor >= 4 for side, factor in zip(patch or (512, 384), total, strict=True)
    )
    assert json.dumps(PLANS) == before


def test_a_patch_too_small_for_the_network_is_refused():
    with pytest.raises(ConfigError, match="--network-features"):
        with_experiment_configuration(PLANS, "2d", (16, 16), None, (8, 16, 32, 64))
    with pytest.raises(ConfigError, match="--patch-size"):
        with_experiment_configuration(PLANS, "2d", (16, 16, 16), None, None)
    with pytest.raises(ConfigError, match="3d_fullres"):
        with_experiment_configuration(PLANS, "3d_fullres", None, 2, None)
    assert stage_strides((8, 6)) == [[1, 1], [2, 1]]


@given(st.integers(16, 600), st.integers(2, 6), st.integers(2, 700))
def test_the_patch_covers_the_median_and_can_be_halved(planned, times, median):
    planned = max(4, planned >> times) << times  # as planned: halved that often, and 4 or more remain
    (side,) = fitting_patch((planned,), (median,), (times,))
    assert side == planned or (side < planned and side >= median)
    assert len(stage_strides((side,))) >= 3
    if side < planned and median >= 16:
        assert side < median + 2**times


def test_a_single_slice_says_nothing_about_the_patch():
    assert fitting_patch((40, 512, 512), (1, 250, 250), (3, 6, 6)) == (40, 256, 256)


def test_moved_plans_are_named_as_nnunet_renames_them():
    assert moved_plans("nnUNetPlans", "Dataset011_A") == "nnUNetPlansFrom011"
    assert moved_identifier("nnUNetPlans_2d", "nnUNetPlans", "nnUNetPlansFrom011") == "nnUNetPlansFrom011_2d"
    target = "nnUNetResEncUNetMPlansFrom011"
    assert moved_identifier("nnUNetPlans_2d", "nnUNetResEncUNetMPlans", target) == f"{target}_nnUNetPlans_2d"
    with pytest.raises(ConfigError, match="DatasetNNN_Name"):
        moved_plans("nnUNetPlans", "MoNuSeg")
