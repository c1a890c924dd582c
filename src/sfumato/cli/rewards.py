"""Look up rewards."""

from __future__ import annotations

import typer

from sfumato.cli.shared import app

rewards = typer.Typer(no_args_is_help=True, help="Look rewards up.")
app.add_typer(rewards, name="rewards")


@rewards.command("list")
def list_rewards() -> None:
    """List the rewards that have a name: range, gradient, and the weights that they load."""
    from sfumato.rewards import list_rewards

    for info in list_rewards():
        gradient = "differentiable" if info.differentiable else "no gradient"
        print(f"{info.name}\n  {info.description}\n  {info.range}; {gradient}")
        if info.model:
            print(f"  {info.model}, {info.licence}, {info.size}")
