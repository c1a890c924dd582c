"""One update at work: its images, shared out among processes, and the gradient that is accumulated over them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from accelerate import Accelerator
from numpy.random import Generator, default_rng
from torch import nn

from sfumato.training.objective import Batch, Outcome

HALF_SCALE = 2.0**12


def loss_scale(module: nn.Module) -> float:
    """What to multiply a loss by so that its gradient survives in a module: 1, and a power of two in float16."""
    return HALF_SCALE if next(module.parameters()).dtype == torch.float16 else 1.0


@dataclass(frozen=True)
class Tally:
    """What the outcomes since the last step of the optimiser add up to, on this process.

    Attributes:
        loss: 0-d, weighted by this process's share of the images.
        rewards: (images here,), float32; empty where the objective scores no images of its own.
        logs: 0-d tensors, weighted like the loss.
    """

    loss: torch.Tensor
    rewards: torch.Tensor
    logs: dict[str, torch.Tensor]


@dataclass(frozen=True)
class Update:
    """One update.

    Attributes:
        number: which, counted from 1.
        seed: of the training.
        prompts: of all images, those of other processes included.
        batches: this process's micro-batches.
        accelerator: knows the other processes.
        scale: what losses are multiplied by before they are back-propagated, so that half precision can hold their
            gradients; the trainer divides by it.
    """

    number: int
    seed: int
    prompts: list[str]
    batches: list[Batch]
    accelerator: Accelerator
    scale: float = 1.0

    def random(self, purpose: int = 0) -> Generator:
        """Randomness that is the same for all micro-batches and processes, and again after an interruption."""
        return default_rng([self.seed, self.number, 1, purpose])

    def accumulate(
        self, outcomes: Callable[[Batch], Iterable[Outcome]], batches: Sequence[Batch] | None = None
    ) -> Tally:
        """Back-propagate every outcome of every micro-batch, and of what stands beside the objective, one at a time,
        weighted so that they make a mean over images.

        Args:
            outcomes: turns a micro-batch into the parts of its loss.
            batches: those of this step of the optimiser; all unless given. Every process has to give as many.
        """
        batches = self.batches if batches is None else batches
        images = sum(len(batch.prompts) for batch in batches) * self.accelerator.num_processes
        losses: list[torch.Tensor] = []
        rewards: list[torch.Tensor] = []
        logs: dict[str, torch.Tensor] = {}
        for batch in batches:
            share = len(batch.prompts) / images
            for outcome in chain(outcomes(batch), batch.terms.beside(self, batch)):
                self.accelerator.backward(outcome.loss * (share * self.scale))
                losses.append(outcome.loss.detach() * share)
                if outcome.rewards is not None:
                    rewards.append(outcome.rewards.float())
                for key, value in outcome.logs.items():
                    logs[key] = logs.get(key, 0) + value * share
        total = torch.stack(losses).sum()
        return Tally(total, torch.cat(rewards) if rewards else total.new_empty(0, dtype=torch.float32), logs)

    def alongside(self, place: slice) -> slice:
        """The images of a micro-batch and of those that the other processes are at meanwhile: what is left out for all
        of them is left out alike on every process."""
        size, accelerator = place.stop - place.start, self.accelerator
        first = place.start - accelerator.process_index * size
        return slice(first, first + accelerator.num_processes * size)

    def everywhere(self, values: Sequence[torch.Tensor]) -> torch.Tensor:
        """One value per image of the whole update, in the order of `prompts`.

        Args:
            values: (images,) for each of this process's micro-batches.
        """
        gathered = self.accelerator.gather(torch.cat(list(values)))
        processes = self.accelerator.num_processes
        if processes == 1:
            return gathered
        sizes = len(values[0])
        return gathered.unflatten(0, (processes, len(values), sizes)).transpose(0, 1).flatten()
