"""Guidance schedules against their closed forms."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfumato.grids import CLOCKS, Grid
from sfumato.schedules import FORMULAS, Schedule, schedule

unit = st.floats(0, 1)
positive = st.floats(0.01, 20)
finite = st.floats(-5, 5)


@given(u=unit, p=positive, f=unit, w=finite, cap=finite)
def test_closed_forms(u, p, f, w, cap):
    assert schedule("base")(u) == 0
    assert schedule("tuned")(u) == 1
    assert schedule("linear")(u) == u
    assert schedule("power", p=p)(u) == u**p
    assert schedule("step", f=f)(u) == (1 if u >= f else 0)
    assert schedule("constant", w=w)(u) == w
    assert schedule(lambda x: 1 - x * x)(u) == 1 - u * u
    assert schedule("linear", cap=cap)(u) == cap * u
    assert schedule(math.sin, cap=cap)(u) == cap * math.sin(u)
    assert schedule("falling", p=p)(u) == (1 - u) ** p
    assert schedule("cosine")(u) == pytest.approx(math.sin(math.pi * u / 2) ** 2)
    assert schedule("autoguidance", w=w)(u) == 1 + w
    logistic = [1 / (1 + math.exp(-p * (x - f))) for x in (0, u, 1)]
    expected = (logistic[1] - logistic[0]) / (logistic[2] - logistic[0])
    assert schedule("sigmoid", k=p, m=f)(u) == pytest.approx(expected, abs=1e-9)


def test_a_steep_sigmoid_is_a_step():
    steep = schedule("sigmoid", k=1e6, m=0.6)
    assert [steep(u) for u in (0, 0.59, 0.61, 1)] == pytest.approx([0, 0, 1, 1])


@given(left=finite, middle=finite, right=finite, place=st.floats(0.01, 0.99), u=unit)
def test_a_table_is_interpolated_as_numpy_does(left, middle, right, place, u):
    points = [(0, left), (place, middle), (1, right)]
    expected = np.interp(u, *zip(*points, strict=True))
    assert schedule("table", points=points)(u) == pytest.approx(expected, abs=1e-9)


def test_weights_of_a_run():
    five = Grid(5, {})
    assert schedule("power", p=2).weights(five) == [0, 1 / 16, 1 / 4, 9 / 16, 1]
    assert schedule("linear", clock="nemo", cap=2).weights(five) == pytest.approx([0, 0.4, 0.8, 1.2, 1.6])
    assert schedule("power", p=2).weights(Grid(1, {})) == [1]
    assert schedule("power", p=2, clock="nemo").weights(Grid(1, {})) == [0]
    assert schedule("linear", cap=0.5).times(0.5)(1.0) == 0.25
    with pytest.raises(ValueError, match="does not tell the sigma of its steps"):
        schedule("linear", clock="sigma").weights(five)


@given(p=positive)
def test_power_runs_from_base_to_tuned_and_1_is_linear(p):
    power = schedule("power", p=p)
    assert (power(0.0), power(1.0)) == (0.0, 1.0)
    assert all(power(i / 10) <= power((i + 1) / 10) for i in range(10))
    assert schedule("power", p=1)(p / 20) == schedule("linear")(p / 20)


@given(
    name=st.sampled_from(sorted(FORMULAS)), value=st.floats(0.1, 3), cap=finite, clock=st.sampled_from(CLOCKS), u=unit
)
def test_json_round_trip(name, value, cap, clock, u):
    points = [[0, value], [0.3, -value], [1, 2 * value]]
    parameters = {key: points if key == "points" else value for key in FORMULAS[name][1]}
    made = schedule(name, cap=cap, clock=clock, **parameters)
    again = schedule(**json.loads(json.dumps(made.to_dict())))
    assert again == made
    assert hash(again) == hash(made)
    assert again(u) == made(u)


def test_a_schedule_stays_as_it_is():
    made = schedule("power", p=3, cap=0.5)
    assert schedule(made) is made
    assert made == Schedule("power", (("p", 3),), 0.5)
    for change in ({"p": 2}, {"cap": 0.5}, {"clock": "nemo"}):
        with pytest.raises(ValueError, match="already carries"):
            schedule(made, **change)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"schedule": "sqare"}, "unknown schedule 'sqare': choose one of base, tuned"),
        ({"schedule": 2.0}, "a schedule is a name or a callable"),
        ({"schedule": "linear", "clock": "time"}, "unknown clock 'time': choose one of index, nemo"),
        ({"schedule": "power"}, r"\(g = u\^p\) takes p; given: none"),
        ({"schedule": "power", "q": 2}, "takes p; given: q"),
        ({"schedule": "power", "p": 2, "f": 0.5}, "takes p; given: f, p"),
        ({"schedule": "linear", "p": 2}, "takes no parameters; given: p"),
        ({"schedule": "power", "p": 0}, "p > 0"),
        ({"schedule": "power", "p": -1}, "p > 0"),
        ({"schedule": "power", "p": math.nan}, "must be a finite number"),
        ({"schedule": "constant", "w": math.inf}, "must be a finite number"),
        ({"schedule": "power", "p": "two"}, "must be a finite number"),
        ({"schedule": "sigmoid", "k": 0, "m": 0.5}, "k > 0"),
        ({"schedule": "table", "points": 3}, "pairs"),
        ({"schedule": "table", "points": [[0, 1, 2], [1, 1]]}, "pairs"),
        ({"schedule": "table", "points": [[0, 0]]}, "rising from 0 to 1"),
        ({"schedule": "table", "points": [[0, 0], [0.5, 1]]}, "rising from 0 to 1"),
        ({"schedule": "table", "points": [[0, 0], [0.5, 1], [0.5, 2], [1, 1]]}, "rising from 0 to 1"),
        ({"schedule": "table", "points": [[0, 0], [1, math.nan]]}, "finite weights"),
        ({"schedule": "linear", "cap": math.nan}, "must be finite"),
        ({"schedule": math.sin, "cap": math.inf}, "must be finite"),
        ({"schedule": math.sin, "p": 2}, "takes no parameters"),
    ],
)
def test_wrong_schedules_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        schedule(**arguments)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_callable_must_give_finite_numbers(value):
    with pytest.raises(ValueError, match=r"gave .* at u = 0.5"):
        schedule(lambda u: value)(0.5)


def test_a_callable_has_no_description():
    with pytest.raises(ValueError, match="cannot be written to JSON"):
        schedule(math.sin).to_dict()
