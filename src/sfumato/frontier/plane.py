"""The operating points of a run in the plane of two metrics, with constraints: who satisfies them, who is best.

Everything is a function of means over prompts, `(..., P, K)` for P points and K metrics, so that it is computed for all
resamples of the prompts at once.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sfumato.frontier.statistics import Array, Interval, as_values, interval

LESS_IS_BETTER = frozenset({"forwards", "fid", "kid", "cmmd", "spectral", "distance_to_base"})


@dataclass(frozen=True)
class Threshold:
    """At least so much.

    Attributes:
        value: a share in (0, 1], or a value of `metric` in its own unit.
        metric: the metric that must have the value; None for a share of the axis that is constrained.
    """

    value: float
    metric: str | None = None

    @classmethod
    def parse(cls, given: str | float) -> Threshold:
        """Read `0.9`, `90%` or `vendi>=2.1`.

        Raises:
            ValueError: none of these, or a share that is not above 0 and at most 1.
        """
        named = re.fullmatch(r"\s*(\w+)\s*>=\s*(\S+)\s*", str(given))
        text = named[2] if named else str(given).strip()
        try:
            value = float(text[:-1]) / 100 if text.endswith("%") and not named else float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise ValueError(f"cannot read {given!r}: write a share as 0.9 or 90%, a value as vendi>=2.1")
        if named and named[1] in LESS_IS_BETTER:
            hint = "--budget limits forwards" if named[1] == "forwards" else "constrain one of which more is better"
            raise ValueError(f"less {named[1]} is better, so {given!r} constrains nothing useful: {hint}")
        if not named and not 0 < value <= 1:
            hint = f"did you mean {value:g}%? Else " if 1 < value <= 100 and not text.endswith("%") else ""
            raise ValueError(
                f"a share is above 0 and at most 1 (100%), not {given}: "
                f"{hint}write 0.9 or 90%, or a value as vendi>=2.1"
            )
        return cls(value, named[1] if named else None)


def floor_of(metric: str) -> float:
    """The diversity of images that are all alike: 1 for a Vendi score, 0 for any other metric."""
    return 1.0 if metric.split("_")[0] == "vendi" else 0.0


class Plane:
    """The points in the plane of the two axes (and of other constrained metrics), for any weighting of the prompts."""

    def __init__(
        self,
        frontier: Mapping[str, Any],
        axes: dict[str, str],
        least: Mapping[str, Threshold],
        budget: float | None,
    ):
        self.points: Sequence[dict[str, Any]] = frontier["points"]
        self.names = [point["name"] for point in self.points]
        self.axes, self.least = axes, least
        self.floor = floor_of(axes["diversity"])
        self.metrics = list(dict.fromkeys([*axes.values(), *(t.metric for t in self.least.values() if t.metric)]))
        for metric in self.metrics:
            if metric in LESS_IS_BETTER:
                raise ValueError(f"less {metric} is better: choose a metric of which more is better for an axis")
        if axes["reward"] == axes["diversity"]:
            raise ValueError(f"both axes are {axes['reward']}: choose two metrics")
        self.values = read_values(frontier, self.metrics)
        self.base, self.tuned = self._end("base"), self._end("tuned")
        self.r, self.d = (self.metrics.index(metric) for metric in axes.values())
        self.forwards = np.array([point.get("forwards") or math.nan for point in self.points])
        if budget is not None and np.isnan(self.forwards).any():
            raise ValueError("a budget needs the forwards per image, which this run did not count: evaluate it again")
        self.affordable = np.ones(len(self.points), bool) if budget is None else self.forwards <= budget
        sides = tuple(self.least)
        self.objective: Literal["reward", "diversity", "balance"] = (
            "reward" if sides == ("diversity",) else "diversity" if sides == ("reward",) else "balance"
        )
        self._check_shares()

    def _end(self, name: str) -> int:
        if name not in self.names:
            raise ValueError(f"there is no point {name!r} among {', '.join(self.names)}: evaluate the run with it")
        return self.names.index(name)

    def _check_shares(self) -> None:
        """Refuse a share of nothing."""
        means = self.values.mean(axis=0)
        for side, threshold in self.least.items():
            metric, (_, whole) = self.axes[side], self.parts(side, means)
            if threshold.metric is None and whole <= 0:
                what = "tuning did not raise it" if side == "reward" else f"the base's is not above {self.floor:g}"
                raise ValueError(
                    f"there is no share of {metric} to keep, since {what}: ask for a value, such as {metric}>=1.5"
                )

    def means(self, weights: Array) -> Array:
        """Means over prompts (R, P, K) for weights (R, m)."""
        return np.tensordot(weights, self.values, axes=1)

    def parts(self, side: str, means: Array) -> tuple[Array, Array]:
        """What a share on a side divides: each point's part (..., P), and the whole (...).

        On reward R - R_base and R_tuned - R_base; on diversity D - floor and D_base - floor.
        """
        if side == "reward":
            base = means[..., self.base, self.r]
            return means[..., self.r] - base[..., None], means[..., self.tuned, self.r] - base
        return means[..., self.d] - self.floor, means[..., self.base, self.d] - self.floor

    def slack(self, side: str, means: Array) -> Array:
        """By how much each point exceeds what a side's constraint asks (..., P)."""
        threshold = self.least[side]
        if threshold.metric:
            return means[..., self.metrics.index(threshold.metric)] - threshold.value
        part, whole = self.parts(side, means)
        return part - threshold.value * whole[..., None]

    def holds(self, means: Array) -> NDArray[np.bool_]:
        """Whether the constraints on diversity and reward hold (..., P)."""
        held = [self.slack(side, means) >= 0 for side in self.least]
        return np.logical_and.reduce(held) if held else np.ones(means.shape[:-1], bool)

    def score(self, means: Array) -> Array:
        """What is maximised (..., P)."""
        if self.objective != "balance":
            return means[..., self.r if self.objective == "reward" else self.d]
        return self.balance(means)

    def balance(self, means: Array) -> Array:
        """Gain kept times lost diversity given back, each from 0 to 1; 0 where tuning gained or lost nothing."""
        part, gain = self.parts("reward", means)
        tuned = means[..., self.tuned, self.d, None]
        back = ratio(means[..., self.d] - tuned, means[..., self.base, self.d, None] - tuned)
        return np.clip(ratio(part, gain[..., None]), 0, 1) * np.clip(back, 0, 1)

    def pick(
        self, means: Array, *, without: int | None = None, among: NDArray[np.bool_] | None = None
    ) -> NDArray[np.intp]:
        """The chosen point (R,) for means (R, P, K); -1 where there is none."""
        score = self.score(means)
        allowed = self.holds(means) & self.affordable & (True if among is None else among)
        allowed[:, [self.base] if without is None else [self.base, without]] = False
        if not self.least:
            allowed &= score > 0
        cheap_first = np.argsort(self.forwards, kind="stable")
        best = np.where(allowed, score, -np.inf)[:, cheap_first].argmax(axis=1)
        return np.where(allowed.any(axis=1), cheap_first[best], -1)

    def nearest(self, whole: Array) -> int:
        """The affordable point that lacks least of its constraints, for means (P, K); -1 if there is none.

        What it lacks is counted in distances from base to tuned, so that two constraints can be weighed.
        """
        candidates = [i for i in np.flatnonzero(self.affordable).tolist() if i != self.base]
        if not self.least or not candidates:
            return -1
        lacks = [np.maximum(-self.slack(side, whole), 0) / self._distance(side, whole) for side in self.least]
        return min(candidates, key=lambda i: float(np.max(lacks, axis=0)[i]))

    def _distance(self, side: str, means: Array) -> float:
        """From base to tuned in the metric that a side constrains; 1 where they are equal."""
        k = self.metrics.index(self.least[side].metric or self.axes[side])
        return abs(float(means[self.tuned, k] - means[self.base, k])) or 1.0

    def versus(self, a: int, b: int, whole: Array, resampled: Array, left_out: Array) -> dict[str, Interval]:
        """a - b with paired intervals."""
        found = {}
        measures = {"objective": self.score, "reward": lambda x: x[..., self.r], "diversity": lambda x: x[..., self.d]}
        for name, measure in measures.items():
            estimate, drawn, without = (measure(x)[:, a] - measure(x)[:, b] for x in (whole, resampled, left_out))
            found[name] = interval(float(estimate[0]), drawn, without, expand=True)
        return found


def read_values(frontier: Mapping[str, Any], metrics: Sequence[str]) -> Array:
    """Per-prompt values (m, P, K) of the metrics at all points of a frontier.json.

    Raises:
        ValueError: the file holds no per-prompt values, a metric is missing somewhere, or a value is no finite number.
    """
    points = frontier["points"]
    if not all(point.get("per_prompt") for point in points):
        raise ValueError("this frontier.json is of an older version, without per-prompt values: run `sfumato evaluate`")
    measured = [name for name in points[0]["per_prompt"] if all(name in point["per_prompt"] for point in points)]
    columns = []
    for metric in metrics:
        if metric not in measured:
            raise ValueError(f"there is no metric {metric!r} for every point; there are: {', '.join(measured)}")
        for point in points:
            try:
                columns.append(as_values(point["per_prompt"][metric]))
            except ValueError as error:
                raise ValueError(f"metric {metric!r} of point {point['name']!r}: {error}") from None
    if len({len(column) for column in columns}) > 1:
        raise ValueError("the points of this frontier.json were not measured on the same prompts: evaluate it again")
    return np.stack(columns, axis=-1).reshape(-1, len(metrics), len(points)).swapaxes(1, 2)


def ratio(above: Array, below: Array) -> Array:
    """above / below, and 0 where below is not positive."""
    return np.where(below > 0, above / np.where(below > 0, below, 1), 0)
