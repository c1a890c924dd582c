import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.frontier import hypervolume, pareto_front
from sfumato.frontier.pareto import hypervolumes

COARSE = st.integers(-2, 3).map(float)  # many ties and duplicates
POINTS = st.lists(st.tuples(COARSE, COARSE), max_size=12)


def dominates(a: tuple[float, float], b: tuple[float, float]) -> bool:
    return a[0] >= b[0] and a[1] >= b[1] and a != b


@settings(deadline=None)
@given(POINTS)
def test_front_is_what_nothing_dominates(points: list[tuple[float, float]]) -> None:
    expected = [i for i, point in enumerate(points) if not any(dominates(other, point) for other in points)]
    assert pareto_front(points) == sorted(expected, key=lambda i: (points[i][0], i))


def test_front_by_hand() -> None:
    assert pareto_front([(0, 1), (1, 0), (0.5, 0.6), (0.4, 0.5), (0, 1), (0, 0.9), (1, -1)]) == [0, 4, 2, 1]
    assert pareto_front(torch.tensor([[0.0, 1.0], [1.0, 2.0]])) == [1]
    assert pareto_front([]) == []


def test_hypervolume_by_hand() -> None:
    assert hypervolume([(2, 3)], (0, 1)) == 4
    assert hypervolume([(1, 3), (3, 1), (2, 2)], (0, 0)) == 3 + 2 + 1
    assert hypervolume([(1, 3), (3, 1), (1, 1), (1, 3)], (0, 0)) == 3 + 2
    assert hypervolume([(5, -1), (-1, 5), (0, 5), (5, 0)], (0, 0)) == 0
    assert hypervolume([], (0, 0)) == 0


@settings(deadline=None)
@given(POINTS, COARSE, COARSE)
def test_hypervolume_counts_the_dominated_cells(points: list[tuple[float, float]], x: float, y: float) -> None:
    centres = [(x + i + 0.5, y + j + 0.5) for i in range(6) for j in range(6)]
    cells = sum(any(px >= cx and py >= cy for px, py in points) for cx, cy in centres)
    assert hypervolume(points, (x, y)) == cells


@settings(deadline=None)
@given(POINTS, st.tuples(COARSE, COARSE), COARSE, COARSE)
def test_hypervolume_is_monotone(
    points: list[tuple[float, float]], extra: tuple[float, float], x: float, y: float
) -> None:
    before = hypervolume(points, (x, y))
    assert hypervolume([*points, extra], (x, y)) >= before
    assert hypervolume(points, (x - 1, y)) >= before
    assert hypervolume([points[i] for i in pareto_front(points)], (x, y)) == before
    assert hypervolume([(b, a) for a, b in points], (y, x)) == before


def test_hypervolume_of_many_sets_at_once() -> None:
    points = np.random.default_rng(0).normal(size=(4, 5, 7, 2))
    found = hypervolumes(points, (-0.5, 0.25))
    assert found.shape == (4, 5)
    for i in np.ndindex(4, 5):
        assert found[i] == pytest.approx(hypervolume(points[i], (-0.5, 0.25)))


@pytest.mark.parametrize("function", [pareto_front, lambda points: hypervolume(points, (0, 0))])
def test_refuses(function) -> None:
    with pytest.raises(ValueError, match=r"shape \(N, 2\), not \(2, 3\)"):
        function([(1, 2, 3), (1, 2, 3)])
    with pytest.raises(ValueError, match="row 1 is not"):
        function([(0, 1), (float("nan"), 1)])


def test_reference_must_be_one_point() -> None:
    with pytest.raises(ValueError, match=r"shape \(N, 2\)"):
        hypervolume([(0, 1)], (0, 0, 0))


def test_the_frontier_is_light_to_import() -> None:
    code = "import sys, sfumato.frontier; print(sorted({'torch', 'diffusers', 'peft', 'scipy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
