"""Krippendorff's alpha: the example of his paper, his package, and cases that can be done in the head."""

import json
from pathlib import Path

import numpy as np
import pytest

from sfumato.study.analysis.agreement import agreement, krippendorff
from tests.study.analysis.votes_of import row

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "study.json").read_text())["alpha"]
PAPER = ["1 2 3 3 2 1 4 1 2 . . .", "1 2 3 3 2 2 4 1 2 5 . 3", ". 3 3 3 2 3 4 2 2 5 1 .", "1 2 3 3 2 4 4 1 2 5 1 ."]


def columns(table):
    """(unit, value) of a table with a row for each rater, None where nothing was said."""
    found = [(unit, value) for own in table for unit, value in enumerate(own) if value is not None]
    return np.array(found).T


def test_the_example_of_krippendorff_2011():
    table = [[None if cell == "." else int(cell) - 1 for cell in line.split()] for line in PAPER]
    for scale, expected in (("nominal", 0.743), ("ordinal", 0.815)):
        found = krippendorff(*columns(table), scale)
        assert round(found.alpha, 3) == expected and found.units == 11
        assert found.low < found.alpha < found.high


@pytest.mark.parametrize("scale", ["nominal", "ordinal"])
def test_alpha_is_that_of_the_package_krippendorff(scale):
    assert krippendorff(*columns(GOLDEN["data"]), scale).alpha == pytest.approx(GOLDEN[scale], abs=1e-9)


def test_full_agreement_is_one_and_nothing_to_compare_is_none():
    rows = [row("ab", item % 2, rater=rater, item=item) for rater in range(3) for item in range(6)]
    assert agreement(rows, "nominal").alpha == 1
    assert agreement(rows[:6], "nominal").alpha is None
    assert agreement([each for each in rows if each["answer"] == 0], "nominal").alpha is None


def test_ordinal_alpha_forgives_a_tie_beside_a_choice():
    near = [
        row("ab", answer, rater=rater, item=item)
        for item, answers in enumerate([(0, None), (1, None), (0, 0), (1, 1)])
        for rater, answer in enumerate(answers)
    ]
    assert agreement(near, "ordinal").alpha > agreement(near, "nominal").alpha


def test_rankings_agree_by_the_ranks_of_every_option():
    answers = [[0, 1, 2], [0, 2, 1]]
    rows = [row("abc", answer, rater=rater, item=0, kind="rank") for rater, answer in enumerate(answers)]
    assert agreement(rows, "ordinal").units == 3
    ranks = krippendorff(np.array([0, 1, 2, 0, 1, 2]), np.array([0, 1, 2, 0, 2, 1]), "ordinal")
    assert agreement(rows, "ordinal").alpha == pytest.approx(ranks.alpha)
