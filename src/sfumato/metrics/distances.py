"""Exact Euclidean distances, a block of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator

import torch

BLOCK = 2**22  # distances held at once: 32 MiB


def distance_blocks(x: torch.Tensor, y: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
    """Yield (first row, distances (b, M)) for successive blocks of rows of `x` to all rows of `y`.

    Distances are sums of squared differences, never |x|² + |y|² - 2xy, which cancels: equal rows are at distance
    exactly 0, and the distance of a pair is the same number in whatever block and order it is asked for.

    Args:
        x: (N, D), float64.
        y: (M, D), float64.
    """
    rows = max(1, BLOCK // len(y))
    for start in range(0, len(x), rows):
        yield start, torch.cdist(x[start : start + rows], y, compute_mode="donot_use_mm_for_euclid_dist")
