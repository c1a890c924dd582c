"""Mean pairwise distance: the plainest measure of diversity."""

from __future__ import annotations

from typing import Literal

import torch

from sfumato.metrics.checks import as_features, unit_rows
from sfumato.metrics.distances import pair_distances, square_blocks
from sfumato.metrics.screen import Screen

ACCURACY = 1e-8  # relative, of every distance that is not computed by differences


def mean_pairwise_distance(X: torch.Tensor, metric: Literal["cosine", "euclidean", "squared"] = "cosine") -> float:
    """Mean distance over all pairs of different samples, unbiased at any N.

    "cosine" and "squared" cost O(N D). "euclidean" costs a matrix product of N² D / 2 and is right to a relative 1e-8.

    Args:
        X: features (N, D), N at least 2, any float dtype.
        metric: "cosine", 1 - cos, in [0, 2] (at most N / (N - 1) as a mean over all pairs); "euclidean", |x - y|; or
            "squared", |x - y|², which on the scaled features of LPIPS is LPIPS.

    Raises:
        ValueError: bad features, one row only, an all-zero row with "cosine", or another metric.
    """
    features = as_features(X, at_least=2)
    if metric == "cosine":
        return _mean_square(unit_rows(features)) / 2  # 1 - cos = |u - v|² / 2
    if metric == "squared":
        return _mean_square(features)
    if metric == "euclidean":
        return _mean_distance(features)
    raise ValueError(f'metric must be "cosine", "euclidean" or "squared", not {metric!r}')


def _mean_square(x: torch.Tensor) -> float:
    """Mean |x_i - x_j|² over pairs: twice the total variance."""
    return 2 * float((x - x.mean(dim=0)).square().sum()) / (len(x) - 1)


def _mean_distance(x: torch.Tensor) -> float:
    screen = Screen(x, x)
    widths = screen.widths(torch.float64)[0] / 2
    total = 0.0
    for rows, columns in square_blocks(screen.x, screen.y):
        error = widths[rows, None] + widths[columns]
        squares = screen.lower(rows, columns, torch.float64) + error
        found = squares.clamp(min=0).sqrt() / screen.scale
        i, j = (error > ACCURACY * squares).nonzero(as_tuple=True)
        if len(i):
            found[i, j] = pair_distances(x[rows], x[columns], i, j)
        total += float(found.sum()) * (1 if rows == columns else 2)
    return total / (len(x) * (len(x) - 1))
