"""Hypervolumes of sets of operating points, all over the same resamples of the prompts."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from itertools import combinations
from typing import Any

import numpy as np

from sfumato.frontier.pareto import hypervolumes, pareto_front
from sfumato.frontier.statistics import Array, interval, jackknife_weights, resampling_weights

QUANTILES = 41
"""Numbers that describe a bootstrap distribution, at equal steps of probability from 0 to 1."""
BUDGETS = 8
"""Budgets of the equal-compute view at most."""


class Volumes:
    """Hypervolumes of any sets of points.

    Args:
        scaled: values (m, P, 2) of P points on m prompts, in scaled axes.
        names: of the points.
        reference_point: in scaled axes, one for everything.
        repetitions: bootstrap resamples.
        seed: of the bootstrap.
    """

    def __init__(
        self,
        scaled: Array,
        names: Sequence[str],
        reference_point: tuple[float, float],
        repetitions: int,
        seed: int,
    ) -> None:
        m = len(scaled)
        self._place = {name: i for i, name in enumerate(names)}
        self._reference = reference_point
        self._means = scaled.mean(axis=0)
        self._resampled = np.tensordot(resampling_weights(m, repetitions, seed), scaled, axes=1)
        self._jackknife = np.tensordot(jackknife_weights(m), scaled, axes=1)
        self.resampled = lru_cache(maxsize=None)(self._volumes_of)
        self.hypervolume = lru_cache(maxsize=None)(self._interval_of)

    def _volumes_of(self, points: frozenset[str]) -> Array:
        """Hypervolumes (R,) of these points over the resamples."""
        return hypervolumes(self._resampled[:, self._places(points)], self._reference)

    def _interval_of(self, points: frozenset[str]) -> dict[str, float]:
        """The hypervolume of these points on all prompts, with its interval."""
        places = self._places(points)
        estimate = float(hypervolumes(self._means[places], self._reference))
        jackknife = hypervolumes(self._jackknife[:, places], self._reference)
        return asdict(interval(estimate, self.resampled(points), jackknife, expand=True))

    def _places(self, points: Collection[str]) -> list[int]:
        return sorted(self._place[point] for point in points)


def compare_methods(volumes: Volumes, methods: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """`methods` and `comparisons` of frontier.json: hypervolumes, and how often one exceeds another."""
    sizes = [len(points) for points in methods.values()]
    usual = max(sizes, key=lambda size: (sizes.count(size), size), default=0)
    resampled = {name: volumes.resampled(frozenset(points)) for name, points in methods.items()}
    probabilities = np.linspace(0, 1, QUANTILES)
    return {
        "methods": [
            {
                "name": name,
                "points": list(points),
                "hypervolume": volumes.hypervolume(frozenset(points)),
                "distribution": np.quantile(resampled[name], probabilities).tolist(),
                "points_differ": len(points) != usual,
            }
            for name, points in methods.items()
        ],
        "comparisons": [
            {
                "a": a,
                "b": b,
                "probability": probability_larger(resampled[a], resampled[b]),
                "points_differ": len(methods[a]) != len(methods[b]),
            }
            for a, b in combinations(methods, 2)
        ],
    }


def probability_larger(a: Array, b: Array) -> float:
    """Share of resamples in which a exceeds b; ties count half."""
    close = np.isclose(a, b, rtol=1e-12, atol=1e-12)
    return float(np.where(close, 0.5, a > b).mean())


def equal_compute(
    volumes: Volumes,
    methods: Mapping[str, Sequence[str]],
    values: Mapping[str, tuple[float, float]],
    forwards: Mapping[str, float],
    ends: tuple[str, str],
) -> list[dict[str, Any]]:
    """What can be had for a budget of denoiser forwards per image: front and hypervolumes of the points within it.

    The budgets are the distinct costs of the points, from the dearer of base and tuned upwards, evenly chosen among
    them where there are more than `BUDGETS`. Base and tuned are within every budget.

    Args:
        values: point -> (reward, diversity), means over all prompts.
        forwards: point -> denoiser forwards per image.
        ends: the names of base and tuned.
    """
    found = []
    for budget in _budgets(forwards, ends):
        within = [name for name in values if name in ends or forwards[name] <= budget * (1 + 1e-5)]
        front = [within[i] for i in pareto_front([values[name] for name in within])]
        kept = {name: [point for point in points if point in within] for name, points in methods.items()}
        found.append(
            {
                "budget": budget,
                "points": within,
                "front": front,
                "methods": [
                    {"name": name, "hypervolume": volumes.hypervolume(frozenset(points)), "points": points}
                    for name, points in kept.items()
                ],
            }
        )
    return found


def _budgets(forwards: Mapping[str, float], ends: tuple[str, str]) -> list[float]:
    least = max(forwards[end] for end in ends)
    costs = sorted({float(f"{cost:.6g}") for cost in forwards.values() if cost >= least})
    if len(costs) <= BUDGETS:
        return costs
    return [costs[i] for i in np.linspace(0, len(costs) - 1, BUDGETS).round().astype(int)]
