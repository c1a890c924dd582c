"""Measured runs for tests: frontier.json made by `summarise` from values of known law, in real run folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from sfumato.frontier import summarise
from sfumato.runs import Run, write_json

# name -> label, method, reward, Vendi score, forwards, definition
POINTS: dict[str, tuple[str, str, float, float, float, dict[str, Any]]] = {
    "base": ("base", "base", 0.0, 5.0, 20, {"kind": "base"}),
    "tuned": ("tuned", "tuned", 10.0, 1.4, 20, {"kind": "tuned"}),
    "lora-0.3": ("LoRA 0.3", "LoRA scale", 3.0, 4.4, 20, {"kind": "lora_scale", "scale": 0.3}),
    "lora-0.6": ("LoRA 0.6", "LoRA scale", 6.0, 2.6, 20, {"kind": "lora_scale", "scale": 0.6}),
    "aig-power-2": (
        "AIG power 2",
        "AIG",
        7.0,
        3.8,
        35,
        {"kind": "guidance", "schedule": "power", "parameters": {"p": 2}},
    ),
    "aig-power-4": (
        "AIG power 4",
        "AIG",
        4.0,
        4.8,
        32,
        {"kind": "guidance", "schedule": "power", "parameters": {"p": 4}},
    ),
}
METHODS = {
    "AIG": ["base", "aig-power-2", "aig-power-4", "tuned"],
    "LoRA scale": ["base", "lora-0.3", "lora-0.6", "tuned"],
}
RECIPE: dict[str, Any] = {
    "name": "made-up",
    "pipeline": {"path": "hub/small-model"},
    "sampling": {"num_inference_steps": 20, "guidance_scale": 4.0},
    "reward": {"name": "preference", "model": "emoji64"},
    "prompts": ["x"],
    "training": {"steps": 50, "lr": 1e-3, "seed": 0},
    "evaluation": {"prompts": ["a"], "images_per_prompt": 8, "seed": 1_000_000, "points": []},
}


def make_frontier(
    noise: float = 0.0, prompts: int = 24, seed: int = 0, shift: dict[str, float] | None = None
) -> dict[str, Any]:
    """A frontier.json whose per-prompt values scatter around `POINTS`; `shift` adds to the Vendi score of points."""
    random = np.random.default_rng(seed)
    hardness = random.normal(size=prompts)  # shared by all points, as prompts are
    values = {
        name: {
            "reward": reward + noise * (hardness + 0.2 * random.normal(size=prompts)),
            "gold": 0.1 * reward * (1.2 - 0.1 * reward) + noise * 0.02 * random.normal(size=prompts),
            "vendi": vendi + (shift or {}).get(name, 0.0) + noise * 0.2 * random.normal(size=prompts),
            "recall": (vendi - 1) / 5 + 0 * hardness,
        }
        for name, (_, _, reward, vendi, *_) in POINTS.items()
    }
    return frontier_of(values)


def frontier_of(values: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """A frontier.json of these per-prompt values of `POINTS`."""
    found = summarise(values, METHODS, forwards={name: point[4] for name, point in POINTS.items()})
    for entry in found["points"]:
        label, method, _, _, forwards, definition = POINTS[entry["name"]]
        entry |= {"label": label, "method": method, "forwards": forwards, "definition": definition}
    prompts = len(values["base"]["reward"])
    return found | {"prompts": [f"prompt {i}" for i in range(prompts)], "images_per_prompt": 8}


def write_run(path: Path, frontier: dict[str, Any] | None = None, **changes: Any) -> Run:
    """A run folder with this frontier; `changes` update sections of the recipe."""
    recipe = {
        key: {**value, **changes.get(key, {})} if isinstance(value, dict) else changes.get(key, value)
        for key, value in RECIPE.items()
    }
    run = Run.create(path, recipe, "made-up")
    write_json(run.evaluation / "frontier.json", frontier or make_frontier())
    return run
