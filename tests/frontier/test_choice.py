"""Choosing an operating point: by hand without noise, by simulation with it, and what is refused."""

import copy
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfumato.frontier import choose
from sfumato.frontier.plane import Threshold
from tests.frontier.measured_bed import POINTS, frontier_of, make_frontier

EXACT = make_frontier()
SCATTERED = [make_frontier(noise=2.0, prompts=4, seed=seed) for seed in range(7)]


def name(point):
    return point and point.name


@pytest.mark.parametrize(
    ("asked", "chosen", "runner_up"),
    [
        ({}, "aig-power-2", "aig-power-4"),  # balances 0.7 * 0.67 and 0.4 * 0.94
        ({"min_diversity": 0.9}, "aig-power-4", None),  # (D - 1) / 4 >= 0.9 means D >= 4.6
        ({"min_diversity": "84%"}, "aig-power-4", "lora-0.3"),
        ({"min_diversity": 0.69}, "aig-power-2", "aig-power-4"),
        ({"min_diversity": 0.05}, "tuned", "aig-power-2"),
        ({"min_diversity": "vendi>=4.5"}, "aig-power-4", None),
        ({"min_diversity": "gold >= 0.34"}, "aig-power-2", "lora-0.6"),
        ({"min_reward": 0.65}, "aig-power-2", "tuned"),
        ({"min_reward": "29 %"}, "aig-power-4", "lora-0.3"),
        ({"min_reward": "reward>=8"}, "tuned", None),
        ({"min_diversity": 0.3, "min_reward": 0.5}, "aig-power-2", "lora-0.6"),
        ({"min_diversity": 0.05, "min_reward": 0.9}, "tuned", None),
        ({"budget": 34}, "aig-power-4", "lora-0.3"),
        ({"budget": 20, "min_diversity": 0.7}, "lora-0.3", None),
        ({"reward": "gold", "diversity": "recall", "min_reward": "gold>=0.3"}, "aig-power-4", "aig-power-2"),
    ],
    ids=str,
)
def test_without_noise_the_choice_follows_by_hand(asked, chosen, runner_up):
    found = choose(EXACT, **asked, repetitions=50)
    assert (name(found.chosen), name(found.runner_up)) == (chosen, runner_up)
    assert found.chosen.probability == found.chosen.frequency == 1
    assert found.safer is None and found.nearest is None and found.none == 0


def test_shares_are_counted_from_the_floor():
    found = {point.name: point for point in choose(EXACT, repetitions=50).candidates}
    assert found["aig-power-2"].diversity_kept.mean == pytest.approx(2.8 / 4)
    assert found["aig-power-2"].gain_kept.mean == pytest.approx(0.7)
    assert found["tuned"].diversity_kept.mean == pytest.approx(0.1)
    on_recall = choose(EXACT, diversity="recall", repetitions=50)
    assert on_recall.floor == 0
    assert on_recall.candidates[1].diversity_kept.mean == pytest.approx(0.1)


def test_where_nothing_satisfies_the_nearest_is_named():
    found = choose(make_frontier(noise=0.3), min_diversity=0.99)
    assert found.chosen is None and found.runner_up is None and found.versus == {}
    assert found.nearest.name == "aig-power-4"
    assert found.none > 0.9
    assert {point.name for point in found.candidates if point.fails} == {*POINTS} - {"base"}


def test_the_nearest_is_near_by_its_value_however_noisy_another_is():
    values = {point["name"]: point["per_prompt"] for point in make_frontier(noise=0.3)["points"]}
    values["lora-0.6"]["vendi"] = (2.6 + 20 * np.linspace(-1, 1, 24)).tolist()
    found = choose(frontier_of(values), min_diversity="vendi>=200")
    assert found.nearest.name == "aig-power-4"


def test_of_two_wishes_each_is_counted_in_distances_from_base_to_tuned():
    # lacks 2.2 of vendi and 5 of reward, of which base and tuned are 3.6 and 10 apart; tuned would lack 4.6 and 2
    found = choose(EXACT, min_diversity="vendi>=6", min_reward="reward>=12", repetitions=50)
    assert found.nearest.name == "aig-power-2"
    assert found.lacks["diversity"].mean == pytest.approx(2.2) and found.lacks["reward"].mean == pytest.approx(5)


@pytest.mark.parametrize("asked", ["vendi>=6", "99%", "gold>=0.9"])
def test_what_the_nearest_lacks_is_said_in_the_terms_of_the_wish(asked):
    found = choose(make_frontier(noise=0.5), min_diversity=asked)
    near, lack = found.nearest, found.lacks["diversity"]
    if asked == "gold>=0.9":
        gold = make_frontier(noise=0.5)["points"]
        own = next(point["metrics"]["gold"] for point in gold if point["name"] == near.name)
        wished, has = 0.9, (own["mean"], own["low"], own["high"])
    else:
        wished, value = (0.99, near.diversity_kept) if asked == "99%" else (6, near.diversity)
        has = (value.mean, value.low, value.high)
    assert (lack.mean, lack.high, lack.low) == pytest.approx([wished - value for value in has], abs=1e-3)
    assert lack.low < lack.mean < lack.high


def test_a_wish_that_is_met_lacks_nothing():
    assert choose(EXACT, min_diversity=0.5, repetitions=50).lacks == {}
    found = choose(EXACT, min_diversity="vendi>=6", min_reward=0.01, repetitions=50)
    assert found.lacks.keys() == {"diversity"}


def test_a_budget_that_nothing_meets_has_no_nearest():
    found = choose(EXACT, budget=5, min_diversity=0.5)
    assert found.chosen is None and found.nearest is None
    assert all("budget" in point.fails for point in found.candidates)


def test_nothing_is_balanced_where_nothing_was_lost():
    found = choose(make_frontier(shift={"tuned": 5.0}))
    assert found.chosen is None
    assert found.warnings[0].startswith("Tuning did not lower vendi: tuned minus base is 1.4")


def test_a_change_within_noise_is_warned_of_first_and_no_other_is():
    assert choose(make_frontier(noise=0.5)).warnings == ()
    frontier = make_frontier(noise=1.0, shift={"tuned": 3.6})  # as diverse as the base
    found = choose(frontier | {"warnings": ["of the run"]})
    assert found.warnings[0].startswith("Tuning did not lower vendi beyond noise: tuned minus base is ")
    assert found.warnings[1:] == ("of the run",)


def test_probabilities_are_those_of_resampling_by_hand():
    frontier = make_frontier(noise=3.0, prompts=9)
    found = choose(frontier, min_diversity=0.72, repetitions=300, seed=5)
    drawn = np.random.default_rng(5).integers(9, size=(300, 9))
    values = {point["name"]: point["per_prompt"] for point in frontier["points"]}
    holds, chosen = dict.fromkeys(POINTS, 0), dict.fromkeys([*POINTS, None], 0)
    for sample in drawn:
        vendi = {key: np.mean([row["vendi"][i] for i in sample]) for key, row in values.items()}
        reward = {key: np.mean([row["reward"][i] for i in sample]) for key, row in values.items()}
        enough = [key for key in POINTS if vendi[key] - 1 >= 0.72 * (vendi["base"] - 1)]
        for key in enough:
            holds[key] += 1
        chosen[max((key for key in enough if key != "base"), key=lambda key: reward[key], default=None)] += 1
    assert 0.05 < holds["aig-power-2"] / 300 < 0.95
    for point in found.candidates:
        assert point.probability == pytest.approx(holds[point.name] / 300)
        assert point.frequency == pytest.approx(chosen[point.name] / 300)
    assert found.none == pytest.approx(chosen[None] / 300)
    assert sum(point.frequency for point in found.candidates) + found.none == pytest.approx(1)


def test_a_doubtful_choice_names_a_safer_one():
    found = choose(make_frontier(noise=0.5), min_diversity=0.69)
    assert found.chosen.name == "aig-power-2" and found.chosen.probability < 0.9
    assert found.safer.name == "aig-power-4" and found.safer.probability >= 0.9


def test_differences_to_the_runner_up_are_paired():
    found = choose(make_frontier(noise=4.0), min_diversity=0.3)
    assert (found.chosen.name, found.runner_up.name) == ("aig-power-2", "lora-0.6")
    alone, paired = found.chosen.reward, found.versus["reward"]
    assert paired.high - paired.low < 0.5 * (alone.high - alone.low)  # what is hard about a prompt cancels
    assert found.versus["objective"] == paired
    assert paired.mean == pytest.approx(alone.mean - found.runner_up.reward.mean)


def test_shares_of_a_doubtful_gain_have_no_limits():
    values = {point["name"]: point["per_prompt"] for point in make_frontier(prompts=6)["points"]}
    for name, own in values.items():
        own["reward"] = [3.0, -2.0, 1.0, -1.0, 2.0, -2.0] if name == "tuned" else [0.0] * 6
    found = choose(frontier_of(values))
    assert found.warnings[0].startswith("Tuning did not raise reward beyond noise")
    assert any("Only 6 prompts" in warning for warning in found.warnings)
    assert all(point.gain_kept.low is None for point in found.candidates)
    assert all(point.diversity_kept.low is not None for point in found.candidates)


@given(st.integers(0, 6), st.floats(0.05, 1), st.floats(0.05, 1))
def test_no_point_that_satisfies_beats_the_chosen_one(seed, share, less):
    frontier = SCATTERED[seed]
    found = choose(frontier, min_diversity=share, repetitions=20)
    fit = [point for point in found.candidates if "diversity" not in point.fails and point.name != "base"]
    base = found.candidates[0].diversity.mean
    assert all(point.diversity.mean - 1 >= share * (base - 1) - 1e-9 for point in fit)
    assert (found.chosen is None) == (not fit)
    if found.chosen:
        assert found.chosen.reward.mean == max(point.reward.mean for point in fit)
        looser = choose(frontier, min_diversity=share * less, repetitions=20)
        assert looser.chosen.reward.mean >= found.chosen.reward.mean


def test_of_equal_points_the_cheaper_is_chosen():
    frontier = copy.deepcopy(EXACT)
    points = {point["name"]: point for point in frontier["points"]}
    for key in ("per_prompt", "metrics"):
        points["lora-0.6"][key] = points["aig-power-2"][key]
    assert choose(frontier, repetitions=20).chosen.name == "lora-0.6"


def test_the_result_is_json():
    found = choose(make_frontier(noise=1.0), min_diversity=0.7)
    again = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert again["chosen"]["name"] == found.chosen.name
    assert again["min_diversity"] == {"value": 0.7, "metric": None}


@pytest.mark.parametrize(
    ("text", "value", "metric"),
    [("0.9", 0.9, None), (1, 1.0, None), (" 90 % ", 0.9, None), ("vendi>=2.1", 2.1, "vendi"), ("a >= -1", -1, "a")],
)
def test_thresholds_are_read(text, value, metric):
    assert Threshold.parse(text) == Threshold(value, metric)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"min_diversity": "2.1"}, "a share is above 0 and at most 1"),
        ({"min_diversity": "90"}, r"not 90: did you mean 90%\?"),
        ({"min_diversity": "150%"}, "not 150%: write 0.9 or 90%"),
        ({"min_reward": 0}, "a share is above 0"),
        ({"min_diversity": "much"}, "cannot read 'much': write a share as 0.9 or 90%"),
        ({"min_diversity": "nan"}, "cannot read"),
        ({"min_diversity": "vendi>=50%"}, "cannot read"),
        ({"min_reward": "forwards>=3"}, "--budget limits forwards"),
        ({"budget": float("nan")}, "a budget is a number of denoiser forwards per image above 0, not nan"),
        ({"budget": 0}, "above 0, not 0"),
        ({"budget": -20.0}, "above 0, not -20"),
        ({"min_diversity": "fid>=3"}, "less fid is better"),
        (
            {"min_diversity": "variety>=3"},
            "no metric 'variety' for every point; there are: reward, gold, vendi, recall",
        ),
        ({"diversity": "spectral"}, "less spectral is better"),
        ({"diversity": "reward"}, "both axes are reward"),
    ],
    ids=str,
)
def test_bad_wishes_are_refused_by_name(asked, message):
    with pytest.raises(ValueError, match=message):
        choose(EXACT, **asked)


def test_a_share_of_nothing_is_refused():
    frontier = copy.deepcopy(EXACT)
    for point in frontier["points"]:
        point["per_prompt"]["reward"] = [1.0] * 24
    with pytest.raises(ValueError, match="no share of reward to keep, since tuning did not raise it"):
        choose(frontier, min_reward=0.5)


def test_older_and_broken_files_are_refused_by_name():
    frontier = copy.deepcopy(EXACT)
    frontier["points"][2]["per_prompt"]["vendi"][3] = None
    with pytest.raises(ValueError, match=r"metric 'vendi' of point 'lora-0.3': the value of prompt 3 is NaN"):
        choose(frontier)
    frontier["points"][2]["per_prompt"]["vendi"] = [1.0] * 5
    with pytest.raises(ValueError, match="not measured on the same prompts"):
        choose(frontier)
    del frontier["points"][2]["per_prompt"]
    with pytest.raises(ValueError, match="without per-prompt values: run `sfumato evaluate`"):
        choose(frontier)
    frontier = copy.deepcopy(EXACT)
    del frontier["points"][1]
    with pytest.raises(ValueError, match=r"no point 'tuned' among base, lora-0.3"):
        choose(frontier)
    frontier = copy.deepcopy(EXACT)
    del frontier["points"][0]["forwards"]
    with pytest.raises(ValueError, match="a budget needs the forwards"):
        choose(frontier, budget=20)
