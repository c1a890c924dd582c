"""Diffusion-DPO: raise the likelihood of preferred images and lower that of the others, held by the base model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch

from sfumato.config import TrainingConfig
from sfumato.preferences import bradley_terry_loss
from sfumato.rewards import Reward
from sfumato.training.denoising import check_denoising, denoised
from sfumato.training.examples import Source, check_regularizers, from_pairs
from sfumato.training.objective import Batch, Outcome
from sfumato.training.update import Tally, Update


@dataclass(frozen=True)
class DiffusionDPO:
    """Diffusion-DPO (Wallace et al. 2023, arXiv 2311.12908, eq. 14) from pairs of images with labels y.

    Both images of a pair are brought to the same noise level by the same noise. With e the squared error of the tuned
    model's prediction, a mean over dims, and b that of the base model, the margin is

        m = -(beta / 2) · ((e_0 - b_0) - (e_1 - b_1)),

    and the loss -[y log σ(m) + (1 - y) log σ(-m)]: with y = 1 or 0 that of the paper, and a tie (y = 0.5) pulls m to 0.
    beta is that of the authors' code; the paper's, whose errors are sums over D dims, is beta / (2 T ω D). Flow models
    are compared in velocities (Liu et al. 2025, arXiv 2501.13918). Classifier-free guidance is off in all predictions.

    Attributes:
        beta: the larger, the nearer the tuned model stays to the base.
        pairs: a JSONL file of pairs; None for two images of the base model per prompt, judged by the reward.
        noise_levels: size of the grid they are drawn from; None for that of sampling.
        noise_draws: of a noise level and noise, for each pair. More of them are cheaper than sampling more pairs.
    """

    beta: float = 5000.0
    pairs: str | None = None
    noise_levels: int | None = 500
    noise_draws: int = 1

    @cached_property
    def source(self) -> Source:
        return from_pairs(self.pairs)

    def check(self, reward: Reward) -> None:
        pass

    def check_images(self, prompts: list[str], config: TrainingConfig) -> None:
        check_regularizers(config, "Diffusion-DPO")

    def check_sampling(self, pipe: Any, prompt: str, call: dict[str, Any]) -> None:
        check_denoising(pipe, prompt, call, self.noise_levels)
        self.source.check(pipe, prompt, call)

    def __call__(self, update: Update) -> Iterator[Tally]:
        yield update.accumulate(partial(self.outcomes, update))

    def outcomes(self, update: Update, batch: Batch) -> Iterator[Outcome]:
        examples = self.source(update, batch, whole=True)
        count = self.noise_draws * len(batch.prompts)
        for pairs in denoised(update, batch, examples, self.noise_levels, 0, self.noise_draws, with_base=True):
            assert pairs.base_errors is not None
            first, second = (pairs.errors - pairs.base_errors).unflatten(0, (-1, 2)).unbind(1)
            margins, labels = -self.beta / 2 * (first - second), pairs.examples.weights[::2]
            share = len(margins) / count
            yield Outcome(bradley_terry_loss(margins, labels) * share, logs=_logs(margins.detach(), labels, share))


def _logs(margins: torch.Tensor, labels: torch.Tensor, share: float) -> dict[str, torch.Tensor]:
    """What pairs add to the means over all; a margin of 0 and a tie are half right."""
    undecided = (margins == 0) | (labels == 0.5)
    right = torch.where(undecided, 0.5, ((margins > 0) == (labels > 0.5)).to(margins))
    return {"implicit_accuracy": right.mean() * share, "margin": ((2 * labels - 1) * margins).mean() * share}
