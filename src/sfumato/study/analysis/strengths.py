"""Strengths of operating points with intervals that hold for other raters and other prompts.

The scheme: raters are resampled with replacement, each with all their votes, and the strengths are fitted to every
resample; the expanded BCa interval (docs/statistics.md) of these is stretched about the estimate by the ratio of two
standard errors, that over raters and prompts (`clusters`, and never below that of independent votes) to that over
raters alone, and of Student's quantiles where prompts are fewer than raters. So the first level gives the interval its
shape, and the second, prompts, its width. Where resamples cannot tell, because the maximum is infinite or all raters
say the same on balance, the interval is Student's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sfumato.frontier.statistics import Interval, interval, resampling_weights
from sfumato.frontier.student import quantile
from sfumato.study.analysis.clusters import two_way
from sfumato.study.analysis.logit import Choices, Fit, fit, independent_variance, influence
from sfumato.study.analysis.votes import Floats, Row

REPETITIONS = 2000
SAME = 1e-8
"""Strengths that are closer are equal, and differ by where Newton's method stopped."""
MODELS = {"best_of": "Plackett-Luce", "rank": "Plackett-Luce"}


@dataclass(frozen=True)
class Strengths:
    """How strong operating points are, in log-odds that add up to 0.

    Attributes:
        model: Bradley-Terry, Davidson (with ties) or Plackett-Luce.
        points: their names.
        intervals: of each point; low and high are NaN with a single rater.
        tie: ν of Davidson's model: of the votes on two equal points, ν / (2 + ν) are ties; None without ties.
        separable: whether the maximum is infinite, so that one vote was added on every set (`logit`).
    """

    model: str
    points: tuple[str, ...]
    intervals: tuple[Interval, ...]
    tie: float | None
    separable: bool

    @classmethod
    def of(cls, rows: Sequence[Row], points: Sequence[str], repetitions: int = REPETITIONS, seed: int = 0) -> Strengths:
        """From the votes of a question that compares points.

        Raises:
            ValueError: there are no votes that join all points.
        """
        choices = Choices.of(rows, points)
        by_rater = choices.counts(choices.clusters.rater)
        whole = fit(choices, by_rater.sum(axis=0, keepdims=True))
        limits = _limits(choices, by_rater, whole, repetitions, seed)
        tie = math.exp(whole.parameters[0, -1]) if choices.has_ties else None
        model = MODELS.get(rows[0]["kind"], "Davidson" if choices.has_ties else "Bradley-Terry")
        return cls(model, choices.points, limits, tie, bool(whole.separable[0]))


def _limits(choices: Choices, by_rater: Floats, whole: Fit, repetitions: int, seed: int) -> tuple[Interval, ...]:
    estimate, count = choices.strengths(whole.parameters[0]), len(by_rater)
    if count < 2:
        return tuple(Interval(float(value), math.nan, math.nan) for value in estimate)
    spread = two_way(influence(choices, whole), choices.clusters)
    error = np.sqrt(np.maximum(spread.variance, independent_variance(choices, whole)))
    reach = quantile(0.975, spread.freedom) * error
    found = [Interval(*ends) for ends in np.stack([estimate, estimate - reach, estimate + reach], axis=1).tolist()]
    if whole.separable[0]:
        return tuple(found)
    drawn = count * resampling_weights(count, repetitions, seed) @ by_rater
    resampled = choices.strengths(fit(choices, drawn).parameters)
    resampled = np.where(np.abs(resampled - estimate) < SAME, estimate, resampled)
    without = choices.strengths(fit(choices, by_rater.sum(axis=0) - by_rater).parameters)
    for k in np.flatnonzero(spread.raters > 1e-6 * error**2):
        own = interval(float(estimate[k]), resampled[:, k], without[:, k], expand=True)
        stretch = float(reach[k] / (quantile(0.975, count - 1) * np.sqrt(spread.raters[k])))
        low, high = (own.mean + stretch * (end - own.mean) for end in (own.low, own.high))
        found[k] = Interval(own.mean, low, high)
    return tuple(found)
