"""The command line. What people want goes to stdout, chatter to stderr."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sfumato._version import __version__
from sfumato.config import load_recipe, read_prompts, shipped_recipes

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


@app.command()
def recipes(name: Annotated[str | None, typer.Argument(help="Print this recipe.")] = None) -> None:
    """List the shipped recipes, or print one to start your own from.

    Example: sfumato recipes emoji64-draft > mine.yaml
    """
    from importlib.resources import files

    if name is not None and name not in shipped_recipes():
        raise ValueError(f"there is no shipped recipe {name!r}: choose one of {', '.join(shipped_recipes())}")
    if name is None:
        for shipped in shipped_recipes():
            print(f"{shipped:24} {load_recipe(shipped).description}")
    else:
        print(files("sfumato").joinpath("recipes", f"{name}.yaml").read_text(encoding="utf-8"), end="")


@app.command()
def train(source: Source, overrides: Overrides = None) -> None:
    """Tune a LoRA on a reward; continues if it was interrupted.

    Example: sfumato train emoji64-draft training.steps=40 run=runs/mine
    """
    experiment = _experiment(source, overrides)
    for _ in experiment.train():
        pass
    if experiment.is_main_process:
        for name in experiment.recipe.trainings:
            print(experiment.run.training(name) / "pytorch_lora_weights.safetensors")


@app.command()
def evaluate(source: Source, overrides: Overrides = None) -> None:
    """Sample and measure every operating point of a trained run, and print the table.

    Example: sfumato evaluate runs/mine
    """
    from sfumato.report.table import frontier_table

    experiment = _experiment(source, overrides)
    if experiment.is_main_process:
        print(frontier_table(experiment.evaluate()))


@app.command("tune-schedule")
def tune_schedule(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder whose training is finished.")],
    keep: Annotated[
        str, typer.Option(help="diversity=0.9: at least 0.9 of the base's; or reward=0.8: of the tuned model's gain.")
    ] = "diversity=0.9",
    budget: Annotated[int, typer.Option(help="Images of the search; the held-out comparison comes on top.")] = 3000,
    images: Annotated[int, typer.Option(help="Images per prompt, with the same seeds for every schedule.")] = 8,
    prompts: Annotated[
        Path | None, typer.Option(help="A text file with a prompt on each line. [default: 12 training prompts]")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the search.")] = 0,
) -> None:
    """Find the guidance schedule with the most reward that keeps enough diversity, or the reverse; continues.

    The search uses training prompts, the comparison with the best fixed schedule the evaluation's held-out ones.

    Example: sfumato tune-schedule runs/mine --keep diversity=0.9 --budget 3000
    """
    from sfumato.frontier.search import Goal

    goal = Goal.parse(keep)
    given = read_prompts(str(prompts)) if prompts else None
    _silence()
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


@app.command()
def report(folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]) -> None:
    """Write the run's report, one HTML file that opens anywhere.

    Example: sfumato report runs/mine
    """
    from sfumato.report import write_report
    from sfumato.runs import Run

    print(write_report(Run.load(folder)))


@app.command()
def run(source: Source, overrides: Overrides = None) -> None:
    """Train, evaluate and report in one go; continues if it was interrupted.

    Example: sfumato run emoji64-demo run=runs/demo
    """
    _run(_experiment(source, overrides))


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
        _silence()
        from sfumato.demo import quick_strip

        print(quick_strip(out or Path("sfumato-demo.png")))
    else:
        _run(_experiment("emoji64-demo", [*(overrides or []), *([f"run={out}"] if out else [])]))


@app.command()
def sample(
    prompt: Annotated[str, typer.Argument(help="What to draw.")],
    pipeline: Annotated[
        str, typer.Option(help="emoji64, a folder, a model id on the hub, or a folder of `sfumato export`.")
    ] = "emoji64",
    lora: Annotated[
        Path | None, typer.Option(help="A tuned model: a LoRA's file or folder, a training folder, a whole UNet.")
    ] = None,
    schedule: Annotated[
        str | None,
        typer.Option(help="Blend base and tuned: base, power:2, sigmoid:10,0.5, table:0=0,0.5=0.1,1=0.4."),
    ] = None,
    cap: Annotated[float, typer.Option(help="Multiply the schedule by this.")] = 1.0,
    clock: Annotated[str, typer.Option(help="What the schedule runs on: index, timestep, sigma, logsnr.")] = "index",
    blend: Annotated[str | None, typer.Option(help="predictions or weights. [default: predictions]")] = None,
    images: Annotated[int, typer.Option(min=1, help="How many images.")] = 8,
    seed: Annotated[int, typer.Option(help="Seed of the first image; the others count up.")] = 0,
    steps: Annotated[int, typer.Option(min=1, help="num_inference_steps.")] = 20,
    guidance_scale: Annotated[float, typer.Option(help="Classifier-free guidance.")] = 3.0,
    dtype: Annotated[
        str | None, typer.Option(help="float32, bfloat16 or float16. [default: what was saved, else float32]")
    ] = None,
    out: Annotated[Path, typer.Option(help="A PNG with all images in a row.")] = Path("sample.png"),
) -> None:
    """Draw images, with or without a tuned LoRA and a guidance schedule.

    Example: sfumato sample "cat face" --lora runs/mine/training/tuned --schedule power:2
    """
    _silence()
    from sfumato.config import PipelineConfig
    from sfumato.sampling import draw, parse_schedule

    if dtype not in (None, "float32", "bfloat16", "float16"):
        raise ValueError(f"dtype is float32, bfloat16 or float16, not {dtype!r}")
    config = PipelineConfig(path=pipeline, **({"dtype": dtype} if dtype else {}))
    if schedule is None and (cap != 1 or clock != "index"):
        raise ValueError("--cap and --clock belong to a schedule: give one with --schedule")
    plan = parse_schedule(schedule, cap, clock) if schedule else None
    call = {"num_inference_steps": steps, "guidance_scale": guidance_scale}
    print(draw(config, prompt, list(range(seed, seed + images)), call, out, lora, plan, blend))


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder whose training is finished.")],
    point: Annotated[
        str, typer.Argument(help="An operating point by name (aig-power-2), its definition, or a point.yaml.")
    ],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    push: Annotated[str | None, typer.Option(help="Upload it to this model (owner/name) on the hub.")] = None,
    private: Annotated[bool, typer.Option("--private", help="Make a new model on the hub private.")] = False,
) -> None:
    """Save an operating point of a run as a guided pipeline, which sfumato.load(FOLDER) loads, with a model card.

    Example: sfumato export runs/mine aig-power-2 --out guided --push me/my-model
    """
    _silence()
    from sfumato.bundle import push_to_hub
    from sfumato.export import save_run

    print(save_run(folder, point, out))
    if push:
        print(push_to_hub(out, push, private=private or None))


def _experiment(source: str, overrides: list[str] | None) -> Experiment:
    """The experiment of a recipe, or of a run folder that is continued."""
    recipe = load_recipe(source, overrides or [])
    _silence()
    from sfumato.experiment import Experiment

    return Experiment(recipe)


def _run(experiment: Experiment) -> None:
    from sfumato.report.table import frontier_table

    for _ in experiment.train():
        pass
    if not experiment.is_main_process:
        return
    if experiment.recipe.evaluation:
        print(frontier_table(experiment.evaluate()))
    print(f"\nreport: {experiment.report()}")


def _silence() -> None:
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
    """Entry point. Exit codes: 0 done, 1 the work failed, 2 wrong usage, 130 interrupted."""
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
    return own or isinstance(error, ValueError | OSError)


if __name__ == "__main__":
    main()
