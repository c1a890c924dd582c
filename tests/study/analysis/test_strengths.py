"""Strengths and their intervals: properties that hold for any votes, and coverage where the truth is known."""

import numpy as np
import pytest
from benchmarks.study_coverage import World, coverage
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sfumato.study.analysis.strengths import Strengths
from tests.study.analysis.votes_of import pairs, row

counts = st.lists(st.integers(1, 12), min_size=9, max_size=9)


def votes(numbers):
    a, b, c = (tuple(numbers[i : i + 3]) for i in (0, 3, 6))
    return pairs([("x", "y", *a), ("x", "z", *b), ("y", "z", *c)])


def table(found):
    return {name: (each.mean, each.low, each.high) for name, each in zip(found.points, found.intervals, strict=True)}


@settings(max_examples=10, deadline=None)
@given(counts, st.permutations("xyz"))
@example([1] * 9, "xzy")
def test_other_names_permute_the_strengths(numbers, order):
    rows = votes(numbers)
    names = dict(zip("xyz", order, strict=True))
    renamed = [{**each, "points": [names[name] for name in each["points"]]} for each in rows]
    first, second = table(Strengths.of(rows, "xyz", 200)), table(Strengths.of(renamed, "xyz", 200))
    for name, values in first.items():
        assert second[names[name]] == pytest.approx(values, abs=1e-6)


@settings(max_examples=10, deadline=None)
@given(counts)
@example([1] * 9)
def test_swapped_options_change_nothing(numbers):
    rows = votes(numbers)
    swapped = [
        {**each, "points": each["points"][::-1], "answer": None if each["answer"] is None else 1 - each["answer"]}
        for each in rows
    ]
    first, second = table(Strengths.of(rows, "xyz", 200)), table(Strengths.of(swapped, "xyz", 200))
    for name, values in first.items():
        assert second[name] == pytest.approx(values, abs=1e-6)


@settings(max_examples=10, deadline=None)
@given(counts)
def test_twice_as_many_such_raters_and_prompts_are_surer(numbers):
    rows = votes(numbers)
    others = [{**each, "rater": each["rater"] + 100, "prompt": f"other {each['prompt']}"} for each in rows]
    twice = [*rows, *others]
    widths = [sum(each.high - each.low for each in Strengths.of(own, "xyz", 400).intervals) for own in (rows, twice)]
    assert widths[1] < widths[0]


@pytest.mark.parametrize("ties", [0, 2])
def test_who_always_wins_keeps_a_finite_interval(ties):
    rows = pairs([("x", "y", 30, 0, 0), ("x", "z", 25, 0, 0), ("y", "z", 9, ties, 11)])
    found = Strengths.of(rows, "xyz", 500)
    assert found.separable and found.model == ("Davidson" if ties else "Bradley-Terry")
    assert np.isfinite([(each.low, each.high) for each in found.intervals]).all()
    best = found.intervals[0]
    assert best.low > 0 and best.mean - best.low < 4


def test_a_single_rater_has_strengths_without_intervals():
    found = Strengths.of([{**each, "rater": 0} for each in votes([5] * 9)], "xyz", 100)
    assert all(np.isnan(each.low) and np.isfinite(each.mean) for each in found.intervals)


def test_raters_who_all_say_the_same_on_balance_have_students_interval():
    rows = [row("xy", n % 2, n, rater=n // 10, prompt=f"{n % 10 // 2}") for n in range(200)]
    found = Strengths.of(rows, "xy", 100).intervals[0]
    assert found.high == pytest.approx(-found.low) and 0.1 < found.high < 0.3


def test_votes_that_hang_on_the_rater_or_the_prompt_say_less():
    def width(answer):
        rows = [row("xy", answer(n), n, rater=n // 10, prompt=f"{n % 10}") for n in range(200)]
        found = Strengths.of(rows, "xy", 500).intervals[0]
        return found.high - found.low

    coin = np.random.default_rng(0).integers(2, size=200).tolist()
    by_rater, by_prompt, by_chance = width(lambda n: n // 10 % 2), width(lambda n: n % 2), width(lambda n: coin[n])
    assert by_rater > 2 * by_chance and by_prompt > 2 * by_chance


def test_intervals_hold_the_truth_as_often_as_they_say():
    found = coverage(World(raters=20, prompts=12, votes=24, taste=0.6, turn=0.4), studies=50, repetitions=200)
    assert 0.9 <= found["clustered"] <= 1 and 0.89 <= found["strengths"] <= 1
    assert found["Wilson"] < found["clustered"], "votes of one rater are not independent"
