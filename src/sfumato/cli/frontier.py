"""Choose an operating point, compare methods across runs, write tables and figures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sfumato.cli.shared import app
from sfumato.runs import write_text

FIGURES = (".pdf", ".svg", ".png")


@app.command()
def frontier(
    folders: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders that were evaluated.")],
    min_diversity: Annotated[
        str | None, typer.Option(help="Keep so much of the base's diversity: 0.9, 90%; or a value: 'vendi>=2.1'.")
    ] = None,
    min_reward: Annotated[
        str | None, typer.Option(help="Keep so much of the gain by tuning: 0.8, 80%; or a value: 'gold>=0.3'.")
    ] = None,
    budget: Annotated[float | None, typer.Option(help="Most denoiser forwards per image.")] = None,
    reward: Annotated[str | None, typer.Option(help="Metric on the reward axis. [default: the run's]")] = None,
    diversity: Annotated[str | None, typer.Option(help="Metric on the diversity axis. [default: the run's]")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for all of the following, named frontier.*")] = None,
    csv: Annotated[Path | None, typer.Option(help="Table with a row for each point.")] = None,
    json: Annotated[Path | None, typer.Option(help="Everything: frontiers, choices, comparison.")] = None,
    latex: Annotated[Path | None, typer.Option(help="Tables for a paper.")] = None,
    figure: Annotated[
        list[Path] | None, typer.Option(help="Figure for a paper: .pdf, .svg or .png; can be given again.")
    ] = None,
    columns: Annotated[int, typer.Option(min=1, max=2, help="Width of the figure: 1 column (3.25 in) or 2.")] = 2,
) -> None:
    """Choose an operating point and say why; compare methods across runs; write tables and figures.

    --min-diversity chooses the point with the most reward, --min-reward the one with the most diversity, both or
    neither the best balance. Loads no model.

    Example: sfumato frontier runs/mine --min-diversity 0.9 --out tables
    """
    from sfumato.frontier import choose, compare_runs, read_runs
    from sfumato.paper import figure as figures
    from sfumato.paper import tables
    from sfumato.paper.choice import choice_text
    from sfumato.paper.comparison import comparison_text

    pictures = [*(figure or []), *([out / f"frontier{kind}" for kind in FIGURES] if out else [])]
    if pictures:
        figures.check_figures(pictures)
    runs = read_runs(folders, reward, diversity)
    choices = []
    for run in runs:
        try:
            choices.append(choose(run.frontier, min_diversity=min_diversity, min_reward=min_reward, budget=budget))
        except ValueError as error:
            raise ValueError(f"{run.path}: {error}") from None
    comparison = compare_runs(runs) if len(runs) > 1 else None
    texts = [choice_text(choice, run) for choice, run in zip(choices, runs, strict=True)]
    print("\n\n".join([*texts, *([comparison_text(comparison)] if comparison else [])]))
    written = list(pictures)
    for path, kind, text in (
        (csv, "csv", lambda: tables.csv_table(runs, choices)),
        (json, "json", lambda: tables.json_text(runs, choices, comparison)),
        (latex, "tex", lambda: tables.latex(runs, choices, comparison)),
    ):
        for target in filter(None, (path, out / f"frontier.{kind}" if out else None)):
            write_text(target, text())
            written.append(target)
    if pictures:
        figures.write_figures(pictures, runs, choices, columns)
    print("".join(f"\nwritten: {path}" for path in written), end="\n" if written else "")
