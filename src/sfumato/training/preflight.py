"""What is seen of the rewards on images of the base model, before anything is tuned."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from sfumato.config import TrainingConfig
from sfumato.pipelines.rollout import rollout
from sfumato.rewards import Reward
from sfumato.rewards.base import FunctionReward
from sfumato.rewards.preflight import try_reward
from sfumato.training.objective import Objective

SEED = 3_900_000
"""Of the first image; the others count up. No evaluation may use seeds from here to 4 millions."""
FEW, MANY = 2, 64
"""Images to try a reward on, and to measure its mean and deviation on: within 1/8 and 9 % of a deviation."""


def base_images(
    pipe: Any, prompts: list[str], count: int, size: int, call: dict[str, Any]
) -> Iterator[tuple[torch.Tensor, list[str]]]:
    """Images of a pipeline as it stands, in 8-bit steps as an evaluation sees them, with their prompts.

    Args:
        prompts: `count` of them are taken at even distances; if there are fewer, each several times.
        count: how many images.
        size: images at a time.
        call: further arguments of the pipeline's call.

    Yields:
        Images (B,3,H,W) in [0, 1] and B prompts.
    """
    chosen = [prompts[i * max(len(prompts), count) // count % len(prompts)] for i in range(count)]
    for start in range(0, count, size):
        batch = chosen[start : start + size]
        seeds = range(SEED + start, SEED + start + len(batch))
        images = rollout(pipe, prompt=batch, seeds=seeds, **call).images
        yield (images.float() * 255).round() / 255, batch


def try_on_base(
    pipe: Any, objective: Objective, reward: Reward, prompts: list[str], config: TrainingConfig, call: dict[str, Any]
) -> None:
    """Try a reward on a few images of the pipeline, with gradient if the objective needs one.

    Raises:
        RewardError: as `try_reward`.
    """
    found = list(base_images(pipe, prompts, FEW, min(config.micro_batch_size or config.batch_size, FEW), call))
    images = torch.cat([images for images, _ in found])
    try_reward(reward, images, [prompt for _, batch in found for prompt in batch], needs_gradient(objective))


def needs_gradient(objective: Objective) -> bool:
    """Whether an objective refuses a reward that has none."""
    try:
        objective.check(FunctionReward(lambda images, prompts: images.mean((1, 2, 3)), "blind", differentiable=False))
    except ValueError:
        return True
    return False
