"""Euclidean distances by their definition: differences first, then squares, in float64.

Never |x|² + |y|² - 2xy, which cancels: equal rows are at distance exactly 0, and the distance of a pair is the same
number in whatever block and order it is asked for. What would be too slow for all pairs goes through
`sfumato.metrics.screen` first, which leaves few.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

BLOCK = 2**22  # numbers in a block: 32 MiB in float64


def slices(length: int, size: int) -> Iterator[slice]:
    """Successive slices of so many rows, the last one perhaps of fewer."""
    return (slice(start, min(start + size, length)) for start in range(0, length, size))


def square_blocks(x: torch.Tensor, y: torch.Tensor) -> Iterator[tuple[slice, slice]]:
    """Rows of `x` and rows of `y` of successive blocks of pairs: all, or where both are one set up to the diagonal."""
    side = max(1, math.isqrt(BLOCK))
    for rows in slices(len(x), side):
        for columns in slices(rows.stop if y is x else len(y), side):
            yield rows, columns


def block_distances(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Distances (b, m) of all rows of `x` (b, D) to all rows of `y` (m, D), float64."""
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


def pair_distances(x: torch.Tensor, y: torch.Tensor, i: torch.Tensor, j: torch.Tensor) -> torch.Tensor:
    """Distances (P,) of row `i[p]` of `x` to row `j[p]` of `y`, the same numbers as `block_distances` gives.

    Args:
        x: (N, D), float64.
        y: (M, D), float64.
        i: (P,), int64.
        j: (P,), int64.
    """
    size = max(1, BLOCK // x.shape[1])
    parts = [
        block_distances(x.index_select(0, rows)[:, None], y.index_select(0, columns)[:, None])[:, 0, 0]
        for rows, columns in zip(i.split(size), j.split(size), strict=True)
    ]
    return torch.cat(parts)
