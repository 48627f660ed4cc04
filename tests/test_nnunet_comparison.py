"""What results.json and results.md say of scores that are known: over the same cells, with the verdict first."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nnunet_scores import ABSENT, INVENTED, UPDATES, scored_images, summary

from jdm.errors import DataError
from jdm.evaluation.statistics import mean_interval
from jdm.system.files import strict
from nnunet_integration.report import markdown, tables, warning_lines


def difference(found: dict, arm: str, minus: str) -> dict:
    [entry] = [e for e in found["differences"] if (e["arm"], e["minus"]) == (arm, minus)]
    return entry


# ---------------------------------------------------------------- cells


def test_a_class_that_no_reference_has_moves_no_difference() -> None:
    real = scored_images(12, "here", 0.8) | scored_images(12, "nowhere", INVENTED)
    pairs = scored_images(12, "here", 0.815) | scored_images(12, "nowhere", ABSENT)
    found = summary({"real": real, "pretrain-finetune": pairs})
    dice = difference(found, "pretrain-finetune", "real")["dice"]
    assert dice["mean"] == pytest.approx(0.015, abs=1e-3) and dice["cells"] == 12
    assert found["arms"]["real"]["dice"]["mean"] == pytest.approx(0.8, abs=1e-3)
    assert found["arms"]["real"]["dice_per_class"]["nowhere"] is None
    assert found["cells"] == {
        "with_class": 12, "without_class": 12,
        "per_class": {
            "here": {"with_class": 12, "without_class": 0}, "nowhere": {"with_class": 0, "without_class": 12},
        },
    }  # fmt: skip


def test_an_arm_that_hallucinates_is_worse_and_shown_to_be() -> None:
    """Half of the references are empty: both arms segment alike, one also finds what is not there."""
    careful = scored_images(8, "a", 0.8) | {(f"e{i}", "a"): ABSENT for i in range(8)}
    careless = scored_images(8, "a", 0.8) | {(f"e{i}", "a"): INVENTED for i in range(8)}
    found = summary({"real-long": careful, "mix": careless})
    entry = difference(found, "mix", "real-long")
    assert entry["dice"]["mean"] == 0 and found["arms"]["mix"]["dice"] == found["arms"]["real-long"]["dice"]
    rates = {arm: facts["false_positive_rate"]["mean"] for arm, facts in found["arms"].items()}
    assert rates == {"real-long": 0, "mix": 1} and entry["false_positive_rate"]["mean"] == 1
    assert found["arms"]["mix"]["false_positive_volume"] == 50 * 2.0
    assert entry["false_positive_rate"]["p_holm"] == pytest.approx(2 * 2**-7)
    assert found["outcomes"] == {"mix": "did not help"}
    assert "real-long 0 %" in found["verdict"] and "mix 100 %" in found["verdict"]
    other = summary({"real-long": careless, "mix": careful})
    assert other["outcomes"] == {"mix": "helped"}


@st.composite
def experiments(draw) -> dict:
    """Random Dice of arms, seeds, images and classes; a class is absent from a reference for all arms or for none."""
    arms = draw(st.lists(st.sampled_from([*UPDATES]), min_size=1, unique=True))
    keys = [
        (f"i{i}", label) for i in range(draw(st.integers(1, 5))) for label in draw(st.sampled_from(["a", "ab", "abc"]))
    ]
    present = {key: draw(st.booleans()) for key in keys}
    seeds = draw(st.integers(1, 3))

    def cell(key: tuple[str, str]):
        return draw(st.integers(1, 99).map(lambda p: p / 100) if present[key] else st.sampled_from([ABSENT, INVENTED]))

    return {arm: [{key: cell(key) for key in draw(st.permutations(keys))} for _ in range(seeds)] for arm in arms}


@given(experiments(), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_differences_are_means_over_the_same_cells(arms: dict, random) -> None:
    found = summary(arms)
    keys = list(next(iter(arms.values()))[0])
    present = [key for key in keys if isinstance(next(iter(arms.values()))[0][key], float)]
    dice = {arm: np.array([[seed[key] for key in present] for seed in each]) for arm, each in arms.items()}
    invented = {
        arm: np.mean([seed[key] == INVENTED for seed in each for key in keys if key not in present] or [0])
        for arm, each in arms.items()
    }
    assert found["cells"]["with_class"] == len(present) and found["cells"]["without_class"] == len(keys) - len(present)
    for arm, facts in found["arms"].items():
        assert (facts["dice"] is None) == (not present)
        assert not present or facts["dice"]["mean"] == pytest.approx(dice[arm].mean())
        assert (facts["false_positive_rate"] or {"mean": 0})["mean"] == pytest.approx(invented[arm])
    for entry in found["differences"]:
        if present:
            arm, minus = entry["arm"], entry["minus"]
            assert entry["dice"]["mean"] == pytest.approx((dice[arm] - dice[minus]).mean(), abs=1e-9)
            both = found["arms"][arm]["dice"]["mean"] - found["arms"][minus]["dice"]["mean"]
            assert entry["dice"]["mean"] == pytest.approx(both)
    shuffled = dict(random.sample(sorted(arms.items()), len(arms)))
    again = summary(shuffled)
    assert again["differences"] == found["differences"] and again["outcomes"] == found["outcomes"]
    if len(arms) > 1:  # arms exchanged: the sign turns
        first, second, *_ = arms
        turned = summary({**arms, first: arms[second], second: arms[first]})
        for before, after in zip(found["differences"], turned["differences"], strict=True):
            if present and {before["arm"], before["minus"]} == {first, second}:
                assert after["dice"]["mean"] == pytest.approx(-before["dice"]["mean"])


def test_arms_scored_on_other_cells_are_refused() -> None:
    real = scored_images(4, "a", 0.8)
    for other in (scored_images(3, "a", 0.8), real | scored_images(4, "b", 0.7), real | {("i00", "a"): ABSENT}):
        with pytest.raises(DataError, match=r"scores/mix_seed_0\.json"):
            summary({"real": real, "mix": other})
    with pytest.raises(DataError, match=r"scores/mix_seed_0\.json"):
        summary({"real": real, "mix": [real, real]})


def test_images_of_a_patient_are_resampled_together() -> None:
    scores = {
        ("a1", "x"): 0.9,
        ("a2", "x"): 0.7,
        ("b1", "x"): 0.2,
        ("c1", "x"): 0.4,
        ("c2", "x"): 0.3,
        ("c3", "x"): 0.5,
    }
    less = {key: dice - 0.1 for key, dice in scores.items()}
    for groups, units, named in (("aabccc", 3, "3 groups"), ("123456", 6, "6 images"), ("aaaaaa", 6, "one group")):
        group_of = {case: group for (case, _), group in zip(scores, groups, strict=True)}
        found = summary({"real": scores, "mix": less}, group_of)
        assert named in found["verdict"]
        assert difference(found, "mix", "real")["dice"]["n"] == found["arms"]["real"]["dice"]["n"] == units
        if units == 3:
            expected = mean_interval(np.array(list(scores.values())), groups=list(groups))
            interval = found["arms"]["real"]["dice"]
            assert (interval["low"], interval["high"]) == (max(expected.low, 0), min(expected.high, 1))


# ---------------------------------------------------------------- the verdict


def arms_of(gain: float, noise: float, count: int = 12, **others: dict) -> dict:
    random = np.random.default_rng(1)
    real = scored_images(count, "a", 0.7, 0.2)
    pairs = {key: float(np.clip(dice + gain + noise * random.normal(), 0, 1)) for key, dice in real.items()}
    return {"real-long": real, "pretrain-finetune": pairs, **others}


@pytest.mark.parametrize(
    ("gain", "noise", "count", "outcome", "words"),
    [
        (0.05, 0.02, 12, "helped", "Synthetic pairs helped"),
        (0.0, 0.1, 12, "cannot tell", "Cannot tell whether synthetic pairs help"),
        (-0.05, 0.02, 12, "did not help", "Synthetic pairs did not help"),
        (0.0, 0.002, 12, "did not help", "Synthetic pairs did not help"),
        (0.05, 0.02, 1, "cannot tell", "Cannot tell whether synthetic pairs help"),
    ],
)
def test_the_verdict_says_what_the_interval_says(gain, noise, count, outcome, words) -> None:
    found = summary(arms_of(gain, noise, count))
    dice = difference(found, "pretrain-finetune", "real-long")["dice"]
    assert found["outcomes"] == {"pretrain-finetune": outcome}
    text = found["verdict"]
    assert text.startswith(words) and "\n" not in text
    for named in (
        f"{dice['mean']:+.4f}",
        "real-long",
        "equally many updates",
        f"{count} cells",
        f"{count} images",
        "1 seed",
    ):
        assert named in text
    if count > 1:
        assert f"[{dice['low']:+.4f}, {dice['high']:+.4f}]" in text and f"{dice['detectable']:.4f}" in text


def test_the_verdict_names_each_arm_and_prefers_the_honest_control() -> None:
    real = scored_images(12, "a", 0.65, 0.2)
    found = summary(arms_of(0.05, 0.02, mix=arms_of(0.0, 0.15)["pretrain-finetune"], real=real))
    assert found["outcomes"] == {"pretrain-finetune": "helped", "mix": "cannot tell"}
    assert found["verdict"].index("pretrain-finetune minus real-long") < found["verdict"].index("mix minus real-long")
    tested = [e["dice"]["p_holm"] is not None for e in found["differences"] if e["minus"] == "real"]
    assert tested and not any(tested)  # context, not counted
    alone = summary({"real": real, "mix": arms_of(0.05, 0.02)["pretrain-finetune"]})
    assert "minus real:" in alone["verdict"] and "updates differ (real 5, mix 10)" in alone["verdict"]
    for arms in (("real",), ("real", "synthetic"), ("pretrain-finetune", "mix")):
        assert "--arms real-long" in summary(dict.fromkeys(arms, real))["verdict"]


def test_a_gain_that_is_bought_with_false_positives_is_undecided() -> None:
    empty = {(f"e{i}", "a"): ABSENT for i in range(10)}
    arms = arms_of(0.05, 0.02)
    arms = {
        "real-long": arms["real-long"] | empty,
        "pretrain-finetune": arms["pretrain-finetune"] | dict.fromkeys(empty, INVENTED),
    }
    found = summary(arms)
    assert found["outcomes"] == {"pretrain-finetune": "cannot tell"} and "more false positives" in found["verdict"]


def test_arms_that_learned_nothing_are_named_before_their_differences() -> None:
    real, mix = scored_images(12, "x", 0.8), scored_images(12, "x", 0.7)
    assert warning_lines(summary({"real": real, "mix": mix})) == []
    found = summary({"real": real | scored_images(12, "y", 0.01, 0.0), "mix": mix | scored_images(12, "y", 0.6)})
    [line] = warning_lines(found)
    assert "real: y" in line and "mix" not in line and "--iterations" in line
    found = summary({"real": scored_images(12, "x", 0.01, 0.0), "mix": mix})
    assert found["outcomes"] == {"mix": "cannot tell"} and "real did not learn" in found["verdict"]


# ---------------------------------------------------------------- results.md


def test_results_begin_with_the_verdict_and_every_table_says_over_how_many_cells() -> None:
    second = scored_images(8, "b|c", 0.6) | {(f"i{i:02d}", "b|c"): INVENTED for i in range(8, 12)}
    arms = {arm: scores | second for arm, scores in arms_of(0.05, 0.02).items()}
    found = summary({arm: [scores, scores] for arm, scores in arms.items()})
    assert next(iter(found)) == "verdict"
    data = {"training_cases": 7, "synthetic_cases": 70, "test_set": "imagesTs"}
    sizes = {"patch_size": (64, 64), "batch_size": 2, "network_features": (8, 16, 32)}
    circumstances = {"command": "jdm-experiment 11", "commit": None, "versions": {"jdm": "0"}}
    circumstances["hardware"] = {"cpu": "a processor", "cores": 2, "gpu": ["a GPU"]}
    text = markdown(
        {
            **found,
            "data": data,
            "notes": ["A note."],
            "stock": sizes,
            "patch_note": "",
            "trainings": {},
            **circumstances,
        }
    )
    lines = text.splitlines()
    assert lines[0] == found["verdict"] and "A note." in lines
    captions = [line for line in lines if line.startswith("**")]
    assert ["20 cells" in line for line in captions] == [True, True, False, False]  # classes have a column
    assert "| a | 12 | 0.7" in text and r"| b\|c | 8 | 0.6" in text and "4 cells" in captions[3]
    assert "2 seeds" in lines[0] and "| real-long | 1.0000 [1.0000, 1.0000] | 100.0 |" in text
    assert json.loads(json.dumps(strict(found), allow_nan=False)) == found
    assert [len(table.rows) for table in tables(found)] == [2, 1, 2, 2]
