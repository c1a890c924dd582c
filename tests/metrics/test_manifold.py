import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from sfumato.metrics import PRDC, coverage, density, distances, prdc, precision, recall

GOLDEN = Path(__file__).parents[1] / "golden"


def line(*values: float) -> torch.Tensor:
    return torch.tensor(values)[:, None]


def test_by_hand() -> None:
    # Balls with k = 1: real [-1, 1], [0, 2], [1, 11]; fake [-2.5, -1.5], [-2, 5], [-3, -2].
    real, fake = line(0, 1, 6), line(-2, 1.5, -2.5)
    assert precision(real, fake, k=1) == pytest.approx(1 / 3)
    assert recall(real, fake, k=1) == pytest.approx(2 / 3)
    assert density(real, fake, k=1) == pytest.approx(2 / 3)
    assert coverage(real, fake, k=1) == pytest.approx(2 / 3)
    # With k = 2: real [-6, 6], [-4, 6], [0, 12]; fake [-5.5, 1.5], [-2.5, 5.5], [-6.5, 1.5].
    assert precision(real, fake, k=2) == 1
    assert recall(real, fake, k=2) == pytest.approx(2 / 3)
    assert density(real, fake, k=2) == pytest.approx((2 + 3 + 2) / 6)
    assert coverage(real, fake, k=2) == 1


def test_precision_and_recall_mirror_each_other() -> None:
    a, b = torch.randn(2, 30, 4, generator=torch.Generator().manual_seed(0))
    assert precision(a, b, k=2) == recall(b, a, k=2)


def test_balls_are_closed() -> None:
    real, fake = line(0, 1), line(2, -1, 2.5)  # both balls have radius 1: 2 and -1 lie exactly on a border
    assert precision(real, fake, k=1) == pytest.approx(2 / 3)
    assert density(real, fake, k=1) == pytest.approx(2 / 3)
    assert coverage(real, fake, k=1) == 1


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_a_set_collapsed_to_duplicates(offset: float) -> None:
    # Where radii are 0, open balls would hold nothing and even exact copies would count as lost.
    modes = torch.randn(3, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + offset
    real, collapsed = modes.repeat(5, 1), modes[:1].repeat(15, 1)
    for k in (1, 4):
        assert precision(real, collapsed, k) == 1
        assert recall(real, collapsed, k) == pytest.approx(1 / 3)
        assert coverage(real, collapsed, k) == pytest.approx(1 / 3)
        assert density(real, collapsed, k) == pytest.approx(5 / k)
        assert [measure(real, real, k) for measure in (precision, recall, coverage)] == [1, 1, 1]


def test_far_from_the_origin_nothing_cancels() -> None:
    # In float32, |x|² + |y|² - 2xy of points near 1e4 has an error of about 10; these are 1e-2 apart.
    real, fake = line(10_000, 10_000.0625, 10_000.125), line(10_000.03125, 10_000.5, 10_000.625)
    assert precision(real, fake, k=1) == pytest.approx(1 / 3)


@settings(max_examples=40, deadline=None)
@given(
    real=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=4, max_size=12),
    fake=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=4, max_size=12),
    k=st.integers(1, 3),
    block=st.integers(1, 40),
)
def test_definition_on_a_lattice_full_of_ties(real: list, fake: list, k: int, block: int) -> None:
    def radius(of: int, among: list) -> int:
        return sorted(squared(among[of], other) for i, other in enumerate(among) if i != of)[k - 1]

    def squared(a: tuple, b: tuple) -> int:
        return (a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2

    def inside(point: tuple, among: list) -> list[bool]:
        return [squared(point, centre) <= radius(i, among) for i, centre in enumerate(among)]

    x, y = torch.tensor(real), torch.tensor(fake)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distances, "BLOCK", block)
        found = [measure(x, y, k) for measure in (precision, recall, density, coverage)]
        together = prdc(x, y, k)
    assert list(together) == found
    assert found == pytest.approx(
        [
            sum(any(inside(f, real)) for f in fake) / len(fake),
            sum(any(inside(r, fake)) for r in real) / len(real),
            sum(sum(inside(f, real)) for f in fake) / len(fake) / k,
            sum(any(inside(f, real)[i] for f in fake) for i in range(len(real))) / len(real),
        ]
    )


def test_expected_coverage_of_an_equal_distribution() -> None:
    generator = torch.Generator().manual_seed(0)
    n, m, k = 12, 9, 3
    sets = [torch.randn(2, n, 5, generator=generator) for _ in range(400)]
    mean = sum(coverage(real, fake[:m], k) for real, fake in sets) / len(sets)
    expected = 1 - math.prod((n - i) / (n + m - i) for i in range(1, k + 1))
    assert mean == pytest.approx(expected, abs=0.02)


def test_agrees_with_prdc_where_there_are_no_ties() -> None:
    features = load_file(GOLDEN / "metrics.safetensors")
    measures = {"precision": precision, "recall": recall, "density": density, "coverage": coverage}
    for k, expected in json.loads((GOLDEN / "metrics.json").read_text())["prdc"].items():
        found = {name: measure(features["real"], features["fake"], int(k)) for name, measure in measures.items()}
        assert found == pytest.approx(expected, rel=1e-12), k
        assert prdc(features["real"], features["fake"], int(k)) == PRDC(**found)


def test_precision_and_recall_agree_with_torch_fidelity() -> None:
    features = load_file(GOLDEN / "metrics.safetensors")
    for k, expected in json.loads((GOLDEN / "metrics.json").read_text())["torch-fidelity"]["prc"].items():
        for name, measure in (("precision", precision), ("recall", recall)):
            assert measure(features["real"], features["fake"], int(k)) == pytest.approx(expected[name], rel=1e-6), k


@pytest.mark.parametrize("k", [0, 4, 5])
def test_k_must_leave_neighbours(k: int) -> None:
    few, many = torch.randn(4, 2), torch.randn(9, 2)
    for measure in (precision, density, coverage, prdc):
        with pytest.raises(ValueError, match=f"k={k} with 4 real samples"):
            measure(few, many, k)
    with pytest.raises(ValueError, match=f"k={k} with 4 fake samples"):
        recall(many, few, k)
    with pytest.raises(ValueError, match="k=4 with 4 fake samples"):
        prdc(many, few, 4)
