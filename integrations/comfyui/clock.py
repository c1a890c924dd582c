"""Where a sampler of ComfyUI stands: from the noise level of a model call to progress u in [0, 1]."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch

from sfumato.grids import Grid, Levels
from sfumato.pipelines.clocks import read_grid
from sfumato.schedules import Schedule

SAME_LEVEL = 1e-4
"""Two sigmas that differ by less, relatively, are one level: UniPC hands back its own rounding of the sampler's."""


class SigmaClock:
    """Turns the sigma of a model call into the schedule's weight.

    It depends on sigma alone and counts no calls, so samplers that evaluate a level twice, go back or evaluate between
    two levels are served alike. Between two levels u is interpolated along log sigma.
    """

    def __init__(self, schedule: Schedule):
        self.schedule = schedule
        self._sigmas: Any = None
        self._levels: list[float] = []
        self._progress: list[float] = []

    def weight(self, sigma: float, sigmas: torch.Tensor, sampling: Any) -> float:
        """g at `sigma`.

        Args:
            sigma: the noise level of this call.
            sigmas: those of the whole run, as the sampler got them; the last is where it ends, not one it evaluates.
            sampling: ComfyUI's `model_sampling` of the model.
        """
        if sigmas is not self._sigmas:
            self._levels = sorted({s for s in sigmas[:-1].tolist() if s > 0}, reverse=True)
            self._progress = _grid(self._levels, sampling, self.schedule.clock).progress(self.schedule.clock)
            self._sigmas = sigmas
        return self.schedule(_interpolated(sigma, self._levels, self._progress))


def _interpolated(sigma: float, levels: list[float], progress: list[float]) -> float:
    for level, u in zip(levels, progress, strict=True):
        if math.isclose(sigma, level, rel_tol=SAME_LEVEL):
            return u
    if sigma > levels[0]:
        return progress[0]
    for (above, before), (below, after) in pairwise(zip(levels, progress, strict=True)):
        if sigma > below:
            return before + (after - before) * math.log(above / sigma) / math.log(above / below)
    return progress[-1]


def _grid(levels: list[float], sampling: Any, clock: str) -> Grid:
    """The run as sfumato's clocks see it."""
    if clock != "timestep":
        return read_grid(_AsScheduler(levels, sampling), clock)
    ends = torch.stack([torch.as_tensor(s).float().cpu() for s in (sampling.sigma_max, sampling.sigma_min)])
    *values, noisiest, cleanest = sampling.timestep(torch.cat([torch.tensor(levels), ends])).tolist()
    known = {"timestep": Levels(tuple(values), max(noisiest, values[0]), 0.0)} if cleanest >= 0 else {}
    return Grid(len(levels), known)


class _AsScheduler:
    """What `read_grid` asks of a diffusers scheduler, answered by ComfyUI's `model_sampling`."""

    def __init__(self, levels: list[float], sampling: Any):
        self.timesteps = torch.tensor(levels, dtype=torch.float64)
        self.alphas_cumprod = 1 / (1 + sampling.sigmas.double().cpu() ** 2)
        self._sampling = sampling

    def add_noise(self, original_samples: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        return self._sampling.noise_scaling(timesteps, noise, original_samples)
