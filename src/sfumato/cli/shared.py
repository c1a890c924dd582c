"""The application, what its commands share, and its way out: data to stdout, chatter to stderr, exit codes."""

from __future__ import annotations

import os
import sys
import warnings
from typing import TYPE_CHECKING, Annotated

import typer

from sfumato._version import __version__
from sfumato.config import load_recipe

if TYPE_CHECKING:
    from sfumato.experiment import Experiment

app = typer.Typer(
    name="sfumato",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Reward-tune text-to-image diffusion models without losing their diversity.",
    epilog="Start with `sfumato demo --quick` (a picture in 90 seconds), then `sfumato demo` (the whole story).",
)

Source = Annotated[
    str, typer.Argument(metavar="RECIPE", help="Name of a shipped recipe, path of a YAML file, or a run folder.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Overrides, such as training.lr=1e-4 run=runs/mine."),
]


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        print(__version__)
        raise typer.Exit


def experiment_of(source: str, overrides: list[str] | None) -> Experiment:
    """The experiment of a recipe, or of a run folder that is continued."""
    recipe = load_recipe(source, overrides or [])
    silence()
    from sfumato.experiment import Experiment

    return Experiment(recipe)


def silence() -> None:
    """Keep the progress bars and warnings of diffusers and transformers away, unless SFUMATO_DEBUG is set."""
    if os.environ.get("SFUMATO_DEBUG"):
        return
    import diffusers
    import transformers

    warnings.filterwarnings("ignore", category=FutureWarning)
    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()


def main() -> None:
    """Entry point. Exit codes: 0 done, 1 the work failed, 2 wrong usage, 3 `--fail-on`, 130 interrupted."""
    try:
        app()
    except SystemExit as stop:
        if stop.code == 130:
            print("\ninterrupted; the same command continues", file=sys.stderr)
        raise
    except Exception as error:
        if os.environ.get("SFUMATO_DEBUG") or not _is_expected(error):
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


def _is_expected(error: Exception) -> bool:
    """Whether the message alone tells the user what to do. SFUMATO_DEBUG=1 shows where any error arose."""
    own = type(error).__module__.partition(".")[0] == "sfumato"
    extra = isinstance(error, ImportError) and "pip install" in str(error)
    return own or extra or isinstance(error, ValueError | OSError)
