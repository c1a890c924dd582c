"""The model card that lies beside a saved guided pipeline: what it is, how it blends, how to use it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from sfumato.emoji64 import PIPELINES
from sfumato.schedules import FORMULAS, Schedule, schedule

NOT_OF_THE_SCHEDULE = ("adapter", "blend", "savings")
"""The keys of `Guidance.to_dict()` that do not describe its schedule."""


def schedule_of(guidance: Mapping[str, Any]) -> Schedule:
    """The schedule in what `Guidance.to_dict()` gave; raises ValueError or TypeError if it is none."""
    return schedule(**{key: value for key, value in guidance.items() if key not in NOT_OF_THE_SCHEDULE})


def is_hub_id(base: str) -> bool:
    """Whether others can find a pipeline of this name on the Hugging Face hub: not if it is a folder here."""
    return re.fullmatch(r"[\w.-]+/[\w.-]+", base) is not None and not Path(base).exists()


def model_card(base: str, guidance: Mapping[str, Any], lora: bool, facts: Mapping[str, str]) -> str:
    """A README.md for the Hugging Face hub.

    Args:
        base: hub id, or a bundled pipeline's name, or a local path, which is left out of the card's header.
        guidance: what `Guidance.to_dict()` gave.
        lora: whether the tuned model is a LoRA or a whole denoiser.
        facts: what else is known, heading -> text.
    """
    on_hub = is_hub_id(base)
    header: dict[str, Any] = {"library_name": "diffusers", "pipeline_tag": "text-to-image"}
    if on_hub:
        header |= {"base_model": base, "base_model_relation": "adapter" if lora else "finetune"}
    header["tags"] = [
        "text-to-image",
        "diffusers",
        "sfumato",
        "annealed-importance-guidance",
        *(["lora"] if lora else []),
    ]
    what = "LoRA" if lora else "denoiser"
    name = f"`{base}`" if on_hub or base in PIPELINES else "a local model"
    lines = [
        "---",
        yaml.safe_dump(header, sort_keys=False).strip(),
        "---",
        f"\n# Reward-tuned {what} for {name}, with guidance\n",
        f"A tuned {what} and the schedule by which [sfumato](https://arxiv.org/abs/2409.06493) blends it with its base "
        "while sampling: the base early, where composition is decided, the tuned model late, where detail is.\n",
        '```python\nimport sfumato\n\npipe = sfumato.load("THIS_REPOSITORY")\nimage = pipe("a dog").images[0]\n```\n',
        "`sfumato.disable_annealed_guidance(pipe)` leaves the plain tuned model.",
    ]
    if lora:
        lines.append("Without sfumato, `pipe.load_lora_weights(...)` of diffusers loads the plain tuned model.")
    lines += ["\n## Schedule\n", *_formula(guidance)]
    for heading, text in facts.items():
        lines += [f"\n## {heading}\n", text]
    return "\n".join(lines) + "\n"


def _formula(guidance: Mapping[str, Any]) -> list[str]:
    g = schedule_of(guidance)
    blended = "weights" if guidance.get("blend") == "weights" else "predictions"
    formula = FORMULAS[g.name][0]
    values = ", ".join(f"{key} = {value}" for key, value in g.parameters)
    scale = f", times {g.cap:g}" if g.cap != 1 else ""
    progress = [i / 4 for i in range(5)]
    lines = [
        f"{blended}(x_t) = (1 - g(u)) · base + g(u) · tuned, with {formula}{f' ({values})' if values else ''}{scale}; "
        f"u runs from 0 (noise) to 1 (image) by the {g.clock} clock.\n",
        f"| u | {' | '.join(f'{u:g}' for u in progress)} |",
        f"|---|{'---|' * len(progress)}",
        f"| g | {' | '.join(f'{g(u):.3g}' for u in progress)} |",
    ]
    adapter = guidance.get("adapter")
    if isinstance(adapter, Mapping):
        lines.append(f"\nTuned LoRAs and their weights, by which g is multiplied: {_listed(adapter)}.")
    if guidance.get("savings"):
        lines.append(f"\nForwards are saved by: {_listed(guidance['savings'])}.")
    return lines


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())
