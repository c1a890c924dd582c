"""Guidance schedules g(u): how much of the tuned model a step follows, and the clocks that give u.

u runs from 0 (pure noise, the first denoiser call) to 1 (the image, the last call). g = 0 follows the base model, g = 1
the tuned one, values outside [0, 1] extrapolate. Plain values: no tensor and no model in sight.

Sources: Jena et al. 2024 (arXiv 2409.06493) for base, tuned, linear, power and step as in the authors' code in
NeMo-Aligner; step is "combined generation" of arXiv 2505.22569; constant is RLG (arXiv 2508.21016) and DeRaDiff
(arXiv 2601.20198); autoguidance is arXiv 2406.02507. cosine, sigmoid, falling and table are ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from sfumato.grids import CLOCKS, Grid

FORMULAS: dict[str, tuple[str, tuple[str, ...]]] = {
    "base": ("g = 0", ()),
    "tuned": ("g = 1", ()),
    "linear": ("g = u", ()),
    "power": ("g = u^p", ("p",)),
    "falling": ("g = (1 - u)^p", ("p",)),
    "step": ("g = 1 if u >= f else 0", ("f",)),
    "cosine": ("g = (1 - cos(pi u)) / 2", ()),
    "sigmoid": ("g = logistic of k (u - m), shifted and scaled to run from 0 to 1", ("k", "m")),
    "constant": ("g = w", ("w",)),
    "autoguidance": ("g = 1 + w", ("w",)),
    "table": ("g = straight lines through the points (u, g)", ("points",)),
}
"""Schedule name -> its formula and its parameters."""

Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Schedule:
    """A guidance weight as a function of progress.

    Attributes:
        name: a key of `FORMULAS`, or `"callable"`.
        parameters: the formula's parameters, sorted by name.
        cap: the weight is multiplied by this, so that g runs from 0 to `cap` instead of from 0 to 1.
        clock: one of `sfumato.grids.CLOCKS`.
        function: g itself where `name` is `"callable"`.
    """

    name: str
    parameters: tuple[tuple[str, Any], ...] = ()
    cap: float = 1.0
    clock: str = "index"
    function: Callable[[float], float] | None = None

    def __call__(self, u: float) -> float:
        """The tuned model's weight at progress `u` in [0, 1].

        Raises:
            ValueError: a callable schedule gave something that is not a finite number.
        """
        values = dict(self.parameters)
        match self.name:
            case "base":
                g = 0.0
            case "tuned":
                g = 1.0
            case "linear":
                g = u
            case "power":
                g = u ** values["p"]
            case "falling":
                g = (1.0 - u) ** values["p"]
            case "step":
                g = 1.0 if u >= values["f"] else 0.0
            case "cosine":
                g = (1.0 - math.cos(math.pi * u)) / 2
            case "sigmoid":
                g = _sigmoid(u, values["k"], values["m"])
            case "constant":
                g = values["w"]
            case "autoguidance":
                g = 1.0 + values["w"]
            case "table":
                g = _interpolated(u, values["points"])
            case _:
                assert self.function is not None
                g = float(self.function(u))
                if not math.isfinite(g):
                    raise ValueError(f"the guidance schedule gave {g} at u = {u}: it must return a finite number")
        return self.cap * g

    def weights(self, grid: Grid) -> list[float]:
        """g at each noise level of a run."""
        return [self(u) for u in grid.progress(self.clock)]

    def times(self, factor: float) -> Schedule:
        """The schedule with its weight multiplied by `factor`."""
        return replace(self, cap=self.cap * factor)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able description that `schedule(**d)` turns back into the schedule.

        Raises:
            ValueError: the schedule is a callable, which has no description.
        """
        if self.function is not None:
            raise ValueError("a schedule given as a Python callable cannot be written to JSON: use a named one")
        values = {k: [list(point) for point in v] if k == "points" else v for k, v in self.parameters}
        return {"schedule": self.name, **values, "cap": self.cap, "clock": self.clock}


def schedule(
    schedule: str | Schedule | Callable[[float], float], *, cap: float = 1.0, clock: str = "index", **parameters: Any
) -> Schedule:
    """Make a schedule from a name and its parameters, or from any callable g(u) on [0, 1].

    Args:
        schedule: a name of `FORMULAS`, a callable, or a `Schedule`, which is returned as it is.
        cap: g is multiplied by this; `schedule("power", p=2, cap=0.5)` is g = 0.5 u².
        clock: what u is; see `sfumato.grids.CLOCKS`.
        **parameters: those of the formula: numbers, and `points` of a table, at least two pairs (u, g) with u rising
            from 0 to 1.

    Raises:
        ValueError: unknown name or clock, or missing, unknown or non-finite parameters.
    """
    if isinstance(schedule, Schedule):
        if parameters or cap != 1.0 or clock != "index":
            raise ValueError("a Schedule already carries its parameters, cap and clock: pass them when making it")
        return schedule
    if clock not in CLOCKS:
        raise ValueError(f"unknown clock {clock!r}: choose one of {', '.join(CLOCKS)}")
    if not math.isfinite(cap):
        raise ValueError(f"cap multiplies the guidance weight, so it must be finite, not {cap}")
    if not isinstance(schedule, str):
        if not callable(schedule):
            raise ValueError(f"a schedule is a name or a callable g(u), not {schedule!r}")
        if parameters:
            raise ValueError(f"a callable schedule takes no parameters (got {', '.join(sorted(parameters))})")
        return Schedule("callable", (), cap, clock, schedule)
    if schedule not in FORMULAS:
        raise ValueError(f"unknown schedule {schedule!r}: choose one of {', '.join(FORMULAS)}, or pass a callable g(u)")
    formula, wanted = FORMULAS[schedule]
    if parameters.keys() != set(wanted):
        takes = ", ".join(wanted) or "no parameters"
        given = ", ".join(sorted(parameters)) or "none"
        raise ValueError(f"schedule {schedule!r} ({formula}) takes {takes}; given: {given}")
    return Schedule(schedule, tuple(sorted(_checked(schedule, parameters).items())), cap, clock)


def _checked(name: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """The parameters of a named schedule, or a ValueError that says what they may be."""
    if name == "table":
        return {"points": _points(parameters["points"])}
    for key, value in parameters.items():
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"parameter {key} of schedule {name!r} must be a finite number, not {value!r}")
    positive = {"power": "p", "falling": "p", "sigmoid": "k"}.get(name)
    if positive and parameters[positive] <= 0:
        raise ValueError(f"schedule {name!r} needs {positive} > 0, got {parameters[positive]}")
    return parameters


def _points(points: Sequence[Sequence[float]]) -> Points:
    try:
        pairs = tuple((float(u), float(g)) for u, g in points)
    except (TypeError, ValueError):
        raise ValueError(f"the points of a table are pairs (u, g), not {points!r}") from None
    places = [u for u, _ in pairs]
    rising = all(a < b for a, b in pairwise(places))
    if len(pairs) < 2 or not rising or (places[0], places[-1]) != (0.0, 1.0):
        raise ValueError(f"the points of a table need u rising from 0 to 1, not {places}")
    if not all(math.isfinite(g) for _, g in pairs):
        raise ValueError(f"the points of a table need finite weights, not {[g for _, g in pairs]}")
    return pairs


def _interpolated(u: float, points: Points) -> float:
    for (a, left), (b, right) in pairwise(points):
        if u <= b:
            return left + (right - left) * (u - a) / (b - a)
    return points[-1][1]


def _sigmoid(u: float, k: float, m: float) -> float:
    """(σ(k (u - m)) - σ(-k m)) / (σ(k (1 - m)) - σ(-k m)), with σ written as tanh, which does not overflow."""
    low, here, high = (math.tanh(k * (x - m) / 2) for x in (0.0, u, 1.0))
    return (here - low) / (high - low) if high > low else u
