"""Reading the clock off the pipeline's scheduler: which noise levels a run goes through, and at which it stands."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from sfumato.grids import Grid, Levels
from sfumato.pipelines.patching import patched
from sfumato.pipelines.predictions import signal_and_noise
from sfumato.pipelines.state import POSITION
from sfumato.schedules import Schedule

FLOW_LOGSNR = (-5.4, 7.1)
"""Log-SNR at the ends of flow matching, which trains on all of them: those of Stable Diffusion's noise schedule."""
LIMIT = 4096.0
"""Noise or signal that exceeds the other by more counts as this much more, as pure noise does in diffusers' Euler."""


def read_grid(scheduler: Any, clock: str = "index") -> Grid:
    """The distinct noise levels of a scheduler after `set_timesteps`, with what the clock needs to know of them.

    Signal α and noise σ of a level are what the scheduler's own `add_noise` (or `scale_noise`) gives for a clean value
    of 1 and noise of 1, so that no kind of scheduler needs code of its own. Timesteps on an accelerator are copied to
    the host once.
    """
    timesteps = denoised_timesteps(scheduler)
    values = list(dict.fromkeys(timesteps.tolist()))
    measures = {}
    if clock == "timestep":
        measures = _time_measures(scheduler, values)
    elif clock in ("sigma", "logsnr"):
        noise = [signal_and_noise(scheduler, timesteps.new_tensor([value])) for value in values]
        measures = _noise_measures(values, noise, getattr(scheduler, "alphas_cumprod", None))
    return Grid(len(values), measures)


def denoised_timesteps(scheduler: Any) -> torch.Tensor:
    """The timesteps from which the scheduler steps, on the host, those that come twice included.

    Some (SCM) list one more at the end, 0, which only says where the last step leads.
    """
    timesteps = scheduler.timesteps.cpu()
    one_more = getattr(scheduler, "num_inference_steps", None) == len(timesteps.unique()) - 1
    return timesteps[:-1] if one_more and scheduler.order == 1 and timesteps[-1] == 0 else timesteps


def _time_measures(scheduler: Any, values: list[float]) -> dict[str, Levels]:
    """The timesteps, unless they are no time of training but some function of the noise (EDM, SCM)."""
    count = scheduler.config.get("num_train_timesteps", 1000)
    if not hasattr(scheduler, "alphas_cumprod"):
        sigmas = getattr(scheduler, "sigmas", None)
        if sigmas is None or not math.isclose(float(sigmas[0]) * count, values[0], rel_tol=1e-4):
            return {}
    return {"timestep": Levels(tuple(values), max(count - 1.0, values[0]), 0.0)}


def _noise_measures(values: list[float], noise: list[Any], table: torch.Tensor | None) -> dict[str, Levels]:
    """Sigma and log-SNR of the levels, with the ends of training from the scheduler's table of cumulated alphas."""
    if None in noise:
        return {}
    flow = all(math.isclose(alpha + sigma, 1.0, abs_tol=1e-4) for alpha, sigma in noise)
    ratios = [_bounded(sigma / alpha if alpha > 0 else math.inf) for alpha, sigma in noise]
    if flow:
        sigmas, ends, logsnr_ends = [sigma for _, sigma in noise], (1.0, 0.0), FLOW_LOGSNR
    else:
        trained = ratios if table is None else [_bounded(r) for r in ((1 - table) / table).sqrt().tolist()]
        sigmas = ratios = ratios if table is None else _with_midpoints(values, ratios, trained)
        ends, logsnr_ends = (max(trained), 0.0), (-2 * math.log(max(trained)), -2 * math.log(min(trained)))
    logsnr = tuple(-2 * math.log(ratio) for ratio in ratios)
    return {"sigma": Levels(tuple(sigmas), *ends), "logsnr": Levels(logsnr, *logsnr_ends)}


def _bounded(ratio: float) -> float:
    return min(max(ratio, 1 / LIMIT), LIMIT)


def _with_midpoints(values: list[float], ratios: list[float], trained: list[float]) -> list[float]:
    """The noise of levels between two others (KDPM2), for which `add_noise` gives that of the next, from the table."""
    found = list(ratios)
    for index, following in enumerate(ratios[1:]):
        if ratios[index] == following:
            low = int(values[index])
            a, b = (math.log(trained[min(place, len(trained) - 1)]) for place in (low, low + 1))
            found[index] = math.exp(a + (values[index] - low) * (b - a))
    return found


class Clock:
    """Knows where the pipeline's scheduler stands.

    `set_timesteps` gives the grid and resets, `step` advances. Second-order schedulers list a timestep twice; both
    calls there stand at the same level. The grid is read once per image, never inside the denoising loop. A run that
    begins later (image-to-image, inpainting) is found by the scheduler's begin index, or, where it has none, by the
    first timestep that it is asked to scale an input for.

    Attributes:
        seen: the model output that the last `step` was given, after classifier-free guidance; None before the first.
        calls: denoiser calls since the last `step`; kept by the guidance.
    """

    def __init__(self, scheduler: Any, clocks: Iterable[str] = ("index",)):
        self.scheduler = scheduler
        self.clocks = set(clocks)
        self.on_reset: Callable[[], None] = lambda: None
        self.calls = 0
        self.seen: torch.Tensor | None = None
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
            self._values = denoised_timesteps(self.scheduler).tolist()
            order = {timestep: rank for rank, timestep in enumerate(dict.fromkeys(self._values))}
            self._ranks = [order[timestep] for timestep in self._values]
            self._grids = {clock: read_grid(self.scheduler, clock) for clock in self.clocks}
            self._progress, self._start, self.calls, self.seen = {}, None, 0, None
            setattr(self.scheduler, POSITION, 0)
            self.on_reset()
            return result

        return set_and_reset

    def _advance_after(self, step: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(step)
        def step_and_advance(*args: Any, **kwargs: Any) -> Any:
            result = step(*args, **kwargs)
            setattr(self.scheduler, POSITION, self.position + 1)
            seen = kwargs.get("model_output", args[0] if args else None)
            self.calls, self.seen = 0, None if seen is None else seen.detach()
            return result

        return step_and_advance

    def _start_before(self, scale_model_input: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(scale_model_input)
        def note_and_scale(sample: Any, timestep: Any = None, *args: Any, **kwargs: Any) -> Any:
            if timestep is not None and self._values:
                self._find_start(timestep)
            return scale_model_input(sample, timestep, *args, **kwargs)

        return note_and_scale

    def _find_start(self, timestep: Any) -> None:
        """Where the run began, from the first timestep; from the second if the first is listed twice (PNDM)."""
        if self._start is None and self.position == 0:
            self._start = self._values.index(float(timestep))
        elif self._start is not None and self.position == 1:
            following = self._values[self._start + 1 :]
            self._start += following.index(float(timestep)) if float(timestep) in following else 0

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
