"""What a run folder holds, with every key present, whichever version wrote it and however far it came."""

from __future__ import annotations

import math
from typing import Any

from sfumato.report import images
from sfumato.runs import Run, read_json

RANK = {"base": 0, "tuned": 2}  # everything else lies between
COUNTS = ("n", "images")  # among the pooled figures, and no figures


def read_frontier(run: Run) -> dict[str, Any]:
    """frontier.json with base first, tuned last and every key present.

    Raises:
        FileNotFoundError: the run was not evaluated yet.
    """
    frontier = run.frontier()
    defaults: dict[str, Any] = {"scale": {}, "ceiling": {}, "small_n": {}, "images_per_prompt": None}
    defaults |= {key: [] for key in ("warnings", "prompts", "methods", "comparisons", "differences", "equal_compute")}
    frontier = defaults | {key: value for key, value in frontier.items() if value is not None}
    frontier["small_n"] = {"images": [], "curves": {}, "extrapolated": {}, "warnings": []} | frontier["small_n"]
    frontier["points"] = sorted(map(complete, frontier["points"]), key=lambda point: RANK.get(point["method"], 1))
    return frontier


def complete(point: dict[str, Any]) -> dict[str, Any]:
    """A point with all its keys; pooled figures, drift and forwards per image become metrics like the others."""
    defaults = {"label": point["name"], "method": "", "definition": {}, "nondominated": False, "versus_tuned": {}}
    point = (
        defaults | {"metrics": {}, "per_prompt": {}} | {key: value for key, value in point.items() if value is not None}
    )
    metrics = {key: _interval(value) for key, value in point["metrics"].items() if value}
    pooled = {key: value for key, value in (point.get("pooled") or {}).items() if key not in COUNTS}
    metrics |= {f"pooled/{key}": _interval({"mean": value}) for key, value in pooled.items()}
    metrics |= {f"drift/{key}": _interval(value) for key, value in (point.get("drift") or {}).items() if value}
    if point.get("forwards") is not None:
        metrics["forwards"] = _interval({"mean": point["forwards"]})
    versus = {key: _interval(value) for key, value in point["versus_tuned"].items() if value}
    return point | {"metrics": metrics, "versus_tuned": versus}


def _interval(value: dict[str, Any]) -> dict[str, float | None]:
    """Mean, low and high, each a finite number or None."""
    numbers = {key: value.get(key) for key in ("mean", "low", "high")}
    return {key: number if number is not None and math.isfinite(number) else None for key, number in numbers.items()}


def read_training(run: Run, name: str) -> dict[str, Any]:
    """The records of one training as columns, and its contact sheets as (update, WebP in base64)."""
    records = run.training_metrics(name)
    keys = dict.fromkeys(key for record in records for key, value in record.items() if isinstance(value, int | float))
    return {
        "name": name,
        "updates": [record["update"] for record in records],
        "result": run.early_result(name),
        "series": {key: [record.get(key) for record in records] for key in keys if key != "update"},
        "sheets": images.contact_sheets(records, run.training(name)),
    }


def training_marks(points: list[dict[str, Any]], training: dict[str, Any]) -> list[tuple[int, str]]:
    """The updates of a training at which operating points were taken from it, each with the points' labels."""
    last = training["updates"][-1] if training["updates"] else 0
    last = last if training["result"] is None else training["result"]
    found: dict[int, list[str]] = {}
    for point in points:
        definition = point["definition"]
        if definition.get("kind") == "tuned" and definition.get("training", "tuned") == training["name"]:
            found.setdefault(definition.get("checkpoint") or last, []).append(point["label"])
    return [(update, ", ".join(labels)) for update, labels in sorted(found.items())]


def read_diagnosis(run: Run) -> dict[str, Any]:
    """What `sfumato diagnose` found, its pictures as WebP in base64; without a verdict if it was not run."""
    path = run.evaluation / "diagnosis.json"
    found = {"verdict": "", "sentences": [], "findings": []} | (read_json(path) if path.exists() else {})
    defaults = {"level": "unknown", "title": "", "text": ""}
    return found | {"findings": [defaults | f | {"evidence": _evidence(run, f)} for f in found["findings"]]}


def _evidence(run: Run, finding: dict[str, Any]) -> list[dict[str, str]]:
    """The pictures of a finding that lie in the run folder."""
    shown = []
    for picture in finding.get("evidence") or []:
        path = (run.path / picture["file"]).resolve()
        if path.is_relative_to(run.path.resolve()) and path.is_file():
            shown.append({"picture": images.sheet(path), "caption": picture.get("caption", "")})
    return shown
