"""DRaFT-K and DRaFT+: back-propagate a differentiable reward through the last sampling steps."""

from __future__ import annotations

from dataclasses import dataclass

from sfumato.pipelines.rollout import rollout
from sfumato.rewards import Reward, score
from sfumato.training.objective import Batch, Outcome
from sfumato.training.regularizers import prediction_distance


@dataclass(frozen=True)
class Draft:
    """DRaFT-K (Clark et al. 2023, arXiv 2309.17400): loss = -mean reward, gradient through the last K scheduler steps.

    With `kl` > 0 it is DRaFT+ (NeMo-Aligner; Jena et al. 2024, arXiv 2409.06493): plus `kl` times
    `prediction_distance`.

    Attributes:
        last_steps: K.
        kl: coefficient of the penalty; one more forward for each of the K steps.
    """

    last_steps: int = 1
    kl: float = 0.0

    def check(self, reward: Reward) -> None:
        if not reward.differentiable:
            raise ValueError(
                f"DRaFT needs a gradient, but reward {reward.name!r} is not differentiable: choose another reward, or "
                "a policy-gradient objective"
            )

    def __call__(self, batch: Batch) -> Outcome:
        sampled = rollout(
            batch.pipe,
            prompt=batch.prompts,
            seeds=batch.seeds,
            last_steps=self.last_steps,
            record=self.kl > 0,
            **batch.call,
        )
        rewards = score(batch.reward, sampled.images, batch.prompts)
        loss, logs = -rewards.mean(), {}
        if self.kl > 0:
            distance = prediction_distance(batch, sampled, self.last_steps)
            loss = loss + self.kl * distance
            logs["kl"] = distance.detach()
        return Outcome(loss, rewards.detach(), logs)
