"""A run in the form in which the page shows it: figures and methods described, every number finite."""

from __future__ import annotations

import math
from typing import Any

from sfumato.change import unchanged_axes
from sfumato.report import choice, images, vocabulary
from sfumato.report.collapse import Collapse
from sfumato.report.data import RANK, complete, training_marks

DIFFERENCE = ("a", "b", "metric", "mean", "low", "high", "p_adjusted")


def describe_metrics(frontier: dict[str, Any]) -> list[dict[str, Any]]:
    """The metrics that any point has, those on the axes first, with the raw values of 0 and 1 on their scaled axis."""
    if not frontier:
        return []
    first = [frontier["axes"]["reward"], frontier["axes"]["diversity"]]
    known = [*vocabulary.METRICS]
    measured = dict.fromkeys(key for point in frontier["points"] for key in point["metrics"])

    def rank(key: str) -> tuple[int, ...]:
        own = vocabulary.metric(key)
        place = known.index(key) if key in known else len(known)
        return (0, first.index(key)) if key in first else (1, vocabulary.GROUPS.index(own.group), place)

    keys = sorted(measured, key=rank)
    return [_describe_metric(key, frontier) for key in keys]


def _describe_metric(key: str, frontier: dict[str, Any]) -> dict[str, Any]:
    entry = vocabulary.metric(key)
    given = {frontier["axes"][axis]: ends for axis, ends in frontier["scale"].items()}
    ends = [choice.mean(choice.end_point(frontier, method), key) for method in choice.END_POINTS]
    scale = given.get(key) or sorted(value for value in ends if value is not None)
    usable = entry.higher_is_better and len(scale) == 2 and scale[0] != scale[1]
    return {
        "key": key,
        "label": entry.label,
        "meaning": entry.meaning,
        "group": entry.group,
        "higher": entry.higher_is_better,
        "scale": scale if usable else None,
        "ceiling": frontier["ceiling"].get(key),
    }


def describe_methods(frontier: dict[str, Any], strips: images.Strips) -> list[dict[str, Any]]:
    """Every method with its style class, its mark and its points in order from base to tuned, that is by reward."""
    rewards = {p["name"]: choice.mean(p, frontier["axes"]["reward"]) or 0.0 for p in frontier.get("points", [])}
    ends = {point["name"]: point["method"] for point in frontier.get("points", []) if point["method"] in RANK}
    lines = {
        method["name"]: sorted(
            method["points"], key=lambda name: (RANK.get(ends.get(name, ""), 1), rewards.get(name, 0.0))
        )
        for method in frontier.get("methods", [])
    }
    styles = vocabulary.styles([*lines, *(point["method"] for point in points_of(frontier, strips))])
    return [
        {"name": name, "style": style, "shape": vocabulary.shape(style), "points": lines.get(name, [])}
        for name, style in styles.items()
    ]


def points_of(frontier: dict[str, Any], strips: images.Strips) -> list[dict[str, Any]]:
    """The operating points; without an evaluation those that have images."""
    if frontier:
        return frontier["points"]
    return [complete({"name": name}) for name in dict.fromkeys(point for point, _ in strips.strips)]


def page_data(
    frontier: dict[str, Any], strips: images.Strips, trainings: list[dict[str, Any]], prompts: list[Collapse]
) -> dict[str, Any]:
    """What the page's scripts read; `prompts` are those of the evaluation, the most collapsed first."""
    best = choice.best_balance(frontier) if frontier else None
    shown = strips.prompts or frontier.get("prompts", [])
    main = set(frontier.get("prompts", shown))
    series = dict.fromkeys(key.removeprefix("eval/") for training in trainings for key in training["series"])
    points = points_of(frontier, strips)
    data = {
        "axes": frontier.get("axes"),
        "metrics": describe_metrics(frontier),
        "methods": describe_methods(frontier, strips),
        "points": [_page_point(point, frontier, strips) for point in points],
        "prompts": [{"text": p, "seeds": strips.seeds.get(p, []), "unrelated": p not in main} for p in shown],
        "tile": strips.tile,
        "best": best.point["name"] if best else None,
        "telling": next((shown.index(row.text) for row in prompts if row.text in shown), 0),
        "differences": [[row.get(key) for key in DIFFERENCE] for row in frontier.get("differences", [])],
        "equalCompute": [] if frontier and unchanged_axes(frontier) else frontier.get("equal_compute", []),
        "smallN": frontier.get("small_n", {}),
        "labels": {key: vocabulary.metric(key).label for key in series},
        "trainings": [
            t | {"sheets": [update for update, _ in t["sheets"]], "marks": training_marks(points, t)} for t in trainings
        ],
    }
    return finite(data)


def _page_point(point: dict[str, Any], frontier: dict[str, Any], strips: images.Strips) -> dict[str, Any]:
    """One operating point with, for every prompt that is shown, its figures and a caption for every tile."""
    place = {prompt: number for number, prompt in enumerate(frontier.get("prompts", []))}
    places = [place.get(prompt, math.inf) for prompt in strips.prompts]
    return {
        "name": point["name"],
        "label": point["label"],
        "method": point["method"],
        "definition": point["definition"],
        "metrics": {key: list(value.values()) for key, value in point["metrics"].items()},
        "versusTuned": {key: list(value.values()) for key, value in point["versus_tuned"].items()},
        "perPrompt": {
            key: [values[int(i)] if i < len(values) else None for i in places]
            for key, values in point["per_prompt"].items()
        },
        "captions": [
            [_caption(record) for record in strips.records.get((point["name"], p), [])] for p in strips.prompts
        ],
    }


def _caption(record: dict[str, Any] | None) -> str:
    """One image's scores and labels in a line."""
    if record is None:
        return ""
    scores = [f"{key} {vocabulary.number(value)}" for key, value in (record.get("scores") or {}).items()]
    return " · ".join([*scores, *map(str, (record.get("labels") or {}).values())])


def finite(value: Any) -> Any:
    """The value with five significant digits, and None for what JSON has no number for."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    return value
