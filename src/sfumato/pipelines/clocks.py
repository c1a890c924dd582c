"""Reading the clock off the pipeline's scheduler: which noise levels a run goes through, and at which it stands."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from sfumato.grids import Grid, Levels
from sfumato.pipelines.patching import patched
from sfumato.pipelines.state import POSITION
from sfumato.schedules import Schedule

FLOW_LOGSNR = (-5.4, 7.1)
"""Log-SNR at the ends of flow matching, which trains on all of them: those of Stable Diffusion's noise schedule."""


def read_grid(scheduler: Any, clock: str = "index") -> Grid:
    """The distinct noise levels of a scheduler after `set_timesteps`, with what the clock needs to know of them.

    Signal α and noise σ of a level are what the scheduler's own `add_noise` (or `scale_noise`) gives for a clean value
    of 1 and noise of 1, so that no kind of scheduler needs code of its own. Timesteps on an accelerator are copied to
    the host once.
    """
    timesteps = scheduler.timesteps.cpu()
    first: dict[float, int] = {}
    for place, value in enumerate(timesteps.tolist()):
        first.setdefault(value, place)
    values = tuple(first)
    measures = {}
    if clock == "timestep":
        last = float(scheduler.config.get("num_train_timesteps", 1000) - 1)
        measures = {"timestep": Levels(values, max(last, values[0]), 0.0)}
    elif clock in ("sigma", "logsnr"):
        noise = _signal_and_noise(scheduler, timesteps[list(first.values())])
        measures = _noise_measures(*noise, getattr(scheduler, "alphas_cumprod", None)) if noise else {}
    return Grid(len(values), measures)


def _signal_and_noise(scheduler: Any, timesteps: torch.Tensor) -> tuple[list[float], list[float]] | None:
    """α and σ at each timestep; None if the scheduler has no way to add noise."""
    probe = copy.copy(scheduler)  # some move their tables to the device of the sample
    add = getattr(probe, "add_noise", None) or getattr(probe, "scale_noise", None)
    if add is None:
        return None
    vars(probe).update({name: None for name in ("_begin_index", "_step_index") if name in vars(probe)})
    zeros, ones = (torch.full((len(timesteps), 1), value, dtype=torch.float64) for value in (0.0, 1.0))
    by_name = {"timesteps": timesteps} if add.__name__ == "add_noise" else {"timestep": timesteps}
    first = "original_samples" if add.__name__ == "add_noise" else "sample"
    alpha, sigma = (add(**{first: x, "noise": n}, **by_name)[:, 0].tolist() for x, n in ((ones, zeros), (zeros, ones)))
    return alpha, sigma


def _noise_measures(alpha: list[float], sigma: list[float], table: torch.Tensor | None) -> dict[str, Levels]:
    """Sigma and log-SNR of the levels, with the ends of training from the scheduler's table of cumulated alphas."""
    flow = all(math.isclose(a + s, 1.0, abs_tol=1e-4) for a, s in zip(alpha, sigma, strict=True))
    ratios = [s / a if a > 0 else math.inf for a, s in zip(alpha, sigma, strict=True)]
    logsnr = tuple(-2 * math.log(ratio) if ratio > 0 else math.inf for ratio in ratios)
    if flow:
        return {"sigma": Levels(tuple(sigma), 1.0, 0.0), "logsnr": Levels(logsnr, *FLOW_LOGSNR)}
    most, least = max(ratios), min(ratios)
    if table is not None:
        most, least = (((1 - table[i]) / table[i]).sqrt().item() for i in (-1, 0))
    ends = -2 * math.log(most), -2 * math.log(least)
    return {"sigma": Levels(tuple(ratios), most, 0.0), "logsnr": Levels(logsnr, *ends)}


class Clock:
    """Knows where the pipeline's scheduler stands.

    `set_timesteps` gives the grid and resets, `step` advances. Second-order schedulers list a timestep twice; both
    calls there stand at the same level. The grid is read once per image, never inside the denoising loop. A run that
    begins later (image-to-image, inpainting) is found by the scheduler's begin index, or, where it has none, by the
    first timestep that it is asked to scale an input for.

    Attributes:
        rows: how many rows of latents the last `step` was given, None before the first.
        calls: denoiser calls since the last `step`; kept by the guidance.
    """

    def __init__(self, scheduler: Any, clocks: Iterable[str] = ("index",)):
        self.scheduler = scheduler
        self.clocks = set(clocks)
        self.on_reset: Callable[[], None] = lambda: None
        self.calls = 0
        self.rows: int | None = None
        self._ranks: list[int] = []
        self._values: list[float] = []
        self._grids: dict[str, Grid] = {}
        self._progress: dict[tuple[str, int], list[float]] = {}
        self._start: int | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        scheduler = self.scheduler
        with ExitStack() as stack:
            for name, wrapper in [("set_timesteps", self._reset_after), ("step", self._advance_after)]:
                stack.enter_context(patched(scheduler, name, wrapper(getattr(scheduler, name))))
            if not hasattr(scheduler, "set_begin_index"):
                wrapped = self._start_before(scheduler.scale_model_input)
                stack.enter_context(patched(scheduler, "scale_model_input", wrapped))
            stack.callback(vars(scheduler).pop, POSITION, None)
            yield

    def _reset_after(self, set_timesteps: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(set_timesteps)
        def set_and_reset(*args: Any, **kwargs: Any) -> Any:
            result = set_timesteps(*args, **kwargs)
            self._values = self.scheduler.timesteps.tolist()
            order = {timestep: rank for rank, timestep in enumerate(dict.fromkeys(self._values))}
            self._ranks = [order[timestep] for timestep in self._values]
            self._grids = {clock: read_grid(self.scheduler, clock) for clock in self.clocks}
            self._progress, self._start, self.calls, self.rows = {}, None, 0, None
            setattr(self.scheduler, POSITION, 0)
            self.on_reset()
            return result

        return set_and_reset

    def _advance_after(self, step: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(step)
        def step_and_advance(*args: Any, **kwargs: Any) -> Any:
            result = step(*args, **kwargs)
            setattr(self.scheduler, POSITION, self.position + 1)
            sample = kwargs.get("sample", args[2] if len(args) > 2 else None)
            self.calls, self.rows = 0, None if sample is None else len(sample)
            return result

        return step_and_advance

    def _start_before(self, scale_model_input: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(scale_model_input)
        def note_and_scale(sample: Any, timestep: Any = None, *args: Any, **kwargs: Any) -> Any:
            if self._start is None and self.position == 0 and timestep is not None and self._values:
                self._start = self._values.index(float(timestep))
            return scale_model_input(sample, timestep, *args, **kwargs)

        return note_and_scale

    @property
    def position(self) -> int:
        """Scheduler steps taken in this run."""
        return getattr(self.scheduler, POSITION, 0)

    @property
    def start(self) -> int:
        """The level at which the run began, 0 for text-to-image.

        Raises:
            RuntimeError: the denoiser was called outside a pipeline call.
        """
        if not self._ranks:
            raise RuntimeError("guidance needs the pipeline's scheduler: call the pipeline, not its denoiser alone")
        return self._ranks[self._begin]

    @property
    def index(self) -> int:
        """Which of the run's distinct levels the next step starts from."""
        return self._ranks[min(self._begin + self.position, len(self._ranks) - 1)] - self.start

    def weight(self, schedule: Schedule) -> float:
        """The schedule's weight at the level where the next step starts."""
        name, start = schedule.clock, self.start
        if (name, start) not in self._progress:
            self._progress[name, start] = self._grids[name].since(start).progress(name)
        return schedule(self._progress[name, start][self.index])

    @property
    def _begin(self) -> int:
        begin = getattr(self.scheduler, "begin_index", None)
        return begin if begin is not None else self._start or 0
