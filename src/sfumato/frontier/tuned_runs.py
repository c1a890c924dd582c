"""Runs opened to be compared: what was tuned on what, with which seed, and how far it got on the axes asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from sfumato.frontier.compare import summarise
from sfumato.frontier.plane import LESS_IS_BETTER, read_values
from sfumato.runs import Run, reward_parts
from sfumato.trained import weights_hash, weights_in


@dataclass(frozen=True)
class TunedRun:
    """A measured run with what a comparison needs to know of it.

    Attributes:
        name: its folder, shortened as far as it stays unique.
        path: its folder.
        model: the base model, the last part of the recipe's `pipeline.path`.
        reward: names of what it was tuned on, with their models.
        seed: `training.seed` of the recipe.
        frontier: what frontier.json holds, on the axes that were asked for.
        recipe: the resolved recipe.
        weights: sha256 of the tuned weights; empty if they are not there.
    """

    name: str
    path: str
    model: str
    reward: str
    seed: int
    frontier: dict[str, Any]
    recipe: dict[str, Any]
    weights: str


def read_runs(folders: Sequence[str | Path], reward: str | None = None, diversity: str | None = None) -> list[TunedRun]:
    """Open measured runs; with other axes than a run's own its methods are compared again on those.

    Raises:
        FileNotFoundError: there is no run, or it was not evaluated yet.
        ValueError: a folder is given twice, or a metric was not measured.
    """
    runs = [Run.load(folder) for folder in folders]
    resolved = [run.path.resolve() for run in runs]
    if twice := sorted({str(path) for path in resolved if resolved.count(path) > 1}):
        raise ValueError(f"given twice: {', '.join(twice)}")
    names = _names([path.parts for path in resolved])
    return [_read(run, name, reward, diversity) for run, name in zip(runs, names, strict=True)]


def on_axes(frontier: Mapping[str, Any], reward: str | None = None, diversity: str | None = None) -> dict[str, Any]:
    """What frontier.json would hold with other axes; None keeps the one that it has.

    Raises:
        ValueError: a metric was not measured for every point, less of it is better, or both axes are the same.
    """
    axes = {"reward": reward or frontier["axes"]["reward"], "diversity": diversity or frontier["axes"]["diversity"]}
    if axes == frontier["axes"]:
        return dict(frontier)
    if axes["reward"] == axes["diversity"]:
        raise ValueError(f"both axes are {axes['reward']}: choose two metrics")
    for metric in axes.values():
        if metric in LESS_IS_BETTER:
            raise ValueError(f"less {metric} is better: choose a metric of which more is better for an axis")
    points = frontier["points"]
    values, names = read_values(frontier, list(axes.values())), [point["name"] for point in points]
    forwards = {point["name"]: point["forwards"] for point in points if point.get("forwards") is not None}
    again = summarise(
        {name: dict(zip(axes.values(), values[:, i].T, strict=True)) for i, name in enumerate(names)},
        {method["name"]: method["points"] for method in frontier.get("methods", [])},
        reward=axes["reward"],
        diversity=axes["diversity"],
        forwards=forwards if len(forwards) == len(points) else None,
        calibration=frontier.get("calibration"),
        reference_point=tuple(frontier["reference_point"]),
    )
    front = {point["name"] for point in again.pop("points") if point["nondominated"]}
    return {**frontier, **again, "points": [point | {"nondominated": point["name"] in front} for point in points]}


def _names(paths: Sequence[tuple[str, ...]]) -> list[str]:
    """The shortest ends of the paths that differ."""
    length = 1
    while len({path[-length:] for path in paths}) < len(paths):
        length += 1
    return ["/".join(path[-length:]) for path in paths]


def _read(run: Run, name: str, reward: str | None, diversity: str | None) -> TunedRun:
    recipe = run.recipe
    try:
        frontier = on_axes(run.frontier(), reward, diversity)
    except ValueError as error:
        raise ValueError(f"{run.path}: {error}") from None
    weights = weights_in(run.training())
    return TunedRun(
        name=name,
        path=str(run.path),
        model=PurePath((recipe.get("pipeline") or {}).get("path") or "unknown").name,
        reward=_reward(recipe),
        seed=int((recipe.get("training") or {}).get("seed", 0)),
        frontier=frontier,
        recipe=recipe,
        weights=weights_hash(weights) if weights else "",
    )


def _reward(recipe: dict[str, Any]) -> str:
    """The rewards of a recipe by name, with the model where one is named: "preference (emoji64) + jpeg"."""
    return " + ".join(_named(part) for part in reward_parts(recipe) or [{}])


def _named(part: Any) -> str:
    """One reward; of rewards made of rewards, as "minimum (pickscore, clip_score (clip))"."""
    if isinstance(part, list):
        return " + ".join(map(_named, part))
    if not isinstance(part, dict):
        return str(part)
    inner = [each for key in ("of", "subject_to") for each in _listed(part.get(key))]
    words = [*map(_named, inner), *(PurePath(str(model)).name for model in _listed(part.get("model")))]
    name = str(part.get("name", "unknown"))
    return f"{name} ({', '.join(words)})" if words else name


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value] if value else []
