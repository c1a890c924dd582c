import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfumato.frontier import choose
from sfumato.report import choice
from sfumato.report.data import read_frontier
from tests.frontier.measured_bed import make_frontier, write_run
from tests.report.test_story import BASE, TUNED, point, world

MIDDLE = [point("a", "AIG", 8.0, 4.0), point("b", "AIG", 5.0, 4.5), point("beaten", "KL", 4.0, 4.2)]


def test_the_choice_at_every_priority_has_most_reward_of_those_that_give_enough_back():
    stages = choice.priorities(world(BASE, *MIDDLE, TUNED))
    assert [stage.point["name"] for stage in stages] == ["tuned", "a", "b", "base"]
    assert [round(stage.above, 3) for stage in stages] == [0, 0, 0.75, 0.875]
    assert stages[1].kept == pytest.approx((0.8, 0.79, 0.81))
    assert stages[1].regained == pytest.approx((0.75, 0.725, 0.775))


@given(st.lists(st.tuples(st.floats(-2, 12), st.floats(0, 6)), max_size=8), st.floats(0, 1))
def test_the_first_stage_that_suffices_is_the_best_choice(values, wanted):
    points = [point(str(i), "x", *value) for i, value in enumerate(values)]
    stages = choice.priorities(world(BASE, *points, TUNED))
    chosen = next(stage for stage in stages if stage.regained[0] >= wanted)
    enough = [p for p in (BASE, *points, TUNED) if (p["metrics"]["vendi"]["mean"] - 1) / 4 >= wanted]
    assert chosen.kept[0] == pytest.approx(max(p["metrics"]["reward"]["mean"] for p in enough) / 10)


def test_a_stage_says_whether_it_differs_from_the_next_beyond_noise():
    found = world(BASE, *MIDDLE, TUNED)
    found["differences"] = [
        {"a": "b", "b": "a", "metric": "reward", "mean": -3.0, "low": -4.0, "high": -2.0},
        {"a": "a", "b": "b", "metric": "vendi", "mean": -0.5, "low": -1.1, "high": 0.1},
    ]
    stage = choice.priorities(found)[1]
    assert "Against b, " in stage.against and "reward +3.00 (2.00 to 4.00), beyond noise" in stage.against
    assert stage.against.endswith("(\N{MINUS SIGN}1.10 to 0.100), within noise.")
    assert choice.priorities(found)[0].against == ""


def test_nothing_is_chosen_within_the_noise():
    assert choice.priorities(world(BASE, *MIDDLE, point("tuned", "tuned", 10.0, 4.9))) == []


def test_report_and_frontier_agree_on_what_is_noise(tmp_path):
    seen = set()
    for seed in range(6):
        run = write_run(tmp_path / str(seed), make_frontier(noise=6.0, seed=seed, shift={"tuned": 3.0}))
        found = read_frontier(run)
        noise = any("did not" in warning and "beyond noise" in warning for warning in choose(run.frontier()).warnings)
        assert (choice.priorities(found) == []) == noise
        base, tuned = (choice.end_point(found, method)["metrics"]["vendi"] for method in choice.END_POINTS)
        seen.add((noise, base["low"] <= tuned["high"]))
    assert seen == {(False, False), (False, True), (True, True)}  # twice the separate intervals overlap, in pairs not
