"""DRaFT-LV: DRaFT-1 with a gradient of lower variance, from several noises on one image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from numpy.random import SeedSequence

from sfumato.pipelines.plan import blank_rollout
from sfumato.pipelines.predictions import noise_level, noise_like, noised
from sfumato.pipelines.rollout import Rollout, continued
from sfumato.rewards import Reward
from sfumato.training.direct import attached, check_differentiable, check_steps
from sfumato.training.objective import Batch, Outcome
from sfumato.training.terms import Trajectory
from sfumato.training.update import Tally, Update


@dataclass(frozen=True)
class DraftLV:
    """DRaFT-LV (Clark et al. 2023, arXiv 2309.17400): DRaFT-1, and n times more from the image it made.

    The image's latents are brought back, with fresh noise, to the noise level of the last step, which is run again from
    there with gradient. The loss is the mean over the 1 + n last steps, where the paper takes the sum.

    Attributes:
        noisings: n; the paper's is 2.
    """

    noisings: int = 2

    def check(self, reward: Reward) -> None:
        check_differentiable(reward, "DRaFT-LV")

    def check_sampling(self, pipe: Any, prompt: str, call: dict[str, Any]) -> None:
        check_steps(pipe, prompt, call, 1)
        noise_level(pipe.scheduler, blank_rollout(pipe, seeds=[0], prompt=prompt, **call).steps[-1])

    def attached_steps(self, count: int) -> range:
        return range(count - 1, count)

    def __call__(self, update: Update) -> Iterator[Tally]:
        yield update.accumulate(self.outcomes)

    def outcomes(self, batch: Batch) -> Iterator[Outcome]:
        sampled = batch.sample(last_steps=1, record=True)
        trajectory = Trajectory(batch, sampled)
        yield self._share(attached(trajectory, 1))
        for number in range(self.noisings):
            again = Trajectory(batch, self._noised(batch, sampled, number))
            yield replace(self._share(attached(again, 1)), rewards=None)
        yield from batch.terms.apart(trajectory, [sampled.steps[-1].index])

    @staticmethod
    def seed(image: int, number: int) -> int:
        """The seed of an image's noise, from the image's own and which of its noises it is."""
        return int(SeedSequence([image, number]).generate_state(1)[0])

    def _noised(self, batch: Batch, sampled: Rollout, number: int) -> Rollout:
        """The last step again, from the image with other noise, which depends on the image's seed alone."""
        last = sampled.steps[-1]
        original = last.next_sample.detach()
        seeds = [self.seed(seed, number) for seed in batch.seeds]
        sample = noised(batch.pipe.scheduler, last, original, noise_like(original, seeds))
        return continued(batch.pipe, sampled, -1, sample=sample, last_steps=1, record=batch.terms.record)

    def _share(self, found: Outcome) -> Outcome:
        share = 1 / (1 + self.noisings)
        return replace(found, loss=found.loss * share, logs={name: x * share for name, x in found.logs.items()})
