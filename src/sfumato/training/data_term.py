"""A regulariser beside any objective: go on denoising given images well."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sfumato.config import RegularizersConfig
from sfumato.training.denoising import check_denoising, denoising_losses
from sfumato.training.examples import Source, from_images, from_pairs
from sfumato.training.objective import Batch, Outcome
from sfumato.training.update import Update

PURPOSE = 5


@dataclass(frozen=True)
class DataTerm:
    """The denoising loss on real or preferred images, as many as the objective has (ImageReFL, arXiv 2505.22569).

    Attributes:
        coefficient: multiplies it.
        images: a JSONL file of images with prompts.
        pairs: in its place one of pairs, whose preferred images are taken.
        noise_levels: size of the grid they are drawn from; None for that of sampling.
    """

    coefficient: float
    images: str | None = None
    pairs: str | None = None
    noise_levels: int | None = 500

    @cached_property
    def source(self) -> Source:
        return from_pairs(self.pairs) if self.images is None else from_images(self.images)

    def check_sampling(self, pipe: Any, prompt: str, call: dict[str, Any]) -> None:
        check_denoising(pipe, prompt, call, self.noise_levels)
        self.source.check(pipe, prompt, call)

    def __call__(self, update: Update, batch: Batch, strength: float) -> Iterator[Outcome]:
        for loss in denoising_losses(update, batch, self.source, self.noise_levels, PURPOSE):
            yield Outcome(strength * self.coefficient * loss, logs={"data": loss.detach()})


def build_data_term(config: RegularizersConfig) -> DataTerm | None:
    """The data term that a recipe asks for."""
    return DataTerm(**config.data.model_dump()) if config.data else None
