"""Bradley-Terry, Davidson and Plackett-Luce: against choix, closed forms and finite differences."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import optimize

from sfumato.study.analysis.logit import Choices, _derivatives, _likelihood, fit, influence
from tests.study.analysis.votes_of import pairs, row

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "study.json").read_text())
NAMES = "abcd"
ROWS = {
    "pairs": lambda data: row([NAMES[i] for i in data], 0),
    "rankings": lambda data: row([NAMES[i] for i in data], [0, 1, 2], kind="rank"),
    "best": lambda data: row([NAMES[data[0]], *(NAMES[i] for i in data[1])], 0, kind="best_of"),
}


def strengths(rows, points, weights=None):
    choices = Choices.of(rows, points)
    weights = np.ones((1, len(choices.chosen))) if weights is None else weights
    counts = np.array([np.bincount(choices.chosen, own, choices.there.size) for own in weights])
    found = fit(choices, counts)
    return choices.strengths(found.parameters), found


@pytest.mark.parametrize("kind", list(ROWS))
def test_strengths_are_those_of_choix(kind):
    rows = [ROWS[kind](data) for data in GOLDEN[kind]["data"]]
    expected = np.array(GOLDEN[kind]["strengths"])
    found, fitted = strengths(rows, NAMES)
    np.testing.assert_allclose(found[0], expected - expected.mean(), atol=1e-6)
    assert not fitted.separable[0]


def test_two_points_with_ties_have_a_closed_form():
    found, fitted = strengths(pairs([("a", "b", 30, 12, 10)]), "ab")
    assert found[0, 0] - found[0, 1] == pytest.approx(math.log(3))
    assert math.exp(fitted.parameters[0, -1]) == pytest.approx(12 / math.sqrt(300))


def test_a_ranking_of_two_is_a_pair():
    counts = [("a", "b", 8, 0, 5), ("b", "c", 7, 0, 4), ("a", "c", 6, 0, 6)]
    rows = pairs(counts)
    ranked = [{**each, "kind": "rank", "answer": [each["answer"], 1 - each["answer"]]} for each in rows]
    np.testing.assert_allclose(strengths(rows, "abc")[0], strengths(ranked, "abc")[0], atol=1e-9)


def test_derivatives_are_those_of_the_likelihood():
    choices = Choices.of(pairs([("a", "b", 8, 3, 5), ("b", "c", 7, 2, 4)]), "abc")
    counts = np.bincount(choices.chosen, minlength=choices.there.size)[None].astype(float)
    at, step = np.array([[0.3, -0.2, 0.5]]), 1e-4
    gradient, information = _derivatives(choices, counts, at)
    for k, shift in enumerate(step * np.eye(3)):
        up, down = at + shift, at - shift
        rise = (_likelihood(choices, counts, up) - _likelihood(choices, counts, down)) / (2 * step)
        assert gradient[0, k] == pytest.approx(rise[0], rel=1e-6)
        slope = (_derivatives(choices, counts, down)[0] - _derivatives(choices, counts, up)[0]) / (2 * step)
        np.testing.assert_allclose(information[0, k], slope[0], rtol=1e-6)


def test_influence_is_what_a_little_more_weight_of_a_vote_does():
    rows = [ROWS["rankings"](data) for data in GOLDEN["rankings"]["data"][:40]]
    choices = Choices.of(rows, NAMES)
    weights = np.ones((2, len(choices.chosen)))
    weights[0, 7], weights[1, 7] = 1.001, 0.999
    (more, less), fitted = strengths(rows, NAMES, weights)
    expected = influence(choices, strengths(rows, NAMES)[1])
    np.testing.assert_allclose((more - less) / 0.002, expected[7], rtol=1e-4)
    np.testing.assert_allclose(expected.sum(axis=0), 0, atol=1e-8)
    assert not fitted.separable.any()


def test_who_always_wins_stays_finite_and_only_then_a_vote_is_added():
    found, fitted = strengths(pairs([("a", "b", 10, 0, 0)]), "ab")
    assert fitted.separable[0]
    assert found[0, 0] - found[0, 1] == pytest.approx(math.log(10.5 / 0.5))
    cut, fitted = strengths(pairs([("a", "b", 5, 0, 4), ("b", "c", 9, 0, 0), ("a", "c", 9, 0, 0)]), "abc")
    assert fitted.separable[0] and np.isfinite(cut).all() and cut[0, 2] < cut[0, :2].min()


@pytest.mark.parametrize(
    ("counts", "separable"),
    [
        ([("a", "b", 10, 0, 1)], False),
        ([("a", "b", 10, 1, 0)], True),
        ([("a", "b", 10, 1, 1)], False),
        ([("a", "b", 0, 9, 0)], True),
        ([("a", "b", 5, 0, 0), ("b", "c", 5, 0, 0), ("a", "c", 0, 3, 0)], False),
        ([("a", "b", 5, 0, 0), ("b", "c", 0, 3, 0), ("a", "c", 0, 3, 0)], True),
    ],
)
def test_the_maximum_is_known_to_be_infinite_exactly_where_it_is(counts, separable):
    names = sorted({name for count in counts for name in count[:2]})
    choices = Choices.of(pairs(counts), names)
    own = np.bincount(choices.chosen, minlength=choices.there.size).astype(float)
    assert fit(choices, own[None]).separable[0] == separable

    def climb(scale):
        start = np.zeros(choices.design.shape[2])
        bounds = [(-scale, scale)] * len(start)
        return -optimize.minimize(
            lambda x: -_likelihood(choices, own[None], x[None])[0], start, bounds=bounds, tol=1e-13
        ).fun

    assert (climb(24) > climb(12) + 1e-7) == separable


def test_points_that_never_met_are_named():
    with pytest.raises(ValueError, match="no vote compares c, d with a"):
        Choices.of(pairs([("a", "b", 5, 0, 4), ("c", "d", 3, 0, 3)]), "abcd")
