"""Guidance schedules g(u): how much of the tuned model a step follows, and the clocks that give u.

u runs from 0 (pure noise, the first denoiser call) to 1 (the image, the last call). g = 0 follows the base model, g = 1
the tuned one, values outside [0, 1] extrapolate. Plain values: no tensor and no model in sight.

Sources: Jena et al. 2024 (arXiv 2409.06493) for base, tuned, linear, power and step as in the authors' code in
NeMo-Aligner; step is "combined generation" of arXiv 2505.22569; constant is RLG (arXiv 2508.21016) and DeRaDiff
(arXiv 2601.20198).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

FORMULAS: dict[str, tuple[str, tuple[str, ...]]] = {
    "base": ("g = 0", ()),
    "tuned": ("g = 1", ()),
    "linear": ("g = u", ()),
    "power": ("g = u^p", ("p",)),
    "step": ("g = 1 if u >= f else 0", ("f",)),
    "constant": ("g = w", ("w",)),
}
"""Schedule name -> its formula and its parameters."""

CLOCKS: dict[str, Callable[[int, int], float]] = {
    "index": lambda index, count: index / (count - 1) if count > 1 else 1.0,
    "nemo": lambda index, count: index / count,
}
"""Clock name -> u of (index of the timestep, number of distinct timesteps).

`index` is exact at both ends: 0 at the first denoiser call, 1 at the last (and 1 when there is only one).
`nemo` is the clock of the authors' code in NeMo-Aligner, i/N, which never reaches 1.
"""


@dataclass(frozen=True)
class Schedule:
    """A guidance weight as a function of progress.

    Attributes:
        name: a key of `FORMULAS`, or `"callable"`.
        parameters: the formula's parameters, sorted by name.
        cap: the weight is multiplied by this, so that g runs from 0 to `cap` instead of from 0 to 1.
        clock: a key of `CLOCKS`.
        function: g itself where `name` is `"callable"`.
    """

    name: str
    parameters: tuple[tuple[str, float], ...] = ()
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
            case "step":
                g = 1.0 if u >= values["f"] else 0.0
            case "constant":
                g = values["w"]
            case _:
                assert self.function is not None
                g = float(self.function(u))
                if not math.isfinite(g):
                    raise ValueError(f"the guidance schedule gave {g} at u = {u}: it must return a finite number")
        return self.cap * g

    def at(self, index: int, count: int) -> float:
        """The weight at the `index`-th of `count` distinct timesteps."""
        return self(CLOCKS[self.clock](index, count))

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able description that `schedule(**d)` turns back into the schedule.

        Raises:
            ValueError: the schedule is a callable, which has no description.
        """
        if self.function is not None:
            raise ValueError("a schedule given as a Python callable cannot be written to JSON: use a named one")
        return {"schedule": self.name, **dict(self.parameters), "cap": self.cap, "clock": self.clock}


def schedule(
    schedule: str | Schedule | Callable[[float], float], *, cap: float = 1.0, clock: str = "index", **parameters: float
) -> Schedule:
    """Make a schedule from a name and its parameters, or from any callable g(u) on [0, 1].

    Args:
        schedule: `"base"`, `"tuned"`, `"linear"`, `"power"` (p), `"step"` (f), `"constant"` (w), a callable, or a
            `Schedule`, which is returned as it is.
        cap: g is multiplied by this; `schedule("power", p=2, cap=0.5)` is g = 0.5 u².
        clock: `"index"` (exact at both ends) or `"nemo"` (the authors' i/N).

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
    if not all(math.isfinite(value) for value in parameters.values()):
        raise ValueError(f"the parameters of schedule {schedule!r} must be finite: {parameters}")
    if schedule == "power" and parameters["p"] <= 0:
        raise ValueError(f"schedule 'power' needs p > 0, got {parameters['p']}")
    return Schedule(schedule, tuple(sorted(parameters.items())), cap, clock)
