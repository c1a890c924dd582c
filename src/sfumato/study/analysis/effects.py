"""What moves votes beside the pictures: raters, prompts, and the place on the page."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfumato.study.analysis.proportions import Proportion, binomial, holm
from sfumato.study.analysis.votes import Clusters, Duels, Floats, Row, codes
from sfumato.study.answers import comparisons


def variance_shares(duels: Duels) -> dict[str, float] | None:
    """Which share of the variance of comparisons of the same two points lies in raters, in prompts, and in the rest.

    By moments: two votes of one rater on different prompts have the variance of raters in common, two votes on one
    prompt by different raters that of prompts and pictures; two that share neither show what the estimated mean takes
    away. A share below 0 counts as 0. None where votes share too little to tell.
    """
    pair = codes(zip(duels.first.tolist(), duels.second.tolist(), strict=True))
    means = np.bincount(pair, duels.share) / np.bincount(pair)
    left = duels.share - means[pair]
    both = _products(left, pair, duels.clusters.cell)
    rater = _products(left, pair, duels.clusters.rater) - both
    prompt = _products(left, pair, duels.clusters.prompt) - both
    rest = _products(left, pair, np.zeros_like(pair)) - rater - prompt - both
    if min(rater[1], prompt[1], rest[1]) <= 0:
        return None
    nothing = rest[0] / rest[1]
    total = float((left**2).mean() - nothing)
    if total <= 1e-12:
        return None
    shares = {
        name: max(0.0, float(sums[0] / sums[1] - nothing) / total)
        for name, sums in (("rater", rater), ("prompt", prompt))
    }
    return {**shares, "rest": max(0.0, 1 - sum(shares.values()))}


def _products(left: Floats, pair: NDArray[Any], cluster: NDArray[Any]) -> Floats:
    """Sum of the products of two different comparisons of the same points in the same cluster, and their number."""
    group = codes(zip(pair.tolist(), cluster.tolist(), strict=True))
    sums, squares, counts = (np.bincount(group, weights) for weights in (left, left**2, np.ones_like(left)))
    return np.array([(sums**2 - squares).sum(), (counts**2 - counts).sum()])


def position_bias(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """For every place on the page the share of votes that chose it, and whether that is its fair share.

    Sides are dealt out evenly, so without a bias each of k places is chosen in a k-th of the votes whatever is shown.

    Args:
        rows: votes of a question, attention checks left out; ties do not count.
    """
    decided = [row for row in rows if row["place"] is not None]
    if not decided:
        return []
    count = max(len(row["points"]) for row in decided)
    clusters = Clusters.of(decided)
    found = []
    for place in range(count if count > 2 else 1):
        shares = np.array([float(row["place"] == place) for row in decided])
        found.append({"place": place, "fair": 1 / count, **Proportion.of(shares, clusters, 1 / count).row()})
    adjusted = holm([row["p"] for row in found])
    return [{**row, "p_adjusted": p} for row, p in zip(found, adjusted, strict=True)]


def describe_raters(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """A line for each rater: votes, pace, checks, the side they press, and how often they side with the others.

    Args:
        rows: all votes, attention checks and those of excluded raters included.
    """
    own = defaultdict(list)
    for row in rows:
        own[row["rater"]].append(row)
    majority = _majorities(rows)
    found = [_describe(rater, votes, majority) for rater, votes in own.items()]
    adjusted = holm([row["p_side"] for row in found])
    return [{**row, "p_side_adjusted": p} for row, p in zip(found, adjusted, strict=True)]


def _describe(rater: str, votes: Sequence[Row], majority: dict[Any, Counter[float]]) -> dict[str, Any]:
    checks = [row["passed"] for row in votes if row["passed"] is not None]
    sides = [row["place"] for row in votes if len(row["points"]) == 2 and row["place"] is not None]
    agreed = [
        _sides_with(majority[row["item"], i, j], share)
        for row in votes
        if row["passed"] is None and row["kind"] != "rating"
        for i, j, share in comparisons(row)
        if share != 0.5
    ]
    decided = [value for value in agreed if value is not None]
    return {
        "rater": rater,
        "votes": len(votes),
        "seconds": median(row["seconds"] for row in votes),
        "checks": len(checks),
        "failed": checks.count(False),
        "first_place": sides.count(0) / len(sides) if sides else None,
        "sides": len(sides),
        "p_side": binomial(sides.count(0), len(sides)) if sides else None,
        "agreement": sum(decided) / len(decided) if decided else None,
        "excluded": list(votes[0]["excluded"]),
    }


def _majorities(rows: Sequence[Row]) -> dict[Any, Counter[float]]:
    """For each two options of each item how often each was preferred."""
    found: dict[Any, Counter[float]] = defaultdict(Counter)
    for row in rows:
        if row["passed"] is None and row["kind"] != "rating":
            for i, j, share in comparisons(row):
                found[row["item"], i, j][share] += 1
    return found


def _sides_with(counts: Counter[float], share: float) -> float | None:
    """Whether most of the other votes say the same; None if they say nothing."""
    same, other = counts[share] - 1, counts[1 - share]
    return None if same == other else float(same > other)
