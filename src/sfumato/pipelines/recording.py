"""Standing beside the scheduler during a call: recording its steps, running some of them, enabling gradient."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from sfumato.pipelines.clocks import denoised_timesteps
from sfumato.pipelines.patching import patched
from sfumato.pipelines.state import POSITION, Step, restore, snapshot


@dataclass(frozen=True)
class Start:
    """Where a call begins that does not begin at the first step.

    Attributes:
        index: of its first step.
        sample: x_t there.
        noise: the state of each image's generator.
        state: of the scheduler; None lets it begin anew there, without a history, as in image-to-image.
    """

    index: int
    sample: torch.Tensor
    noise: list[torch.Tensor]
    state: dict[str, Any] | None = None


class Watch:
    """Gives the scheduler the images' generators, runs a section of its steps, counts, records, enables gradient.

    Attributes:
        total: the number of scheduler steps to take.
        taken: those taken so far.
        forwards: calls of the denoiser.
        steps: the recorded steps.
    """

    def __init__(
        self,
        pipe: Any,
        generators: list[torch.Generator],
        *,
        section: Callable[[int], range] = range,
        start: Start | None = None,
        last_steps: int | None = None,
        record: bool = False,
        finish: Callable[[Step], torch.Tensor] | None = None,
        prefix: AbstractContextManager[None] | None = None,
    ):
        """
        Args:
            section: number of steps in the grid -> those to take.
            start: where the first of them begins, if not where the pipeline does.
            last_steps: how many at the end carry gradient; with 0 only what comes after them does, with None nothing.
            record: whether to keep all steps.
            finish: from the last step, what it gives in place of the scheduler's next sample.
            prefix: a context for everything before gradient is enabled.
        """
        self.pipe, self.scheduler, self.generators = pipe, pipe.scheduler, generators
        self.section, self.start = section, start
        self.last_steps, self.record, self.finish, self.prefix = last_steps, record, finish, prefix
        self.total = self.taken = self.forwards = 0
        self.steps: list[Step] = []
        self._first = 0
        self._grid: torch.Tensor | None = None
        self._before = ExitStack()

    @contextmanager
    def running(self) -> Iterator[None]:
        set_timesteps, step = self.scheduler.set_timesteps, self.scheduler.step

        @functools.wraps(set_timesteps)
        def set_and_cut(*args: Any, **kwargs: Any) -> Any:
            result = set_timesteps(*args, **kwargs)
            if self.start is not None:
                self._stand_at(self.start)
            self._cut()
            self._enable_gradient_in_time()
            return result

        @functools.wraps(step)
        def watched_step(*args: Any, **kwargs: Any) -> Any:
            self._uncut()
            result = self._step(step, args, with_generators(step, kwargs, self.generators))
            self.taken += 1
            self._enable_gradient_in_time()
            return result

        with (
            patched(self.scheduler, "set_timesteps", set_and_cut),
            patched(self.scheduler, "step", watched_step),
            self._before as before,
        ):
            if self.prefix is not None:
                before.enter_context(self.prefix)
            try:
                yield
            finally:
                self._uncut()

    def count_forward(self, *_: Any) -> None:
        self.forwards += 1

    def _stand_at(self, start: Start) -> None:
        counts = hasattr(self.scheduler, POSITION)
        restore(self.scheduler, start.state or begun(snapshot(self.scheduler), start.index))
        if counts:
            setattr(self.scheduler, POSITION, start.index)

    def _cut(self) -> None:
        """Let the pipeline see the timesteps of the section alone."""
        count = len(denoised_timesteps(self.scheduler))
        section = self.section(count)
        self._first, self.total = section.start, len(section)
        if (self.last_steps or 0) > self.total:
            raise ValueError(
                f"gradient was asked for the last {self.last_steps} steps, but {type(self.scheduler).__name__} "
                f"takes only {self.total} here: lower last_steps or raise num_inference_steps"
            )
        if section != range(count):
            self._grid = self.scheduler.timesteps
            beyond = len(self._grid) - count
            self.scheduler.timesteps = self._grid[section.start : section.stop + beyond]

    def _uncut(self) -> None:
        """Let the scheduler see all of its timesteps, which some look up or count."""
        if self._grid is not None:
            self.scheduler.timesteps = self._grid

    def _step(self, step: Callable[..., Any], args: tuple, kwargs: dict[str, Any]) -> Any:
        first = self.start if self.taken == 0 else None
        finish = self.finish if self.taken == self.total - 1 else None
        if first is not None:
            for generator, state in zip(self.generators, first.noise, strict=True):
                generator.set_state(state)
        if not (self.record or first or finish):
            return step(*args, **kwargs)
        result, done = recorded(self.scheduler, step, args, kwargs, self.generators, self._first + self.taken)
        if first is not None and not torch.allclose(done.sample, first.sample, rtol=0, atol=0, equal_nan=True):
            raise RuntimeError(
                f"a {type(self.pipe).__name__} changes the latents it starts from: its steps cannot be replayed"
            )
        if self.record:
            self.steps.append(done)
        return _in_place_of(result, finish(done)) if finish else result

    def _enable_gradient_in_time(self) -> None:
        if self.last_steps is not None and self.taken == self.total - self.last_steps:
            self._before.close()
            torch.set_grad_enabled(True)


def recorded(
    scheduler: Any, step: Callable[..., Any], args: tuple, kwargs: dict, generators: list[torch.Generator], index: int
) -> tuple[Any, Step]:
    """Take one scheduler step and write it down."""
    given = inspect.signature(step).bind(*args, **kwargs).arguments
    state, noise = snapshot(scheduler), [generator.get_state() for generator in generators]
    result = step(*args, **kwargs)
    after = result[0] if isinstance(result, tuple) else result.prev_sample
    timestep, sample, prediction = (given.pop(name) for name in ("timestep", "sample", "model_output"))
    options = {name: value for name, value in given.items() if name not in ("generator", "return_dict")}
    return result, Step(index, timestep, sample, prediction, after, state, noise, options)


def with_generators(step: Callable[..., Any], kwargs: dict[str, Any], generators: list[torch.Generator]) -> dict:
    """The scheduler's arguments with per-image generators, where it takes some and the pipeline gave none."""
    if kwargs.get("generator") is None and "generator" in inspect.signature(step).parameters:
        return {**kwargs, "generator": generators}
    return kwargs


def begun(state: dict[str, Any], index: int) -> dict[str, Any]:
    """The state of a scheduler that begins at one of its timesteps, from that after `set_timesteps`.

    Some look their index up at the first step; this says it, whatever the pipeline says about where it begins.
    """
    return {**state, "_step_index": index} if "_step_index" in state else state


def _in_place_of(result: Any, sample: torch.Tensor) -> Any:
    """What a scheduler's step returned, with every tensor in it replaced; some pipelines decode the second (LCM)."""
    if isinstance(result, tuple):
        return (sample,) * len(result)
    return type(result)(**dict.fromkeys(result, sample))
