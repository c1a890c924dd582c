"""Guidance schedules against their closed forms."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfumato.schedules import CLOCKS, FORMULAS, Schedule, schedule

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


@given(p=positive)
def test_power_runs_from_base_to_tuned_and_1_is_linear(p):
    power = schedule("power", p=p)
    assert (power(0.0), power(1.0)) == (0.0, 1.0)
    assert all(power(i / 10) <= power((i + 1) / 10) for i in range(10))
    assert schedule("power", p=1)(p / 20) == schedule("linear")(p / 20)


@given(count=st.integers(2, 1000), data=st.data())
def test_clocks(count, data):
    index = data.draw(st.integers(0, count - 1))
    assert schedule("linear").at(index, count) == index / (count - 1)
    assert schedule("linear", clock="nemo").at(index, count) == index / count
    assert (schedule("linear").at(0, count), schedule("linear").at(count - 1, count)) == (0, 1)
    assert schedule("linear", clock="nemo").at(count - 1, count) < 1


def test_a_single_step_is_the_last_one_by_our_clock_and_the_first_by_nemos():
    assert schedule("power", p=2).at(0, 1) == 1
    assert schedule("power", p=2, clock="nemo").at(0, 1) == 0


@given(
    name=st.sampled_from(sorted(FORMULAS)),
    value=st.floats(0.1, 3),
    cap=finite,
    clock=st.sampled_from(sorted(CLOCKS)),
    u=unit,
)
def test_json_round_trip(name, value, cap, clock, u):
    made = schedule(name, cap=cap, clock=clock, **dict.fromkeys(FORMULAS[name][1], value))
    again = schedule(**json.loads(json.dumps(made.to_dict())))
    assert again == made
    assert hash(again) == hash(made)
    assert again(u) == made(u)
    assert again.at(3, 7) == made.at(3, 7)


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
        ({"schedule": "power", "p": math.nan}, "must be finite"),
        ({"schedule": "constant", "w": math.inf}, "must be finite"),
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
