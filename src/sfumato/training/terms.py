"""What stands beside an objective: penalties on the steps of a trajectory, and what is done to rewards."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

import torch

from sfumato.config import RegularizersConfig
from sfumato.pipelines.rollout import Rollout, Step, replay

if TYPE_CHECKING:
    from sfumato.training.objective import Batch, Outcome


class Trajectory:
    """A recorded rollout beside the base model's predictions at the same x_t, which are computed once each."""

    def __init__(self, batch: Batch, sampled: Rollout):
        self.batch, self.sampled = batch, sampled
        self.base = cache(self._base)

    def _base(self, index: int) -> Step:
        with self.batch.base():
            return replay(self.batch.pipe, self.sampled, index)

    def progress(self, index: int) -> float:
        """Where a step stands: 0 for the first, 1 for the last."""
        return index / max(1, len(self.sampled.steps) - 1)


class StepPenalty(Protocol):
    """A penalty that compares tuned and base model at single steps.

    Attributes:
        coefficient: multiplies it.
        span: the progress of the steps that it looks at; None for those that carry the objective's gradient anyway.
    """

    @property
    def coefficient(self) -> float: ...

    @property
    def span(self) -> tuple[float, float] | None: ...

    def check_sampling(self, pipe: Any, prompt: str, call: dict[str, Any]) -> None:
        """Raise ValueError if the penalty is not defined for this pipeline, sampled like this."""

    def __call__(self, trajectory: Trajectory, tuned: Step) -> torch.Tensor:
        """The penalty at one step, 0-d, with gradient through `tuned`; a mean over images."""


@dataclass(frozen=True)
class Shaping:
    """Rewards as the objective sees them: (r - mean) / std, clipped to `clip`."""

    clip: tuple[float | None, float | None] = (None, None)
    mean: float = 0.0
    std: float = 1.0

    def __call__(self, rewards: torch.Tensor) -> torch.Tensor:
        shaped = (rewards - self.mean) / self.std
        low, high = self.clip
        return shaped if low is None and high is None else shaped.clamp(low, high)


@dataclass(frozen=True)
class Terms:
    """The penalties of a training by name, and its shaping of rewards.

    Attributes:
        strength: multiplies all penalties; what the feedback on diversity turns.
    """

    penalties: Mapping[str, StepPenalty] = field(default_factory=dict)
    shaping: Shaping = Shaping()
    strength: float = 1.0

    @property
    def record(self) -> bool:
        """Whether trajectories have to be recorded."""
        return bool(self.penalties)

    def joined(
        self, trajectory: Trajectory, tuned: Mapping[int, Step]
    ) -> tuple[torch.Tensor | float, dict[str, torch.Tensor]]:
        """The penalties at steps that the objective itself back-propagates through: their sum, and logs.

        Args:
            tuned: those steps by their index, with gradient.
        """
        total: torch.Tensor | float = 0.0
        logs = {}
        for name, penalty in self.penalties.items():
            chosen = self._chosen(penalty, trajectory, tuned)
            found = [penalty(trajectory, tuned[index]) for index in chosen if index in tuned]
            if found:
                mean = torch.stack(found).sum() / len(chosen)
                total = total + self.strength * penalty.coefficient * mean
                logs[name] = mean.detach()
        return total, logs

    def apart(self, trajectory: Trajectory, seen: Collection[int]) -> Iterator[Outcome]:
        """The penalties at all other steps, each of which is run again with gradient."""
        from sfumato.training.objective import Outcome

        batch = trajectory.batch
        wanted = {name: self._chosen(penalty, trajectory, seen) for name, penalty in self.penalties.items()}
        for index in sorted({i for chosen in wanted.values() for i in chosen} - set(seen)):
            tuned = replay(batch.pipe, trajectory.sampled, index, grad=True)
            total: torch.Tensor | float = 0.0
            logs = {}
            for name, chosen in wanted.items():
                if index in chosen:
                    part = self.penalties[name](trajectory, tuned) / len(chosen)
                    total = total + self.strength * self.penalties[name].coefficient * part
                    logs[name] = part.detach()
            yield Outcome(torch.as_tensor(total), logs=logs)

    def _chosen(self, penalty: StepPenalty, trajectory: Trajectory, seen: Collection[int]) -> list[int]:
        if penalty.span is None:
            return sorted(seen)
        low, high = penalty.span
        return [i for i in range(len(trajectory.sampled.steps)) if low <= trajectory.progress(i) <= high]


def build_penalties(config: RegularizersConfig) -> dict[str, StepPenalty]:
    """The penalties that a recipe asks for."""
    from sfumato.training.regularizers import KL

    found: dict[str, StepPenalty] = {}
    if config.kl:
        found["kl"] = KL(**config.kl.model_dump())
    return found
