"""What is known of a reward before it is built: every file of rewards has a tuple `INFO` of these."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sfumato.rewards.base import Reward

BUNDLED = "emoji64"


@dataclass(frozen=True)
class RewardInfo:
    """What `list_rewards` and `sfumato rewards list` say of a reward.

    Attributes:
        name: what a recipe calls it.
        description: one line.
        range: of its values, in words: what it can give and what has been observed.
        differentiable: whether it can be trained on by back-propagation.
        build: makes it from the options of the recipe.
        model: hub id of its weights; empty where it has none of its own.
        licence: of these weights.
        size: of these weights, to be downloaded.
    """

    name: str
    description: str
    range: str
    differentiable: bool
    build: Callable[..., Reward]
    model: str = ""
    licence: str = ""
    size: str = ""
