"""Raters, prompts and places on the page: found where they were put."""

import numpy as np
import pytest

from sfumato.study.analysis.effects import describe_raters, position_bias, variance_shares
from sfumato.study.analysis.votes import Clusters, Duels
from tests.study.analysis.votes_of import row


def test_shares_of_the_variance_are_those_that_were_put_in():
    rng = np.random.default_rng(1)
    rater, prompt = (part.ravel() for part in np.meshgrid(np.arange(300), np.arange(60)))
    values = 0.5 * rng.standard_normal(300)[rater] + 1.0 * rng.standard_normal(60)[prompt]
    values = 3.0 + values + np.sqrt(0.75) * rng.standard_normal(len(rater))
    zeros = np.zeros(len(values), dtype=np.int64)
    found = variance_shares(Duels(("a", "b"), zeros, zeros + 1, values, Clusters(rater, prompt)))
    assert found["rater"] == pytest.approx(0.25 / 2, abs=0.03)
    assert found["prompt"] == pytest.approx(1 / 2, abs=0.1)
    assert sum(found.values()) == pytest.approx(1)


def test_votes_that_share_nothing_have_no_shares():
    assert variance_shares(Duels.of([row("ab", n % 2, n) for n in range(8)], "ab")) is None


def test_a_pressed_side_is_found_in_the_study_and_in_the_rater():
    rng = np.random.default_rng(0)
    fair = [(f"fair {rater}", int(place)) for rater in range(20) for place in rng.permutation(20) % 2]
    pressed = [("presses", 0)] * 20
    rows = [
        row("ab", place, number, rater=rater, prompt=f"{number % 9}", place=place)
        for number, (rater, place) in enumerate(fair + pressed)
    ]
    table = {each["rater"]: each for each in describe_raters(rows)}
    assert table["presses"]["first_place"] == 1 and table["presses"]["p_side_adjusted"] < 1e-3
    assert sum(each["p_side_adjusted"] < 0.05 for each in table.values()) == 1
    honest = [each for each in rows if each["rater"] != "presses"]
    assert position_bias(honest)[0]["p_adjusted"] > 0.05
    biased = [{**each, "place": int(rng.random() < 0.3)} for each in honest]
    assert position_bias(biased)[0]["p_adjusted"] < 1e-3 and position_bias(biased)[0]["fair"] == 0.5


def test_each_of_several_places_has_a_fair_share():
    rows = [row("abc", 0, n, place=n % 3, kind="best_of") for n in range(60)]
    found = position_bias(rows)
    assert [each["place"] for each in found] == [0, 1, 2]
    assert all(each["share"] == each["fair"] == pytest.approx(1 / 3) and each["p"] > 0.9 for each in found)
    assert position_bias([row("ab", None)]) == []


def test_raters_are_described():
    rows = [row("ab", answer, n, rater=f"r{n}", item=0) for n, answer in enumerate([0, 0, 0, 1])]
    rows += [row("ab", 0, rater="r3", passed=False, seconds=1.0, excluded=["failed"])]
    rows[3]["excluded"] = ["failed"]
    last = describe_raters(rows)[-1]
    assert last["votes"] == 2 and last["checks"] == last["failed"] == 1 and last["seconds"] == 2.0
    assert last["agreement"] == 0 and last["excluded"] == ["failed"]
    assert describe_raters(rows)[0]["agreement"] == 1
