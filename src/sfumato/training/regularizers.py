"""Penalties that hold a tuned model near its base."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch

from sfumato.pipelines.rollout import Step
from sfumato.training.terms import Trajectory


@dataclass(frozen=True)
class KL:
    """A distance between the tuned and the base model at the same x_t, as a mean over images.

    `predictions` is the penalty of DRaFT+ (NeMo-Aligner; Jena et al. 2024, arXiv 2409.06493): the mean over all dims of
    (eps_tuned - eps_base)², where both are what the scheduler sees, after classifier-free guidance. There is no factor
    1 / (2 σ²), so this is not an exact KL divergence.

    Attributes:
        coefficient: multiplies it.
        form: see above.
        span: the progress of the steps it looks at, None for those that carry the objective's gradient anyway.
    """

    coefficient: float
    form: Literal["predictions", "gaussian"] = "predictions"
    span: tuple[float, float] | None = None

    def check_sampling(self, pipe: Any, prompt: str, call: dict[str, Any]) -> None:
        pass

    def __call__(self, trajectory: Trajectory, tuned: Step) -> torch.Tensor:
        base = trajectory.base(tuned.index)
        return (tuned.prediction - base.prediction).square().mean()
