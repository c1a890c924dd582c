"""Rewards made of rewards."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sfumato.rewards.base import Reward, check_prompts, score


class WeightedSum:
    """r = Σ w_i r_i, on the raw scales of its parts: PickScore varies by 2, JPEG size by 100, so choose weights so.

    Args:
        rewards: the parts.
        weights: one per part; a negative weight turns a reward into a penalty.

    Raises:
        ValueError: no parts, or another number of weights than of rewards.
    """

    def __init__(self, rewards: Sequence[Reward], weights: Sequence[float]):
        if not rewards or len(rewards) != len(weights):
            raise ValueError(
                f"a weighted sum needs one weight per reward: {len(rewards)} rewards, {len(weights)} weights"
            )
        self.rewards, self.weights = tuple(rewards), tuple(map(float, weights))
        self.name = " + ".join(f"{weight:g} {reward.name}" for weight, reward in zip(weights, rewards, strict=True))
        self.differentiable = all(reward.differentiable for reward in rewards)
        bounds = [
            sorted(weight * bound for bound in reward.range)
            for weight, reward in zip(self.weights, rewards, strict=True)
            if weight
        ]
        self.range = (sum(low for low, _ in bounds), sum(high for _, high in bounds))

    def check_prompts(self, prompts: Sequence[str]) -> None:
        """Raise ValueError unless every part knows the prompts."""
        for reward in self.rewards:
            check_prompts(reward, prompts)

    def __call__(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        pairs = zip(self.weights, self.rewards, strict=True)
        return torch.stack([weight * score(reward, images, prompts) for weight, reward in pairs]).sum(0)
