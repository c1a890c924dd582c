import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.metrics import frechet_distance, spectral_distance


def gaussian(n: int, d: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def whitened(n: int, d: int) -> torch.Tensor:
    """Rows with mean exactly 0 and covariance exactly 1."""
    x = gaussian(n, d)
    x = x - x.mean(dim=0)
    return torch.linalg.qr(x).Q * (n - 1) ** 0.5


def test_gaussians_with_known_moments() -> None:
    x = whitened(40, 3)
    s, t = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([4.0, 2.0, 1.0])
    shift = torch.tensor([3.0, 0.0, 4.0])
    assert frechet_distance(x * s, x * t + shift) == pytest.approx(25 + 9 + 0 + 4)  # same axes: sum (s_i - t_i)²
    assert spectral_distance(x * s, x * t + shift) == pytest.approx(((3 - 4) ** 2 + 0 + 0) ** 0.5)  # sorted
    assert spectral_distance(x * s, x * 0 + shift) == pytest.approx(14**0.5)  # collapsed


@pytest.mark.parametrize(("n", "m", "d"), [(50, 30, 6), (5, 7, 6), (5, 50, 6)])
def test_frechet_agrees_with_the_textbook_formula(n: int, m: int, d: int) -> None:
    a, b = gaussian(n, d) + 0.3, gaussian(m, d, seed=1) @ gaussian(d, d, seed=2)
    s, t = np.cov(a.numpy(), rowvar=False), np.cov(b.numpy(), rowvar=False)
    values, axes = np.linalg.eigh(s)
    root = axes * np.sqrt(values.clip(0)) @ axes.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ t @ root).clip(0)).sum()
    means = ((a.mean(dim=0) - b.mean(dim=0)) ** 2).sum().item()
    assert frechet_distance(a, b) == pytest.approx(means + np.trace(s) + np.trace(t) - 2 * cross, rel=1e-6)


@settings(max_examples=30, deadline=None)
@given(n=st.integers(2, 12), m=st.integers(2, 12), d=st.integers(1, 8), seed=st.integers(0, 10**6))
def test_properties(n: int, m: int, d: int, seed: int) -> None:
    a, b, c = gaussian(n, d, seed), 2 * gaussian(m, d, seed + 1), gaussian(m, d, seed + 2)
    turned = b @ torch.linalg.qr(gaussian(d, d, seed + 3)).Q + 5
    spectral = spectral_distance(a, b)
    assert spectral_distance(a, turned) == pytest.approx(spectral, rel=1e-9, abs=1e-9)
    assert spectral_distance(b, a) == pytest.approx(spectral)
    assert spectral_distance(b, turned) == pytest.approx(0, abs=1e-9)
    assert spectral <= spectral_distance(a, c) + spectral_distance(c, b) + 1e-9
    assert spectral**2 <= frechet_distance(a, b) + 1e-9
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a))
    assert frechet_distance(b, b) == pytest.approx(0, abs=1e-9)
