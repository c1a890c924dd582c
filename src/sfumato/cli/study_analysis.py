"""What a user study found, and raters that are simulated to try one out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from sfumato.cli.study import Database, Folder, open_store, study


@study.command()
def analyse(
    folder: Folder,
    database: Database = None,
    votes: Annotated[
        Path | None, typer.Option(help="Exported votes (JSON lines), in place of those in the database.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where to write. [default: analysis in the study folder]", show_default=False)
    ] = None,
) -> None:
    """Who was preferred, how surely, and which measure foresees it: a report, JSON and CSV.

    Example: sfumato study analyse studies/mine
    """
    from sfumato.runs import read_jsonl
    from sfumato.study import Study
    from sfumato.study.analysis import analyse_study, write_analysis

    if votes:
        if not votes.is_file():
            raise FileNotFoundError(f"there is no {votes}: `sfumato study export STUDY > {votes}` writes it")
        rows = read_jsonl(votes)
    else:
        with open_store(folder, database) as store, store.read() as connection:
            from sfumato.study.export import vote_rows

            rows = vote_rows(connection, store.study)
    found = analyse_study(Study.load(folder), rows)
    for question in found["questions"]:
        print(f"{question['name']}: {question['votes']} votes of {question['raters']} raters", file=sys.stderr)
    print(write_analysis(out or folder / "analysis", found))


@study.command()
def simulate(
    folder: Folder,
    raters: Annotated[int, typer.Option(min=1, help="How many take part.")],
    database: Database = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the raters.")] = 0,
    measure: Annotated[str, typer.Option(help="The score of pictures that they like by.")] = "gold",
    diversity: Annotated[str, typer.Option(help="The measure that they call sets more varied by.")] = "vendi",
    values: Annotated[
        str, typer.Option(help="In place of both, what points are worth in log-odds: base=0,tuned=1.")
    ] = "",
    careless: Annotated[float, typer.Option(min=0, max=1, help="Share of raters who do not look.")] = 0.1,
    first_place: Annotated[float, typer.Option(help="Log-odds that the first place on the page adds.")] = 0.0,
) -> None:
    """Let simulated raters vote, to try a study out; their votes are marked as simulated everywhere.

    What was true is written to simulation.json in the study folder.

    Example: sfumato study simulate studies/mine --raters 30
    """
    with open_store(folder, database) as store:
        from sfumato.study.simulate import Preference, simulate_votes

        preference = Preference(
            measure=measure,
            diversity=diversity,
            values=_values(values),
            careless=careless,
            first_place=first_place,
        )
        print(f"{simulate_votes(store, raters, preference, seed)} simulated votes", file=sys.stderr)
    print(folder / "simulation.json")


def _values(text: str) -> dict[str, float]:
    """From "base=0,tuned=1"."""
    try:
        pairs = [part.split("=") for part in text.split(",") if part]
        return {name.strip(): float(value) for name, value in pairs}
    except ValueError:
        raise ValueError(f"--values {text!r} is not NAME=NUMBER,NAME=NUMBER, such as base=0,tuned=1") from None
