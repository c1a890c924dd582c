"""Flow-GRPO: policy gradients for flow models, sampled by an SDE with the marginals of their ODE."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from numpy.random import Generator

from sfumato.pipelines.plan import planned_steps
from sfumato.pipelines.sde import flow_sde
from sfumato.training.advantages import Spread
from sfumato.training.policy import PolicyGradient


@dataclass(frozen=True)
class FlowGRPO(PolicyGradient):
    """Flow-GRPO (Liu et al. 2025, arXiv 2505.05470), and its fast variant with a window of stochastic steps.

    Attributes:
        normalize: as in `PolicyGradient`; the authors' settings divide by the standard deviation of all rewards.
        noise_level: a of `flow_sde`.
        window: how many steps in a row are stochastic (Flow-GRPO-Fast, MixGRPO, arXiv 2507.21802), the others being the
            ODE's; None for all but the last. What the weights do in the other steps has no gradient then.
        window_range: the first step at which the window can begin, and the one before which it ends; where it begins is
            drawn for each update.
    """

    normalize: Spread | None = "update"
    noise_level: float = 0.7
    window: int | None = None
    window_range: tuple[int, int] = (0, 5)

    def sampler(self, pipe: Any, random: Generator | None = None) -> AbstractContextManager[None]:
        if self.window is None:
            return flow_sde(pipe, self.noise_level)
        first, end = self.window_range
        if random is not None:
            first = int(random.integers(first, end - self.window, endpoint=True))
        return flow_sde(pipe, self.noise_level, (first, first + self.window))

    def check_sampling(self, pipe: Any, prompt: str, call: dict[str, Any]) -> None:
        total, (low, high) = planned_steps(pipe, prompt=prompt, **call), self.window_range
        if self.window is not None and not 0 <= low <= high - self.window <= total - self.window:
            raise ValueError(
                f"a window of {self.window} steps does not fit into training.objective.window_range {[low, high]} of "
                f"{total} steps: it is a first step and the one after the last"
            )
        super().check_sampling(pipe, prompt, call)
