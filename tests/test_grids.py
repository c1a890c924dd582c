"""Clocks from plain numbers, by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfumato.grids import CLOCKS, Grid, Levels

FALLING = Levels((8.0, 6.0, 2.0, 1.0), noisiest=10.0, cleanest=0.0)
RISING = Levels((-7.0, -3.0, 3.0, 12.0), noisiest=-5.0, cleanest=5.0)


def test_progress_runs_along_the_levels_of_training_and_ends_at_1():
    assert FALLING.progress() == pytest.approx([0.2, 0.4, 0.8, 1.0])
    assert RISING.progress() == pytest.approx([0.0, 0.2, 0.8, 1.0])
    assert Levels((8.0, 12.0, -1.0, 5.0), 10.0, 0.0).progress() == pytest.approx([0.2, 0.0, 1.0, 1.0])


def test_a_single_level_is_the_last_whatever_it_is():
    assert Levels((10.0,), 10.0, 0.0).progress() == [1.0]
    assert Levels((3.0,), 3.0, 3.0).progress() == [1.0]
    grid = Grid(1, {"sigma": Levels((10.0,), 10.0, 0.0)})
    assert [grid.progress(clock) for clock in ("index", "nemo", "sigma")] == [[1.0], [0.0], [1.0]]


@pytest.mark.parametrize("count", [2, 3, 50])
def test_clocks_by_number(count):
    index, nemo = Grid(count, {}).progress("index"), Grid(count, {}).progress("nemo")
    assert (index[0], index[-1], len(index)) == (0.0, 1.0, count)
    assert nemo == pytest.approx([u * (count - 1) / count for u in index])


@given(
    values=st.lists(st.floats(-20, 20), min_size=1, max_size=8),
    ends=st.tuples(st.floats(-10, 10), st.floats(-10, 10)).filter(lambda ends: abs(ends[0] - ends[1]) > 1e-3),
)
def test_physical_clocks_stay_within_0_and_1_and_follow_the_levels(values, ends):
    noisiest, cleanest = ends
    u = Levels(tuple(values), noisiest, cleanest).progress()
    assert len(u) == len(values) and u[-1] == 1.0 and all(0 <= x <= 1 for x in u)
    for value, x in zip(values[:-1], u, strict=False):
        if 0 < x < 1:
            assert noisiest + x * (cleanest - noisiest) == pytest.approx(value, abs=1e-9)
        else:
            beyond = cleanest if x else noisiest
            assert abs(value - beyond) < 1e-9 or (value > beyond) == (beyond == max(ends))


def test_a_run_that_begins_later_keeps_the_physical_clocks_and_starts_the_others_anew():
    grid = Grid(4, {"timestep": FALLING, "logsnr": RISING})
    later = grid.since(2)
    assert later.progress("index") == [0.0, 1.0] and later.progress("nemo") == [0.0, 0.5]
    for clock in ("timestep", "logsnr"):
        assert later.progress(clock) == grid.progress(clock)[2:]
    assert grid.since(0) == grid


def test_a_clock_of_which_the_scheduler_tells_nothing_is_refused():
    for clock in CLOCKS[2:]:
        with pytest.raises(ValueError, match=f"does not tell the {clock} of its steps: use the clock 'index'"):
            Grid(3, {}).progress(clock)
