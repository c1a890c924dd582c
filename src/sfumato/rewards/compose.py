"""Rewards made of rewards. Every part is called and checked by itself, so that the one that fails is named."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from sfumato.rewards.base import Reward, check_prompts, score
from sfumato.rewards.info import RewardInfo
from sfumato.values import number


class Composite:
    """What rewards made of rewards share: it knows the prompts that all its parts know, and has a gradient if all have.

    Images are floats in [0, 1]. The `range` follows from those of the parts, and licences are the parts'.

    Attributes:
        rewards: the parts.

    Raises:
        ValueError: there are no parts.
    """

    def __init__(self, rewards: Sequence[Reward]):
        if not rewards:
            raise ValueError("a reward made of 0 rewards has no value: give at least one")
        self.rewards = tuple(rewards)

    @property
    def differentiable(self) -> bool:
        return all(reward.differentiable for reward in self.rewards)

    @property
    def bounds(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """The lowest values of the parts and their highest ones."""
        low, high = zip(*(reward.range for reward in self.rewards), strict=True)
        return low, high

    @property
    def names(self) -> str:
        return ", ".join(reward.name for reward in self.rewards)

    def check_prompts(self, prompts: Sequence[str]) -> None:
        """Raise ValueError unless every part knows the prompts."""
        for reward in self.rewards:
            check_prompts(reward, prompts)

    def scores(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        """Scores (N,B) of B images by the N parts."""
        return torch.stack([score(reward, images, prompts) for reward in self.rewards])


def all_parts(reward: Reward) -> Iterator[Reward]:
    """The parts of a reward at any depth, and last itself."""
    for part in getattr(reward, "rewards", ()):
        yield from all_parts(part)
    yield reward


class WeightedSum(Composite):
    """r = Σ w_i r_i. In a recipe a list; each of its rewards may have a `weight`.

    The parts count on their own scales: PickScore varies by 2, JPEG size by 100. `normalize: base` gives them one.

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
        super().__init__(rewards)
        self.weights = tuple(number(f"the weight of {r.name!r}", w) for w, r in zip(weights, rewards, strict=True))

    @property
    def name(self) -> str:
        return " + ".join(f"{weight:g} {reward.name}" for weight, reward in self._pairs())

    @property
    def range(self) -> tuple[float, float]:
        bounds = [sorted(weight * bound for bound in reward.range) for weight, reward in self._pairs() if weight]
        return sum(low for low, _ in bounds), sum(high for _, high in bounds)

    def __call__(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        return torch.stack([w * r for w, r in zip(self.weights, self.scores(images, prompts), strict=True)]).sum(0)

    def _pairs(self) -> Iterator[tuple[float, Reward]]:
        return zip(self.weights, self.rewards, strict=True)


class Minimum(Composite):
    """r = min_i r_i: the worst of the parts counts, so that none can be paid for with another.

    With members of an ensemble it is the worst case of Coste et al. (2023, arXiv 2310.02743). The gradient is that of
    the lowest part, shared evenly among equals. Parts on different scales need `normalize` or a `weight` first.

    Args:
        rewards: the parts.

    Raises:
        ValueError: there are no parts.
    """

    @property
    def name(self) -> str:
        return f"min({self.names})"

    @property
    def range(self) -> tuple[float, float]:
        low, high = self.bounds
        return min(low), min(high)

    def __call__(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        return self.scores(images, prompts).amin(0)


class Product(Composite):
    """r = Π r_i, of parts that are never negative: each scales what the others are worth, and 0 in one makes all 0.

    Made for probabilities and shares, such as those of `gold` and OCR accuracy. Of parts that can be negative, two bad
    ones would make a good one, so these are refused. The gradient of a part is multiplied by the other parts: where two
    of them are 0 there is none.

    Args:
        rewards: the parts, with ranges from 0 or more.

    Raises:
        ValueError: there are no parts, or one can be negative.
    """

    def __init__(self, rewards: Sequence[Reward]):
        super().__init__(rewards)
        for reward in rewards:
            if not reward.range[0] >= 0:
                raise ValueError(
                    f"a product of rewards needs parts that are never negative, but {reward.name!r} has the range "
                    f"{reward.range}: take minimum or a weighted sum"
                )

    @property
    def name(self) -> str:
        return f"product({self.names})"

    @property
    def range(self) -> tuple[float, float]:
        low, high = self.bounds
        return math.prod(low), 0.0 if 0 in high else math.prod(high)

    def __call__(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        return self.scores(images, prompts).prod(0)


class Constrained(Composite):
    """r_1 subject to r_2 >= c, as the penalised r = r_1 - λ max(0, c - r_2).

    The penalty is exact (Nocedal & Wright 2006, section 17.2): from a finite λ on, the best image of r is that of the
    constrained problem; λ has to exceed what a unit of r_2 costs in r_1. Where the constraint holds, r and its gradient
    are those of r_1; where it does not, the gradient is ∇r_1 + λ ∇r_2. For r_2 <= c give r_2 a weight of -1, and -c.

    Args:
        reward: r_1, what is maximised.
        subject_to: r_2, what has to be good enough.
        at_least: c, in units of r_2.
        strength: λ, in units of r_1 per unit of r_2.

    Raises:
        ValueError: λ is not positive, or no value of r_2 can meet the constraint.
    """

    def __init__(self, reward: Reward, subject_to: Reward, at_least: float, strength: float):
        super().__init__([reward, subject_to])
        self.at_least, self.strength = number("at_least", at_least), number("strength", strength)
        if not 0 < self.strength < math.inf:
            raise ValueError(f"the strength of a constraint is a positive number, not {strength}")
        if not self.at_least <= subject_to.range[1]:
            raise ValueError(
                f"{subject_to.name!r} has the range {subject_to.range} and cannot reach {at_least}: lower at_least"
            )

    @property
    def name(self) -> str:
        reward, other = self.rewards
        return f"{reward.name} - {self.strength:g} max(0, {self.at_least:g} - {other.name})"

    @property
    def range(self) -> tuple[float, float]:
        (low, worst), (high, _) = self.bounds
        return low - self.strength * max(0.0, self.at_least - worst), high

    def __call__(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        reward, other = self.scores(images, prompts)
        return reward - self.strength * (self.at_least - other).clamp(min=0)


class Ensemble(Composite):
    """r = mean_i r_i - λ std_i r_i: several rewards for one thing, and a penalty where they disagree.

    A tuned model drifts to where a reward model errs, and models that were learned apart err apart (Coste et al. 2023,
    arXiv 2310.02743, who subtract the variance; the deviation has the units of the reward). The deviation is that of
    the N members themselves, sqrt(Σ (r_i - mean)² / N). The worst case instead of it is `Minimum`.

    Args:
        rewards: the members, on one scale.
        penalty: λ; 0 is the mean alone.

    Raises:
        ValueError: fewer than two members, or a negative penalty.
    """

    def __init__(self, rewards: Sequence[Reward], penalty: float = 1.0):
        super().__init__(rewards)
        self.penalty = number("penalty", penalty)
        if len(rewards) < 2:
            raise ValueError("an ensemble needs at least two rewards, which can disagree")
        if not 0 <= self.penalty < math.inf:
            raise ValueError(f"the penalty of an ensemble is 0 or a positive number, not {penalty}")

    @property
    def name(self) -> str:
        return f"mean({self.names}) - {self.penalty:g} std"

    @property
    def range(self) -> tuple[float, float]:
        """A share p of members at the highest value and the rest at the lowest give the least, at the worst p."""
        low, high = min(self.bounds[0]), max(self.bounds[1])
        if math.isinf(high - low):
            return (-math.inf if self.penalty else low), high
        return (low + high - (high - low) * math.sqrt(1 + self.penalty**2)) / 2, high

    def __call__(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        return penalised_mean(self.scores(images, prompts), self.penalty)


def penalised_mean(scores: torch.Tensor, penalty: float) -> torch.Tensor:
    """mean_i r_i - λ std_i r_i of scores (N,...) over N members; where all agree its gradient is that of the mean."""
    if not penalty:
        return scores.mean(0)
    # where all agree, no direction has less disagreement: the tiny constant makes the gradient 0 instead of NaN
    return scores.mean(0) - penalty * (scores.var(0, correction=0) + 1e-12).sqrt()


Build = Callable[[Any], Reward]
"""Makes a reward of what a recipe says: `build_reward`, with the device and dtype of the whole."""


def _members(name: str, of: Any, build: Build) -> list[Reward]:
    if not isinstance(of, list | tuple):
        raise ValueError(f"reward {name!r}: `of` is a list of rewards, not {of!r}")
    return [build(part) for part in of]


def _sum(of: Any, build: Build) -> Reward:
    return build(of)


def _minimum(of: Any, build: Build) -> Reward:
    return Minimum(_members("minimum", of, build))


def _product(of: Any, build: Build) -> Reward:
    return Product(_members("product", of, build))


def _constrained(of: Any, subject_to: Any, at_least: float, strength: float, build: Build) -> Reward:
    return Constrained(build(of), build(subject_to), at_least, strength)


def _ensemble(of: Any, build: Build, penalty: float = 1.0) -> Reward:
    return Ensemble(_members("ensemble", of, build), penalty)


_OF_PARTS = "follows from the parts"

INFO = (
    RewardInfo("sum", "sum of w r over the list `of`; the same as the list itself", _OF_PARTS, True, _sum),
    RewardInfo("minimum", "the lowest of the list `of`", _OF_PARTS, True, _minimum),
    RewardInfo("product", "product of the list `of`, none of which can be negative", _OF_PARTS, True, _product),
    RewardInfo(
        "constrained",
        "`of`, minus strength times what `subject_to` lacks to `at_least`",
        _OF_PARTS,
        True,
        _constrained,
    ),
    RewardInfo(
        "ensemble", "mean of the list `of`, minus penalty times its standard deviation", _OF_PARTS, True, _ensemble
    ),
)
