from collections.abc import Callable
from functools import partial

import pytest
import torch

from sfumato import metrics

ONE = [
    metrics.vendi_score,
    metrics.mean_pairwise_distance,
    partial(metrics.mean_pairwise_distance, metric="euclidean"),
    partial(metrics.mean_pairwise_distance, metric="squared"),
    partial(metrics.truncated_entropy, components=2),
]
TWO = [
    metrics.precision,
    metrics.recall,
    metrics.density,
    metrics.coverage,
    metrics.fid,
    metrics.spectral_distance,
    metrics.kid,
    partial(metrics.kid_subsets, subsets=3, subset_size=4),
    metrics.cmmd,
    metrics.prdc,
]
TWO_ROWS = [*ONE[1:4], *TWO[4:8]]
BAD = {
    "one-dimensional": (torch.ones(6), r"must have shape \(N, D\).*not \(6,\)"),
    "images": (torch.ones(2, 3, 4, 4), r"must have shape \(N, D\)"),
    "no rows": (torch.ones(0, 4), "are empty"),
    "no columns": (torch.ones(4, 0), "are empty"),
    "NaN": (torch.tensor([[0.0, 1.0]] * 7 + [[float("nan"), 1.0]]), "NaN or infinity in 1 of 8 rows, first in row 7"),
    "infinite": (torch.tensor([[float("inf"), 1.0]] + [[0.0, 1.0]] * 7), "first in row 0"),
    "complex": (torch.ones(8, 2, dtype=torch.complex64), "must be real"),
}


@pytest.mark.parametrize("metric", ONE)
@pytest.mark.parametrize("kind", BAD)
def test_one_set(metric: Callable, kind: str) -> None:
    features, message = BAD[kind]
    with pytest.raises(ValueError, match=message):
        metric(features)


@pytest.mark.parametrize("metric", TWO)
@pytest.mark.parametrize("kind", BAD)
def test_two_sets_and_which_one_is_bad(metric: Callable, kind: str) -> None:
    features, message = BAD[kind]
    good = torch.randn(8, 2)
    with pytest.raises(ValueError, match=f"real features.*{message}"):
        metric(features, good)
    with pytest.raises(ValueError, match=f"fake features.*{message}"):
        metric(good, features)


@pytest.mark.parametrize("kind", BAD)
def test_neighbours(kind: str) -> None:
    features, message = BAD[kind]
    with pytest.raises(ValueError, match=f"features.*{message}"):
        metrics.nearest_neighbours(features)
    with pytest.raises(ValueError, match=f"Y.*{message}"):
        metrics.nearest_neighbours(torch.randn(8, 2), features)


@pytest.mark.parametrize("metric", TWO)
def test_dimensions_must_agree(metric: Callable) -> None:
    with pytest.raises(ValueError, match="real features have 2 dimensions and fake features 3"):
        metric(torch.randn(8, 2), torch.randn(8, 3))


@pytest.mark.parametrize("metric", TWO_ROWS)
def test_spread_needs_two_rows(metric: Callable) -> None:
    arguments = [torch.ones(1, 2)] * (1 if metric in ONE else 2)
    with pytest.raises(ValueError, match="needs at least 2"):
        metric(*arguments)


@pytest.mark.parametrize("metric", [*ONE, *TWO])
def test_any_dtype_and_no_gradient(metric: Callable) -> None:
    x = torch.randint(1, 50, (16, 3), generator=torch.Generator().manual_seed(0))
    sets = (x[:8],) if metric in ONE else (x[:8], x[8:])
    expected = metric(*(part.double() for part in sets))
    for dtype in (torch.int32, torch.float16, torch.bfloat16, torch.float32):
        assert metric(*(part.to(dtype) for part in sets)) == expected
    assert metric(*(part.float().requires_grad_() for part in sets)) == expected
