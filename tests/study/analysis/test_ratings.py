"""Mean ratings: against the t-test where votes are independent."""

import numpy as np
import pytest
from scipy import stats

from sfumato.study.analysis.ratings import mean_ratings
from tests.study.analysis.votes_of import row


def test_independent_ratings_have_students_interval():
    values = [3, 4, 2, 5, 4, 4, 1]
    (found,), _ = mean_ratings([row("a", value, n, kind="rating") for n, value in enumerate(values)], "a")
    low, high = stats.t.interval(0.95, 6, np.mean(values), stats.sem(values))
    assert (found["mean"], found["low"], found["high"]) == pytest.approx((np.mean(values), low, high))


def test_raters_who_see_both_points_are_compared_with_themselves():
    rng = np.random.default_rng(0)
    liking = rng.integers(0, 5, size=30)
    rows = [
        row([point], int(own + add), rater=rater, prompt=f"{rater}", kind="rating")
        for rater, own in enumerate(liking)
        for point, add in (("a", 1 + rater % 2), ("b", 0))
    ]
    means, (difference,) = mean_ratings(rows, "ab")
    paired = stats.ttest_1samp([1 + rater % 2 for rater in range(30)], 0)
    assert difference["mean"] == pytest.approx(1.5) == means[0]["mean"] - means[1]["mean"]
    assert difference["p"] == pytest.approx(paired.pvalue, rel=1e-6)
    assert difference["high"] - difference["low"] < means[0]["high"] - means[0]["low"]


def test_no_variance_and_one_rater_give_no_test():
    rows = [row([point], 3, n, kind="rating") for n, point in enumerate("aabb")]
    assert mean_ratings(rows, "ab")[1][0]["p"] is None
    alone = [{**each, "rater": 0, "answer": n} for n, each in enumerate(rows)]
    assert mean_ratings(alone, "ab")[0][0]["low"] is None
