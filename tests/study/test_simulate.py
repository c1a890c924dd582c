"""Simulated raters: what they do is what was asked for, and they are never taken for people."""

import json
from collections import Counter

import numpy as np
import pytest

from sfumato.runs import read_json
from sfumato.study import voting
from sfumato.study.analysis import is_simulated
from sfumato.study.export import vote_rows
from sfumato.study.simulate import Preference, simulate_votes
from sfumato.study.store import Store
from tests.report.synthetic import make_run
from tests.study.bed import ALL_KINDS, POINTS, make_study

WORTH = {"base": 0.0, "tuned": 1.0, "aig": 1.5, "kl": -1.0}


def votes_of(study, raters, preference, **options):
    store = Store(study)
    try:
        simulate_votes(store, raters, preference, **options)
        with store.read() as connection:
            return vote_rows(connection, study)
    finally:
        store.close()


def test_all_kinds_are_answered_through_the_store_and_marked_as_simulated(tmp_path):
    study = make_study(tmp_path, votes_per_item=2)
    rows = votes_of(study, 20, Preference(values=WORTH, careless=0))
    assert {each["kind"] for each in rows} == {kind["kind"] for kind in ALL_KINDS}
    assert all(is_simulated(each["rater"]) for each in rows)
    real = Counter(each["item"] for each in rows if each["passed"] is None)
    assert set(real.values()) == {2} and len(real) == len(study.items) - len(study.checks)
    checks = [each["passed"] for each in rows if each["passed"] is not None]
    assert checks and all(checks) and not any(each["excluded"] for each in rows)


def test_shares_are_those_that_the_file_says_were_true(tmp_path):
    questions = [{"kind": "pair", "repeats": 4}, {"kind": "variety", "set_size": 2, "ties": False, "repeats": 2}]
    study = make_study(tmp_path, questions=questions, votes_per_item=10, items_per_rater=None, check_every=None)
    preference = Preference(values=WORTH, careless=0, taste=0.5, first_place=0.7)
    rows = votes_of(study, 10, preference)
    told = read_json(study.path / "simulation.json")
    assert told["preference"]["values"] == WORTH and told["raters"] == 10 and len(told["expected"]) == 12
    for truth in told["expected"]:
        own = [
            each
            for each in rows
            if each["question"] == truth["question"] and {truth["a"], truth["b"]} == set(each["points"])
        ]
        wins = [0.5 if each["answer"] is None else each["points"][each["answer"]] == truth["a"] for each in own]
        assert len(own) in (60, 120)
        assert np.mean(wins) == pytest.approx(truth["share"], abs=0.17)
    assert {each["answer"] is None for each in rows if each["kind"] == "variety"} == {False}


def test_the_best_is_chosen_and_ranked_and_rated_most(tmp_path):
    study = make_study(tmp_path, questions=ALL_KINDS[1:], votes_per_item=3, check_every=None)
    rows = votes_of(study, 20, Preference(values={**WORTH, "aig": 9.0}, careless=0))
    for kind in ("best_of", "rank"):
        firsts = [
            each["points"][each["answer"] if kind == "best_of" else each["answer"][0]]
            for each in rows
            if each["kind"] == kind and "aig" in each["points"]
        ]
        assert Counter(firsts).most_common(1)[0] == ("aig", pytest.approx(len(firsts), rel=0.1))
    rated = {
        point: [each["answer"] for each in rows if each["kind"] == "rating" and each["points"] == [point]]
        for point in POINTS
    }
    assert min(rated["aig"]) == 5 and np.mean(rated["kl"]) < np.mean(rated["tuned"]) < 5


def test_careless_raters_are_those_that_the_rules_leave_out(tmp_path):
    study = make_study(tmp_path, questions=[{"kind": "pair", "repeats": 2}], votes_per_item=12, items_per_rater=None)
    rows = votes_of(study, 12, Preference(values=WORTH, careless=0.4))
    reasons = {each["rater"]: each["excluded"] for each in rows}
    assert len(reasons) == 12 and 2 <= sum(map(bool, reasons.values())) <= 8


def test_pictures_and_sets_are_liked_by_what_the_run_measured(tmp_path):
    run = make_run(tmp_path / "run", ["fruit", "a bird"], [1, 2, 3, 4])
    points = {name: {"run": str(run.path)} for name in ("base", "tuned")}
    questions = [{"kind": "pair", "repeats": 2}, {"kind": "variety", "set_size": 2}]
    study = make_study(tmp_path, points=points, questions=questions, votes_per_item=12, check_every=None)
    rows = votes_of(study, 12, Preference(measure="reward", careless=0))
    liked = [each["points"][each["answer"]] for each in rows if each["kind"] == "pair" and each["answer"] is not None]
    varied = [
        each["points"][each["answer"]] for each in rows if each["kind"] == "variety" and each["answer"] is not None
    ]
    assert Counter(liked).most_common(1)[0][0] == "tuned" and Counter(varied).most_common(1)[0][0] == "base"
    expected = {
        each["question"]: each["share"] for each in json.loads((study.path / "simulation.json").read_text())["expected"]
    }
    assert expected["pair"] < 0.2 and expected["variety"] > 0.8
    with pytest.raises(ValueError, match=r"has no 'beauty' in its run \(there are reward, gold"):
        votes_of(study, 1, Preference(measure="beauty"))


def test_they_do_not_mix_with_people_and_name_what_is_missing(tmp_path):
    study = make_study(tmp_path)
    with pytest.raises(ValueError, match=r"has no 'gold' in its run \(it has none"):
        votes_of(study, 1, Preference())
    with pytest.raises(ValueError, match="of all operating points: aig, kl is missing"):
        votes_of(study, 1, Preference(values={"base": 0.0, "tuned": 1.0}))
    store = Store(study)
    store.write(lambda connection: voting.join(connection, "0" * 32))
    with pytest.raises(ValueError, match="people take part"):
        simulate_votes(store, 1, Preference(values=WORTH))
    store.close()
