"""The schedules that a search chooses among: scale and annealing in one family, blended as predictions or as weights.

A schedule is `cap` times a shape. The shapes are one continuous dial and a table:

* `shape` s: u^s for s > 0 (rising, AIG), 1 for s = 0 (constant), (1 - u)^-s for s < 0 (falling). So LoRA scaling is
  s = 0 blended as weights, AIG as published is cap = 1 and s > 0 blended as predictions;
* `table`: straight lines through four knots.
"""

from __future__ import annotations

from typing import Any

from sfumato.config import BasePoint, GuidancePoint, LoraScalePoint, PointConfig, TunedPoint
from sfumato.schedules import schedule

Parameters = dict[str, Any]
"""`family` ("formula" or "table"), `blend`, `cap`, and `shape` or the knots `k0` to `k3`."""

CAP, CAP_STEP = 1.5, 0.05
SHAPE, SHAPE_STEP = 4.0, 0.25
KNOTS, KNOT_STEP = (0.0, 0.3, 0.7, 1.0), 0.1


def _formula(blend: str, cap: float, shape: float) -> Parameters:
    return {"family": "formula", "blend": blend, "cap": cap, "shape": shape}


BASE, TUNED = (_formula("weights", cap, 0.0) for cap in (0.0, 1.0))
FIXED = [
    BASE,
    TUNED,
    *(_formula("weights", cap, 0.0) for cap in (0.25, 0.5, 0.75)),
    *(_formula("predictions", 1.0, shape) for shape in (1.0, 2.0, 4.0)),
]
"""What people use without a search: base, tuned, LoRA scale 0.25, 0.5, 0.75, and AIG with power 1, 2, 4."""
FIRST_LOOKS = [
    _formula("weights", 0.5, 1.0),
    _formula("predictions", 0.5, -1.0),
    _formula("predictions", 1.0, -3.0),
    _formula("weights", 1.0, 3.0),
]
"""One look into each corner of the space before the search learns from what it saw."""


def suggest(trial: Any) -> Parameters:
    """Let an Optuna trial choose; all values lie on a grid, since finer differences drown in those between prompts."""
    family = trial.suggest_categorical("family", ["formula", "table"])
    found = {"family": family, "blend": trial.suggest_categorical("blend", ["predictions", "weights"])}
    found["cap"] = round(trial.suggest_float("cap", 0.0, CAP, step=CAP_STEP), 2)
    if family == "formula":
        return found | {"shape": round(trial.suggest_float("shape", -SHAPE, SHAPE, step=SHAPE_STEP), 2)}
    knots = range(len(KNOTS))
    return found | {f"k{i}": round(trial.suggest_float(f"k{i}", 0.0, 1.0, step=KNOT_STEP), 1) for i in knots}


def point(parameters: Parameters) -> PointConfig:
    """The operating point of a recipe that parameters stand for; equal schedules give equal points."""
    cap, blend = parameters["cap"], parameters["blend"]
    if parameters["family"] == "table":
        heights = [round(cap * parameters[f"k{i}"], 3) for i in range(len(KNOTS))]
        if len(set(heights)) > 1:
            table = {"points": [list(pair) for pair in zip(KNOTS, heights, strict=True)]}
            return GuidancePoint(schedule="table", parameters=table, blend=blend)
        cap, shape = heights[0], 0.0
    else:
        shape = parameters["shape"]
    if cap == 0:
        return BasePoint()
    if shape == 0 and cap == 1:
        return TunedPoint()
    if shape == 0 and blend == "weights":
        return LoraScalePoint(scale=cap)
    if shape == 0:
        return GuidancePoint(schedule="constant", parameters={"w": cap}, blend=blend)
    name = "power" if shape > 0 else "falling"
    return GuidancePoint(schedule=name, parameters={"p": abs(shape)}, cap=cap, blend=blend)


def guidance(config: PointConfig) -> dict[str, Any]:
    """The arguments with which `sfumato.annealed_guidance` samples at a point that `point` made."""
    match config:
        case GuidancePoint():
            found = {"schedule": config.schedule, **config.parameters, "cap": config.cap, "blend": config.blend}
            return {key: value for key, value in found.items() if (key, value) != ("cap", 1.0)}
        case LoraScalePoint():
            return {"schedule": "constant", "w": config.scale, "blend": "weights"}
        case _:
            return {"schedule": config.kind}


def label(config: PointConfig) -> str:
    """A schedule for people, such as `0.45 u^2, weights`."""
    match config:
        case LoraScalePoint():
            return f"constant {config.scale:g}, weights"
        case GuidancePoint(schedule="table", parameters={"points": list(points)}):
            heights = " ".join(f"{g:g}" for _, g in points)
            return f"table {heights}, {config.blend}"
        case GuidancePoint(schedule="constant"):
            return f"constant {config.parameters['w']:g}, {config.blend}"
        case GuidancePoint():
            power = f"^{config.parameters['p']:g}" if config.parameters["p"] != 1 else ""
            cap = f"{config.cap:g} " if config.cap != 1 else ""
            return f"{cap}{'u' if config.schedule == 'power' else '(1 - u)'}{power}, {config.blend}"
        case _:
            return config.kind


def python_line(config: PointConfig) -> str:
    """The line of Python that samples at the point."""
    arguments = guidance(config)
    words = [repr(arguments.pop("schedule")), *(f"{key}={value!r}" for key, value in arguments.items())]
    return f"with sfumato.annealed_guidance(pipe, {', '.join(words)}):"


def curve(config: PointConfig, count: int = 21) -> list[tuple[float, float]]:
    """(u, g) at evenly spaced u, for a picture."""
    values = guidance(config)
    values.pop("blend", None)
    plan = schedule(**values)
    return [(i / (count - 1), plan(i / (count - 1))) for i in range(count)]
