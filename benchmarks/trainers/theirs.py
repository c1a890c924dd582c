"""TRL's side: one `step` of its AlignPropTrainer or DDPOTrainer at a time. Runs in the peers' environment."""

from __future__ import annotations

import random
from typing import Any

import torch
from bed import PROMPTS, REWARDS, Settings, Side
from trl import AlignPropConfig, AlignPropTrainer, DDPOConfig, DDPOTrainer, DefaultDDPOStableDiffusionPipeline

METHODS = ("AlignProp, K = 1", "AlignProp, default", "AlignProp, range of the steps", "DDPO")
UNATTACHED = "does not require grad"
"""What torch says where AlignProp drew no step for the gradient, which ends a run of TRL's own."""


def start(settings: Settings) -> Side:
    pipeline = DefaultDDPOStableDiffusionPipeline(settings.folder, use_lora=True)
    common = {
        "seed": settings.seed,
        "mixed_precision": "no",
        "save_freq": 10**9,
        "sample_num_steps": settings.steps,
        "sample_guidance_scale": settings.guidance,
        "train_batch_size": settings.batch,
        "train_learning_rate": settings.lr,
    }
    score = REWARDS[settings.reward]()

    def reward(images: torch.Tensor, prompts: Any, metadata: Any) -> tuple[torch.Tensor, dict]:
        return score(images, list(prompts)), {}

    def prompt() -> tuple[str, dict]:
        return random.choice(PROMPTS), {}

    if settings.method == "DDPO":
        config = DDPOConfig(sample_batch_size=settings.batch, sample_num_batches_per_epoch=1, **common)
        trainer = DDPOTrainer(config, reward, prompt, pipeline)
    else:
        config = AlignPropConfig(**common, **_truncation(settings))
        trainer = AlignPropTrainer(config, reward, prompt, pipeline)
    pipeline.sd_pipeline.set_progress_bar_config(disable=True)
    return Side(pipeline.sd_pipeline, lambda: _update(trainer))


def _truncation(settings: Settings) -> dict[str, Any]:
    return {
        "AlignProp, K = 1": {"truncated_backprop_rand": False, "truncated_backprop_timestep": settings.steps - 1},
        "AlignProp, default": {},
        "AlignProp, range of the steps": {"truncated_rand_backprop_minmax": (0, settings.steps)},
    }[settings.method]


def _update(trainer: Any) -> None:
    """Epoch 0 saves nothing."""
    try:
        trainer.step(0, 0)
    except RuntimeError as error:
        if UNATTACHED not in str(error):
            raise
        _update(trainer)
