"""Settings: a round trip through TOML, and typos refused by name."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jdm.config.settings import (
    AugmentConfig,
    CodecConfig,
    Config,
    DataConfig,
    NetworkConfig,
    TrainConfig,
    dumps,
    from_dict,
    load,
    to_dict,
    validate,
)
from jdm.errors import ConfigError


@settings(max_examples=60, deadline=None)
@given(
    rate=st.floats(1e-8, 1.0, exclude_min=True),
    budget=st.none() | st.floats(0.1, 1e4),
    sides=st.lists(st.integers(1, 100).map(lambda side: 8 * side), min_size=2, max_size=2).map(tuple),
    low=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=4).map(tuple),
    axis=st.none() | st.integers(0, 2),
    whole=st.booleans(),
    preset=st.sampled_from(["default", "thesis"]),
)
def test_toml_returns_the_config(tmp_path_factory, rate, budget, sides, low, axis, whole, preset):
    config = Config(
        preset=preset,
        codec=CodecConfig(low=low, high=low),
        data=DataConfig(patch_size=sides, whole=whole, slice_axis=axis),
        train=TrainConfig(learning_rate=rate, budget_minutes=budget),
    )
    path = tmp_path_factory.mktemp("config") / "plan.toml"
    path.write_text(dumps(config), encoding="utf-8")
    assert load(path) == config
    assert from_dict(Config, to_dict(config)) == config


def test_a_part_of_a_plan_changes_what_it_names_only(tmp_path):
    base = Config(network=NetworkConfig(base_channels=32), train=TrainConfig(steps=7))
    path = tmp_path / "mine.toml"
    path.write_text("[train]\nlearning_rate = 1\n", encoding="utf-8")
    config = load(path, base)
    assert config.network == base.network and config.train.steps == 7
    assert config.train.learning_rate == 1.0 and isinstance(config.train.learning_rate, float)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("[train]\nlearning_rat = 1e-4\n", r"train\.learning_rat.*known here are .*learning_rate"),
        ("presets = 'thesis'\n", r"'presets'.*codec.*preset"),
        ("preset = 'thesys'\n", r"'preset' is 'thesys'.*'default', 'thesis'"),
        ("train = 3\n", r"'train' is 3.*table"),
        ("[train]\nsteps = 1.5\n", r"'train\.steps' is 1\.5.*int"),
        ("[train]\nsteps = true\n", r"'train\.steps' is True.*int"),
        ("[train]\nlearning_rate = true\n", r"'train\.learning_rate' is True.*float"),
        ("[train]\nbudget_minutes = 'some'\n", r"'train\.budget_minutes'.*float"),
        ("[data]\npatch_size = 64\n", r"'data\.patch_size' is 64.*list of int"),
        ("[data]\npatch_size = [64, 'a']\n", r"'data\.patch_size'.*int"),
        ("[data]\nwhole = 1\n", r"'data\.whole' is 1.*bool"),
        ("[noise]\nsigma_data = [0.5]\n", r"'noise\.sigma_data' is \[0\.5\].*list of float"),
        ("[train\n", r"cannot read settings"),
    ],
)
def test_a_wrong_setting_is_named_with_what_was_expected(tmp_path, text, found):
    path = tmp_path / "plan.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=found) as error:
        load(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"absent\.toml.*plan\.toml"):
        load(tmp_path / "absent.toml")


@pytest.mark.parametrize(
    ("part", "values", "found"),
    [
        ("data", {"dims": 4}, r"data\.dims is 4.*2 or 3"),
        ("data", {"patch_size": (64,)}, r"data\.patch_size"),
        ("data", {"patch_size": (64, 60)}, r"data\.patch_size is \(64, 60\).*multiples of 8"),
        ("data", {"patch_size": (0, 64)}, r"data\.patch_size"),
        ("data", {"canvas_size": (32, 64)}, r"data\.canvas_size is \(32, 64\).*at least"),
        ("noise", {"equal": 0.9}, r"noise\.equal \+ .*sum of 1"),
        ("noise", {"sigma_min": 100.0}, r"noise\.sigma_min"),
        ("train", {"steps": 0}, r"train\.steps"),
        ("train", {"batch_size": 0}, r"train\.batch_size"),
        ("codec", {"low": (0.0, 1.0)}, r"codec\.low"),
        (
            "data",
            {"case_mean": (1.0, 2.0), "case_std": (1.0, 2.0)},
            r"data\.case_mean is \(1\.0, 2\.0\); expected empty, or 1",
        ),
        ("data", {"case_mean": (1.0,)}, r"data\.case_std is \(\)"),
        ("data", {"case_mean": (1.0,), "case_std": (0.0,)}, r"data\.case_std is \[0\.0\]; expected above 0"),
        ("codec", {"low": (255.0,)}, r"codec\.low is \(255\.0,\).*less than codec\.high \(255\.0,\)"),
        ("codec", {"low": (0.0, 9.0), "high": (1.0, 8.0)}, r"codec\.low"),
        ("codec", {"image_dtype": "foo"}, r"codec\.image_dtype is foo.*uint8, .*float64"),
        ("codec", {"image_dtype": "complex64"}, r"codec\.image_dtype"),
        ("data", {"spacing": (1.0, 1.0, 1.0)}, r"data\.spacing is \(1\.0, 1\.0, 1\.0\).*2 numbers"),
        ("augment", {"mirror_axes": (0, 2)}, r"augment\.mirror_axes is \(0, 2\).*axes of 0 to 1"),
        ("codec", {"classes": 1}, r"codec\.classes"),
        ("codec", {"classes": 3}, r"codec\.mask_code is binary.*3 classes"),
    ],
)
def test_values_that_do_not_fit_together_are_refused(part, values, found):
    config = Config()
    changed = dataclasses.replace(config, **{part: dataclasses.replace(getattr(config, part), **values)})
    with pytest.raises(ConfigError, match=found) as error:
        validate(changed)
    assert "\n" not in str(error.value)


def test_a_zero_border_stays_zero():
    data = DataConfig(case_mean=(1.0,), case_std=(1.0,))
    assert validate(Config(data=data)).data == data
    with pytest.raises(ConfigError, match=r"data\.case_mean is \(1\.0,\); expected zeros with codec\.zero_border"):
        validate(Config(data=data, codec=CodecConfig(zero_border=True)))


def test_quarter_turns_need_square_samples():
    data = DataConfig(patch_size=(64, 48), canvas_size=(64, 48))
    with pytest.raises(ConfigError, match=r"augment\.quarter_turns is True.*\(64, 48\) is not square"):
        validate(Config(data=data, augment=AugmentConfig(quarter_turns=True)))


def test_the_defaults_fit_together():
    assert validate(Config()) == Config()


@pytest.mark.parametrize(
    ("code", "classes", "channels"),
    [("binary", 2, 1), ("one-hot", 3, 3), ("bits", 10, 4), ("bits", 16, 4), ("bits", 17, 5)],
)
def test_channels_follow_from_the_codec(code, classes, channels):
    config = Config(codec=CodecConfig(mask_code=code, classes=classes, low=(0.0, 0.0), high=(1.0, 1.0)))
    assert (config.image_channels, config.mask_channels) == (2, channels)


def test_every_part_is_frozen_and_documented():
    for part in (f for f in dataclasses.fields(Config) if f.name != "preset"):
        value = getattr(Config(), part.name)
        assert type(value).__doc__ and not type(value).__doc__.startswith(type(value).__name__ + "(")
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, dataclasses.fields(value)[0].name, None)
