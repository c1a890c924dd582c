"""Supervised fine-tuning on the preferred images of pairs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from sfumato.config import TrainingConfig
from sfumato.rewards import Reward
from sfumato.training.denoising import check_denoising, denoising_losses
from sfumato.training.examples import Source, check_regularizers, from_pairs
from sfumato.training.objective import Batch, Outcome
from sfumato.training.update import Tally, Update


@dataclass(frozen=True)
class SFT:
    """The denoising loss (Ho et al. 2020, arXiv 2006.11239, eq. 14) on the preferred image of each pair.

    It is the baseline of Diffusion-DPO (arXiv 2311.12908). Of a tie both images count half. On images of the
    base model it is fine-tuning on the best of several (RAFT, Dong et al. 2023, arXiv 2304.06767).

    Attributes:
        pairs: a JSONL file of pairs; None for images of the base model, judged by the reward.
        candidates: how many of them for each prompt.
        noise_levels: size of the grid they are drawn from; None for that of sampling.
        noise_draws: of a noise level and noise, for each image. More of them are cheaper than sampling more images.
    """

    pairs: str | None = None
    candidates: int = 2
    noise_levels: int | None = 500
    noise_draws: int = 1

    @cached_property
    def source(self) -> Source:
        return from_pairs(self.pairs, self.candidates)

    def check(self, reward: Reward) -> None:
        pass

    def check_images(self, prompts: list[str], config: TrainingConfig) -> None:
        check_regularizers(config, "SFT")

    def check_sampling(self, pipe: Any, prompt: str, call: dict[str, Any]) -> None:
        check_denoising(pipe, prompt, call, self.noise_levels)
        self.source.check(pipe, prompt, call)

    def __call__(self, update: Update) -> Iterator[Tally]:
        yield update.accumulate(partial(self.outcomes, update))

    def outcomes(self, update: Update, batch: Batch) -> Iterator[Outcome]:
        for loss in denoising_losses(update, batch, self.source, self.noise_levels, 0, self.noise_draws):
            yield Outcome(loss)
