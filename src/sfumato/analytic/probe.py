"""Schedulers with memory (DPM-Solver++, Heun, PNDM, UniPC, ...): run once on probes and read off as affine maps."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

from sfumato.analytic.levels import noise_level, noise_to_signal, prediction_type
from sfumato.analytic.precision import double_precision
from sfumato.analytic.worlds import as_prediction


def probed_law(
    scheduler: Any, denoise: Callable[[int, float, float], tuple[Tensor, Tensor]], shape: torch.Size
) -> tuple[Tensor, Tensor]:
    """Mean and variance of what a deterministic scheduler makes of noise with an affine denoiser.

    A copy of the scheduler runs in float64, set to the same number of steps.

    Args:
        scheduler: any deterministic diffusers scheduler, after `set_timesteps`.
        denoise: (index of the timestep, alpha, sigma) -> slope and offset of E[x0 | x], each of shape `shape`.
        shape: of the worlds' parameters.

    Raises:
        ValueError: the scheduler draws noise, clips, or was set to timesteps of its own.
    """
    name = type(scheduler).__name__
    grid, scheduler = scheduler.timesteps.double(), deepcopy(scheduler)
    with double_precision(scheduler):
        scheduler.set_timesteps(scheduler.num_inference_steps)
        own = scheduler.timesteps.double()
        if grid.shape != own.shape or not torch.allclose(grid, own, atol=1e-3):  # some round to single precision
            raise ValueError(f"{name} runs on timesteps of its own: there the law is known for first-order schedulers")
        probes = torch.tensor([0.0, 0.0, 1.0, 10.0], dtype=torch.float64).reshape(4, 1, 1, 1)
        ends = _run(scheduler, denoise, probes.expand(4, shape.numel(), 1, 1).clone()).reshape(4, *shape)
    origin, again, one, ten = ends
    if not torch.equal(origin, again):
        raise ValueError(f"{name} draws noise, and its law is not known in closed form: use DDIM, DDPM or Euler")
    gain = one - origin
    if not torch.allclose(ten - origin, 10 * gain, rtol=1e-8, atol=1e-8):
        raise ValueError(f"{name} clips or rescales x0, so its samples are not Gaussian: switch that off")
    return origin, gain**2


def _run(scheduler: Any, denoise: Callable[[int, float, float], tuple[Tensor, Tensor]], probes: Tensor) -> Tensor:
    """The ends of trajectories that begin at `probes` (B, D, 1, 1), which some schedulers want to look like images."""
    kind, table = prediction_type(scheduler), noise_to_signal(scheduler)
    generator = torch.Generator()
    extra = {"generator": generator} if "generator" in inspect.signature(scheduler.step).parameters else {}
    x = probes * getattr(scheduler, "init_noise_sigma", 1.0)
    for index, t in enumerate(scheduler.timesteps):
        alpha, sigma = noise_level(t, table, kind)
        z = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        slope, offset = denoise(index, float(alpha), float(sigma))
        image = slope.reshape(-1, 1, 1) * z + offset.reshape(-1, 1, 1)
        prediction = as_prediction(kind, image, (z - alpha * image) / sigma, alpha, sigma)
        x = scheduler.step(prediction, t, x, return_dict=False, **extra)[0]
    return x
