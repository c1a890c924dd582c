"""What stands beside an objective: penalties on the steps of a trajectory, and what is done or added to rewards."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

import torch

from sfumato.config import RegularizersConfig
from sfumato.metrics import build_extractor
from sfumato.pipelines.clocks import denoised_timesteps
from sfumato.pipelines.rollout import Rollout, Step, replay
from sfumato.training.diversity import DiversityBonus
from sfumato.training.spans import steps_within

if TYPE_CHECKING:
    from sfumato.training.data_term import DataTerm
    from sfumato.training.objective import Batch, Objective, Outcome
    from sfumato.training.update import Update


class Trajectory:
    """A recorded rollout beside the base model's predictions at the same x_t, which are computed once each.

    Where x_t carries gradient, because earlier steps do, the base's prediction passes it on to x_t, as the tuned one's
    does. Were it a constant there, the two, nearly equal functions of x_t, would not cancel, and what is
    descended would not be their distance.

    Args:
        batch: what was sampled.
        sampled: the rollout; it may begin after the first step of the sampler, or stop before the last.
    """

    def __init__(self, batch: Batch, sampled: Rollout):
        self.batch, self.sampled = batch, sampled
        self.count = len(denoised_timesteps(batch.pipe.scheduler))
        self.base = cache(self._base)

    def _base(self, index: int) -> Step:
        place = index - self.sampled.steps[0].index
        sample = self.sampled.steps[place].sample

        def pull(grad: torch.Tensor) -> torch.Tensor:
            x = sample.detach().requires_grad_()
            with self.batch.base():
                again = replay(self.batch.pipe, self.sampled, place, grad=True, sample=x)
                return torch.autograd.grad(again.prediction, x, grad)[0]

        with self.batch.base():
            base = replay(self.batch.pipe, self.sampled, place)
        if not sample.requires_grad:
            return base
        return replace(base, prediction=_Pulled.apply(sample, base.prediction, pull))

    def within(self, span: tuple[float, float]) -> list[int]:
        """The steps in a span of progress, up to the last that was sampled."""
        return [index for index in steps_within(span, self.count) if index <= self.sampled.steps[-1].index]


class _Pulled(torch.autograd.Function):
    """A known value of a function of x, whose gradient is pulled back to x only when it is asked for.

    So it holds no activations; and a denoiser that checkpoints its own recomputes them with the weights it had then.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, value: torch.Tensor, pull: Callable[[torch.Tensor], torch.Tensor]) -> Any:
        ctx.pull = pull
        return value.clone()

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        return ctx.pull(grad), None, None


class StepPenalty(Protocol):
    """A penalty that compares tuned and base model at single steps.

    Attributes:
        coefficient: multiplies it.
        span: the progress of the steps that it looks at; None for those that carry the objective's gradient anyway.
        averaged: whether it is a mean over these steps, or else their sum.
    """

    @property
    def coefficient(self) -> float: ...

    @property
    def span(self) -> tuple[float, float] | None: ...

    @property
    def averaged(self) -> bool: ...

    def check_sampling(self, pipe: Any, prompt: str, call: dict[str, Any], objective: Objective) -> None:
        """Raise ValueError if the penalty is not defined for this pipeline, sampled like this by the objective."""

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
    """The penalties of a training by name, its shaping of rewards, and the bonus that is added to them.

    Attributes:
        strength: multiplies all penalties and the bonus; what the feedback on diversity turns.
        data: the denoising loss on given images.
    """

    penalties: Mapping[str, StepPenalty] = field(default_factory=dict)
    shaping: Shaping = Shaping()
    strength: float = 1.0
    bonus: DiversityBonus | None = None
    data: DataTerm | None = None

    @property
    def record(self) -> bool:
        """Whether trajectories have to be recorded."""
        return bool(self.penalties)

    def values(
        self, images: torch.Tensor, prompts: Sequence[str], rewards: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """What an objective maximises, (B,): the shaped rewards of images, with the bonus for diversity; and logs.

        Args:
            images: (B, 3, H, W), a whole micro-batch; their gradient is kept.
            prompts: one per image.
            rewards: (B,), as they are.
        """
        shaped = self.shaping(rewards)
        if self.bonus is None:
            return shaped, {}
        bonus = self.bonus(images, prompts)
        return shaped + self.strength * self.bonus.coefficient * bonus, {"diversity_bonus": bonus.mean().detach()}

    def beside(self, update: Update, batch: Batch) -> Iterator[Outcome]:
        """What asks for no images of the objective's: the denoising loss on given ones."""
        if self.data:
            yield from self.data(update, batch, self.strength)

    def joined(
        self, trajectory: Trajectory, tuned: Mapping[int, Step], seen: Collection[int] | None = None
    ) -> tuple[torch.Tensor | float, dict[str, torch.Tensor]]:
        """The penalties at steps that the objective itself back-propagates through: their sum, and logs.

        Args:
            tuned: those steps by their index, with gradient.
            seen: all steps that it back-propagates through, where `tuned` has only some of them; several calls then
                add up to the penalties.
        """
        total: torch.Tensor | float = 0.0
        logs = {}
        for name, penalty in self.penalties.items():
            chosen = self._chosen(penalty, trajectory, tuned if seen is None else seen)
            found = [penalty(trajectory, tuned[index]) for index in chosen if index in tuned]
            value = trajectory.sampled.images.new_zeros(())
            if found:
                value = torch.stack(found).sum() / (len(chosen) if penalty.averaged else 1)
                total = total + self.strength * penalty.coefficient * value
            logs[name] = value.detach()
        return total, logs

    def apart(self, trajectory: Trajectory, seen: Collection[int]) -> Iterator[Outcome]:
        """The penalties at all other steps, each of which is run again with gradient."""
        from sfumato.training.objective import Outcome

        wanted = {i for penalty in self.penalties.values() for i in self._chosen(penalty, trajectory, seen)}
        for index in sorted(wanted - set(seen)):
            tuned = replay(trajectory.batch.pipe, trajectory.sampled, index, grad=True)
            total, logs = self.joined(trajectory, {index: tuned}, seen)
            yield Outcome(torch.as_tensor(total), logs=logs)

    def _chosen(self, penalty: StepPenalty, trajectory: Trajectory, seen: Collection[int]) -> list[int]:
        return sorted(seen) if penalty.span is None else trajectory.within(penalty.span)


def build_penalties(config: RegularizersConfig) -> dict[str, StepPenalty]:
    """The penalties that a recipe asks for."""
    from sfumato.training.regularizers import KL, Distillation, FlowGRPOKL, GaussianKL

    found: dict[str, StepPenalty] = {}
    if config.kl:
        forms: dict[str, Callable[..., StepPenalty]] = {
            "predictions": KL,
            "gaussian": GaussianKL,
            "flow_grpo": FlowGRPOKL,
        }
        found["kl"] = forms[config.kl.form](config.kl.coefficient, config.kl.span)
    if config.distillation:
        found["distillation"] = Distillation(config.distillation.coefficient, config.distillation.span)
    return found


def build_bonus(config: RegularizersConfig, device: torch.device) -> DiversityBonus | None:
    """The bonus that a recipe asks for.

    Raises:
        OSError, ValueError: as `build_extractor`.
    """
    if config.diversity is None:
        return None
    return DiversityBonus(config.diversity.coefficient, build_extractor(config.diversity.features, device))
