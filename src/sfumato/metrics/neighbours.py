"""Exact nearest neighbours: the few rows that a screen leaves are compared by their distances by differences."""

from __future__ import annotations

from typing import NamedTuple

import torch

from sfumato.metrics import distances
from sfumato.metrics.checks import as_feature_pair, as_features
from sfumato.metrics.distances import pair_distances, square_blocks
from sfumato.metrics.screen import Screen

SPARE = 16  # rows kept beyond k while screening, so that near-ties seldom need a second look


class Neighbours(NamedTuple):
    """The k nearest rows of each row, nearest first, equally near ones by index.

    Attributes:
        distances: (N, k), float64.
        indices: (N, k), int64.
    """

    distances: torch.Tensor
    indices: torch.Tensor


def nearest_neighbours(X: torch.Tensor, Y: torch.Tensor | None = None, k: int = 1) -> Neighbours:
    """The k nearest rows of `Y`, by Euclidean distance, of each row of `X`, as if by brute force in float64.

    Args:
        X: (N, D), any float dtype.
        Y: (M, D); without it `X` is searched, and no row counts as a neighbour of its own.
        k: how many, at most M, or N - 1 without `Y`.

    Raises:
        ValueError: bad features, or `k` out of range.
    """
    x, y = (as_features(X), None) if Y is None else as_feature_pair(X, Y, names=("X", "Y"))
    available = len(x) - 1 if y is None else len(y)
    if not 1 <= k <= available:
        raise ValueError(f"k={k} nearest neighbours of {available} others: k must be from 1 to their number")
    return neighbours_by(Screen(x, x if y is None else y), k)


def neighbours_by(screen: Screen, k: int, only_last: bool = False) -> Neighbours:
    """The same for checked features: of each row of `screen.x` in `screen.y`, its own left out where both are one.

    Args:
        screen: of the two sets.
        k: how many.
        only_last: give the k-th neighbour's distance, and minus infinity for those known to be nearer; saves time.
    """
    within_one = screen.x is screen.y
    available = len(screen.y) - within_one
    keep = min(k + SPARE, available)
    bounds = screen.x.new_full((len(screen.x), keep), torch.inf, dtype=screen.dtype)
    indices = torch.zeros_like(bounds, dtype=torch.int64)
    for rows, columns in square_blocks(screen.x, screen.y):
        lower = screen.lower(rows, columns)
        if within_one and rows == columns:
            lower.fill_diagonal_(torch.inf)
        _keep_smallest(bounds[rows], indices[rows], lower, columns.start)
        if within_one and rows != columns:
            _keep_smallest(bounds[columns], indices[columns], lower.T.contiguous(), rows.start)
    indices, order = indices.sort(dim=1)
    everyone = torch.arange(len(screen.x), device=indices.device)
    found, undecided = _nearest(screen, k, everyone, bounds.gather(1, order), indices, keep < available, only_last)
    for rows in undecided.split(max(1, distances.BLOCK // len(screen.y))):
        found.distances[rows], found.indices[rows] = _search_all(screen, k, rows, only_last)
    return found


def _keep_smallest(bounds: torch.Tensor, indices: torch.Tensor, lower: torch.Tensor, first: int) -> None:
    """Merge a block (b, m) of bounds on rows from `first` on into the smallest so far, (b, keep), in place."""
    new, where = lower.topk(min(bounds.shape[1], lower.shape[1]), dim=1, largest=False, sorted=False)
    merged, places = torch.cat([bounds, new], dim=1).topk(bounds.shape[1], dim=1, largest=False, sorted=False)
    indices.copy_(torch.cat([indices, where + first], dim=1).gather(1, places))
    bounds.copy_(merged)


def _search_all(screen: Screen, k: int, rows: torch.Tensor, only_last: bool) -> Neighbours:
    """Neighbours of a few rows (r,) among all others, screened in float64."""
    lower = screen.lower(rows, slice(None), torch.float64)
    if screen.x is screen.y:
        lower[torch.arange(len(rows), device=rows.device), rows] = torch.inf
    indices = torch.arange(len(screen.y), device=rows.device).expand(len(rows), -1)
    return _nearest(screen, k, rows, lower, indices, False, only_last)[0]


def _nearest(
    screen: Screen,
    k: int,
    rows: torch.Tensor,
    lower: torch.Tensor,
    indices: torch.Tensor,
    more: bool,
    only_last: bool,
) -> tuple[Neighbours, torch.Tensor]:
    """The k nearest among some rows of `y`, and for which rows of `x` this is undecided, since others may be as near.

    Args:
        screen: of the two sets.
        k: how many.
        rows: (r,), of `x`.
        lower: (r, c), bounds on the squared distances.
        indices: (r, c), whose bounds these are, rising along each row.
        more: whether there are other rows of `y`, with bounds not below any of these.
        only_last: as for `neighbours_by`.
    """
    x_widths, y_widths = screen.widths(lower.dtype)
    upper = lower.double() + x_widths[rows, None] + y_widths[indices]
    candidates = lower <= upper.kthvalue(k, dim=1, keepdim=True).values
    undecided = candidates.all(dim=1) if more else torch.zeros_like(rows, dtype=torch.bool)
    candidates[undecided] = False
    exact = torch.full_like(upper, torch.inf)
    if only_last:
        nearer = upper < lower.kthvalue(k, dim=1, keepdim=True).values
        exact[nearer] = -torch.inf
        candidates &= ~nearer
    i, j = candidates.nonzero(as_tuple=True)
    exact[i, j] = pair_distances(screen.x, screen.y, rows[i], indices[i, j])
    exact, order = exact.sort(dim=1, stable=True)
    return Neighbours(exact[:, :k].clone(), indices.gather(1, order[:, :k])), undecided.nonzero()[:, 0]
