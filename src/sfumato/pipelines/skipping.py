"""Sampling with fewer runs of the denoiser than there are steps."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from sfumato.pipelines.adapters import denoiser_name
from sfumato.pipelines.patching import patched
from sfumato.pipelines.stochastic import Normal
from sfumato.pipelines.trees import leaves, mapped


@contextmanager
def denoised_every(pipe: Any, every: int) -> Iterator[None]:
    """Run the denoiser in the first two and every `every`-th scheduler step; in between, predictions go on in a line.

    With the last two predictions, e_0 at timestep t_0 and e_1 at t_1, that at t is
    e_1 + (e_1 - e_0) (t - t_1) / (t_1 - t_0), as in multistep solvers. The noise that a stochastic step adds cannot be
    foreseen: after such a step the denoiser is run, so nothing is saved where all steps are stochastic. To be used
    without gradient. The host reads the timesteps once a call.

    Args:
        pipe: any pipeline, about to be called; every denoiser call of a step is foreseen by itself.
        every: scheduler steps, at least 1.
    """
    module = getattr(pipe, denoiser_name(pipe))
    skipping = _Skipping(module.forward, pipe.scheduler, every)
    with patched(module, "forward", skipping.forward), patched(pipe.scheduler, "step", skipping.step):
        yield


class _Known(NamedTuple):
    """A prediction of the denoiser at a scheduler step, for inputs of these shapes."""

    position: int
    prediction: Any
    shapes: list[torch.Size]


class _Skipping:
    """Stands between a pipeline, its denoiser and its scheduler."""

    def __init__(self, forward: Callable[..., Any], scheduler: Any, every: int):
        self.scheduler, self.every = scheduler, every
        self.forward = functools.wraps(forward)(functools.partial(self._forward, forward))
        self.step = functools.wraps(scheduler.step)(functools.partial(self._step, scheduler.step))
        self._position = self._turn = 0
        self._known: dict[int, list[_Known]] = {}  # the last two of each denoiser call of a step

    @functools.cached_property
    def _times(self) -> list[float]:
        return self.scheduler.timesteps.tolist()

    def _forward(self, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        turn, self._turn = self._turn, self._turn + 1
        known, shapes = self._known.get(turn, []), [leaf.shape for leaf in leaves((args, kwargs))]
        if (
            len(known) == 2
            and self._position < known[1].position + self.every
            and known[0].shapes == known[1].shapes == shapes
        ):
            return self._foreseen(*known)
        prediction = forward(*args, **kwargs)
        self._known[turn] = [*known[-1:], _Known(self._position, prediction, shapes)]
        return prediction

    def _foreseen(self, before: _Known, last: _Known) -> Any:
        start, end, now = (self._times[position] for position in (before.position, last.position, self._position))
        weight = (now - end) / (end - start) if end != start else 0.0
        return mapped(lambda a, b: b + weight * (b - a), before.prediction, last.prediction)

    def _step(self, step: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self._position, self._turn = self._position + 1, 0
        with Normal(None) as noise:
            result = step(*args, **kwargs)
        if noise.drawn:
            self._known.clear()
        return result
