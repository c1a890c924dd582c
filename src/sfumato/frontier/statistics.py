"""Bootstrap over prompts: what is random in a comparison is which prompts were asked.

Every statistic here is a function of means over prompts, so a resample is a row of weights over the prompts, and all
resamples of all points are one matrix product. Equal seeds and numbers of prompts give equal resamples, so different
points and metrics are compared on the same ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sfumato.frontier import student

Array = NDArray[np.float64]
Method = Literal["expanded", "bca", "percentile"]
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
    method: Method = "expanded",
    level: float = 0.95,
    repetitions: int = REPETITIONS,
    seed: int = 0,
) -> Interval:
    """Mean over prompts with its bootstrap confidence interval.

    Args:
        values: (m,), one value per prompt, m at least 2.
        method: "bca", bias-corrected and accelerated (Efron 1987), or "percentile", both too narrow with few prompts;
            "expanded" is BCa with tails widened as Student's t is wider than the normal distribution (Hesterberg 2014,
            arXiv 1411.5279), which mends most of that. docs/statistics.md has what each covers.
        level: confidence level.
        repetitions: number of resamples.
        seed: of the resampling.

    Raises:
        ValueError: not one-dimensional, fewer than 2 values, NaN or infinity, or another method.
    """
    if method not in get_args(Method):
        raise ValueError(f"method must be one of {', '.join(get_args(Method))}, not {method!r}")
    array = as_values(values)
    mean = array.mean()
    resampled = mean + resampling_weights(len(array), repetitions, seed) @ (array - mean)
    jackknife = None if method == "percentile" else jackknife_weights(len(array)) @ array
    return interval(float(mean), resampled, jackknife, level, expand=method == "expanded")


def paired_difference(
    a_per_prompt: ArrayLike,
    b_per_prompt: ArrayLike,
    method: Method = "expanded",
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


def interval(
    estimate: float, resampled: Array, jackknife: Array | None = None, level: float = 0.95, expand: bool = False
) -> Interval:
    """Confidence interval of any statistic: BCa where its leave-one-out values are given, else percentile.

    Efron 1987, "Better bootstrap confidence intervals", equations 2.3 and 6.6; Hesterberg 2014 (arXiv 1411.5279).

    Args:
        estimate: the statistic on all prompts.
        resampled: (R,), the statistic on each resample.
        jackknife: (m,), the statistic without each prompt in turn.
        level: confidence level.
        expand: widen the tails of BCa by sqrt(m / (m - 1)) and from normal to Student quantiles, m - 1 degrees of
            freedom.
    """
    upper = (1 + level) / 2
    if jackknife is None:
        tails = [1 - upper, upper]
    else:
        m = len(jackknife)
        reach = math.sqrt(m / (m - 1)) * student.quantile(upper, m - 1) if expand else NORMAL.inv_cdf(upper)
        tails = _corrected_tails(estimate, resampled, jackknife, reach)
    low, high = np.quantile(resampled, tails)
    return Interval(estimate, float(low), float(high))


def _corrected_tails(estimate: float, resampled: Array, jackknife: Array, reach: float) -> list[float]:
    """Probabilities at which BCa reads off the resamples, for limits `reach` standard errors on either side."""
    influence = jackknife.mean() - jackknife
    scale = 6 * float((influence**2).sum()) ** 1.5
    acceleration = float((influence**3).sum()) / scale if scale > 0 else 0.0
    below = (float((resampled < estimate).mean()) + float((resampled <= estimate).mean())) / 2
    bias = NORMAL.inv_cdf(min(max(below, 0.5 / len(resampled)), 1 - 0.5 / len(resampled)))
    tails = []
    for z in (bias - reach, bias + reach):
        rest = 1 - acceleration * z  # where it reaches 0 the limit has run off to infinity
        tails.append(NORMAL.cdf(bias + z / rest) if rest > 0 else float(z > 0))
    return tails


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
