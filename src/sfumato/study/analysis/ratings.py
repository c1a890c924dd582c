"""Mean ratings of operating points, and their differences."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from sfumato.frontier import student
from sfumato.study.analysis.clusters import Spread, two_way
from sfumato.study.analysis.votes import Clusters, Floats, Row


def mean_ratings(rows: Sequence[Row], points: Sequence[str]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Means, and differences of every two, with Student's intervals over raters and prompts and p-values.

    Args:
        rows: votes of a rating.
        points: those of them that have a vote.
    """
    values = np.array([row["answer"] for row in rows], dtype=np.float64)
    owner = np.array([[row["points"][0] == name for name in points] for row in rows], dtype=np.float64)
    counts = owner.sum(axis=0)
    means = values @ owner / counts
    influence = owner * (values[:, None] - means) / counts
    clusters = Clusters.of(rows)
    spread = two_way(influence, clusters)
    single = [
        {"point": name, "votes": int(counts[k]), **_limits(float(means[k]), spread, k)} for k, name in enumerate(points)
    ]
    pairs = list(combinations(range(len(points)), 2))
    apart = two_way(influence @ _contrasts(pairs, len(points)), clusters)
    differences = [
        {
            "a": points[i],
            "b": points[j],
            **_limits(float(means[i] - means[j]), apart, k),
            "p": _p(means[i] - means[j], apart, k),
        }
        for k, (i, j) in enumerate(pairs)
    ]
    return single, differences


def _contrasts(pairs: Sequence[tuple[int, int]], points: int) -> Floats:
    """(points, pairs) plus and minus one."""
    columns = np.zeros((points, len(pairs)))
    for k, (i, j) in enumerate(pairs):
        columns[i, k], columns[j, k] = 1.0, -1.0
    return columns


def _limits(mean: float, spread: Spread, k: int) -> dict[str, float | None]:
    reach = float(spread.reach()[k])
    known = np.isfinite(reach)
    return {"mean": mean, "low": mean - reach if known else None, "high": mean + reach if known else None}


def _p(difference: float, spread: Spread, k: int) -> float | None:
    """Student's, two-sided; None where nothing varies or there is no degree of freedom."""
    error = float(np.sqrt(spread.variance[k]))
    if not spread.freedom or error == 0:
        return None
    return 2 * student.upper_tail(abs(float(difference)) / error, spread.freedom)
