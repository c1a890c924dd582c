"""How well a model denoises given images, which is what it was first trained by, at the noise levels of a grid."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from numpy.random import Generator

from sfumato.pipelines.plan import blank_rollout, unguided
from sfumato.pipelines.predictions import noise_level, noise_like, noised, target
from sfumato.pipelines.rollout import Rollout, replay
from sfumato.training.examples import Examples, Source
from sfumato.training.objective import Batch
from sfumato.training.update import Update


@dataclass(frozen=True)
class Denoised:
    """The examples of one or several rows at a noise level.

    Attributes:
        examples: those of a row side by side.
        errors: (E,), the squared error of the tuned model's prediction, a mean over dims, with gradient.
        base_errors: (E,), that of the base model; None unless it was asked for.
    """

    examples: Examples
    errors: torch.Tensor
    base_errors: torch.Tensor | None


def spread_levels(random: Generator, rows: int, draws: int, levels: int) -> np.ndarray:
    """Places in a grid of noise levels at which the rows of an update are looked at.

    Each place alone is drawn uniformly, but together they are spread evenly over the grid, one in each of equal strata,
    so that their mean varies less (as by the low-discrepancy sampler of Kingma et al. 2021, arXiv 2107.00630). With n
    draws every n rows or so have theirs in common and can go through the model together: there are as many places as
    with one draw.

    Args:
        random: the source of randomness.
        rows: of the update.
        draws: places for each row.
        levels: size of the grid.

    Returns:
        (groups, draws), int64, in [0, levels). Those of row i are at i % groups, so that any equally many neighbours
        are of equally many groups.
    """
    groups = math.ceil(rows / draws)
    strata = random.permutation(groups * draws).reshape(groups, draws)
    return (strata * levels + random.integers(levels, size=strata.shape)) // strata.size


def denoised(
    update: Update,
    batch: Batch,
    examples: Examples,
    noise_levels: int | None,
    purpose: int,
    draws: int = 1,
    with_base: bool = False,
) -> Iterator[Denoised]:
    """Noise the examples of a micro-batch and let the model predict, without classifier-free guidance.

    A row's noise levels are those of `spread_levels`, its noise is drawn from the standard normal law: both are those
    of the row, whatever micro-batch it is in, and the same for its two images. What is predicted is what the scheduler
    takes the model's output for: noise, x0, v or velocity.

    Args:
        update: the whole update.
        batch: one of its micro-batches.
        examples: clean images.
        noise_levels: size of the grid, as a number of inference steps; None for that of sampling.
        purpose: which of the update's random numbers are used.
        draws: of a noise level and noise, for each row.
        with_base: whether the base model predicts too.

    Yields:
        One part for each forward, of which all processes take as many: for the rows with the same noise levels, and
        each draw.
    """
    pipe, random, total = batch.pipe, update.random(purpose), len(update.prompts)
    blank = cache(partial(_blank, pipe, examples.prompts[0], batch.call, noise_levels))
    places = spread_levels(random, total, draws, len(blank(1).steps))
    seeds = random.integers(2**32, size=(total, draws))[batch.place]
    groups = (np.arange(total)[batch.place] % len(places))[examples.rows]
    asked = []
    for group in np.unique(groups):
        part = examples[np.flatnonzero(groups == group).tolist()]
        grid = blank(len(part.prompts))
        for place, own_seeds in zip(places[group].tolist(), seeds[part.rows].T.tolist(), strict=True):
            noise = noise_like(part.latents, own_seeds)
            x, wanted = (make(pipe.scheduler, grid.steps[place], part.latents, noise) for make in (noised, target))
            asked.append((part, wanted, partial(replay, pipe, grid, place, sample=x, prompt=part.prompts)))
    base_errors: list[torch.Tensor | None] = [None] * len(asked)
    if with_base:
        with batch.base():
            base_errors = [_errors(predict().prediction, wanted) for _, wanted, predict in asked]
    for (part, wanted, predict), base in zip(asked, base_errors, strict=True):
        yield Denoised(part, _errors(predict(grad=True).prediction, wanted), base)


def denoising_losses(
    update: Update, batch: Batch, source: Source, noise_levels: int | None, purpose: int, draws: int = 1
) -> Iterator[torch.Tensor]:
    """The parts, 0-d, of the mean over a micro-batch's rows of the weighted squared errors; arguments as above."""
    examples = source(update, batch, whole=False)
    for part in denoised(update, batch, examples, noise_levels, purpose, draws):
        yield (part.examples.weights * part.errors).sum() / (draws * len(batch.prompts))


def check_denoising(pipe: Any, prompt: str, call: dict[str, Any], noise_levels: int | None) -> None:
    """Raise ValueError if the scheduler has no such grid, or does not say how it adds noise and what is predicted."""
    try:
        step = _blank(pipe, prompt, call, noise_levels, 1).steps[0]
    except ValueError as error:
        raise ValueError(f"{type(pipe.scheduler).__name__} has no {noise_levels} noise levels: {error}") from None
    noise_level(pipe.scheduler, step)
    target(pipe.scheduler, step, torch.zeros(1), torch.zeros(1))


def _blank(pipe: Any, prompt: str, call: dict[str, Any], noise_levels: int | None, count: int) -> Rollout:
    """The grid of noise levels for so many images."""
    changes: dict[str, Any] = {**unguided(pipe), **({"num_inference_steps": noise_levels} if noise_levels else {})}
    return blank_rollout(pipe, prompt=prompt, seeds=[0] * count, **{**call, **changes})


def _errors(prediction: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    wide = torch.promote_types(prediction.dtype, torch.float32)
    return (prediction.to(wide) - wanted.to(wide)).square().flatten(1).mean(1)
