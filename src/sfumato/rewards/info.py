"""What is known of a reward before it is built: every file of rewards has a tuple `INFO` of these."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from sfumato.rewards.base import Reward

BUNDLED = "emoji64"


@dataclass(frozen=True)
class RewardInfo:
    """What `list_rewards` and `sfumato rewards list` say of a reward.

    Attributes:
        name: what a recipe calls it.
        description: one line.
        range: of its values, in words: what it can give.
        differentiable: whether it can be trained on by back-propagation.
        build: makes it from the options of the recipe.
        model: hub id of its weights; empty where it has none of its own.
        licence: of these weights.
        size: of these weights, to be downloaded.
        observed: usual values, in words, as published; `list_rewards` adds what was measured on emoji-64.
        package: that brings it, if it is not sfumato.
    """

    name: str
    description: str
    range: str
    differentiable: bool
    build: Callable[..., Reward]
    model: str = ""
    licence: str = ""
    size: str = ""
    observed: str = ""
    package: str = ""

    def facts(self) -> dict[str, Any]:
        """All of this but how it is built, as plain values."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "build"}
