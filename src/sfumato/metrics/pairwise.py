"""Mean pairwise distance: the plainest measure of diversity."""

from __future__ import annotations

from typing import Literal

import torch

from sfumato.metrics.checks import as_features, unit_rows
from sfumato.metrics.distances import distance_blocks


def mean_pairwise_distance(X: torch.Tensor, metric: Literal["cosine", "euclidean"] = "cosine") -> float:
    """Mean distance over all pairs of different samples, unbiased at any N.

    Args:
        X: features (N, D), N at least 2, any float dtype.
        metric: "cosine", 1 - cos, in [0, 2] (at most N / (N - 1) as a mean over all pairs), or "euclidean".

    Raises:
        ValueError: bad features, one row only, an all-zero row with "cosine", or another metric.
    """
    features = as_features(X, at_least=2)
    if metric == "cosine":
        rows = unit_rows(features)
        return float((rows - rows.mean(dim=0)).square().sum()) / (len(rows) - 1)  # 1 - cos = |u - v|² / 2
    if metric == "euclidean":
        total = sum(float(distances.sum()) for _, distances in distance_blocks(features, features))
        return total / (len(features) * (len(features) - 1))
    raise ValueError(f'metric must be "cosine" or "euclidean", not {metric!r}')
