"""ReFL: back-propagate a differentiable reward through one late step and the x0 that it predicts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from sfumato.pipelines.plan import planned_steps
from sfumato.pipelines.predictions import prediction_type
from sfumato.rewards import Reward
from sfumato.training.direct import check_differentiable, outcomes
from sfumato.training.objective import Batch, Outcome
from sfumato.training.spans import check_span, steps_within
from sfumato.training.update import Tally, Update


@dataclass(frozen=True)
class ReFL:
    """ReFL (Xu et al. 2023, arXiv 2304.05977): sampling ends at a random late step, and its prediction of x0 is the
    image.

    The gradient goes through that one step. It is drawn for each micro-batch; the steps after it are not run.

    Attributes:
        span: the progress of the steps to draw from, 0 = the first, 1 = the last; the published ones are steps 30 to 39
            of 0 to 39.
    """

    span: tuple[float, float] = (0.75, 1.0)
    uneven: ClassVar[bool] = True

    def check(self, reward: Reward) -> None:
        check_differentiable(reward, "ReFL")

    def check_sampling(self, pipe: Any, prompt: str, call: dict[str, Any]) -> None:
        check_span(pipe, prompt, call, "training.objective.span", self.span)
        prediction_type(pipe.scheduler)

    def attached_steps(self, count: int) -> list[int]:
        return steps_within(self.span, count)

    def __call__(self, update: Update) -> Iterator[Tally]:
        def at_a_random_step(batch: Batch) -> Iterator[Outcome]:
            steps = self.attached_steps(planned_steps(batch.pipe, prompt=batch.prompts[0], **batch.call))
            return self.outcomes(batch, int(update.random(batch.place.start).choice(steps)))

        yield update.accumulate(at_a_random_step)

    def outcomes(self, batch: Batch, stop_at: int) -> Iterator[Outcome]:
        sampled = batch.sample(last_steps=1, record=batch.terms.record, stop_at=stop_at)
        yield from outcomes(batch, sampled, 1)
