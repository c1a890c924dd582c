"""Sign flips: exact where all are tried, right for many quantities at once."""

from itertools import product

import numpy as np
import pytest

from sfumato.diagnosis.significance import Quantity, changes

RANDOM = np.random.default_rng(0)


def quantity(difference, again=None, unit=1.0):
    base = RANDOM.normal(size=len(difference))
    return Quantity(base, base + difference, base + (0 if again is None else again), unit=unit)


def test_one_quantity_has_the_exact_p_value_of_all_flips():
    d = RANDOM.normal(0.5, 1, size=8)
    flipped = [abs(np.dot(signs, d)) for signs in product((1, -1), repeat=8)]
    expected = np.mean([value >= abs(d.sum()) - 1e-9 for value in flipped])
    found = changes({"a": quantity(d)})["a"]
    assert found.p == pytest.approx(expected)
    assert found.change == pytest.approx(d.mean()) and found.low < found.change < found.high


def test_more_quantities_cost_and_repeated_ones_do_not():
    d = RANDOM.normal(0.8, 1, size=10)
    alone = changes({"a": quantity(d)})["a"].p
    assert changes({"a": quantity(d), "b": quantity(3 * d)})["a"].p == pytest.approx(alone)
    crowd = {str(i): quantity(RANDOM.normal(size=10)) for i in range(20)}
    assert changes({"a": quantity(d), **crowd})["a"].p > alone


@pytest.mark.parametrize("m", [10, 16])
def test_a_family_without_change_is_wrong_in_one_case_of_twenty(m):
    wrong = 0
    for _ in range(100):
        family = {str(i): quantity(RANDOM.normal(size=m)) for i in range(10)}
        wrong += any(change.p <= 0.05 for change in changes(family).values())
    assert wrong <= 12  # 5 are expected; 13 or more have a probability of 0.2 %


def test_units_noise_and_levels():
    d = np.full(12, -2.0) + RANDOM.normal(0, 0.1, size=12)
    again = RANDOM.normal(0, 1, size=12)
    found = changes({"a": quantity(d, again, unit=4)})["a"]
    assert found.change == pytest.approx(d.mean() / 4) and found.established and found.fell() and not found.rose()
    assert found.at_least(-0.4) and not found.at_least(-0.6) and not found.at_least(0.4)
    assert 0.05 < found.noise < 0.4
    loud = changes({"a": quantity(d, 20 * again)})["a"]
    assert loud.p <= 0.05 and not loud.established  # the base itself differs by as much


def test_no_difference_at_all_is_no_change():
    found = changes({"a": quantity(np.zeros(8)), "b": quantity(np.full(8, 1.0))})
    assert found["a"].p == 1 and found["a"].change == 0 and not found["a"].established
    assert found["b"].established
    assert changes({}) == {}
