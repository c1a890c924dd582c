"""Classifier-free guidance with gradient through its conditional half alone."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from sfumato.pipelines.adapters import denoiser_name
from sfumato.pipelines.patching import patched
from sfumato.pipelines.savings import unconditional_first
from sfumato.pipelines.trees import batch_of, leaves, mapped, rows

MESSAGE = (
    "only a pipeline that runs classifier-free guidance as one doubled batch of tensors, unconditional rows first, can "
    "leave the gradient of its unconditional half out; this one does not, or its guidance is off: "
    "set training.objective.unconditional_gradient=true"
)


class Halves:
    """What the denoiser predicted, to see which half is which.

    Attributes:
        last: for the last doubled batch, (2 B, ...), without gradient; None before there was one.
    """

    def __init__(self) -> None:
        self.last: torch.Tensor | None = None

    def keep(self, prediction: Any) -> None:
        self.last = leaves(prediction)[0].detach()

    def check_order(self, seen: torch.Tensor) -> None:
        """Raise ValueError unless the unconditional half came first.

        Args:
            seen: what the scheduler was given at the last step, after guidance.
        """
        if self.last is not None and not unconditional_first(self.last, seen):
            raise ValueError(MESSAGE)


@contextmanager
def conditional_gradient(pipe: Any, images: int) -> Iterator[Halves]:
    """Run the halves of classifier-free guidance one after the other, the unconditional one without gradient.

    The prediction u + s (c - u) then carries the gradient of s c alone. Both halves are forwards of their own also
    where no gradient is asked for, so that sampling and replays give the same bits.

    Args:
        pipe: any pipeline whose denoiser is called once a step with a doubled batch, unconditional rows first.
        images: how many are sampled.

    Raises:
        ValueError: in the first denoiser call, its batch is not doubled.
    """
    module = getattr(pipe, denoiser_name(pipe))
    forward, halves = module.forward, Halves()

    @functools.wraps(forward)
    def in_halves(*args: Any, **kwargs: Any) -> Any:
        call = (args, kwargs)
        batch = batch_of(call)
        if batch.lists or batch.size != 2 * images:
            raise ValueError(MESSAGE)
        (first, first_named), (second, second_named) = (
            rows(call, batch, [part]) for part in (slice(0, images), slice(images, None))
        )
        with torch.no_grad():
            unconditional = forward(*first, **first_named)
        prediction = mapped(lambda u, c: torch.cat([u, c]), unconditional, forward(*second, **second_named))
        halves.keep(prediction)
        return prediction

    with patched(module, "forward", in_halves):
        yield halves
