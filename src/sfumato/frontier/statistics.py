"""Bootstrap over prompts: what is random in a comparison is which prompts were asked.

Every statistic here is a function of means over prompts, so a resample is a row of weights over the prompts, and all
resamples of all points are one matrix product. Equal seeds and numbers of prompts give equal resamples, so different
points and metrics are compared on the same ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
REPETITIONS = 10_000
NORMAL = NormalDist()


@dataclass(frozen=True)
class Interval:
    """An estimate from all prompts and its confidence limits."""

    mean: float
    low: float
    high: float


def bootstrap(
    values: ArrayLike,
    method: Literal["bca", "percentile"] = "bca",
    level: float = 0.95,
    repetitions: int = REPETITIONS,
    seed: int = 0,
) -> Interval:
    """Mean over prompts with its bootstrap confidence interval.

    Args:
        values: (m,), one value per prompt, m at least 2.
        method: "bca", bias-corrected and accelerated (Efron 1987), or "percentile". With few prompts (12, say) both are
            somewhat too narrow.
        level: confidence level.
        repetitions: number of resamples.
        seed: of the resampling.

    Raises:
        ValueError: not one-dimensional, fewer than 2 values, NaN or infinity, or another method.
    """
    if method not in ("bca", "percentile"):
        raise ValueError(f'method must be "bca" or "percentile", not {method!r}')
    array = as_values(values)
    mean = array.mean()
    resampled = mean + resampling_weights(len(array), repetitions, seed) @ (array - mean)
    jackknife = jackknife_weights(len(array)) @ array if method == "bca" else None
    return interval(float(mean), resampled, jackknife, level)


def paired_difference(
    a_per_prompt: ArrayLike,
    b_per_prompt: ArrayLike,
    method: Literal["bca", "percentile"] = "bca",
    level: float = 0.95,
    repetitions: int = REPETITIONS,
    seed: int = 0,
) -> Interval:
    """Mean of a - b over prompts, prompt by prompt, with its bootstrap confidence interval.

    Args:
        a_per_prompt: (m,), one value per prompt.
        b_per_prompt: (m,), of the same prompts in the same order.
        method: as for `bootstrap`.
        level: confidence level.
        repetitions: number of resamples.
        seed: of the resampling.

    Raises:
        ValueError: different numbers of prompts, or as for `bootstrap`.
    """
    a, b = as_values(a_per_prompt), as_values(b_per_prompt)
    if len(a) != len(b):
        raise ValueError(f"a paired difference needs the same prompts on both sides, not {len(a)} and {len(b)}")
    return bootstrap(a - b, method, level, repetitions, seed)


def interval(estimate: float, resampled: Array, jackknife: Array | None = None, level: float = 0.95) -> Interval:
    """Confidence interval of any statistic: BCa where its leave-one-out values are given, else percentile.

    Efron 1987, "Better bootstrap confidence intervals", equations 2.3 and 6.6.

    Args:
        estimate: the statistic on all prompts.
        resampled: (R,), the statistic on each resample.
        jackknife: (m,), the statistic without each prompt in turn.
        level: confidence level.
    """
    tails = [(1 - level) / 2, (1 + level) / 2]
    if jackknife is not None:
        influence = jackknife.mean() - jackknife
        scale = 6 * float((influence**2).sum()) ** 1.5
        acceleration = float((influence**3).sum()) / scale if scale > 0 else 0.0
        below = (float((resampled < estimate).mean()) + float((resampled <= estimate).mean())) / 2
        bias = NORMAL.inv_cdf(min(max(below, 0.5 / len(resampled)), 1 - 0.5 / len(resampled)))
        shifted = [bias + NORMAL.inv_cdf(tail) for tail in tails]
        tails = [NORMAL.cdf(bias + z / (1 - acceleration * z)) for z in shifted]
    low, high = np.quantile(resampled, tails)
    return Interval(estimate, float(low), float(high))


@lru_cache(maxsize=4)
def resampling_weights(m: int, repetitions: int, seed: int) -> Array:
    """Weights (repetitions, m) over m prompts, one resample a row; read-only."""
    drawn = np.random.default_rng(seed).integers(m, size=(repetitions, m))
    flat = (drawn + m * np.arange(repetitions)[:, None]).ravel()
    weights = np.bincount(flat, minlength=repetitions * m).reshape(repetitions, m) / m
    weights.flags.writeable = False
    return weights


def jackknife_weights(m: int) -> Array:
    """Weights (m, m) over m prompts, one left out in each row."""
    return (1 - np.eye(m)) / (m - 1)


def as_values(values: ArrayLike) -> Array:
    """Per-prompt values (m,), checked.

    Raises:
        ValueError: not one-dimensional, fewer than 2 values, NaN or infinity.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"per-prompt values must have shape (prompts,), not {array.shape}")
    if len(array) < 2:
        raise ValueError(f"a bootstrap over prompts needs at least 2 prompts, not {len(array)}")
    if not np.isfinite(array).all():
        raise ValueError(f"the value of prompt {int(np.argmin(np.isfinite(array)))} is NaN or infinite")
    return array
