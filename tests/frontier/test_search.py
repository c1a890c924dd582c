"""The search against brute force on Gaussian worlds, where every schedule's reward and diversity are known."""

import numpy as np
import pytest
import scipy.stats

from sfumato.config import BasePoint, GuidancePoint, LoraScalePoint, TunedPoint
from sfumato.frontier.search import Goal, Trial, Values, along_cap, best, is_surely_negative, search, student_quantile
from sfumato.frontier.search_space import FIXED, curve, guidance, label, point, python_line
from tests.frontier.search_bed import PROMPTS, everything, measure

IMAGES = 8


def tried(goal, budget=3000, seed=0, measure=measure, prompts=PROMPTS):
    return list(search(measure, prompts, IMAGES, goal, budget, seed))


@pytest.mark.parametrize(("keep", "share"), [("diversity", 0.9), ("diversity", 0.6), ("reward", 0.6)])
def test_it_comes_close_to_brute_force(keep, share):
    """2000 schedules by brute force, 65 by the search: it reaches 95 % of what is to be gained."""
    (reward, diversity), base, tuned = everything()
    if keep == "diversity":
        start, optimum = base[0], reward[diversity - 1 >= share * (base[1] - 1)].max()
    else:
        start, optimum = tuned[1], diversity[reward >= base[0] + share * (tuned[0] - base[0])].max()
    trials = tried(Goal(keep, share))
    found = best(trials)
    assert found.estimate - start > 0.95 * (optimum - start)
    assert found.slack.mean() >= 0
    assert found.estimate > best(trials, fixed_only=True).estimate


def test_losers_are_stopped_and_pay_for_more_schedules():
    trials = tried(Goal("diversity", 0.8))
    taken = sum(len(trial.values.reward) for trial in trials) * IMAGES
    assert 3000 - len(PROMPTS) * IMAGES < taken <= 3000
    assert len(trials) > 1.5 * 3000 / (len(PROMPTS) * IMAGES)
    assert not any(trial.stopped for trial in trials[: len(FIXED)])
    full = {t.number: np.mean([measure(t.point, prompt) for prompt in PROMPTS], axis=0) for t in trials}
    stopped = [trial for trial in trials if trial.stopped]
    needed = 1 + 0.8 * (full[0][1] - 1)
    better = [t for t in stopped if full[t.number][1] >= needed and full[t.number][0] > best(trials).estimate]
    assert stopped and better == []
    assert {trial.stopped for trial in stopped} == {"reward", "diversity"}


def test_the_same_seed_searches_the_same_way():
    once, again, other = (
        [trial.point for trial in tried(Goal(), 1000, seed, prompts=PROMPTS[:6])] for seed in (3, 3, 4)
    )
    assert once == again != other


def test_a_search_that_was_killed_goes_on_where_it_was():
    known = {}

    def remembering(config, prompt):
        key = config.model_dump_json(), prompt
        if key not in known:
            if len(known) == stop_after:
                raise KeyboardInterrupt
            known[key] = measure(config, prompt)
        return known[key]

    course = lambda trials: [(t.number, t.point, t.stopped, t.estimate) for t in trials]  # noqa: E731
    goal, budget, prompts = Goal("reward", 0.5), 1000, PROMPTS[:6]
    stop_after = 90
    with pytest.raises(KeyboardInterrupt):
        tried(goal, budget, measure=remembering, prompts=prompts)
    assert len(known) == 90
    stop_after = None
    continued = tried(goal, budget, measure=remembering, prompts=prompts)
    assert course(continued) == course(tried(goal, budget, prompts=prompts))
    assert len(known) * IMAGES == sum(len(t.values.reward) for t in continued) * IMAGES <= budget
    longer = tried(goal, budget + 200, measure=remembering, prompts=prompts)
    assert course(longer)[: len(continued)] == course(continued) and len(longer) > len(continued)


def test_the_result_is_the_best_fixed_schedule_where_nothing_beats_it():
    """Every blend but base and tuned is worse in both: more diversity than needed cannot be bought with reward."""

    def spoilt(config, prompt):
        values = {"base": (0.0, 2.0), "tuned": (1.0, 1.0)}
        return values.get(config.kind, (-1.0, 0.5))

    trials = tried(Goal("diversity", 0.9), 700, measure=spoilt, prompts=PROMPTS[:6])
    assert best(trials).point == best(trials, fixed_only=True).point == BasePoint()
    trials = tried(Goal("reward", 1.0), 700, measure=spoilt, prompts=PROMPTS[:6])
    assert best(trials).point == TunedPoint()


def test_few_prompts_are_searched_without_stopping():
    trials = tried(Goal(), 300, prompts=PROMPTS[:2])
    assert len(trials) == 300 // (2 * IMAGES) and not any(trial.stopped for trial in trials)


@pytest.mark.parametrize(
    ("goal", "budget", "prompts", "message"),
    [
        (("variety", 0.9), 3000, PROMPTS, "unknown constraint 'variety'.*diversity=0.9"),
        (("diversity", 0.0), 3000, PROMPTS, "above 0 and at most 1"),
        (("diversity", 1.1), 3000, PROMPTS, "above 0 and at most 1"),
        (("diversity", 0.9), 863, PROMPTS, "863 images is too small.* take 864"),
        (("diversity", 0.9), 3000, PROMPTS[:1] * 2, "at least 2 different prompts"),
        (("diversity", 0.9), 3000, PROMPTS[:2] * 2, "all different"),
    ],
)
def test_bad_input_is_refused(goal, budget, prompts, message):
    with pytest.raises(ValueError, match=message):
        tried(Goal(*goal), budget, prompts=prompts)


def test_a_gain_that_is_none_cannot_be_kept():
    with pytest.raises(ValueError, match="no gain to keep"):
        tried(Goal("reward", 0.5), measure=lambda config, prompt: (1.0 if config.kind == "base" else 0.5, 1.0))


def test_optuna_is_asked_for_by_its_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'sfumato\[tune\]'"):
        tried(Goal())


@pytest.mark.parametrize("level", [0.9, 0.975, 0.9995])
@pytest.mark.parametrize("freedom", [1, 2, 5, 11, 100])
def test_quantiles_are_those_of_scipy(level, freedom):
    assert student_quantile(level, freedom) == pytest.approx(scipy.stats.t.ppf(level, freedom), rel=1e-3)


def test_a_schedule_as_good_as_the_best_is_stopped_as_seldom_as_promised():
    """Half of the samples from populations of 12 whose mean is exactly 0, the least that must not be stopped."""
    draw = np.random.default_rng(0)
    populations = draw.normal(size=(4000, 12))
    populations -= populations.mean(1, keepdims=True)
    wrong = np.mean([is_surely_negative(values[:6], 12, 0.05) for values in populations])
    assert wrong == pytest.approx(0.05, abs=0.015)
    assert is_surely_negative(np.array([-1.0, -1.1, -0.9]), 12, 0.05)
    assert not is_surely_negative(np.array([-1.0, 3.0, -5.0]), 12, 0.05)


def trial(number, cap, value, slack, shape=1.0):
    parameters = {"family": "formula", "blend": "weights", "cap": cap, "shape": shape}
    values = Values(np.array([value]), np.array([slack]))
    return Trial(number, parameters, point(parameters), number < 2, values, values.diversity, "", value)


def test_the_line_search_finds_the_edge_of_what_is_kept():
    """Base keeps 1 more than needed and has reward 0; cap 1 lacks 1 and has reward 2: the edge is at 0.5."""
    trials = [trial(0, 0.0, 0.0, 1.0, 0.0), trial(1, 1.0, 2.0, -1.0)]
    assert along_cap(trials) == {"family": "formula", "blend": "weights", "shape": 1.0, "cap": 0.5}
    nearer = [*trials, trial(2, 0.5, 0.9, 0.2)]
    assert along_cap(nearer)["cap"] == 0.55
    assert along_cap([*nearer, trial(3, 0.55, 0.7, -0.1)]) is None
    beyond = [trials[0], trial(1, 0.4, 1.0, 0.6)]
    assert along_cap(beyond)["cap"] == pytest.approx(0.6)


def test_parameters_stand_for_operating_points():
    def made(**values):
        return point({"family": "formula", "blend": "weights", **values})

    table = {"family": "table", "blend": "predictions", "cap": 0.5, "k0": 0.0, "k1": 0.2, "k2": 0.2, "k3": 1.0}
    assert made(cap=0.0, shape=2.0) == point({**table, "cap": 0.0}) == BasePoint()
    assert made(cap=1.0, shape=0.0) == TunedPoint()
    assert made(cap=0.25, shape=0.0) == LoraScalePoint(scale=0.25)
    assert made(cap=0.25, shape=0.0, blend="predictions").parameters == {"w": 0.25}
    assert made(cap=0.5, shape=-2.0) == GuidancePoint(
        schedule="falling", parameters={"p": 2.0}, cap=0.5, blend="weights"
    )
    assert [g for _, g in curve(made(cap=0.5, shape=-2.0), 3)] == [0.5, 0.125, 0.0]
    assert [g for _, g in curve(point(table), 11)][::5] == pytest.approx([0.0, 0.1, 0.5])
    assert point({**table, "k0": 0.2, "k3": 0.2}).parameters == {"w": 0.1}


def test_schedules_are_written_for_people_and_for_python():
    names = [
        "base",
        "tuned",
        *(f"constant {a}, weights" for a in (0.25, 0.5, 0.75)),
        *(f"{u}, predictions" for u in ("u", "u^2", "u^4")),
    ]
    assert [label(point(parameters)) for parameters in FIXED] == names
    falling = point({"family": "formula", "blend": "weights", "cap": 0.35, "shape": -1.0})
    assert label(falling) == "0.35 (1 - u), weights"
    assert guidance(falling) == {"schedule": "falling", "p": 1.0, "cap": 0.35, "blend": "weights"}
    line = "with sfumato.annealed_guidance(pipe, 'falling', p=1.0, cap=0.35, blend='weights'):"
    assert python_line(falling) == line
