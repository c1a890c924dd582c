"""Strengths of operating points with intervals that hold for other raters and other prompts.

The scheme: raters are resampled with replacement, each with all their votes, and the strengths are fitted to every
resample; the expanded BCa interval (docs/statistics.md) of these is stretched about the estimate by the ratio of two
standard errors, that over raters and prompts (`clusters`) to that over raters alone, and of Student's quantiles where
prompts are fewer than raters. So the first level gives the interval its shape, and the second, prompts, its width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sfumato.frontier.statistics import Interval, interval, resampling_weights
from sfumato.frontier.student import quantile
from sfumato.study.analysis.clusters import two_way
from sfumato.study.analysis.logit import Choices, fit, influence
from sfumato.study.analysis.votes import Floats, Row

REPETITIONS = 2000
MODELS = {"best_of": "Plackett-Luce", "rank": "Plackett-Luce"}


@dataclass(frozen=True)
class Strengths:
    """How strong operating points are, in log-odds that add up to 0.

    Attributes:
        model: Bradley-Terry, Davidson (with ties) or Plackett-Luce.
        points: their names.
        intervals: of each point; low and high are NaN with a single rater.
        tie: ν of Davidson's model, 2 / (2 / ν + 2) of the votes on two equal points being ties; None without ties.
        separable: whether a part of the points never lost to the rest, so that one vote was added on every set.
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
        estimate = choices.strengths(whole.parameters[0])
        limits = _limits(choices, by_rater, whole.parameters[0], estimate, repetitions, seed)
        tie = math.exp(whole.parameters[0, -1]) if choices.has_ties else None
        model = MODELS.get(rows[0]["kind"], "Davidson" if choices.has_ties else "Bradley-Terry")
        return cls(model, choices.points, limits, tie, bool(whole.separable[0]))


def _limits(
    choices: Choices, by_rater: Floats, parameters: Floats, estimate: Floats, repetitions: int, seed: int
) -> tuple[Interval, ...]:
    count = len(by_rater)
    if count < 2:
        return tuple(Interval(float(value), math.nan, math.nan) for value in estimate)
    drawn = count * resampling_weights(count, repetitions, seed) @ by_rater
    resampled = choices.strengths(fit(choices, drawn).parameters)
    without = choices.strengths(fit(choices, by_rater.sum(axis=0) - by_rater).parameters)
    spread = two_way(influence(choices, parameters), choices.clusters)
    stretch = np.sqrt(spread.variance / spread.raters) * quantile(0.975, spread.freedom) / quantile(0.975, count - 1)
    found = []
    for k, value in enumerate(estimate.tolist()):
        own = interval(value, resampled[:, k], without[:, k], expand=True)
        low, high = (value + float(stretch[k]) * (end - value) for end in (own.low, own.high))
        found.append(Interval(value, low, high))
    return tuple(found)
