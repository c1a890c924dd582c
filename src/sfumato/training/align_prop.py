"""AlignProp: back-propagate a differentiable reward through a random number of last sampling steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from numpy.random import Generator

from sfumato.pipelines.plan import planned_steps
from sfumato.rewards import Reward
from sfumato.training.direct import check_differentiable, check_steps, outcomes
from sfumato.training.objective import Batch, Outcome
from sfumato.training.update import Tally, Update


@dataclass(frozen=True)
class AlignProp:
    """AlignProp (Prabhudesai et al. 2023, arXiv 2310.03739): DRaFT-K with K drawn anew for each update.

    Attributes:
        truncation: `uniform` draws K from low to high, as in the paper; `gaussian` rounds a number from
            N(mean, std²) and clips it to that range, as in the authors' code.
        low: the smallest K.
        high: the largest K; None is the number of scheduler steps.
        mean: of `gaussian`; 8 with std 5 is the authors' for 50 steps.
        std: of `gaussian`.
    """

    truncation: Literal["uniform", "gaussian"] = "uniform"
    low: int = 1
    high: int | None = None
    mean: float = 8.0
    std: float = 5.0

    def check(self, reward: Reward) -> None:
        check_differentiable(reward, "AlignProp")

    def check_sampling(self, pipe: Any, prompt: str, call: dict[str, Any]) -> None:
        if self.high is not None and self.high < self.low:
            raise ValueError(f"training.objective.high is {self.high}, less than low, which is {self.low}")
        check_steps(pipe, prompt, call, *((self.low, "low") if self.high is None else (self.high, "high")))

    def attached_steps(self, count: int) -> range:
        return range(count - (self.high or count), count)

    def __call__(self, update: Update) -> Iterator[Tally]:
        first = update.batches[0]
        steps = planned_steps(first.pipe, prompt=first.prompts[0], **first.call)
        last_steps = self.draw(update.random(), steps)
        yield update.accumulate(lambda batch: self.outcomes(batch, last_steps))

    def draw(self, random: Generator, steps: int) -> int:
        """K, where the sampler takes `steps` steps."""
        high = steps if self.high is None else self.high
        if self.truncation == "gaussian":
            return min(max(round(random.normal(self.mean, self.std)), self.low), high)
        return int(random.integers(self.low, high, endpoint=True))

    def outcomes(self, batch: Batch, last_steps: int) -> Iterator[Outcome]:
        sampled = batch.sample(last_steps, record=batch.terms.record)
        found = outcomes(batch, sampled, last_steps)
        first, k = next(found), torch.tensor(float(last_steps), device=sampled.images.device)
        yield replace(first, logs={**first.logs, "last_steps": k})
        yield from found
