"""Recipes and runs: train, evaluate, report, the lot, and the demo."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sfumato.cli.shared import Overrides, Source, app, experiment_of, silence
from sfumato.config import is_suite, load_suite, read_values, shipped_recipes, shipped_suites, shipped_text

if TYPE_CHECKING:
    from sfumato.experiment import Experiment


@app.command()
def recipes(name: Annotated[str | None, typer.Argument(help="Print this recipe.")] = None) -> None:
    """List the shipped recipes, or print one to start your own from.

    Example: sfumato recipes emoji64-draft > mine.yaml
    """
    shipped = [*shipped_recipes(), *shipped_suites()]
    if name is not None and name not in shipped:
        raise ValueError(f"there is no shipped recipe {name!r}: choose one of {', '.join(shipped)}")
    if name is None:
        for each in shipped:
            print(f"{each:24} {read_values(each)['description']}")
    else:
        print(shipped_text(name), end="")


@app.command()
def train(source: Source, overrides: Overrides = None) -> None:
    """Tune a LoRA, or the whole denoiser, on a reward; continues if it was interrupted.

    Example: sfumato train emoji64-draft training.steps=40 run=runs/mine
    """
    from sfumato.trained import weights_in

    experiment = experiment_of(source, overrides)
    train_all(experiment)
    if experiment.is_main_process:
        for name in experiment.recipe.trainings:
            print(weights_in(experiment.run.training(name)))


@app.command()
def evaluate(source: Source, overrides: Overrides = None) -> None:
    """Sample and measure every operating point of a trained run, and print the table.

    Example: sfumato evaluate runs/mine
    """
    from sfumato.report.table import frontier_table

    if frontier := experiment_of(source, overrides).evaluate():
        print(frontier_table(frontier))


@app.command()
def report(folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]) -> None:
    """Write the run's report, one HTML file that opens anywhere.

    Example: sfumato report runs/mine
    """
    from sfumato.report import write_report
    from sfumato.runs import Run

    print(write_report(Run.load(folder)))


@app.command()
def run(
    source: Source,
    overrides: Overrides = None,
    only: Annotated[str | None, typer.Option(help="Of a suite: cells with such names, as 'unet-*'.")] = None,
    short: Annotated[bool, typer.Option("--short", help="Of a suite: the short version, for a first look.")] = False,
) -> None:
    """Train, evaluate, diagnose and report in one go; continues if it was interrupted.

    A suite, such as paper-emoji, is a recipe in many settings; its results page is written anew after each of them.

    Example: sfumato run emoji64-demo run=runs/demo
    """
    if is_suite(source):
        suite = load_suite(source, overrides or [], short)
        silence()
        from sfumato.suite import run_suite

        print(f"\nresults: {run_suite(suite, run_all, only or '*')}")
    elif only or short:
        raise typer.BadParameter(f"--only and --short are for suites ({', '.join(shipped_suites())}), not {source}")
    else:
        run_all(experiment_of(source, overrides))


@app.command()
def demo(
    quick: Annotated[bool, typer.Option("--quick", help="No training: one picture of base, tuned and AIG.")] = False,
    out: Annotated[Path | None, typer.Option(help="Run folder; with --quick, the picture's path.")] = None,
    overrides: Overrides = None,
) -> None:
    """Tune the bundled emoji-64 until it collapses, undo it with AIG, measure everything, write the report.

    About 11 minutes on 2 cores. With --quick: the same seeds under base, tuned and AIG in one picture.

    Example: sfumato demo --quick --out strip.png
    """
    if quick:
        if overrides:
            raise typer.BadParameter(f"--quick trains nothing, so it takes no overrides such as {overrides[0]}")
        silence()
        from sfumato.demo import quick_strip

        print(quick_strip(out or Path("sfumato-demo.png")))
    else:
        run_all(experiment_of("emoji64-demo", [*(overrides or []), *([f"run={out}"] if out else [])]))


def train_all(experiment: Experiment) -> None:
    for _ in experiment.train():
        pass
    for sentence in experiment.early_results() if experiment.is_main_process else ():
        print(sentence, file=sys.stderr)


def run_all(experiment: Experiment) -> None:
    from sfumato.diagnosis import diagnose
    from sfumato.report.table import frontier_table

    train_all(experiment)
    if experiment.recipe.evaluation and (frontier := experiment.evaluate()):
        print(frontier_table(frontier))
        verdict = diagnose(experiment.run)
        print(f"\n{verdict['verdict']}: {verdict['sentences'][0]} (sfumato diagnose {experiment.run.path})")
    if experiment.is_main_process:
        print(f"\nreport: {experiment.report()}")
