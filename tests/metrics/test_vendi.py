import json
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from sfumato.metrics import vendi_score

GOLDEN = Path(__file__).parents[1] / "golden"
ORDERS = [0, 0.1, 0.5, 1, 2, 7.5, 1000, math.inf]


def gaussian(n: int, d: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("q", ORDERS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_identical_rows_count_once_and_orthogonal_rows_count_each(q: float, dtype: torch.dtype) -> None:
    same = gaussian(1, 7).expand(12, 7).to(dtype)
    assert vendi_score(same, q) == pytest.approx(1, rel=1e-9)
    assert vendi_score(same * torch.arange(1, 13)[:, None], q) == pytest.approx(1, rel=2e-3)  # parallel rows
    assert vendi_score(torch.eye(6, 9, dtype=dtype), q) == pytest.approx(6, rel=1e-9)
    assert vendi_score(torch.eye(6, dtype=dtype).repeat(5, 1), q) == pytest.approx(6, rel=1e-9)


def test_orders_of_a_known_spectrum() -> None:
    # Orthogonal kinds in shares 1/2, 1/4, 1/8, 1/8 have these shares as eigenvalues.
    rows = torch.eye(4)[[0, 0, 0, 0, 1, 1, 2, 3]]
    shares = np.array([1 / 2, 1 / 4, 1 / 8, 1 / 8])
    assert vendi_score(rows, 0) == pytest.approx(4)
    assert vendi_score(rows, 1) == pytest.approx(2**1.75)
    assert vendi_score(rows, 2) == pytest.approx(1 / (shares**2).sum())
    assert vendi_score(rows, 0.5) == pytest.approx((shares**0.5).sum() ** 2)
    assert vendi_score(rows, math.inf) == pytest.approx(2)


def test_two_rows_at_an_angle() -> None:
    # Eigenvalues (1 ± cos) / 2.
    rows = torch.tensor([[1.0, 0.0], [math.cos(0.7), math.sin(0.7)]], dtype=torch.float64)
    a, b = (1 + math.cos(0.7)) / 2, (1 - math.cos(0.7)) / 2
    assert vendi_score(rows) == pytest.approx(math.exp(-a * math.log(a) - b * math.log(b)), rel=1e-12)


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 9), d=st.integers(1, 9), seed=st.integers(0, 10**6), q=st.sampled_from(ORDERS))
def test_only_directions_matter(n: int, d: int, seed: int, q: float) -> None:
    rows = gaussian(n, d, seed)
    rotation = torch.linalg.qr(gaussian(d, d, seed + 1)).Q
    scales = torch.logspace(-200, 200, n, dtype=torch.float64)[:, None]
    score = vendi_score(rows, q)
    assert 1 - 1e-9 <= score <= min(n, d) + 1e-9
    assert vendi_score((rows @ rotation * scales).flip(0), q) == pytest.approx(score, rel=1e-6)


@settings(max_examples=30, deadline=None)
@given(n=st.integers(2, 9), d=st.integers(2, 9), seed=st.integers(0, 10**6))
def test_falls_with_the_order_and_is_continuous_at_one(n: int, d: int, seed: int) -> None:
    rows = gaussian(n, d, seed)
    scores = [vendi_score(rows, q) for q in ORDERS]
    assert all(low <= high + 1e-9 for high, low in pairwise(scores))
    assert vendi_score(rows, 1 + 1e-6) == pytest.approx(vendi_score(rows, 1), rel=1e-4)


def test_agrees_with_the_package_of_its_authors() -> None:
    features = load_file(GOLDEN / "metrics.safetensors")
    features["wide"] = features["real"][:10]
    for name, scores in json.loads((GOLDEN / "metrics.json").read_text())["vendi"].items():
        for q, expected in scores.items():
            assert vendi_score(features[name], float(q)) == pytest.approx(expected, rel=1e-9), (name, q)


@pytest.mark.parametrize("q", [-1, math.nan])
def test_refuses_an_order_that_is_none(q: float) -> None:
    with pytest.raises(ValueError, match="order q must be at least 0"):
        vendi_score(torch.eye(2), q)


def test_refuses_a_row_without_direction() -> None:
    with pytest.raises(ValueError, match="row 1 is all zeros"):
        vendi_score(torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
