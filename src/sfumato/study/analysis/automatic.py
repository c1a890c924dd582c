"""What the run folders of a study measured: scores of pictures, diversity of prompts, figures of operating points."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sfumato.report.data import read_frontier
from sfumato.report.vocabulary import DIVERSITY, metric
from sfumato.runs import Run, read_jsonl
from sfumato.study.folder import Study

Measures = dict[str, float]


@dataclass
class Automatic:
    """Automatic measures by key, as far as the runs have them.

    Attributes:
        pictures: scores of pictures, by image as votes name it.
        sets: diversity of the pictures of a point and a prompt.
        points: by point, `label`, `method` and `metrics`: key -> mean, low, high.
        axes: the run's reward and diversity; None without an evaluated run.
        missing: sentences on what could not be read.
    """

    pictures: dict[str, Measures] = field(default_factory=dict)
    sets: dict[tuple[str, str], Measures] = field(default_factory=dict)
    points: dict[str, dict[str, Any]] = field(default_factory=dict)
    axes: tuple[str, str] | None = None
    missing: list[str] = field(default_factory=list)


def read_automatic(study: Study) -> Automatic:
    """Read the runs that a study was made from, where `study.json` says they are."""
    found = Automatic()
    files = {os.path.realpath(study.path / row["file"]): row["image"] for row in _sources(study)}
    for name, place in study.info.get("runs", {}).items():
        own = study.config.points[name].point or name
        try:
            run = Run.load(study.path / place)
            _add_pictures(found, run, own, files)
            _add_point(found, run, name, own)
        except FileNotFoundError as error:
            found.missing.append(f"no measures of {name}: {error}")
    return found


def _sources(study: Study) -> list[dict[str, str]]:
    return read_jsonl(study.path / "sources.jsonl")


def _add_pictures(found: Automatic, run: Run, point: str, files: dict[str, str]) -> None:
    folder = Path(os.path.realpath(run.evaluation))
    for row in run.images():
        image = files.get(os.path.realpath(folder / row["file"])) if row["point"] == point else None
        if image:
            found.pictures[f"images/{image}"] = {k: v for k, v in (row.get("scores") or {}).items() if v is not None}


def _add_point(found: Automatic, run: Run, name: str, own: str) -> None:
    frontier = read_frontier(run)
    point = next((point for point in frontier["points"] if point["name"] == own), None)
    if point is None:
        return
    found.axes = found.axes or (frontier["axes"]["reward"], frontier["axes"]["diversity"])
    found.points[name] = {key: point[key] for key in ("label", "method", "metrics")}
    for key, values in point["per_prompt"].items():
        if metric(key).group == DIVERSITY:
            for prompt, value in zip(frontier["prompts"], values, strict=True):
                if value is not None:
                    found.sets.setdefault((name, prompt), {})[key] = value
