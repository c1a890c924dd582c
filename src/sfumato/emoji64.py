"""The bundled demonstration model emoji-64: where its parts lie and how to load them."""

import json
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sfumato.judge import Judge

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

STYLES = ("noto", "twemoji", "fluent")
HOUSE_STYLE = "fluent"
"""The style that the demonstration reward prefers."""


def path(*parts: str) -> Path:
    """The folder of the bundled model, or something inside it."""
    return Path(str(resources.files("sfumato"))).joinpath("assets", "emoji64", *parts)


def demo_pipeline(**kwargs: Any) -> "StableDiffusionPipeline":
    """The bundled text-to-image pipeline in float32, without progress bar; draws 64x64 pictures.

    Args:
        kwargs: passed on to ``StableDiffusionPipeline.from_pretrained``.
    """
    import torch
    from diffusers import StableDiffusionPipeline

    options: dict[str, Any] = {"dtype": torch.float32, **kwargs}
    pipe = StableDiffusionPipeline.from_pretrained(path(), **options)
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
    """All prompts, without style words, that the model was trained on."""
    return list(_answers())


def prompt_subcategories(prompt: str) -> list[str]:
    """The subcategories that answer a prompt rightly; a style suffix such as ", fluent style" is ignored.

    Raises:
        ValueError: if the prompt is not among those that the model was trained on.
    """
    name = prompt.strip().lower()
    for style in STYLES:
        name = name.removesuffix(f", {style} style")
    if name not in _answers():
        raise ValueError(f"emoji-64 does not know the prompt {prompt!r}; sfumato.emoji64.prompt_names() lists all")
    return list(_answers()[name])
