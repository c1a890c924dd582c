"""What a reward is, how any callable becomes one, and the one checked way to call it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch

from sfumato.rewards.sharing import sharing

Source = str | Path
"""Where weights come from: a folder, a file or a hub id."""
Device = str | torch.device

UNBOUNDED = (-math.inf, math.inf)
RANGE_TOLERANCE = 1e-3  # a decoder in half precision overshoots [0, 1] by a rounding error


class RewardError(RuntimeError):
    """A reward returned something that cannot be trained on or reported."""


@runtime_checkable
class Reward(Protocol):
    """Scores images against their prompts; higher is better.

    A reward that knows only some prompts can have a method `check_prompts(prompts)` that raises ValueError for others;
    an experiment calls it before it samples.

    Attributes:
        name: what reports and logs call it.
        range: smallest and largest value it can return, ±inf where there is none.
        differentiable: whether the score carries a gradient to the images.
    """

    @property
    def name(self) -> str: ...

    @property
    def range(self) -> tuple[float, float]: ...

    @property
    def differentiable(self) -> bool: ...

    def __call__(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        """Scores (B,) of images (B,3,H,W) in [0, 1], one prompt each."""
        ...


@dataclass(frozen=True)
class FunctionReward:
    """A plain function with the attributes of a `Reward`."""

    function: Callable[[torch.Tensor, list[str]], torch.Tensor]
    name: str
    range: tuple[float, float] = UNBOUNDED
    differentiable: bool = True

    def __call__(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        return self.function(images, prompts)


def as_reward(function: Callable[[torch.Tensor, list[str]], torch.Tensor], name: str | None = None) -> Reward:
    """Make any callable (images (B,3,H,W) in [0, 1], prompts) -> (B,) a `Reward`.

    A `Reward` comes back as it is. Of another callable, the attributes `range` and `differentiable` are read where it
    has them; without them it counts as unbounded and differentiable.
    """
    if not callable(function):
        raise TypeError(f"a reward is called with (images, prompts), but {function!r} cannot be called")
    if isinstance(function, Reward) and name in (None, function.name):
        return function
    own_name = getattr(function, "name", getattr(function, "__name__", type(function).__name__))
    return FunctionReward(
        function,
        name or str(own_name),
        getattr(function, "range", UNBOUNDED),
        getattr(function, "differentiable", True),
    )


def check_prompts(reward: Reward, prompts: Sequence[str]) -> None:
    """Ask a reward that has a word on prompts whether it knows these; raises ValueError if not."""
    if hasattr(reward, "check_prompts"):
        reward.check_prompts(prompts)


def score(reward: Reward, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
    """Call a reward and check what goes in and what comes out.

    Args:
        reward: the reward.
        images: floats (B,3,H,W) in [0, 1]; the reward sees half precision as float32.
        prompts: B texts.

    Returns:
        Scores (B,), at least float32, with a gradient if the reward is differentiable and the images carry one.

    Raises:
        ValueError: images or prompts break the contract.
        RewardError: the scores have a wrong shape, are not finite, lie outside the declared range by more than rounding
            explains, or lack the promised gradient.
    """
    _check_images(images)
    if isinstance(prompts, str) or len(prompts) != len(images):
        given = "one string" if isinstance(prompts, str) else f"{len(prompts)} prompts"
        raise ValueError(f"{given} for {len(images)} images: give a list with one prompt per image")
    with sharing():
        scores = reward(at_least_float32(images), prompts)
    if not isinstance(scores, torch.Tensor) or scores.shape != (len(images),):
        found = tuple(scores.shape) if isinstance(scores, torch.Tensor) else type(scores).__name__
        raise RewardError(f"reward {reward.name!r} returned {found} where a tensor ({len(images)},) is needed")
    if reward.differentiable and torch.is_grad_enabled() and images.requires_grad and not scores.requires_grad:
        raise RewardError(
            f"reward {reward.name!r} says it is differentiable, but its scores carry no gradient: "
            "keep every step in torch, or declare differentiable = False"
        )
    if not (finite := scores.isfinite()).all():
        worst = int((~finite).nonzero()[0])
        raise RewardError(
            f"reward {reward.name!r} returned {scores[worst].item()} for the prompt {prompts[worst]!r}: "
            "look at that image; if it is sound, run the reward in float32 and check its inputs"
        )
    _check_range(reward, scores)
    return at_least_float32(scores)


def at_least_float32(values: torch.Tensor) -> torch.Tensor:
    """Float64 as it is, anything else as float32."""
    return values if values.dtype == torch.float64 else values.float()


def _check_range(reward: Reward, scores: torch.Tensor) -> None:
    """Rewards made of rewards rely on the ranges of their parts."""
    low, high = reward.range
    if not low <= high:
        raise RewardError(f"reward {reward.name!r} declares the range {reward.range}: it is (lowest, highest)")
    if (low, high) == UNBOUNDED:
        return
    span = high - low if math.isfinite(high - low) else max(1.0, min(abs(low), abs(high)))
    slack = RANGE_TOLERANCE * span
    least, most = (float(value) for value in scores.detach().aminmax())
    if least < low - slack or most > high + slack:
        raise RewardError(
            f"reward {reward.name!r} returned {least if least < low - slack else most:.4g}, outside its declared range "
            f"[{low:g}, {high:g}]: correct the reward or its range"
        )


def _check_images(images: torch.Tensor) -> None:
    if images.ndim != 4 or images.shape[1] != 3 or not len(images):
        raise ValueError(f"images must have the shape (B,3,H,W) with B > 0, not {tuple(images.shape)}")
    if not images.is_floating_point():
        raise ValueError(f"images must be floats in [0, 1], not {images.dtype}: divide 8-bit images by 255")
    low, high = (float(bound) for bound in images.detach().aminmax())
    if not (low >= -RANGE_TOLERANCE and high <= 1 + RANGE_TOLERANCE):
        hint = "the model overflowed: use bfloat16 or float32" if math.isnan(low) else "map [-1, 1] by x / 2 + 0.5"
        raise ValueError(f"images must lie in [0, 1], but these span [{low:.4g}, {high:.4g}]; {hint}")
