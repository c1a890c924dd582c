"""Sets of prompts by name."""

from __future__ import annotations

from typing import Annotated

import typer

from sfumato.cli.shared import app
from sfumato.config.prompt_sets import SETS
from sfumato.config.prompts import Source

prompts = typer.Typer(no_args_is_help=True, help="List sets of prompts, and show what is in one.")
app.add_typer(prompts, name="prompts")


@prompts.command("list")
def list_sets() -> None:
    """The sets that are known by name; those of the hub are downloaded when they are first used.

    Example: sfumato prompts list
    """
    for name, entry in SETS.items():
        where = f"hub:{entry.dataset}" if entry.dataset else "bundled"
        print(f"{name}\n    {entry.description}\n    {where}; licence: {entry.licence}")


@prompts.command()
def show(
    source: Annotated[str, typer.Argument(help="A set's name, a file, FILE:COLUMN, or hub:OWNER/NAME[:COLUMN].")],
    config: Annotated[str | None, typer.Option(help="Of a data set of the hub.")] = None,
    split: Annotated[str | None, typer.Option(help="Of a data set of the hub.")] = None,
    limit: Annotated[int | None, typer.Option(help="No more than this many.")] = None,
    seed: Annotated[int | None, typer.Option(help="Draw them at random.")] = None,
) -> None:
    """Print the prompts of a set, one on each line, which is a prompt file again.

    Example: sfumato prompts show parti-prompts --limit 100 --seed 0 > mine.txt
    """
    options = {"config": config, "split": split, "limit": limit, "seed": seed}
    print("\n".join(Source.parse({"dataset": source, **options}).read()))
