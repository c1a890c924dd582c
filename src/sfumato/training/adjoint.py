"""Adjoint Matching: tune towards p_base · exp(r / β) itself, whose diversity β decides, by regression."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from sfumato.pipelines.rollout import Rollout, replay
from sfumato.pipelines.sde import flow_sde
from sfumato.pipelines.stochastic import planned_stochastic_steps, step_std, stochastic_steps
from sfumato.rewards import Reward
from sfumato.training.direct import check_differentiable
from sfumato.training.objective import Batch, Outcome
from sfumato.training.terms import Trajectory
from sfumato.training.update import Tally, Update


@dataclass(frozen=True)
class AdjointMatching:
    """Adjoint Matching (Domingo-Enrich et al. 2024, arXiv 2409.08861, eq. 37-39) on any scheduler's stochastic steps.

    The optimum of E[r] - β KL(tuned || base), with the KL along the trajectory, shifts the mean of a step by
    -std² a, where the lean adjoint a has the value -∇r / β at the image and is carried back through the base model's
    steps: a_k = (∂μ_base / ∂x_k)ᵀ a_{k+1}. The loss is the sum over steps of |(μ_tuned - μ_base) / std + std a|² / 2,
    so no gradient passes through more than one step of the tuned model.

    Where sampling is memoryless (DDPM, DDIM with eta = 1, a flow SDE with noise_level √2), images of the optimum
    follow p_base · exp(r / β) (Theorem 1); with less noise the optimum is another one.

    Attributes:
        beta: β, the temperature of the tilt; as β -> 0 the optimum collapses.
        steps: stochastic steps per update that are trained, chosen anew each time and counted for all; None for all.
        noise_level: of the `flow_sde` to sample with; None to sample with the pipeline's own scheduler.
    """

    beta: float
    steps: int | None = None
    noise_level: float | None = None

    def check(self, reward: Reward) -> None:
        check_differentiable(reward, "Adjoint Matching")

    def check_sampling(self, pipe: Any, prompt: str, call: dict[str, Any]) -> None:
        with self.sampler(pipe):
            found = planned_stochastic_steps(pipe, prompt=prompt, **call)
        if self.steps and self.steps > len(found):
            raise ValueError(
                f"training.objective.steps is {self.steps}, but only {len(found)} steps draw noise: lower it, or raise "
                "sampling.num_inference_steps"
            )

    def __call__(self, update: Update) -> Iterator[Tally]:
        def outcomes(batch: Batch) -> Iterator[Outcome]:
            with self.sampler(batch.pipe):
                sampled = batch.sample(last_steps=1, record=True)
                noisy = stochastic_steps(batch.pipe, sampled)
                count = self.steps or len(noisy)
                chosen = {noisy[i] for i in update.random().choice(len(noisy), count, replace=False)}
                yield from self._matched(batch, sampled, chosen, len(noisy) / count)

        yield update.accumulate(outcomes)

    def _matched(self, batch: Batch, sampled: Rollout, chosen: set[int], weight: float) -> Iterator[Outcome]:
        """One outcome for each chosen step, from the last to the first, as the adjoint comes by."""
        rewards = batch.score(sampled.images)
        values, left_logs = batch.terms.values(sampled.images, batch.prompts, rewards)
        adjoint = -torch.autograd.grad(values.sum(), sampled.steps[-1].next_sample)[0] / self.beta
        trajectory = Trajectory(batch, sampled)
        left: torch.Tensor | None = rewards.detach()
        for index in range(len(sampled.steps) - 1, min(chosen) - 1, -1):
            base, carried = _through_base(batch, sampled, index, adjoint)
            if index in chosen:
                tuned = replay(batch.pipe, sampled, index, grad=True)
                std = step_std(batch.pipe, tuned)
                residual = (tuned.next_sample - base) / std + std * adjoint
                loss = weight * residual.square().flatten(1).sum(1).mean() / 2
                penalty, logs = batch.terms.joined(trajectory, {index: tuned}, chosen)
                yield Outcome(loss + penalty, left, {**left_logs, **logs})
                left, left_logs = None, {}
            adjoint = carried
        yield from batch.terms.apart(trajectory, chosen)

    def sampler(self, pipe: Any) -> AbstractContextManager[None]:
        return nullcontext() if self.noise_level is None else flow_sde(pipe, self.noise_level)


def _through_base(batch: Batch, sampled: Rollout, index: int, adjoint: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Where the base model's step leads from the recorded x_k with the recorded noise, and the adjoint at x_k."""
    x = sampled.steps[index].sample.detach().requires_grad_()
    with batch.base():
        after = replay(batch.pipe, sampled, index, grad=True, sample=x).next_sample
        return after.detach(), torch.autograd.grad(after, x, adjoint)[0]
