"""Plan an evaluation: how many prompts and images it takes to see a change."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sfumato.cli.shared import app

if TYPE_CHECKING:
    from sfumato.frontier.power import Design, Pilot
    from sfumato.runs import Run


@app.command()
def power(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="An evaluated run, which serves as the pilot.")],
    metric: Annotated[
        str, typer.Option(help="As in frontier.json: reward, vendi, recall, style_entropy; a wrong name lists all.")
    ],
    change: Annotated[str, typer.Option(help="5%: of the first point's value; 0.1: in the metric's own units.")] = "5%",
    power: Annotated[float, typer.Option(help="The chance with which the change shall be seen.")] = 0.8,
    alpha: Annotated[float, typer.Option(help="Level of the two-sided test.")] = 0.05,
    points: Annotated[
        str,
        typer.Option(
            help="The two points of the pilot, by name or label; one alone is its own control, and knows seeds only."
        ),
    ] = "base,tuned",
) -> None:
    """Say how many prompts and images it takes to see a change of a metric.

    Example: sfumato power runs/mine --metric recall --change 5%
    """
    from sfumato.frontier.measured import AGAINST_REFERENCE, read_measured
    from sfumato.frontier.power import designs, detectable, run_pilot
    from sfumato.runs import Run

    size, relative = _parse(change)
    run = Run.load(folder)
    names = _names(points, run)
    measured = read_measured(run, metric, names)
    first, *second = (measured.samples[name] for name in names)
    pilot = run_pilot(measured.measure, first, second[0] if second else None, measured.least)
    fewest = 2 * measured.least if metric in AGAINST_REFERENCE else 0
    found = designs(pilot, size, relative, forwards=measured.forwards, wanted=power, alpha=alpha, fewest=fewest)
    cheapest = min(found, key=lambda design: (design.forwards, design.images))
    smallest = detectable(pilot, pilot.prompts, pilot.sizes[-1], power, alpha)
    print(_table(pilot, found, metric, names[0]))
    _warn(pilot)
    print(
        f"\nTo see a change of {change} in {metric} with power {power:g} (two-sided, alpha {alpha:g}), ask "
        f"{cheapest.prompts} prompts with {cheapest.images} images each: the cheapest of these, "
        f"{cheapest.forwards:,.0f} denoiser forwards for all that is sampled.\nThe pilot, {pilot.prompts} prompts with "
        f"{pilot.sizes[-1]} images, sees {smallest:.3g}, {smallest / abs(pilot.levels[-1] or 1):.1%} of {names[0]}'s "
        f"{pilot.levels[-1]:.3g}."
    )
    if not second:
        print(f"{names[0]} is its own control here: prompts on which the change differs need more.")


def _names(points: str, run: Run) -> list[str]:
    """The names of one or two points, each given by name or label; a label may hold a comma."""
    try:
        named = {key: entry["name"] for entry in run.frontier()["points"] for key in (entry["label"], entry["name"])}
    except FileNotFoundError:
        named = {}
    parts = points.split(",")
    halves = [(",".join(parts[:i]), ",".join(parts[i:])) for i in range(1, len(parts))]
    for given in [(points,), *halves]:
        asked = [text.strip() for text in given]
        if all(text in named for text in asked):
            return [named[text] for text in asked]
    if len(parts) > 2:
        raise ValueError(f"a pilot is made of one or two points, not {len(parts)}: {points}")
    return [named.get(text.strip(), text.strip()) for text in parts]


def _warn(pilot: Pilot) -> None:
    """Say so where the pilot has too few prompts to be trusted."""
    from sfumato.frontier.power import GOOD_PILOT

    if pilot.prompts < GOOD_PILOT:
        error = (2 / (pilot.prompts - 1)) ** 0.5
        print(
            f"\nWarning: a pilot of {pilot.prompts} prompts knows a variance to about ± {error:.0%} only. Plan for the "
            f"upper end of the range, or evaluate {GOOD_PILOT} prompts or more first."
        )


def _parse(change: str) -> tuple[float, bool]:
    """The size of the change, and whether it is a share."""
    relative = change.strip().endswith("%")
    try:
        size = float(change.strip().removesuffix("%"))
    except ValueError:
        raise ValueError(f"--change must be a share such as 5% or a number such as 0.1, not {change!r}") from None
    return (size / 100 if relative else size), relative


def _table(pilot: Pilot, found: list[Design], metric: str, point: str) -> str:
    """A row for each number of images; what lies beyond the pilot's images carries a tilde."""
    rows = [("images", f"{point}'s {metric}", "change", "prompts", "80 % range", "forwards")]
    for design in found:
        beyond = "~" if design.images > pilot.sizes[-1] else ""
        low, high = design.range
        numbers = (f"{pilot.level(design.images):.3g}", f"{design.effect:.2g}", f"{design.prompts:,}")
        rows.append((f"{beyond}{design.images}", *numbers, f"{low:,} to {high:,}", f"{design.forwards:,.0f}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
