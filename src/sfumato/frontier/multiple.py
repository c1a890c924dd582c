"""Many paired differences at once: intervals that hold together, and p-values that were corrected for looking often.

With 23 operating points there are 253 pairs on two axes, and at 5 % each some 25 of them would differ by luck. What
stands here is the sign-flip (wild) form of the bootstrap max-|t| procedure (Westfall & Young 1993; Romano & Wolf 2005,
"Exact and approximate stepdown methods for multiple hypothesis testing"): a resample keeps every prompt and turns the
sign of its deviations, for all differences alike, so that what they share counts. It needs fewer prompts than drawing
prompts with replacement (docs/statistics.md has the error rates of both), and is exact for symmetric deviations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

from sfumato.frontier.statistics import REPETITIONS, Array

BLOCK = 1000
"""Resamples at a time: bounds memory to BLOCK x differences."""


@dataclass(frozen=True)
class Difference:
    """A mean difference, its limits that hold for all differences together, and its p-values (two-sided).

    `p` looks at this difference alone, `p_adjusted` controls the chance of any false discovery in the family.
    """

    mean: float
    low: float
    high: float
    p: float
    p_adjusted: float


def simultaneous(
    differences: ArrayLike, level: float = 0.95, repetitions: int = REPETITIONS, seed: int = 0
) -> list[Difference]:
    """Intervals that all hold at once with probability `level`, and step-down adjusted p-values.

    The limits are single-step: mean ± critical value x standard error, one critical value for all. The adjusted
    p-values are step-down, a little sharper, so that one may lie just below 1 - level where the interval just holds 0.
    A difference that is the same for every prompt has no error that could be estimated: its interval is itself, it is
    left out of the family, and unless it is 0 its p-values are 2 / 2^m, the smallest of a sign-flip test with m
    prompts, or 1 / (repetitions + 1) if that is larger.

    Args:
        differences: (m, K), K paired differences of m prompts, m at least 2.
        level: joint confidence level.
        repetitions: number of sign-flip resamples.
        seed: of the resampling.

    Raises:
        ValueError: another shape, fewer than 2 prompts, NaN or infinity.
    """
    values = _as_differences(differences)
    means, errors = values.mean(axis=0), values.std(axis=0, ddof=1) / math.sqrt(len(values))
    varies = errors > 1e-12 * np.abs(values).max(axis=0, initial=0)
    observed = np.abs(means[varies]) / errors[varies]
    order = np.argsort(-observed, kind="stable")
    resampled = _Resampled.of((values - means)[:, varies][:, order], observed[order], repetitions, seed)
    half = np.zeros(len(means))
    half[varies] = np.quantile(resampled.largest, level) * errors[varies] if order.size else 0.0
    p = np.where(np.abs(means) > 0, max(1 / (repetitions + 1), 2 / 2 ** len(values)), 1.0)
    adjusted = p.copy()
    places = np.flatnonzero(varies)[order]
    p[places], adjusted[places] = resampled.p, resampled.p_adjusted
    rows = zip(means, means - half, means + half, p, adjusted, strict=True)
    return [Difference(*map(float, row)) for row in rows]


@dataclass(frozen=True)
class _Resampled:
    largest: Array
    """(R,) largest |t| of each resample."""
    p: Array
    p_adjusted: Array

    @classmethod
    def of(cls, deviations: Array, observed: Array, repetitions: int, seed: int) -> _Resampled:
        """From deviations (m, K) of differences in falling order of their observed |t| (K,)."""
        signs = _signs(len(deviations), repetitions, seed)
        largest, alone, together = [], np.ones(len(observed)), np.ones(len(observed))
        for start in range(0, repetitions if len(observed) else 0, BLOCK):
            t = _t(signs[start : start + BLOCK], deviations)
            alone += (t >= observed).sum(axis=0)
            rest = np.maximum.accumulate(t[:, ::-1], axis=1)[:, ::-1]  # the largest among those not yet rejected
            together += (rest >= observed).sum(axis=0)
            largest.append(rest[:, 0])
        adjusted = np.maximum.accumulate(together / (repetitions + 1))
        return cls(np.concatenate([*largest, []]), alone / (repetitions + 1), adjusted)


def _t(signs: Array, deviations: Array) -> Array:
    """|t| (B, K) of deviations (m, K) under B rows of signs (B, m); a sign does not change a square."""
    m = len(deviations)
    means, squares = signs @ deviations / m, (deviations**2).mean(axis=0)
    t: Array = np.abs(means) / np.sqrt(np.maximum(squares - means**2, 1e-12 * squares) / (m - 1))
    return t


@lru_cache(maxsize=4)
def _signs(m: int, repetitions: int, seed: int) -> Array:
    signs = np.random.default_rng(seed).choice(np.array([-1.0, 1.0]), size=(repetitions, m))
    signs.flags.writeable = False
    return signs


def _as_differences(differences: ArrayLike) -> Array:
    array = np.asarray(differences, dtype=np.float64)
    if array.ndim != 2:
        raise ValueError(f"differences must have shape (prompts, differences), not {array.shape}")
    if len(array) < 2:
        raise ValueError(f"differences over prompts need at least 2 prompts, not {len(array)}")
    if not np.isfinite(array).all():
        prompt, column = np.argwhere(~np.isfinite(array))[0]
        raise ValueError(f"difference {column} of prompt {prompt} is NaN or infinite")
    return array
