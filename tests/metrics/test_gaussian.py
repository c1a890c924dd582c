import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from sfumato.metrics import fid, spectral_distance, truncated_entropy

GOLDEN = Path(__file__).parents[1] / "golden"


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
    assert fid(x * s, x * t + shift) == pytest.approx(25 + 9 + 0 + 4)  # same axes: sum (s_i - t_i)²
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
    assert fid(a, b) == pytest.approx(means + np.trace(s) + np.trace(t) - 2 * cross, rel=1e-6)


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
    assert spectral**2 <= fid(a, b) + 1e-9
    assert fid(a, b) == pytest.approx(fid(b, a))
    assert fid(b, b) == pytest.approx(0, abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(n=st.integers(2, 12), d=st.integers(1, 8), seed=st.integers(0, 10**6), scale=st.floats(0.1, 10))
def test_spectral_distance_is_a_metric_on_spectra(n: int, d: int, seed: int, scale: float) -> None:
    a = gaussian(n, d, seed)
    spread = float((a - a.mean(dim=0)).square().sum() / (n - 1)) ** 0.5  # root of the total variance
    assert spectral_distance(a, scale * a) == pytest.approx(abs(scale - 1) * spread, abs=1e-9)  # in the features' units
    assert spectral_distance(scale * a, scale * a.flip(0)) == pytest.approx(0, abs=1e-9)  # order does not matter
    assert spectral_distance(a, a.mean(dim=0).expand(5, d)) == pytest.approx(spread)  # collapse is the farthest
    wider = torch.nn.functional.pad(a, (0, 3))
    assert spectral_distance(wider, wider * 0) == pytest.approx(spread)  # empty dimensions do not matter


def test_fid_agrees_with_torch_fidelity() -> None:
    features = load_file(GOLDEN / "metrics.safetensors")
    expected = json.loads((GOLDEN / "metrics.json").read_text())["torch-fidelity"]["fid"]
    assert fid(features["real"], features["fake"]) == pytest.approx(expected, rel=1e-9)


def test_truncated_entropy_of_a_known_spectrum() -> None:
    x = whitened(40, 4) * torch.tensor([4.0, 1.0, 2.0, 0.5]) + 100
    for components, product in ((1, 4), (2, 8), (3, 8), (4, 4)):
        expected = components / 2 * math.log(2 * math.pi * math.e) + math.log(product)
        assert truncated_entropy(x, components) == pytest.approx(expected, rel=1e-12)
    turned = x @ torch.linalg.qr(gaussian(4, 4, seed=1)).Q + 3
    assert truncated_entropy(turned, 3) == pytest.approx(truncated_entropy(x, 3), rel=1e-9)
    assert truncated_entropy(x * math.e, 3) == pytest.approx(truncated_entropy(x, 3) + 3, rel=1e-9)


def test_truncated_entropy_equals_that_of_its_authors_formula() -> None:
    x = load_file(GOLDEN / "metrics.safetensors")["real"].double()
    values = torch.linalg.eigvalsh(torch.cov(x.T)).flip(0)[:10]
    expected = 10 * math.log(2 * math.pi * math.e) / 2 + 0.5 * float(values.log().sum())
    assert truncated_entropy(x, 10) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_set_without_extent_has_no_entropy(dtype: torch.dtype) -> None:
    two = (gaussian(2, 8) + 1e3).to(dtype).repeat(10, 1)
    assert math.isfinite(truncated_entropy(two, 1))
    assert truncated_entropy(two, 2) == -math.inf


@pytest.mark.parametrize("components", [0, 5, 8])
def test_more_components_than_samples_allow_are_refused(components: int) -> None:
    with pytest.raises(ValueError, match=r"components=.* take from 1 to min\(N - 1, D\) = 4"):
        truncated_entropy(gaussian(5, 8), components)
