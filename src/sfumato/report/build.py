"""From a run folder to one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from sfumato.report import choice, images, story, vocabulary
from sfumato.report.collapse import by_collapse
from sfumato.report.data import read_diagnosis, read_frontier, read_training
from sfumato.report.figure import frontier_svg
from sfumato.report.page import describe_methods, describe_metrics, finite, page_data, points_of
from sfumato.report.repeats import find_repeats
from sfumato.report.web import asset, template
from sfumato.runs import Run, write_text

SCRIPTS = (
    "draw.js",
    "pictures.js",
    "table.js",
    "priorities.js",
    "frontier.js",
    "panel.js",
    "wall.js",
    "strength.js",
    "prompts.js",
    "repeats.js",
    "look.js",
    "chart.js",
    "curves.js",
    "samples.js",
    "report.js",
)


TABLES = (
    ("Per prompt", (vocabulary.REWARDS, vocabulary.DIVERSITY, vocabulary.LIKENESS, vocabulary.COST)),
    (vocabulary.POOLED, (vocabulary.POOLED,)),
    (vocabulary.DRIFTED, (vocabulary.DRIFTED,)),
)
"""The tables of all figures: a heading and the groups of metrics in it."""


def write_report(run: Run) -> Path:
    """Write `report.html` into the run's folder, and the frontier as `frontier.svg` beside it if there is one.

    The page needs nothing but itself: no network, no other file. Parts of the run that do not exist yet are left out.

    Returns:
        The path of the page.
    """
    try:
        frontier = read_frontier(run)
    except FileNotFoundError:
        frontier = {}
    names = [point["name"] for point in frontier.get("points", [])]
    records = run.images()
    strips = images.strips(records, run.evaluation, frontier.get("prompts", []), names)
    trainings = [read_training(run, name) for name in run.trainings]
    if frontier:
        write_text(run.path / "frontier.svg", frontier_svg(run))
    recipe = run.recipe if run.recipe_path.exists() else {}
    diagnosis = read_diagnosis(run)
    page = template("template.html").render(
        title=story.title(run.info, recipe),
        info={"created": "", "versions": {}} | run.info,
        frontier=frontier,
        diagnosis=diagnosis,
        alarms={name: choice.alarm(diagnosis, name) for name in names},
        sampled=len(records),
        metrics=describe_metrics(frontier),
        methods=describe_methods(frontier, strips),
        comparison=_comparison(frontier, strips),
        recipe=yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True) if recipe else "",
        repeats=_repeats(run, records, strips, names),
        strips=strips,
        strip_ids=_strip_ids(frontier, strips),
        trainings=trainings,
        asset=asset,
        scripts=SCRIPTS,
        tables=TABLES,
        **_told(frontier, strips, trainings),
    )
    write_text(run.report, page)
    return run.report


def _told(frontier: dict[str, Any], strips: images.Strips, trainings: list[dict[str, Any]]) -> dict[str, Any]:
    """What the page says in words, and what its scripts read."""
    if not frontier:
        return {"headline": "", "data": page_data({}, strips, trainings, []), "prompts": []}
    best = choice.best_balance(frontier)
    prompts = by_collapse(frontier, best.point if best else None)
    return {
        "headline": story.headline(frontier),
        "collapsed": story.collapsed(frontier, prompts),
        "given_back": story.given_back(frontier),
        "undecided": story.undecided(frontier),
        "verdict": story.verdict(frontier),
        "unscaled": story.unscaled(frontier),
        "best": best,
        "stages": choice.priorities(frontier) if best else [],
        "warnings": list(dict.fromkeys([*frontier["warnings"], *frontier["small_n"]["warnings"]])),
        "prompts": prompts,
        "data": page_data(frontier, strips, trainings, prompts),
    }


def _repeats(run: Run, records: list[dict[str, Any]], strips: images.Strips, points: list[str]) -> dict[str, Any]:
    """The near-duplicates; empty for a run whose features were not kept, or while it is being sampled."""
    if not points or not strips.prompts:
        return {}
    try:
        features = run.features()
    except FileNotFoundError:
        return {}
    return finite(find_repeats(records, features, strips, points))


def _strip_ids(frontier: dict[str, Any], strips: images.Strips) -> list[tuple[int, int, str]]:
    """(number of the point, number of the prompt, strip): the page finds a strip by its two numbers."""
    cells = (
        (i, j, strips.strips.get((point["name"], prompt)))
        for i, point in enumerate(points_of(frontier, strips))
        for j, prompt in enumerate(strips.prompts)
    )
    return [(i, j, strip) for i, j, strip in cells if strip]


def _comparison(frontier: dict[str, Any], strips: images.Strips) -> dict[str, Any]:
    """The methods' hypervolumes as places on one track in percent, and who was compared with whom."""
    volumes = {m["name"]: m["hypervolume"] for m in frontier.get("methods", []) if m.get("hypervolume")}
    if not volumes:
        return {}
    ends = [value for volume in volumes.values() for value in volume.values()]
    low, width = min(ends), (max(ends) - min(ends)) or 1.0
    middles = {m["name"]: m["distribution"][10:31:20] for m in frontier["methods"] if m.get("distribution")}
    marks = {
        name: volume | dict(zip(("q1", "q3"), middles.get(name, ()), strict=False)) for name, volume in volumes.items()
    }
    places = {name: {k: 5 + 90 * (v - low) / width for k, v in own.items()} for name, own in marks.items()}
    pairs = frontier["comparisons"]
    return {
        "rows": [
            (m, volumes[m["name"]], places[m["name"]])
            for m in describe_methods(frontier, strips)
            if m["name"] in volumes
        ],
        "unequal": [method["name"] for method in frontier["methods"] if method.get("points_differ")],
        "across": list(dict.fromkeys(pair["b"] for pair in pairs)),
        "down": list(dict.fromkeys(pair["a"] for pair in pairs)),
        "chances": {(pair["a"], pair["b"]): pair["probability"] for pair in pairs},
    }
