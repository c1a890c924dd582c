"""Choose a guidance schedule for a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sfumato.cli.shared import app, silence
from sfumato.config import read_prompts


@app.command("tune-schedule")
def tune_schedule(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder whose training is finished.")],
    keep: Annotated[
        str, typer.Option(help="diversity=0.9: at least 0.9 of the base's; or reward=0.8: of the tuned model's gain.")
    ] = "diversity=0.9",
    budget: Annotated[int, typer.Option(help="Images of the search; the held-out comparison comes on top.")] = 3000,
    images: Annotated[int, typer.Option(help="Images per prompt, with the same seeds for every schedule.")] = 8,
    prompts: Annotated[
        str | None,
        typer.Option(help="A set's name, a file, or hub:OWNER/NAME[:COLUMN]. [default: 12 training prompts]"),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the search.")] = 0,
) -> None:
    """Find the guidance schedule with the most reward that keeps enough diversity, or the reverse; continues.

    The search uses training prompts, the comparison with the best fixed schedule the evaluation's held-out ones.

    Example: sfumato tune-schedule runs/mine --keep diversity=0.9 --budget 3000
    """
    from sfumato.frontier.search import Goal

    goal = Goal.parse(keep)
    given = read_prompts(prompts) if prompts else None
    silence()
    from sfumato.experiment import Experiment
    from sfumato.frontier.tune import tune_run
    from sfumato.report.search import search_table, write_search

    experiment = Experiment.load(folder)
    if not experiment.is_main_process:
        return
    result = tune_run(
        experiment.run,
        experiment.recipe,
        experiment.reward,
        experiment.extractor,
        goal,
        gold=experiment.gold,
        budget=budget,
        images_per_prompt=images,
        prompts=given,
        seed=seed,
    )
    where = experiment.run.path / "search" / goal.name
    print(search_table(result.to_dict()))
    print(f"\nfor evaluation.points in a recipe ({where / 'point.yaml'}):\n  - {result.yaml}")
    print(f"in Python:\n  {result.python}\nthe search as a picture: {write_search(where)}")
