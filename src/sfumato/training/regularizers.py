"""Penalties that hold a tuned model near its base, step by step along its own trajectory.

Their gradient is exact: it goes to the tuned model's weights, and by way of x_t, where earlier steps carry gradient, to
those steps; the base's weights are constants.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch

from sfumato.pipelines.plan import planned_steps
from sfumato.pipelines.predictions import predicted_original, prediction_type
from sfumato.pipelines.rollout import Step
from sfumato.pipelines.stochastic import LEAST, planned_stochastic_steps, step_mean, step_std, transition_kl
from sfumato.training.objective import Objective
from sfumato.training.spans import check_span, steps_within
from sfumato.training.terms import Trajectory

Span = tuple[float, float] | None
"""The progress of the steps that are looked at; None for those that carry the objective's gradient anyway."""


@dataclass(frozen=True)
class KL:
    """The penalty of DRaFT+ (NeMo-Aligner; Jena et al. 2024, arXiv 2409.06493): mean over all dims and over steps of
    (eps_tuned - eps_base)², where both are what the scheduler sees, after classifier-free guidance.

    There is no factor 1 / (2 σ²), so this is not an exact KL divergence.

    Attributes:
        coefficient: multiplies it.
        span: which steps, see `Span`.
    """

    coefficient: float
    span: Span = None
    averaged: ClassVar[bool] = True

    def check_sampling(self, pipe: Any, prompt: str, call: dict[str, Any], objective: Objective) -> None:
        check_span(pipe, prompt, call, "training.regularizers.kl.span", self.span)

    def __call__(self, trajectory: Trajectory, tuned: Step) -> torch.Tensor:
        return (tuned.prediction - trajectory.base(tuned.index).prediction).square().mean()


@dataclass(frozen=True)
class GaussianKL:
    """KL(tuned || base) of the sampler's own steps, exact: the sum over dims and over steps of
    (μ_tuned - μ_base)² / (2 std²), as a mean over images.

    Over all steps (span [0, 1]) it is the KL divergence of trajectories and bounds that of the images from above
    (DPOK, Fan et al. 2023, arXiv 2305.16381). A step without noise, such as DDIM's last one, has none and counts 0.

    Attributes:
        coefficient: multiplies it.
        span: which steps, see `Span`.
    """

    coefficient: float
    span: Span = None
    averaged: ClassVar[bool] = False

    def check_sampling(self, pipe: Any, prompt: str, call: dict[str, Any], objective: Objective) -> None:
        check_span(pipe, prompt, call, "training.regularizers.kl.span", self.span)
        noisy = set(planned_stochastic_steps(pipe, prompt=prompt, **call))
        count = planned_steps(pipe, prompt=prompt, **call)
        attached = getattr(objective, "attached_steps", lambda _: noisy)
        if not noisy & set(attached(count) if self.span is None else steps_within(self.span, count)):
            raise ValueError(
                f"{type(pipe.scheduler).__name__} draws no noise in the steps that training.regularizers.kl looks at, "
                "so they have no KL divergence: set its span, say to [0, 1]"
            )

    def __call__(self, trajectory: Trajectory, tuned: Step) -> torch.Tensor:
        pipe, base = trajectory.batch.pipe, trajectory.base(tuned.index)
        std = step_std(pipe, tuned)
        mean, other = (step_mean(pipe, tuned, step.prediction) for step in (tuned, base))
        return transition_kl(mean, other, torch.where(std > LEAST, std, math.inf)).mean()


@dataclass(frozen=True)
class FlowGRPOKL(GaussianKL):
    """The penalty of Flow-GRPO's code (Liu et al. 2025, arXiv 2505.05470): mean over dims and steps of
    (μ_tuned - μ_base)² / (2 s²), where std² = s² |dt| is the variance of a step of `flow_sde`.

    Without the factor 1 / |dt|, and as a mean, it is no KL divergence.
    """

    averaged: ClassVar[bool] = True

    def check_sampling(self, pipe: Any, prompt: str, call: dict[str, Any], objective: Objective) -> None:
        if not hasattr(pipe.scheduler, "scale_noise"):
            raise ValueError(
                f"training.regularizers.kl.form=flow_grpo is for flow models, which {type(pipe.scheduler).__name__} is "
                "not made for: take gaussian"
            )
        super().check_sampling(pipe, prompt, call, objective)

    def __call__(self, trajectory: Trajectory, tuned: Step) -> torch.Tensor:
        now, after = tuned.state["sigmas"][tuned.index : tuned.index + 2]
        return super().__call__(trajectory, tuned) * (now - after) / tuned.sample[0].numel()


@dataclass(frozen=True)
class Distillation:
    """Distillation from the base model: mean over all dims and over steps of (x0_tuned - x0_base)², where both are
    predicted in one step from the same x_t.

    It is the penalty of `KL` times (σ_t / α_t)² for a model that predicts noise, so early steps weigh most.

    Attributes:
        coefficient: multiplies it.
        span: which steps, see `Span`.
    """

    coefficient: float
    span: Span = None
    averaged: ClassVar[bool] = True

    def check_sampling(self, pipe: Any, prompt: str, call: dict[str, Any], objective: Objective) -> None:
        prediction_type(pipe.scheduler)
        check_span(pipe, prompt, call, "training.regularizers.distillation.span", self.span)

    def __call__(self, trajectory: Trajectory, tuned: Step) -> torch.Tensor:
        steps = replace(tuned, sample=tuned.sample.detach()), trajectory.base(tuned.index)
        ours, base = (predicted_original(trajectory.batch.pipe.scheduler, step) for step in steps)
        return (ours - base).square().mean()
