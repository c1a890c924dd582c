"""Methods compared across runs: what is counted, what is left out and why, and what trainings can say."""

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfumato.frontier import compare_runs, read_runs
from sfumato.frontier.many import ENOUGH, median_interval, sign_test
from sfumato.frontier.statistics import Interval
from sfumato.frontier.tuned_runs import _reward, on_axes
from tests.frontier.measured_bed import make_frontier, write_run

WORSE = make_frontier(shift={"aig-power-2": -2.5, "aig-power-4": -2.5})
BETTER = make_frontier()


def write_many(folder, frontiers, **changes):
    """Runs with training seeds 0, 1, ...; `changes` are of all of them."""
    training = changes.pop("training", {})
    runs = [
        write_run(folder / f"run{seed}", frontier, training={"seed": seed, **training}, **changes)
        for seed, frontier in enumerate(frontiers)
    ]
    return [run.path for run in runs]


def test_one_pair_is_counted_over_the_seeds(tmp_path):
    found = compare_runs(read_runs(write_many(tmp_path, [BETTER, BETTER, WORSE])))
    (group,) = found.groups
    assert (group.model, group.reward) == ("small-model", "preference (emoji64)")
    assert group.runs == {"run0": 0, "run1": 1, "run2": 2}
    assert group.varied == () and found.left_out == {} and found.overall == ()
    (pair,) = group.pairs
    volumes = {run: group.volumes["AIG"][run].mean - group.volumes["LoRA scale"][run].mean for run in group.runs}
    expected = list(volumes.values())
    assert expected[0] == expected[1] > 0 > expected[2]
    ahead = 1 if sum(expected) > 0 else -1
    assert (pair.a, pair.b) == ("AIG", "LoRA scale")[::ahead]
    assert list(pair.differences.values()) == pytest.approx([ahead * value for value in expected])
    assert pair.mean == pytest.approx(abs(np.mean(expected)))
    assert pair.wins == (2 if ahead == 1 else 1)
    assert pair.probabilities["run0"] == 1 - pair.probabilities["run2"] == (1 if ahead == 1 else 0)
    assert pair.p == 1 and pair.median is None
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["groups"][0]["pairs"][0]["a"] == pair.a


def test_six_agreeing_trainings_have_an_interval_and_five_have_none(tmp_path):
    frontiers = [make_frontier(noise=0.5, seed=seed) for seed in range(ENOUGH)]
    paths = write_many(tmp_path, frontiers)
    (pair,) = compare_runs(read_runs(paths)).groups[0].pairs
    assert pair.wins == 6 and pair.p == pytest.approx(2 / 64)
    values = pair.differences.values()
    assert (pair.median.low, pair.median.high) == (min(values), max(values))
    (pair,) = compare_runs(read_runs(paths[:5])).groups[0].pairs
    assert pair.wins == 5 and pair.p > 0.05 and pair.median is None


def test_runs_that_differ_in_more_than_the_seed_are_no_repetitions(tmp_path):
    paths = write_many(tmp_path, [BETTER])
    paths.append(write_run(tmp_path / "other", BETTER, training={"seed": 1, "lr": 1e-4, "monitor_every": 3}).path)
    (group,) = compare_runs(read_runs(paths)).groups
    assert group.varied == ("training.lr",)
    assert group.pairs[0].p is None and group.pairs[0].median is None
    assert len(group.pairs[0].differences) == 2


def test_other_models_and_rewards_make_groups_and_are_only_counted(tmp_path):
    paths = write_many(tmp_path, [BETTER, BETTER])
    paths.append(write_run(tmp_path / "large", BETTER, pipeline={"path": "hub/large-model"}).path)
    paths.append(write_run(tmp_path / "other", WORSE, reward={"name": "jpeg", "model": None}).path)
    found = compare_runs(read_runs(paths))
    assert [(g.model, g.reward, list(g.runs)) for g in found.groups] == [
        ("small-model", "preference (emoji64)", ["run0", "run1"]),
        ("large-model", "preference (emoji64)", ["large"]),
        ("small-model", "jpeg", ["other"]),
    ]
    assert [g.pairs[0].p is None for g in found.groups] == [False, True, True]
    (pair,) = found.overall
    assert len(pair.differences) == 4 and pair.p is None
    assert {pair.wins, 4 - pair.wins} == {1, 3}


def test_what_cannot_be_compared_is_left_out_by_name(tmp_path):
    paths = write_many(tmp_path, [BETTER, BETTER])
    paths.append(write_run(tmp_path / "axes", on_axes(BETTER, diversity="recall")).path)
    paths.append(write_run(tmp_path / "corner", BETTER | {"reference_point": [-1, -1]}).path)
    paths.append(write_run(tmp_path / "bare", BETTER | {"methods": [], "comparisons": []}).path)
    for path in (paths[0], paths[1]):
        (path / "training/tuned").mkdir(parents=True)
        (path / "training/tuned/pytorch_lora_weights.safetensors").write_bytes(b"the same weights")
    found = compare_runs(read_runs(paths))
    assert list(found.groups[0].runs) == ["run0"]
    assert "same trained model as run0" in found.left_out["run1"]
    assert "its axes are reward and recall, those of most runs reward and vendi" in found.left_out["axes"]
    assert "--diversity" in found.left_out["axes"]
    assert "another reference point" in found.left_out["corner"]
    assert "no operating points between" in found.left_out["bare"]


def test_trainings_of_one_seed_count_once(tmp_path):
    paths = write_many(tmp_path, [make_frontier(noise=0.5, seed=seed) for seed in range(3)])
    for again in range(3):
        paths.append(write_run(tmp_path / f"again{again}", BETTER, training={"seed": 1, "monitor_every": again}).path)
    found = compare_runs(read_runs(paths))
    (group,) = found.groups
    assert group.runs == {"run0": 0, "run1": 1, "run2": 2} and group.varied == ()
    assert group.pairs[0].p == pytest.approx(2 / 8) and group.pairs[0].median is None
    assert list(found.left_out) == ["again0", "again1", "again2"]
    assert "training seed 1 of run1: one seed counts once" in found.left_out["again0"]


def test_a_seed_that_was_trained_with_other_settings_is_kept_and_not_tested(tmp_path):
    paths = write_many(tmp_path, [BETTER, BETTER])
    paths.append(write_run(tmp_path / "other", BETTER, training={"seed": 1, "lr": 1e-4}).path)
    found = compare_runs(read_runs(paths))
    assert found.left_out == {} and found.groups[0].varied == ("training.lr",)
    assert found.groups[0].pairs[0].p is None


def test_a_method_with_other_points_is_left_out_of_that_run(tmp_path):
    paths = write_many(tmp_path, [BETTER, BETTER])
    other = json.loads(json.dumps(BETTER))
    next(p for p in other["points"] if p["name"] == "lora-0.3")["definition"]["scale"] = 0.35
    paths.append(write_run(tmp_path / "run9", other, training={"seed": 9}).path)
    found = compare_runs(read_runs(paths))
    assert found.left_out == {"run9: LoRA scale": "measured at other points than in most runs"}
    (group,) = found.groups
    assert "run9" in group.volumes["AIG"] and "run9" not in group.volumes["LoRA scale"]
    assert list(group.pairs[0].differences) == ["run0", "run1"]


def test_a_checkpoint_is_the_same_point_after_the_same_share_of_the_updates(tmp_path):
    paths = []
    for updates, checkpoint in ((12, 3), (60, 15), (20, 15)):
        frontier = json.loads(json.dumps(BETTER))
        early = {"kind": "tuned", "training": "tuned", "checkpoint": checkpoint}
        next(p for p in frontier["points"] if p["name"] == "lora-0.3")["definition"] = early
        training = {"seed": 0, "steps": updates}
        paths.append(write_run(tmp_path / f"run{updates}", frontier, training=training).path)
    found = compare_runs(read_runs(paths))
    assert found.left_out == {"run20: LoRA scale": "measured at other points than in most runs"}


def test_between_base_models_a_variant_counts_by_its_name(tmp_path):
    frontier = json.loads(json.dumps(BETTER))
    next(p for p in frontier["points"] if p["name"] == "lora-0.3")["definition"] = {"kind": "tuned", "training": "kl"}
    paths = []
    for seed, (model, coefficient) in enumerate((("one", 2), ("one", 2), ("one", 3), ("other", 0.01))):
        run = write_run(tmp_path / f"run{seed}", frontier, training={"seed": seed}, pipeline={"path": model})
        variants = {"kl": {"regularizers.kl.coefficient": coefficient}}
        run.recipe_path.write_text(json.dumps(run.recipe | {"variants": variants}))
        paths.append(run.path)
    found = compare_runs(read_runs(paths))
    assert found.left_out == {"run2: LoRA scale": "measured at other points than in most runs"}
    assert list(found.overall[0].differences) == ["run0", "run1", "run2", "run3"]


def test_a_variant_of_the_same_name_is_another_point(tmp_path):
    frontier = json.loads(json.dumps(BETTER))
    next(p for p in frontier["points"] if p["name"] == "lora-0.3")["definition"] = {"kind": "tuned", "training": "kl"}
    recipes = [
        {"kl": {"regularizers.kl.coefficient": 5}},
        {"kl": {"regularizers.kl.coefficient": 5}},
        {"kl": {"regularizers.kl.coefficient": 2}},
    ]
    paths = []
    for seed, variants in enumerate(recipes):
        run = write_run(tmp_path / f"run{seed}", frontier, training={"seed": seed})
        run.recipe_path.write_text(json.dumps(run.recipe | {"variants": variants}))
        paths.append(run.path)
    assert list(compare_runs(read_runs(paths)).left_out) == ["run2: LoRA scale"]


def test_other_numbers_of_points_are_flagged(tmp_path):
    fewer = json.loads(json.dumps(BETTER))
    next(m for m in fewer["methods"] if m["name"] == "AIG")["points"].remove("aig-power-4")
    (pair,) = compare_runs(read_runs(write_many(tmp_path, [fewer, fewer]))).groups[0].pairs
    assert pair.points_differ


def test_other_axes_are_measured_again(tmp_path):
    paths = write_many(tmp_path, [BETTER])
    (run,) = read_runs(paths, reward="gold", diversity="recall")
    assert run.frontier["axes"] == {"reward": "gold", "diversity": "recall"}
    front = {point["name"] for point in run.frontier["points"] if point["nondominated"]}
    assert front == {"base", "aig-power-2", "aig-power-4", "lora-0.6"}
    assert run.frontier["points"][2]["label"] == "LoRA 0.3"
    assert run.frontier["equal_compute"] != BETTER["equal_compute"]
    assert read_runs(paths)[0].frontier == json.loads(json.dumps(BETTER))


def test_names_are_as_short_as_they_can_be(tmp_path):
    paths = [write_run(tmp_path / parent / "run", BETTER).path for parent in ("a", "b")]
    assert [run.name for run in read_runs(paths)] == ["a/run", "b/run"]


def test_what_cannot_be_read_is_refused_by_name(tmp_path):
    (path,) = write_many(tmp_path, [BETTER])
    with pytest.raises(ValueError, match=r"given twice: .*run0"):
        read_runs([path, tmp_path / "." / "run0"])
    with pytest.raises(ValueError, match=r"run0: there is no metric 'beauty' for every point; there are: reward, gold"):
        read_runs([path], reward="beauty")
    with pytest.raises(ValueError, match="both axes are gold"):
        read_runs([path], reward="gold", diversity="gold")
    for axes in ({"diversity": "spectral"}, {"reward": "fid"}):
        with pytest.raises(ValueError, match=r"run0: less \w+ is better: choose a metric of which more is better"):
            read_runs([path], **axes)
    with pytest.raises(FileNotFoundError, match="not a run folder"):
        read_runs([tmp_path / "nowhere"])


def test_the_sign_test_is_exact():
    for n in range(1, 9):
        signs = list(itertools.product((-1, 1), repeat=n))
        for wins in range(n + 1):
            extreme = sum(abs(sum(s)) >= abs(2 * wins - n) for s in signs)
            assert sign_test([1.0] * wins + [-1.0] * (n - wins)) == pytest.approx(extreme / 2**n)
    assert sign_test([0.0, 0.0]) == 1
    assert sign_test([0.0, 2.0]) == sign_test([2.0])


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40))
def test_the_median_interval_is_made_of_values(values):
    found = median_interval(values)
    assert (found is None) == (len(values) < ENOUGH)
    if found is not None:
        assert found.low in values and found.high in values
        assert found.low <= found.mean <= found.high


@pytest.mark.parametrize("n", [6, 9, 15])
def test_the_median_interval_covers_as_it_says(n):
    random = np.random.default_rng(n)
    drawn = random.exponential(size=(4000, n))
    found = [median_interval(row.tolist()) or Interval(0, 1, -1) for row in drawn]
    covered = np.mean([one.low <= math.log(2) <= one.high for one in found])
    assert 0.94 < covered <= 1


def test_runs_are_told_apart_by_what_their_reward_is_made_of():
    clip = {"name": "clip_score", "model": "openai/clip"}
    assert _reward({"reward": ["pickscore", clip]}) == "pickscore + clip_score (clip)"
    assert _reward({"reward": {"name": "minimum", "of": ["pickscore", clip]}}) == (
        "minimum (pickscore, clip_score (clip))"
    )
    limited = {"name": "constrained", "of": ["gold", "pickscore"], "subject_to": clip, "at_least": 27, "strength": 2}
    assert _reward({"reward": limited}) == "constrained (gold, pickscore, clip_score (clip))"
