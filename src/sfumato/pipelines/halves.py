"""Classifier-free guidance with gradient through its conditional half alone, or its unconditional half run seldom."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

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


@contextmanager
def unconditional_seldom(pipe: Any, every: int) -> Iterator[None]:
    """Run the unconditional half of classifier-free guidance in few steps: the first two, and every `every`-th.

    In between, the difference of the halves, d, is taken to be what it was last and half of the change to be expected:
    d_1 + (d_1 - d_0) (i - i_1) / 2 (i_1 - i_0) at step i. A prediction with guidance scale s is then wrong by (s - 1)
    times the error in d. Nothing is saved where the denoiser is not called once a step with a doubled batch. To be
    used without gradient. The host reads once a call which half is which.

    Args:
        pipe: any pipeline, about to be called.
        every: scheduler steps, at least 1.
    """
    module = getattr(pipe, denoiser_name(pipe))
    seldom = _Seldom(module.forward, pipe.scheduler.step, every)
    with patched(module, "forward", seldom.forward), patched(pipe.scheduler, "step", seldom.step):
        yield


class _Difference(NamedTuple):
    """Unconditional minus conditional prediction, at a scheduler step."""

    position: int
    value: Any


class _Seldom:
    """Stands between a pipeline, its denoiser and its scheduler."""

    def __init__(self, forward: Callable[..., Any], step: Callable[..., Any], every: int):
        self.every = every
        self.forward = functools.wraps(forward)(functools.partial(self._forward, forward))
        self.step = functools.wraps(step)(functools.partial(self._step, step))
        self._position = 0
        self._conditional = slice(0)  # rows of a doubled batch; none while they are unknown
        self._predictions: list[Any] = []  # those of this scheduler step
        self._known: list[_Difference] = []

    def _forward(self, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        call = (args, kwargs)
        if len(self._known) == 2 and self._position < self._known[-1].position + self.every:
            batch = batch_of(call)
            if not batch.lists and batch.size == 2 * len(leaves(self._known[-1].value)[0]):
                part, named = rows(call, batch, [self._conditional])
                return mapped(self._joined, forward(*part, **named), *(known.value for known in self._known))
        self._predictions.append(forward(*args, **kwargs))
        return self._predictions[-1]

    def _joined(self, conditional: torch.Tensor, before: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
        (start, _), (end, _) = self._known
        unconditional = conditional + last + (last - before) * ((self._position - end) / (2 * (end - start)))
        return torch.cat([unconditional, conditional] if self._conditional.start else [conditional, unconditional])

    def _step(self, step: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self._predictions:
            self._learn(args[0] if args else kwargs["model_output"])
        self._position += 1
        return step(*args, **kwargs)

    def _learn(self, seen: torch.Tensor) -> None:
        (prediction, *others), self._predictions = self._predictions, []
        first, images = leaves(prediction)[0], len(seen)
        if others or len(first) != 2 * images:
            self._known = []
            return
        if self._conditional == slice(0):
            self._conditional = slice(images, None) if unconditional_first(first, seen) else slice(0, images)
        sign = -1 if self._conditional.start else 1
        difference = mapped(lambda whole: sign * (whole[images:] - whole[:images]), prediction)
        self._known = [*self._known[-1:], _Difference(self._position, difference)]
