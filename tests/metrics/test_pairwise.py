from typing import Literal

import pytest
import torch
from scipy.spatial.distance import pdist

from sfumato.metrics import distances, mean_pairwise_distance


@pytest.mark.parametrize("metric", ["cosine", "euclidean", "squared"])
@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_agrees_with_scipy(
    metric: Literal["cosine", "euclidean", "squared"], offset: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distances, "BLOCK", 64)  # several blocks, the last one not full
    x = torch.randn(30, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + offset
    expected = pdist(x.numpy(), {"squared": "sqeuclidean"}.get(metric, metric)).mean()
    assert mean_pairwise_distance(x, metric) == pytest.approx(
        expected, rel=1e-4 if offset and metric == "cosine" else 1e-12
    )


def test_a_distance_between_near_duplicates_keeps_its_digits() -> None:
    # Far from the centre of the set, where a product alone has an error of 1e-7 in the distance.
    pairs = torch.eye(4, dtype=torch.float64).repeat_interleave(2, dim=0)
    pairs[::2, 0] += 1e-9
    expected = (4 * 1e-9 + 24 * 2**0.5) / 28
    assert mean_pairwise_distance(pairs, "euclidean") == pytest.approx(expected, rel=1e-9)
    assert mean_pairwise_distance(pairs[:2], "euclidean") == pytest.approx(1e-9, rel=1e-6)


def test_closed_forms() -> None:
    assert mean_pairwise_distance(torch.eye(5)) == pytest.approx(1)
    assert mean_pairwise_distance(torch.eye(5), "euclidean") == pytest.approx(2**0.5)
    assert mean_pairwise_distance(torch.tensor([[1.0, 0.0], [-3.0, 0.0]])) == pytest.approx(2)


def test_no_distance_between_copies_even_with_many_digits() -> None:
    copies = torch.full((12, 7), 0.1) * torch.logspace(0, 3, 7)
    assert mean_pairwise_distance(copies) == pytest.approx(0, abs=1e-30)
    assert mean_pairwise_distance(copies, "euclidean") == 0


def test_small_cosine_distances_keep_their_digits() -> None:
    angle = 1e-7
    rows = torch.tensor([[1.0, 0.0], [1.0, angle]], dtype=torch.float64)
    assert mean_pairwise_distance(rows) == pytest.approx(angle**2 / 2, rel=1e-6)


def test_refuses_another_metric() -> None:
    with pytest.raises(ValueError, match='must be "cosine", "euclidean" or "squared"'):
        mean_pairwise_distance(torch.eye(3), "manhattan")  # type: ignore[arg-type]
