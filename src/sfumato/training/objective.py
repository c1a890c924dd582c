"""What the trainer and an objective say to each other."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from sfumato.config import DraftConfig
from sfumato.rewards import Reward


@dataclass(frozen=True)
class Batch:
    """The images that one loss is about.

    Attributes:
        pipe: the pipeline with the LoRA that is trained, active.
        adapter: the LoRA's name.
        prompts: one per image.
        seeds: one per image.
        call: further arguments of the pipeline's call.
        reward: scores images (B, 3, H, W) in [0, 1] against the prompts.
    """

    pipe: Any
    adapter: str
    prompts: list[str]
    seeds: list[int]
    call: dict[str, Any]
    reward: Reward


@dataclass(frozen=True)
class Outcome:
    """What an objective made of a batch.

    Attributes:
        loss: 0-d, with gradient to the trained parameters; a mean over images.
        rewards: (B,), detached.
        logs: further 0-d tensors to log, detached.
    """

    loss: torch.Tensor
    rewards: torch.Tensor
    logs: dict[str, torch.Tensor] = field(default_factory=dict)


class Objective(Protocol):
    """A way to tune: a plain value that turns a batch into a loss."""

    @property
    def last_steps(self) -> int:
        """How many scheduler steps at the end carry gradient."""

    def check(self, reward: Reward) -> None:
        """Raise ValueError if the objective cannot work with this reward; called before anything is sampled."""

    def __call__(self, batch: Batch) -> Outcome: ...


def build_objective(config: DraftConfig) -> Objective:
    """The objective that a recipe asks for."""
    from sfumato.training.draft import Draft

    return Draft(last_steps=config.last_steps, kl=config.kl)
