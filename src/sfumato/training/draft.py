"""DRaFT-K and DRaFT+: back-propagate a differentiable reward through the last sampling steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sfumato.rewards import Reward
from sfumato.training.direct import check_differentiable, check_steps, outcomes
from sfumato.training.objective import Batch, Outcome
from sfumato.training.update import Tally, Update


@dataclass(frozen=True)
class Draft:
    """DRaFT-K (Clark et al. 2023, arXiv 2309.17400): loss = -mean reward, gradient through the last K scheduler steps.

    With the penalty `kl` it is DRaFT+ (NeMo-Aligner; Jena et al. 2024, arXiv 2409.06493), at the cost of one more
    forward for each of the K steps.

    Attributes:
        last_steps: K.
    """

    last_steps: int = 1

    def check(self, reward: Reward) -> None:
        check_differentiable(reward, "DRaFT")

    def check_sampling(self, pipe: Any, prompt: str, call: dict[str, Any]) -> None:
        check_steps(pipe, prompt, call, self.last_steps)

    def attached_steps(self, count: int) -> range:
        return range(count - self.last_steps, count)

    def __call__(self, update: Update) -> Iterator[Tally]:
        yield update.accumulate(self.outcomes)

    def outcomes(self, batch: Batch) -> Iterator[Outcome]:
        sampled = batch.sample(self.last_steps, record=batch.terms.record)
        yield from outcomes(batch, sampled, self.last_steps)
