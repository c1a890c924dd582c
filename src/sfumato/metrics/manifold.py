"""Precision, recall, density and coverage: does each set lie within the other's neighbourhood balls?

The ball of a sample reaches to its k-th nearest neighbour in its own set. Balls are closed (a point at exactly the
radius is inside) and a sample is not its own neighbour. The package `prdc` has open balls: equal on data without ties,
but there a collapsed set, whose duplicates have balls of radius 0, does not even contain itself.

All four take `real` (N, D) and `fake` (M, D) features of any float dtype, work in float64 and need O(max(N, M)) memory.
"""

from __future__ import annotations

import torch

from sfumato.metrics.checks import as_feature_pair
from sfumato.metrics.distances import distance_blocks


def precision(real: torch.Tensor, fake: torch.Tensor, k: int = 3) -> float:
    """Share of fake samples inside the ball of at least one real sample, in [0, 1]: fidelity.

    Kynkäänniemi et al. 2019 (arXiv 1904.06991), equation 2.

    Raises:
        ValueError: bad features, or `k` not between 1 and N - 1.
    """
    real, fake = as_feature_pair(real, fake)
    return _share_inside(fake, real, k, "real")


def recall(real: torch.Tensor, fake: torch.Tensor, k: int = 3) -> float:
    """Share of real samples inside the ball of at least one fake sample, in [0, 1]: diversity.

    Kynkäänniemi et al. 2019 (arXiv 1904.06991), equation 2. With base samples as `real` this is how much of the base's
    variety is left.

    Raises:
        ValueError: bad features, or `k` not between 1 and M - 1.
    """
    real, fake = as_feature_pair(real, fake)
    return _share_inside(real, fake, k, "fake")


def density(real: torch.Tensor, fake: torch.Tensor, k: int = 5) -> float:
    """Mean number of real balls around a fake sample, over k, in [0, N / k]: about 1 for equal distributions.

    sum_j sum_i [fake_j in ball_i] / (k M), Naeem et al. 2020 (arXiv 2002.09797).

    Raises:
        ValueError: bad features, or `k` not between 1 and N - 1.
    """
    real, fake = as_feature_pair(real, fake)
    radii = _radii(real, k, "real")
    inside = sum(int((distances <= radii).sum()) for _, distances in distance_blocks(fake, real))
    return inside / (k * len(fake))


def coverage(real: torch.Tensor, fake: torch.Tensor, k: int = 5) -> float:
    """Share of real samples whose own ball holds at least one fake sample, in [0, 1].

    sum_i [some fake_j in ball_i] / N, Naeem et al. 2020 (arXiv 2002.09797). Of two sets from one distribution the
    expected value is 1 - prod_{i=1..k} (N - i) / (N + M - i).

    Raises:
        ValueError: bad features, or `k` not between 1 and N - 1.
    """
    real, fake = as_feature_pair(real, fake)
    radii = _radii(real, k, "real")
    covered = 0
    for start, distances in distance_blocks(real, fake):
        nearest = distances.amin(dim=1)
        covered += int((nearest <= radii[start : start + len(nearest)]).sum())
    return covered / len(real)


def _share_inside(points: torch.Tensor, centres: torch.Tensor, k: int, name: str) -> float:
    """Share of points within the union of the centres' balls."""
    radii = _radii(centres, k, name)
    inside = sum(int((distances <= radii).any(dim=1).sum()) for _, distances in distance_blocks(points, centres))
    return inside / len(points)


def _radii(x: torch.Tensor, k: int, name: str) -> torch.Tensor:
    """Distance (N,) of each row of `x` to its k-th nearest other row."""
    if not 1 <= k < len(x):
        raise ValueError(
            f"k={k} with {len(x)} {name} samples: k must be at least 1, and k nearest neighbours need k + 1 samples"
        )
    radii = []
    for start, distances in distance_blocks(x, x):
        own = torch.arange(len(distances), device=x.device)
        distances[own, start + own] = torch.inf
        radii.append(distances.kthvalue(k, dim=1).values)
    return torch.cat(radii)
