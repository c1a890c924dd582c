import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from sfumato.metrics import KIDEstimate, cmmd, distances, kid, kid_subsets

GOLDEN = Path(__file__).parents[1] / "golden"


def gaussian(n: int, d: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(2, 9),
    m=st.integers(2, 9),
    d=st.integers(1, 5),
    seed=st.integers(0, 10**6),
    block=st.sampled_from([1, 9, 2**22]),
)
def test_kid_is_the_mean_over_pairs_of_different_samples(n: int, m: int, d: int, seed: int, block: int) -> None:
    x, y = gaussian(n, d, seed), gaussian(m, d, seed + 1) + 0.5

    def mean(x: torch.Tensor, y: torch.Tensor, same: bool) -> float:
        values = [(float(a @ b) / d + 1) ** 3 for i, a in enumerate(x) for j, b in enumerate(y) if not same or i != j]
        return sum(values) / len(values)

    expected = mean(x, x, True) + mean(y, y, True) - 2 * mean(x, y, False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distances, "BLOCK", block)
        assert kid(x, y) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 9), m=st.integers(1, 9), seed=st.integers(0, 10**6), block=st.sampled_from([1, 9, 2**22]))
def test_cmmd_is_the_v_statistic_times_1000(n: int, m: int, seed: int, block: int) -> None:
    x, y = gaussian(n, 3, seed), gaussian(m, 3, seed + 1)

    def mean(x: torch.Tensor, y: torch.Tensor) -> float:
        x, y = x / x.norm(dim=1, keepdim=True), y / y.norm(dim=1, keepdim=True)
        return float((-torch.cdist(x, y).square() / 200).exp().mean())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distances, "BLOCK", block)
        assert cmmd(x, y) == pytest.approx(1000 * (mean(x, x) + mean(y, y) - 2 * mean(x, y)), abs=1e-9)


def test_kid_is_unbiased_and_cmmd_is_not() -> None:
    pairs = [(gaussian(8, 4, seed), gaussian(8, 4, 1000 + seed)) for seed in range(300)]
    values = torch.tensor([kid(x, y) for x, y in pairs])
    assert abs(values.mean()) < 4 * values.std() / 300**0.5
    assert sum(cmmd(x, y) for x, y in pairs) / 300 > 1


def test_cmmd_of_equal_sets_is_zero_and_small_values_keep_their_digits() -> None:
    x = gaussian(20, 6)
    assert cmmd(x, 7 * x) == pytest.approx(0, abs=1e-12)
    angle = 1e-6
    a, b = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, angle]], dtype=torch.float64)
    assert cmmd(a, b) == pytest.approx(1000 * 2 * angle**2 / 200, rel=1e-3)


def test_kid_agrees_with_torch_fidelity() -> None:
    features = load_file(GOLDEN / "metrics.safetensors")
    for case in json.loads((GOLDEN / "metrics.json").read_text())["torch-fidelity"]["kid"]:
        expected = KIDEstimate(case.pop("mean"), case.pop("std"))
        assert kid_subsets(features["real"], features["fake"], **case) == pytest.approx(expected, rel=1e-9), case


def test_one_subset_of_everything_is_kid_itself() -> None:
    x, y = gaussian(9, 3), gaussian(9, 3, seed=1)
    assert kid_subsets(x, y, subsets=2, subset_size=9).mean == pytest.approx(kid(x, y), rel=1e-12)
    assert kid_subsets(x, y, subsets=2, subset_size=9).std == pytest.approx(0, abs=1e-12)
    assert kid_subsets(x, y, 5, 4, seed=1) == kid_subsets(x, y, 5, 4, seed=1) != kid_subsets(x, y, 5, 4, seed=2)


@pytest.mark.parametrize("size", [1, 6])
def test_subsets_must_fit(size: int) -> None:
    with pytest.raises(ValueError, match=f"subset_size={size} with 5 real and 9 fake"):
        kid_subsets(gaussian(5, 2), gaussian(9, 2), subset_size=size)
    with pytest.raises(ValueError, match="subsets=0: KID needs at least one"):
        kid_subsets(gaussian(5, 2), gaussian(9, 2), subsets=0, subset_size=2)


def test_a_row_without_direction_is_named() -> None:
    with pytest.raises(ValueError, match="fake features row 1 is all zeros"):
        cmmd(torch.eye(2), torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
