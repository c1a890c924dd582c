"""How well measures foresee people, where it is known how well they do."""

import numpy as np
import pytest
from scipy import stats

from sfumato.study.analysis.automatic import Automatic
from sfumato.study.analysis.predict import PEOPLE, predictions, signed_ranks
from tests.study.analysis.votes_of import row


def world(noise=0.0, raters=5):
    """Votes on 40 items of 10 prompts by raters who prefer the picture with the higher "good"."""
    rng = np.random.default_rng(0)
    rows, pictures = [], {}
    for item in range(40):
        good, other = rng.standard_normal((2, 2))
        for place in (0, 1):
            pictures[f"images/{item}-{place}"] = {"good": good[place], "bad": -good[place], "other": other[place]}
        for rater in range(raters):
            answer = int(good[1] + noise * rng.standard_normal() > good[0])
            rows.append(row("ab", answer, item, rater=rater, prompt=f"{item % 10}"))
    return rows, Automatic(pictures=pictures)


def table(rows, automatic):
    return {each["measure"]: each for each in predictions(rows, automatic)}


def test_the_measure_that_people_go_by_is_always_right_and_its_opposite_never():
    found = table(*world())
    assert found["good"]["share"] == 1 and found["bad"]["share"] == 0 and found[PEOPLE]["share"] == 1
    assert (
        found["good"]["correlation"] == pytest.approx(-found["bad"]["correlation"])
        and found["good"]["correlation"] > 0.8
    )
    assert found["other"]["clustered_low"] < 0.5 < found["other"]["clustered_high"]
    assert found["other"]["correlation_low"] < 0 < found["other"]["correlation_high"]
    assert [each["measure"] for each in predictions(*world())] == ["good", "other", "bad", PEOPLE]


def test_noise_makes_people_harder_to_foresee_for_measures_and_for_people():
    found = table(*world(noise=1.5))
    assert 0.6 < found[PEOPLE]["share"] < found["good"]["share"] < 0.95
    assert found["good"]["correlation_low"] < found["good"]["correlation"] < found["good"]["correlation_high"] < 1


def test_the_correlation_is_spearmans_both_ways_round():
    x, y = np.random.default_rng(0).integers(-4, 5, (2, 30)).astype(float)
    a, b = signed_ranks(x), signed_ranks(y)
    both = stats.spearmanr(np.concatenate([x, -x]), np.concatenate([y, -y])).statistic
    assert (a @ b) / np.sqrt((a @ a) * (b @ b)) == pytest.approx(both)


def test_sets_are_foreseen_by_the_diversity_of_point_and_prompt():
    rows = [row("ab", n % 2, n, kind="variety", prompt=f"{n % 4}", rater=n % 3) for n in range(24)]
    sets = {(point, f"{n}"): {"vendi": 2.0 + (point == "ab"[n % 2])} for point in "ab" for n in range(4)}
    found = table(rows, Automatic(sets=sets))
    assert found["vendi"]["share"] == 1 and found["vendi"]["votes"] == 24


def test_ratings_are_compared_within_a_prompt():
    rows = [
        row("a", 1 + place + 2 * prompt, rater=rater, prompt=f"{prompt}", kind="rating", images=[[f"{prompt} {place}"]])
        for prompt in range(5)
        for place in range(3)
        for rater in range(2)
    ]
    pictures = {
        f"{prompt} {place}": {"up": float(place), "down": -float(place)} for prompt in range(5) for place in range(3)
    }
    found = table(rows, Automatic(pictures=pictures))
    assert found["up"]["share"] == 1 and found["down"]["share"] == 0 and found["up"]["votes"] == 15
    assert found["up"]["correlation"] > 0.9


def test_without_measures_there_is_only_the_other_rater():
    rows, _ = world()
    assert [each["measure"] for each in predictions(rows, Automatic())] == [PEOPLE]
