"""Learn a reward from preferences, and look for what is wrong with them first."""

from __future__ import annotations

import json as formats
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sfumato.cli.shared import app, silence

if TYPE_CHECKING:
    from sfumato.preferences import Finding

preference = typer.Typer(no_args_is_help=True, help="Learn a reward from preferences.")
app.add_typer(preference, name="preference")


@preference.command()
def train(
    recipe: Annotated[
        list[str],
        typer.Argument(
            metavar="[RECIPE] KEY=VALUE...",
            help="A YAML file or a folder begun before, if any; then settings: model=CLIP pairs=FILE folder=OUT.",
        ),
    ],
) -> None:
    """Learn a reward from pairs, calibrate and measure it; continues if it was interrupted.

    Pairs are .jsonl or .parquet files with prompt, image_0, image_1 and label, or in Pick-a-Pic's schema. The folder is
    a reward: reward.name=preference reward.model=FOLDER.

    Example: sfumato preference train model=openai/clip-vit-base-patch32 pairs=pairs.jsonl folder=my_reward
    """
    from sfumato.config.preference import load_preference_recipe

    settings = load_preference_recipe(recipe)
    silence()
    from accelerate import PartialState

    from sfumato.preferences import learn_preference
    from sfumato.report.preference import write_preference_page

    found = learn_preference(settings)
    if PartialState().is_main_process:
        print(_summary(found, settings.folder))
        print(f"page: {write_preference_page(settings.folder)}")


@preference.command()
def check(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Pairs to learn from, then held-out pairs, and so on.")
    ],
    ordered: Annotated[bool, typer.Option("--ordered", help="Allow that image_0 is preferred in all pairs.")] = False,
    images: Annotated[
        Path | None, typer.Option(help="Folder for images that lie in Parquet. [default: NAME.images beside it]")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings count as errors.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Find leakage between files, duplicated and contradictory pairs, missing and broken images, bad labels.

    Exits with 1 if there are errors. Loads no model.

    Example: sfumato preference check train.jsonl held_out.jsonl
    """
    from sfumato.preferences.check import Split, check_preferences

    splits = [Split.read(file, images) for file in files]
    findings = check_preferences(splits, ordered)
    if json:
        values = {"splits": [each.summary() for each in splits], "findings": [asdict(each) for each in findings]}
        print(formats.dumps(values, indent=2, ensure_ascii=False))
    else:
        print("\n".join([_counts(each.summary()) for each in splits] + [_text(each) for each in findings]))
        print("" if findings else "nothing is wrong")
    if any(strict or each.level == "error" for each in findings):
        raise typer.Exit(1)


def _summary(found: dict[str, Any], folder: str) -> str:
    on = "test" if found["reported_on"] == "test" else "held-out"
    calibration = found["calibration"]
    return (
        f"accuracy {found['accuracy']:.1%} on {found['decided']} {on} pairs without ties, 95 % interval "
        f"{found['low']:.1%} to {found['high']:.1%} (over prompts {found['by_prompt'][0]:.1%} to "
        f"{found['by_prompt'][1]:.1%}); loss {found['loss']:.3f}\n"
        f"calibration error {calibration['ece']:.3f}, by chance {calibration['ece_by_chance']:.3f}\n"
        f"reward: {{name: preference, model: {folder}}}"
    )


def _counts(split: dict[str, Any]) -> str:
    unlabelled = f", {split['unlabelled']} rows without a label" if split["unlabelled"] else ""
    return (
        f"{split['name']}: {split['pairs']} pairs of {split['prompts']} prompts and {split['images']} images; image_0 "
        f"preferred in {split['image_0_preferred']}, image_1 in {split['image_1_preferred']}, {split['ties']} "
        f"ties{unlabelled}"
    )


def _text(finding: Finding) -> str:
    return "\n    ".join([f"{finding.level}: {finding.text}", *finding.examples])
