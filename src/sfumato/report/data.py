"""The contents of a run in the form in which the page shows them: every key present, every number finite."""

from __future__ import annotations

import math
from typing import Any

from sfumato.report import images, story, vocabulary
from sfumato.runs import Run

RANK = {"base": 0, "tuned": 2}  # everything else lies between


def read_frontier(run: Run) -> dict[str, Any]:
    """frontier.json with base first, tuned last and every key present.

    Raises:
        FileNotFoundError: the run was not evaluated yet.
    """
    frontier = run.frontier()
    defaults: dict[str, Any] = {"warnings": []}
    defaults |= {"scale": {}, "ceiling": {}, "prompts": [], "images_per_prompt": None, "methods": [], "comparisons": []}
    frontier = defaults | {key: value for key, value in frontier.items() if value is not None}
    frontier["points"] = sorted(map(_complete, frontier["points"]), key=lambda point: RANK.get(point["method"], 1))
    return frontier


def _complete(point: dict[str, Any]) -> dict[str, Any]:
    """A point with all its keys; forwards per image become a metric like the others."""
    defaults = {"label": point["name"], "method": "", "definition": {}, "nondominated": False, "versus_tuned": {}}
    point = (
        defaults | {"metrics": {}, "per_prompt": {}} | {key: value for key, value in point.items() if value is not None}
    )
    metrics = {key: _interval(value) for key, value in point["metrics"].items() if value}
    if point.get("forwards") is not None:
        metrics["forwards"] = _interval({"mean": point["forwards"]})
    versus = {key: _interval(value) for key, value in point["versus_tuned"].items() if value}
    return point | {"metrics": metrics, "versus_tuned": versus}


def _interval(value: dict[str, Any]) -> dict[str, float | None]:
    """Mean, low and high, each a finite number or None."""
    numbers = {key: value.get(key) for key in ("mean", "low", "high")}
    return {key: number if number is not None and math.isfinite(number) else None for key, number in numbers.items()}


def describe_metrics(frontier: dict[str, Any]) -> list[dict[str, Any]]:
    """The metrics that any point has, those on the axes first, with the raw values of 0 and 1 on their scaled axis."""
    if not frontier:
        return []
    axes, points = frontier["axes"], frontier["points"]
    known = [axes["reward"], axes["diversity"], *vocabulary.METRICS]
    measured = dict.fromkeys(key for point in points for key in point["metrics"])
    keys = sorted(measured, key=lambda key: known.index(key) if key in known else len(known))
    return [_describe_metric(key, frontier) for key in keys]


def _describe_metric(key: str, frontier: dict[str, Any]) -> dict[str, Any]:
    entry = vocabulary.metric(key)
    given = {frontier["axes"][axis]: ends for axis, ends in frontier["scale"].items()}
    ends = [story.mean(story.end_point(frontier, method), key) for method in story.END_POINTS]
    scale = given.get(key) or sorted(value for value in ends if value is not None)
    usable = entry.higher_is_better and len(scale) == 2 and scale[0] != scale[1]
    return {
        "key": key,
        "label": entry.label,
        "meaning": entry.meaning,
        "higher": entry.higher_is_better,
        "scale": scale if usable else None,
        "ceiling": frontier["ceiling"].get(key),
    }


def describe_methods(frontier: dict[str, Any], strips: images.Strips) -> list[dict[str, Any]]:
    """Every method with its style class, its mark and its points in order from base to tuned, that is by reward."""
    rewards = {p["name"]: story.mean(p, frontier["axes"]["reward"]) or 0.0 for p in frontier.get("points", [])}
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
    return [_complete({"name": name}) for name in dict.fromkeys(point for point, _ in strips.strips)]


def page_data(frontier: dict[str, Any], strips: images.Strips, trainings: list[dict[str, Any]]) -> dict[str, Any]:
    """What the page's scripts read."""
    best = story.best_balance(frontier) if frontier else None
    prompts = strips.prompts or frontier.get("prompts", [])
    series = dict.fromkeys(key.removeprefix("eval/") for training in trainings for key in training["series"])
    data = {
        "axes": frontier.get("axes"),
        "metrics": describe_metrics(frontier),
        "methods": describe_methods(frontier, strips),
        "points": [_page_point(point, frontier, strips) for point in points_of(frontier, strips)],
        "prompts": [{"text": prompt, "seeds": strips.seeds.get(prompt, [])} for prompt in prompts],
        "tile": strips.tile,
        "best": best.point["name"] if best else None,
        "telling": _telling(frontier, prompts),
        "labels": {key: vocabulary.metric(key).label for key in series},
        "trainings": [t | {"sheets": [update for update, _ in t["sheets"]]} for t in trainings],
    }
    return _finite(data)


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


def _telling(frontier: dict[str, Any], prompts: list[str]) -> int:
    """Number of the prompt whose diversity fell most, which shows best what happened."""
    if not frontier:
        return 0
    ends = [story.end_point(frontier, method) or {} for method in story.END_POINTS]
    base, tuned = (end.get("per_prompt", {}).get(frontier["axes"]["diversity"]) or [] for end in ends)
    loss = {p: b - t for p, b, t in zip(frontier["prompts"], base, tuned, strict=False) if None not in (b, t)}
    return max(range(len(prompts)), key=lambda i: loss.get(prompts[i], -math.inf), default=0)


def read_training(run: Run, name: str) -> dict[str, Any]:
    """The records of one training as columns, and its contact sheets as (update, WebP in base64)."""
    records = run.training_metrics(name)
    keys = dict.fromkeys(key for record in records for key, value in record.items() if isinstance(value, int | float))
    return {
        "name": name,
        "updates": [record["update"] for record in records],
        "series": {key: [record.get(key) for record in records] for key in keys if key != "update"},
        "sheets": images.contact_sheets(records, run.training(name)),
    }


def _finite(value: Any) -> Any:
    """The value with five significant digits, and None for what JSON has no number for."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    return value
