"""A suite at work: every cell is an experiment in a run folder of its own; the results page tells of all."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path

import yaml
from tqdm.auto import tqdm

from sfumato.config import Recipe, Suite
from sfumato.config.suite import FILE
from sfumato.experiment import Experiment
from sfumato.paper.results import write_results
from sfumato.pipelines.load import process_state
from sfumato.runs import Run, write_text


def run_suite(suite: Suite, run: Callable[[Experiment], None], only: str = "*") -> Path:
    """Run the cells that are not finished, one after another, and write the results page after each.

    Args:
        suite: its folder says where.
        run: does all of one experiment.
        only: a pattern of cell names, as "unet-*", so that machines can share a suite; a page tells of the cells that
            are in the folder.

    Returns:
        The results page.

    Raises:
        ValueError: no cell has such a name; or what an experiment raises. What is done stays, and is not done again.
    """
    cells = suite.cells()
    chosen = {name: recipe for name, recipe in cells.items() if fnmatch(name, only)}
    if not chosen:
        raise ValueError(f"no cell of {suite.name} is called {only!r}: there are {', '.join(cells)}")
    main = process_state().is_main_process
    if main:
        kept = suite.model_dump(mode="json", exclude={"run", "short"})
        write_text(suite.folder / FILE, yaml.safe_dump(kept, sort_keys=False, allow_unicode=True))
    with tqdm(chosen.items(), desc=suite.name, unit="cell", disable=not main) as bar:
        for name, recipe in bar:
            bar.set_postfix(cell=name)
            if not _finished(recipe):
                run(Experiment(recipe))
                if main:
                    write_results(suite, cells)
    process_state().wait_for_everyone()
    return write_results(suite, cells) if main else suite.folder


def _finished(recipe: Recipe) -> bool:
    """Whether the report, the last thing that is written, is there and of this very recipe."""
    run = Run(recipe.folder)
    if not (run.path / "report.html").exists():
        return False
    return run.recipe == yaml.safe_load(yaml.safe_dump(recipe.resolved()))
