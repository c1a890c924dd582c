"""Mean and spread of all rewards seen so far, which `training.shaping.normalize` divides by."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

import torch


def _zero() -> torch.Tensor:
    return torch.zeros((), dtype=torch.float64)


@dataclass(frozen=True)
class RewardsSeen:
    """Running moments (Chan, Golub and LeVeque 1979); 0-d float64 on the CPU, so that a checkpoint can hold them.

    Attributes:
        rewards_count: how many.
        rewards_mean: their mean.
        rewards_squares: the sum of their squared distances from it.
    """

    rewards_count: torch.Tensor = field(default_factory=_zero)
    rewards_mean: torch.Tensor = field(default_factory=_zero)
    rewards_squares: torch.Tensor = field(default_factory=_zero)

    def and_these(self, rewards: torch.Tensor) -> RewardsSeen:
        """The moments with further rewards (N,)."""
        new = rewards.double().cpu()
        total = self.rewards_count + len(new)
        shift = new.mean() - self.rewards_mean
        squares = (new - new.mean()).square().sum() + shift.square() * self.rewards_count * len(new) / total
        return RewardsSeen(total, self.rewards_mean + shift * len(new) / total, self.rewards_squares + squares)

    @property
    def mean(self) -> float:
        """The mean; 0 before any reward was seen."""
        return float(self.rewards_mean)

    @property
    def std(self) -> float:
        """The standard deviation; 1 while there is none, so that it can always be divided by."""
        spread = float((self.rewards_squares / self.rewards_count.clamp_min(1)).sqrt())
        return spread if spread > 0 else 1.0

    def tensors(self) -> dict[str, torch.Tensor]:
        return asdict(self)
