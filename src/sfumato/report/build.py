"""From a run folder to one HTML file."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import yaml

from sfumato.report import images, story, vocabulary
from sfumato.report.data import describe_methods, describe_metrics, page_data, points_of, read_frontier, read_training
from sfumato.report.figure import frontier_svg
from sfumato.runs import Run, write_text

SCRIPTS = ("draw.js", "pictures.js", "frontier.js", "wall.js", "curves.js", "report.js")


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
    strips = images.strips(run.images(), run.evaluation, frontier.get("prompts", []), names)
    trainings = [read_training(run, name) for name in run.trainings]
    if frontier:
        write_text(run.path / "frontier.svg", frontier_svg(run))
    recipe = run.recipe if run.recipe_path.exists() else {}
    page = _template().render(
        title=story.title(run.info, recipe),
        info={"created": "", "versions": {}} | run.info,
        headline=story.headline(frontier) if frontier else [],
        verdict=story.verdict(frontier) if frontier else None,
        frontier=frontier,
        metrics=describe_metrics(frontier),
        methods=describe_methods(frontier, strips),
        comparison=_comparison(frontier, strips),
        recipe=yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True) if recipe else "",
        data=page_data(frontier, strips, trainings),
        strips=strips,
        strip_ids=_strip_ids(frontier, strips),
        trainings=trainings,
        asset=_asset,
        scripts=SCRIPTS,
    )
    write_text(run.report, page)
    return run.report


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
    places = {name: {k: 5 + 90 * (v - low) / width for k, v in volume.items()} for name, volume in volumes.items()}
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


def _asset(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["number"] = vocabulary.number
    return environment.from_string(_asset("template.html"))
