"""Rewards in standard deviations from the mean of the base model's images, so that their weights compare."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

import torch

from sfumato.rewards.base import UNBOUNDED, Reward, RewardError, score
from sfumato.rewards.compose import Composite, all_parts
from sfumato.runs import read_json, write_json
from sfumato.values import number

BASE = "base"


class Normalized(Composite):
    """(r - m) / s with the mean m and the deviation s of r over images of the base model, all prompts together.

    In a weighted sum of such, a weight of 1 is worth one deviation of what the base model draws, whatever the scale of
    the reward. It is unbounded where r is. The gradient is that of r, divided by s.

    Args:
        reward: r.
        mean: m; None until it is measured by `calibrate` or found by `recall`.
        std: s, likewise.
        source: plain values by which `recall` knows the reward again; its name unless given.

    Raises:
        ValueError: only one of mean and std is given, or std is not positive.
    """

    def __init__(self, reward: Reward, mean: float | None = None, std: float | None = None, source: Any = None):
        super().__init__([reward])
        if (mean is None) != (std is None) or not (std is None or std > 0):
            raise ValueError(f"to normalise {reward.name!r} takes a mean and a positive std, not {mean} and {std}")
        self.mean, self.std = mean, std
        self.source = source or reward.name

    @property
    def name(self) -> str:
        inner = self.rewards[0].name
        return f"normalized {inner}" if self.std is None else f"({inner} - {self.mean:g}) / {self.std:g}"

    @property
    def range(self) -> tuple[float, float]:
        if self.mean is None or self.std is None:
            return UNBOUNDED
        low, high = self.rewards[0].range
        return (low - self.mean) / self.std, (high - self.mean) / self.std

    def __call__(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        if self.mean is None or self.std is None:
            raise RewardError(
                f"the base model's mean and deviation of {self.rewards[0].name!r} are not measured: a run does so "
                "before its training; elsewhere write normalize: {mean: ..., std: ...}"
            )
        return (score(self.rewards[0], images, prompts) - self.mean) / self.std


def normalized(reward: Reward, how: Any, source: Any = None) -> Normalized:
    """What a recipe's `normalize` asks for: `base`, or a mapping with mean and std.

    Raises:
        ValueError: it is neither.
    """
    if how == BASE:
        return Normalized(reward, source=source)
    if not isinstance(how, Mapping) or set(how) != {"mean", "std"}:
        raise ValueError(f"normalize of {reward.name!r} is `base`, or {{mean: ..., std: ...}}, not {how!r}")
    return Normalized(reward, *(number(f"{key} of normalize", how[key]) for key in ("mean", "std")))


def unmeasured(rewards: Iterable[Reward]) -> list[Normalized]:
    """The parts of rewards, at any depth, that can be measured and are not: those within others come first."""
    found = [part for reward in rewards for part in all_parts(reward) if _lacks(part)]
    return [part for part in found if not any(_lacks(inner) for inner in all_parts(part.rewards[0]))]


def _lacks(reward: Reward) -> TypeGuard[Normalized]:
    return isinstance(reward, Normalized) and reward.std is None


@torch.no_grad()
def calibrate(rewards: Sequence[Normalized], batches: Iterable[tuple[torch.Tensor, list[str]]]) -> None:
    """Give rewards the mean and deviation that they have on images.

    Args:
        rewards: of `unmeasured`.
        batches: images (B,3,H,W) in [0, 1] with their prompts.

    Raises:
        RewardError: a reward is the same for all images, or fails as in `score`.
    """
    scores: list[list[torch.Tensor]] = [[] for _ in rewards]
    for images, prompts in batches:
        for reward, found in zip(rewards, scores, strict=True):
            found.append(score(reward.rewards[0], images, prompts).double().cpu())
    for reward, found in zip(rewards, scores, strict=True):
        values = torch.cat(found)
        mean, std = values.mean().item(), values.std(correction=0).item()
        if not std > 1e-6 * abs(mean):
            raise RewardError(
                f"{reward.rewards[0].name!r} is {mean:g} on all {len(values)} images of the base model, so there is no "
                "deviation to divide by: write normalize: {mean: ..., std: ...}"
            )
        reward.mean, reward.std = mean, std


def remember(rewards: Iterable[Normalized], path: Path) -> None:
    """Add the means and deviations of rewards to a JSON file."""
    new = [{"reward": each.source, "mean": each.mean, "std": each.std} for each in rewards]
    write_json(path, [*_known(path), *new])


def recall(rewards: Iterable[Reward], path: Path) -> None:
    """Give the parts of rewards that are not measured what `remember` wrote down of them."""
    known = _known(path)
    for part in (part for reward in rewards for part in all_parts(reward) if _lacks(part)):
        for entry in known:
            if entry["reward"] == part.source:
                part.mean, part.std = entry["mean"], entry["std"]


def _known(path: Path) -> list[dict[str, Any]]:
    return read_json(path) if path.exists() else []
