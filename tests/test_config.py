"""Settings: a round trip through TOML, typos refused by name, and values that go together."""

import dataclasses
import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_runs import changed, config_of, of_classes

from jdm.config.facts import Fingerprint
from jdm.config.files import differences, from_dict, merged, read_toml, to_dict, to_toml, updated_toml
from jdm.config.settings import DataConfig, Settings, TrainConfig
from jdm.errors import ConfigError


@settings(max_examples=60, deadline=None)
@given(
    rate=st.floats(1e-8, 1.0, exclude_min=True),
    budget=st.none() | st.floats(0.1, 1e4),
    sides=st.lists(st.integers(1, 100).map(lambda side: 8 * side), min_size=2, max_size=2).map(tuple),
    axis=st.none() | st.integers(0, 2),
    whole=st.booleans(),
    preset=st.sampled_from(["default", "thesis"]),
    reasons=st.dictionaries(
        st.sampled_from(
            ["preset", "train.steps", "train.budget_minutes", "data.slice_axis", "data.whole", "augment.mirror_axes"]
        ),
        st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), max_size=20),
    ),
)
def test_toml_returns_the_settings(tmp_path_factory, rate, budget, sides, axis, whole, preset, reasons):
    chosen = Settings(
        preset,
        data=DataConfig(patch_size=sides, whole=whole, slice_axis=axis),
        train=TrainConfig(learning_rate=rate, budget_minutes=budget),
    )
    path = tmp_path_factory.mktemp("config") / "plan.toml"
    path.write_text(to_toml(chosen, reasons), encoding="utf-8")
    assert from_dict(Settings, read_toml(path)) == chosen == from_dict(Settings, to_dict(chosen))


def test_toml_holds_what_was_decided_with_its_reason_and_what_is_not_usual():
    chosen = Settings(train=TrainConfig(steps=7, seed=3))
    text = to_toml(chosen, {"preset": "the default", "train.steps": "30 images", "train.budget_minutes": "no limit"})
    assert text.splitlines() == [
        'preset = "default" # the default', "", "[train]", "steps = 7 # 30 images",
        'budget_minutes = "none" # no limit', "seed = 3",
    ]  # fmt: skip
    longer = dataclasses.replace(chosen, train=TrainConfig(steps=9, seed=3, budget_minutes=2.5))
    told = "# given with --resume"
    assert updated_toml(text, longer) == text.replace("7 # 30 images", f"9 {told}").replace(
        '"none" # no limit', f"2.5 {told}"
    )
    other = Settings(data=DataConfig(whole=False), train=TrainConfig(steps=7, gradient_clip=2.0))
    assert from_dict(Settings, tomllib.loads(updated_toml(text, other))) == other
    assert updated_toml(text + "# mine\n", chosen) == text + "# mine\n"


def test_a_part_of_a_plan_changes_what_it_names_only(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("[train]\nlearning_rate = 1\n", encoding="utf-8")
    config = changed(config_of(train={"steps": 7}, network={"base_channels": 32}), read_toml(path))
    assert config == config_of(train={"steps": 7, "learning_rate": 1.0}, network={"base_channels": 32})
    assert isinstance(config.train.learning_rate, float)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("[train]\nlearning_rat = 1e-4\n", r"train\.learning_rat.*learning_rate"),
        ("presets = 'thesis'\n", r"presets.*codec.*preset"),
        ("[facts]\ndtype = 'uint8'\n", r"facts.*codec.*preset"),  # what was measured is nobody's to decide
        ("preset = 'thesys'\n", r"preset is 'thesys'.*'default' or 'thesis'"),
        ("train = 3\n", r"train is 3"),
        ("[train]\nsteps = 1.5\n", r"train\.steps is 1\.5.*integer"),
        ("[train]\nsteps = true\n", r"train\.steps is True.*integer"),
        ("[train]\nlearning_rate = true\n", r"train\.learning_rate is True.*number"),
        ("[train]\nlearning_rate = nan\n", r"train\.learning_rate"),
        ("[train]\nbatch-size = 4\n", r"train\.batch-size.*batch_size"),
        ("[train]\nbudget_minutes = 'some'\n", r"train\.budget_minutes is 'some'.*number"),
        ("[data]\npatch_size = 64\n", r"data\.patch_size is 64.*array"),
        ("[data]\npatch_size = [64, 'a']\n", r"data\.patch_size is 'a'.*integer"),
        ("[data]\nwhole = 1\n", r"data\.whole is 1.*boolean"),
        ("[train\n", r"cannot read"),
        (None, r"cannot read.*plan\.toml"),
    ],
)
def test_a_wrong_setting_is_named_with_what_was_expected(tmp_path, text, found):
    path = tmp_path / "mine.toml"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=found) as error:
        read_toml(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("data.dims", 4, r"4.*2 or 3"),
        ("data.dims", 3, r"data\.patch_size is \(64, 64\).*3 sides"),
        ("data.patch_size", [64], r"\(64,\).*2 sides"),
        ("data.patch_size", [64, 60], r"\(64, 60\).*multiples of 8"),
        ("data.patch_size", [0, 64], r"0.*1"),
        ("data.canvas_size", [32, 64], r"\(32, 64\).*at least.*\(64, 64\)"),
        ("data.slice_axis", 0, r"0; expected None"),
        ("noise.equal", 0.9, r"1\.4.*sum of 1"),
        ("noise.sigma_min", 100.0, r"100\.0.*sigma_max"),
        ("train.steps", 0, r"0.*1"),
        ("train.batch_size", 0, r"0.*1"),
        ("train.seed", 2**63, r"less than"),
        ("network.channel_multipliers", [], r"at least one"),
        ("network.attention_factors", [8, 64], r"8, 64.*some of \[1, 2, 4, 8\]"),
        ("augment.mirror_axes", [0, 2], r"\(0, 2\).*0 to 1"),
        ("data", {"patch_size": [64, 48], "canvas_size": [64, 48]}, r"augment\.quarter_turns is True.*\(64, 48\)"),
        ("codec.mask_code", "binary", r"binary.*3 classes"),
        ("diffusion.zero_terminal_snr", True, r"diffusion\.prediction is epsilon.*v"),
        ("diffusion.steps", 500, r"diffusion.*--preset thesis"),
        ("preset", "thesis", r"augment\.probability is 0\.4.*0"),
    ],
)
def test_values_that_do_not_fit_together_are_refused(name, value, found):
    part, _, key = name.partition(".")
    base = config_of(of_classes(3), codec={"mask_code": "one-hot"}, augment={"quarter_turns": True})
    with pytest.raises(ConfigError, match=found) as error:
        changed(base, {part: {key: value} if key else value})
    assert "\n" not in str(error.value) and part in str(error.value)


@pytest.mark.parametrize(
    ("code", "classes", "channels"),
    [("binary", 2, 1), ("one-hot", 3, 3), ("bits", 10, 4), ("bits", 16, 4), ("bits", 17, 5)],
)
def test_channels_follow_from_the_facts_and_the_codec(code, classes, channels):
    found = of_classes(classes, channel_names=("a", "b"), low=(0.0,) * 2, high=(1.0,) * 2, image_mean=(0.0,) * 2)
    config = config_of(found, codec={"mask_code": code})
    assert (config.image_channels, config.mask_channels, len(config.words)) == (2, channels, classes)


@pytest.mark.parametrize(
    ("part", "name", "known"),
    [
        ({"lows": [0.0]}, "lows", "low, "),
        ({"foreground": [{"size": [3], "least": [], "most": [], "side": 3}]}, r"foreground\.side", "least, "),
    ],
)
def test_an_unknown_fact_is_refused_with_those_that_there_are(part, name, known):
    with pytest.raises(ConfigError, match=f"'{name}'.*{known}"):
        from_dict(Fingerprint, merged(to_dict(of_classes(2)), part))


def test_differences_name_each_field():
    found = {"a": {"b": 1, "c": [1]}, "d": 2}
    other = {"a": {"b": 2, "c": [1]}, "e": 3}
    assert differences(found, other) == ["a.b: 1, expected 2", "d: 2, expected None", "e: None, expected 3"]
    assert differences(found, found) == []
    assert merged(found, other) == {"a": {"b": 2, "c": [1]}, "d": 2, "e": 3} and found["d"] == 2
