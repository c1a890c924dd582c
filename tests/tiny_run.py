"""A tiny world on disk for tests of the stages of a run: a pipeline, a vision model for features, and a recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import CLIPVisionConfig, CLIPVisionModel

from tests import tiny

RECIPE: dict[str, Any] = {
    "name": "tiny",
    "sampling": {"num_inference_steps": 2, "guidance_scale": 2.0},
    "reward": "colourfulness",
    "prompts": ["a", "b", "c"],
    "training": {
        "lora": {"rank": 2},
        "steps": 4,
        "batch_size": 2,
        "lr": 1e-2,
        "checkpoint_every": 2,
        "monitor_every": 2,
        "monitor_prompts": 1,
        "monitor_images": 2,
        "ema_decay": 0.5,
    },
}
EVALUATION: dict[str, Any] = {
    "prompts": ["a", "b", "d"],
    "images_per_prompt": 4,
    "batch_size": 3,
    "neighbours": 2,
    "unrelated": ["x", "y"],
    "unrelated_images": 2,
    "points": [
        {"kind": "base"},
        {"kind": "tuned"},
        {"kind": "tuned", "checkpoint": 2},
        {"kind": "guidance", "schedule": "power", "parameters": {"p": 2}},
        {"kind": "best_of", "n": 2},
    ],
}


def make_world(folder: Path) -> Path:
    """Write two pipelines and a vision model into the folder."""
    tiny.pipeline("sd").save_pretrained(folder / "pipeline")
    tiny.pipeline("flux").save_pretrained(folder / "pipeline-flux")
    _vision_model(folder / "vision")
    return folder


def write_recipe(path: Path, world: Path, **changes: Any) -> Path:
    """Write a recipe for a world; `changes` replace its sections, None removes one."""
    recipe = {
        **RECIPE,
        "pipeline": {"path": str(world / "pipeline")},
        "evaluation": {**EVALUATION, "features": str(world / "vision")},
        **changes,
    }
    path.write_text(yaml.safe_dump({key: value for key, value in recipe.items() if value is not None}))
    return path


def _vision_model(folder: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = CLIPVisionConfig(
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            image_size=16,
            patch_size=8,
        )
        CLIPVisionModel(config).save_pretrained(folder)
    preprocessing = {
        "size": {"shortest_edge": 16},
        "crop_size": {"height": 16, "width": 16},
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "resample": 3,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessing))
