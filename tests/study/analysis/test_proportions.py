"""Win rates: against statsmodels and scipy, and by drawing."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sfumato.study.analysis.clusters import two_way
from sfumato.study.analysis.proportions import NORMAL, Proportion, binomial, detectable, holm, wilson
from sfumato.study.analysis.votes import Clusters

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "study.json").read_text())


def alone(count, prompts=None):
    """Clusters of votes by raters of their own."""
    return Clusters(np.arange(count), np.arange(count) % (prompts or count))


@pytest.mark.parametrize(("wins", "count", "low", "high"), GOLDEN["wilson"])
def test_wilson_is_that_of_statsmodels(wins, count, low, high):
    found = wilson(wins / count, count, NORMAL.inv_cdf(0.975))
    assert found == pytest.approx((low, high), abs=1e-9)
    shares = np.repeat([1.0, 0.0], [wins, count - wins])
    row = Proportion.of(shares, alone(count)).row()
    assert (row["low"], row["high"]) == pytest.approx((low, high), abs=1e-9)


def test_holm_is_that_of_statsmodels():
    assert holm(GOLDEN["holm"]["p"]) == pytest.approx(GOLDEN["holm"]["adjusted"], abs=1e-12)
    assert holm([0.01, None, 0.04]) == [0.02, None, 0.04]


@given(st.integers(1, 3000), st.floats(0, 1))
def test_the_exact_test_is_that_of_scipy(count, share):
    """Far out, where ours counts with integers, scipy's tails are 0 too soon."""
    successes = round(share * count)
    assert binomial(successes, count) == pytest.approx(stats.binomtest(successes, count).pvalue, rel=1e-9, abs=1e-100)


def test_the_two_way_variance_is_raters_plus_prompts_less_cells():
    rng = np.random.default_rng(0)
    values, rater, prompt = rng.standard_normal(60), rng.integers(5, size=60), rng.integers(4, size=60)
    found = two_way(values[:, None], Clusters(rater, prompt))
    by_rater = sum(values[rater == r].sum() ** 2 for r in range(5))
    by_prompt = sum(values[prompt == p].sum() ** 2 for p in range(4))
    cells = [values[(rater == r) & (prompt == p)] for r in range(5) for p in range(4)]
    count = sum(len(cell) > 0 for cell in cells)
    cells = sum(cell.sum() ** 2 for cell in cells) * count / (count - 1)
    assert found.variance[0] == pytest.approx(max(by_rater * 5 / 4 + by_prompt * 4 / 3 - cells, cells))
    assert found.freedom == 3


def test_one_rater_says_nothing_of_others_and_one_prompt_only_of_itself():
    shares = np.array([1.0, 0.0, 1.0, 1.0])
    lonely = Proportion.of(shares, Clusters(np.zeros(4, int), np.arange(4)))
    assert lonely.clustered is None and lonely.p is None
    assert Proportion.of(shares, Clusters(np.arange(4), np.zeros(4, int))).freedom == 3


def test_votes_of_one_opinion_are_worth_one_vote_each_rater():
    shares = np.repeat([1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 0.0, 1.0], 10)
    found = Proportion.of(shares, Clusters(np.repeat(np.arange(8), 10), np.arange(80)))
    assert found.worth == pytest.approx(7)
    assert found.clustered[0] < found.low and found.high < found.clustered[1]


@pytest.mark.parametrize("count", range(1, 30))
def test_the_interval_holds_the_share(count):
    for share in (0.0, 0.5, 1.0):
        low, high = wilson(share, count, 1.96)
        assert 0 <= low <= share <= high <= 1


def test_the_interval_holds_one_half_where_the_test_does_not_reject():
    for wins in range(31):
        found = Proportion.of(np.repeat([1.0, 0.0], [wins, 30 - wins]), alone(30))
        assert (found.p < 0.05) == (not found.clustered[0] <= 0.5 <= found.clustered[1]), wins


def test_what_is_detectable_is_detected_as_often_as_it_says():
    votes, draws = 150, 2000
    share = detectable(votes, votes - 1)
    assert 0.6 < share < 0.63
    wins = np.random.default_rng(0).binomial(votes, share, draws)
    critical = stats.t.ppf(0.975, votes - 1)
    found = np.abs(wins / votes - 0.5) * 2 * votes**0.5 > critical
    assert found.mean() == pytest.approx(0.8, abs=0.04)
    assert detectable(votes, votes - 1, tests=10) > share
    assert detectable(3, 2) is None and detectable(100, 0) is None


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=2, max_size=40))
def test_twice_the_votes_and_raters_are_surer(shares):
    shares = np.array(shares)
    once, twice = (Proportion.of(np.tile(shares, n), alone(n * len(shares))) for n in (1, 2))
    assert twice.high - twice.low < once.high - once.low
    assert twice.clustered[1] - twice.clustered[0] < once.clustered[1] - once.clustered[0]
    assert 0 <= twice.low <= twice.share <= twice.high <= 1
