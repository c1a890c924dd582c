"""Look up rewards, and try one on pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from yaml import YAMLError

from sfumato.cli.shared import app, silence
from sfumato.values import parse_yaml

rewards = typer.Typer(no_args_is_help=True, help="List rewards, and try one on pictures.")
app.add_typer(rewards, name="rewards")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@rewards.command("list")
def list_rewards(as_json: AsJson = False) -> None:
    """The rewards that have a name: values observed, gradient, and the weights that they load.

    Example: sfumato rewards list
    """
    from sfumato.rewards import list_rewards

    found = list_rewards()
    if as_json:
        print(json.dumps([info.facts() for info in found], indent=2, ensure_ascii=False))
        return
    rows = [("name", "observed", "gradient", "model", "licence", "size")]
    rows += [
        (info.name, info.observed, "yes" if info.differentiable else "no", info.model, info.licence, info.size)
        for info in found
    ]
    head, *lines = _table(rows)
    print(head)
    for info, line in zip(found, lines, strict=True):
        package = f"; from the package {info.package}" if info.package else ""
        print(f"{line}\n    {info.description}; range: {info.range}{package}")


@rewards.command()
def score(
    reward: Annotated[
        str, typer.Argument(help="A name, module:attribute, or as in a recipe: '{name: clip_score, model: emoji64}'.")
    ],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files.")],
    prompt: Annotated[
        list[str] | None, typer.Option(help="What they show; once for all images, or once for each in their order.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Score image files with any reward.

    Example: sfumato rewards score '{name: preference, model: emoji64}' cat.png dog.png --prompt cat --prompt dog
    """
    silence()
    import torch

    from sfumato.images import load_image
    from sfumato.pipelines.load import default_device
    from sfumato.rewards import build_reward, check_prompts, score

    prompts = prompt or [""]
    if len(prompts) not in (1, len(images)):
        raise ValueError(f"{len(prompts)} prompts for {len(images)} images: give --prompt once, or once for each image")
    prompts = prompts * len(images) if len(prompts) == 1 else prompts
    loaded, device = [load_image(path)[None] for path in images], default_device()
    built = build_reward(_config(reward), device)
    check_prompts(built, prompts)
    with torch.no_grad():  # one at a time, since they may differ in size
        scores = [score(built, image.to(device), [text]).item() for image, text in zip(loaded, prompts, strict=True)]
    found = zip(images, prompts, scores, strict=True)
    if as_json:
        rows = [{"image": str(path), "prompt": text, "score": value} for path, text, value in found]
        print(json.dumps({"reward": built.name, "scores": rows}, indent=2, ensure_ascii=False))
    else:
        print("\n".join(_table([(built.name, "image", "prompt"), *((f"{v:.5g}", str(p), t) for p, t, v in found)])))


def _config(text: str) -> Any:
    """What a recipe would say."""
    try:
        config = parse_yaml(text)
    except YAMLError as error:
        raise ValueError(f"the reward {text!r} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(config, str | dict | list):
        raise ValueError(f"a reward is a name, a name with options, or a list of these, not {text!r}")
    return config


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
