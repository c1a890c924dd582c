"""The bundled demonstration models emoji-64 and emoji-64-flow: where their parts lie and how to load them."""

import json
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from sfumato.judge import Judge

PIPELINES = {"emoji64": "emoji64", "emoji64-flow": "emoji64_flow"}
"""The bundled pipelines by the name that recipes give them, a UNet that predicts velocities by DDIM's schedule and a
transformer with flow matching, and their folders."""

STYLES = ("noto", "twemoji", "fluent")
HOUSE_STYLE = "fluent"
"""The style that the demonstration reward prefers."""


def path(*parts: str) -> Path:
    """The folder of emoji-64 with the judge, the scorer and the prompts of both models, or something inside it."""
    return pipeline_path().joinpath(*parts)


def pipeline_path(name: str = "emoji64") -> Path:
    """The folder of a bundled pipeline.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in PIPELINES:
        raise ValueError(f"no bundled pipeline {name!r}: choose one of {', '.join(PIPELINES)}")
    return Path(str(resources.files("sfumato"))).joinpath("assets", PIPELINES[name])


def demo_pipeline(name: str = "emoji64", **kwargs: Any) -> Any:
    """A bundled text-to-image pipeline in float32, without progress bar; draws 64x64 pictures.

    Args:
        name: ``"emoji64"``, a ``StableDiffusionPipeline``, or ``"emoji64-flow"``, a ``StableDiffusion3Pipeline``, which
            is four times as fast if called with ``max_sequence_length=1``.
        kwargs: passed on to ``DiffusionPipeline.from_pretrained``.

    Raises:
        ValueError: there is no bundled pipeline of that name.
    """
    import torch
    from diffusers import DiffusionPipeline

    options: dict[str, Any] = {"dtype": torch.float32, **kwargs}
    pipe = DiffusionPipeline.from_pretrained(pipeline_path(name), **options)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def load_judge() -> Judge:
    """The bundled judge of subcategory and style, in evaluation mode."""
    return Judge.from_pretrained(path("judge"))


def scorer_path() -> Path:
    """The folder of the bundled CLIPModel that scores pictures against prompts."""
    return path("scorer")


@cache
def _answers() -> dict[str, list[str]]:
    return json.loads(path("prompts.json").read_text(encoding="utf-8"))


def prompt_names() -> list[str]:
    """All prompts, without style words, that the models were trained on."""
    return list(_answers())


def prompt_subcategories(prompt: str) -> list[str]:
    """The subcategories that answer a prompt rightly; a style suffix such as ", fluent style" is ignored.

    Raises:
        ValueError: if the prompt is not among those that the models were trained on.
    """
    name = prompt.strip().lower()
    for style in STYLES:
        name = name.removesuffix(f", {style} style")
    if name not in _answers():
        raise ValueError(f"emoji-64 does not know the prompt {prompt!r}; sfumato.emoji64.prompt_names() lists all")
    return list(_answers()[name])
