"""Precision, recall, density and coverage: does each set lie within the other's neighbourhood balls?

The ball of a sample reaches to its k-th nearest neighbour in its own set. Balls are closed (a point at exactly the
radius is inside) and a sample is not its own neighbour. The package `prdc` has open balls: equal on data without ties,
but there a collapsed set, whose duplicates have balls of radius 0, does not even contain itself.

All take `real` (N, D) and `fake` (M, D) features of any float dtype and give what distances by differences in float64
would give, at the price of matrix products, in blocks: see `sfumato.metrics.screen`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from sfumato.metrics.checks import as_feature_pair
from sfumato.metrics.distances import square_blocks
from sfumato.metrics.neighbours import neighbours_by
from sfumato.metrics.screen import Screen


class PRDC(NamedTuple):
    """Four measures of one pair of sets."""

    precision: float
    recall: float
    density: float
    coverage: float


def prdc(real: torch.Tensor, fake: torch.Tensor, k: int = 5) -> PRDC:
    """Precision, recall, density and coverage at one k, in little more time than one of them.

    Raises:
        ValueError: bad features, or `k` not between 1 and both N - 1 and M - 1.
    """
    real, fake = as_feature_pair(real, fake)
    screen = Screen(real, fake)
    real_radii, fake_radii = _radii(screen.of_x(), k, "real"), _radii(screen.of_y(), k, "fake")
    balls = 0
    precise, recalled, covered = (torch.zeros(len(x), dtype=torch.bool, device=x.device) for x in (fake, real, real))
    for rows, columns in square_blocks(screen.x, screen.y):
        lower = screen.lower(rows, columns)
        in_real = screen.within(rows, columns, lower, real_radii[rows, None])
        in_fake = screen.within(rows, columns, lower, fake_radii[None, columns])
        balls += int(in_real.sum())
        precise[columns] |= in_real.any(dim=0)
        covered[rows] |= in_real.any(dim=1)
        recalled[rows] |= in_fake.any(dim=1)
    return PRDC(_share(precise), _share(recalled), balls / (k * len(fake)), _share(covered))


def precision(real: torch.Tensor, fake: torch.Tensor, k: int = 3) -> float:
    """Share of fake samples inside the ball of at least one real sample, in [0, 1]: fidelity.

    Kynkäänniemi et al. 2019 (arXiv 1904.06991), equation 2.

    Raises:
        ValueError: bad features, or `k` not between 1 and N - 1.
    """
    real, fake = as_feature_pair(real, fake)
    return _share(_balls_around(fake, real, k, "real") > 0)


def recall(real: torch.Tensor, fake: torch.Tensor, k: int = 3) -> float:
    """Share of real samples inside the ball of at least one fake sample, in [0, 1]: diversity.

    Kynkäänniemi et al. 2019 (arXiv 1904.06991), equation 2. With base samples as `real` this is how much of the base's
    variety is left.

    Raises:
        ValueError: bad features, or `k` not between 1 and M - 1.
    """
    real, fake = as_feature_pair(real, fake)
    return _share(_balls_around(real, fake, k, "fake") > 0)


def density(real: torch.Tensor, fake: torch.Tensor, k: int = 5) -> float:
    """Mean number of real balls around a fake sample, over k, in [0, N / k]: about 1 for equal distributions.

    sum_j sum_i [fake_j in ball_i] / (k M), Naeem et al. 2020 (arXiv 2002.09797).

    Raises:
        ValueError: bad features, or `k` not between 1 and N - 1.
    """
    real, fake = as_feature_pair(real, fake)
    return int(_balls_around(fake, real, k, "real").sum()) / (k * len(fake))


def coverage(real: torch.Tensor, fake: torch.Tensor, k: int = 5) -> float:
    """Share of real samples whose own ball holds at least one fake sample, in [0, 1].

    sum_i [some fake_j in ball_i] / N, Naeem et al. 2020 (arXiv 2002.09797). Of two sets from one distribution the
    expected value is 1 - prod_{i=1..k} (N - i) / (N + M - i).

    Raises:
        ValueError: bad features, or `k` not between 1 and N - 1.
    """
    real, fake = as_feature_pair(real, fake)
    screen = Screen(real, fake)
    radii = _radii(screen.of_x(), k, "real")
    return _share(neighbours_by(screen, 1).distances[:, 0] <= radii)


def _balls_around(points: torch.Tensor, centres: torch.Tensor, k: int, name: str) -> torch.Tensor:
    """In how many of the centres' balls each point is: (N,), int64."""
    screen = Screen(points, centres)
    radii = _radii(screen.of_y(), k, name)
    count = torch.zeros(len(points), dtype=torch.int64, device=points.device)
    for rows, columns in square_blocks(screen.x, screen.y):
        count[rows] += screen.within(rows, columns, screen.lower(rows, columns), radii[None, columns]).sum(dim=1)
    return count


def _radii(screen: Screen, k: int, name: str) -> torch.Tensor:
    """Distance (N,) of each row of a set to its k-th nearest other row."""
    size = len(screen.x)
    if not 1 <= k < size:
        raise ValueError(
            f"k={k} with {size} {name} samples: k must be at least 1, and k nearest neighbours need k + 1 samples"
        )
    return neighbours_by(screen, k, only_last=True).distances[:, -1]


def _share(hits: torch.Tensor) -> float:
    return int(hits.sum()) / len(hits)
