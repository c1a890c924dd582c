"""The law of Annealed Importance Guidance between two Gaussians: discrete and exact, continuous, and its KL.

Between Gaussians every sampler step is an affine map with noise, so mean and variance of the samples follow from a
scalar recursion. It uses the scheduler's tables only, so that the real pipeline, hook and scheduler can be checked
against it. All functions work elementwise on tensors and let gradients through.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

from sfumato.analytic.probe import probed_law
from sfumato.analytic.steps import AffineStep, affine_steps, has_affine_steps
from sfumato.pipelines.clocks import denoised_timesteps, read_grid
from sfumato.pipelines.stochastic import LEAST
from sfumato.schedules import Schedule
from sfumato.schedules import schedule as make_schedule

Value = float | Tensor
Map = tuple[Tensor, Tensor]
"""Slope and offset of x -> E[x0 | x]."""


def gaussian_aig(
    mean_b: Value,
    var_b: Value,
    mean_r: Value,
    var_r: Value,
    scheduler: Any,
    schedule: str | Schedule | Callable[[float], float],
    *,
    num_inference_steps: int | None = None,
    eta: float = 0.0,
    blend: str = "predictions",
    **parameters: Any,
) -> tuple[Any, Any]:
    """Mean and variance of the samples of AIG (arXiv 2409.06493) between two exact Gaussian denoisers.

    Exact for the scheduler as it is: its own tables, number of steps, timestep spacing and initial noise. DDIM (any η),
    DDPM, Euler, ancestral Euler and flow matching are recursions in closed form; any other deterministic scheduler is
    run on a copy and read off as the affine map that it is.

    `schedule("base")` gives the base model's samples, `schedule("tuned")` the tuned model's. LoRA scaling by a, for a
    LoRA on `AnalyticDenoiser`, is `"constant"` with w = a and `blend="weights"`.

    Args:
        mean_b: mean of the base model's world, a number or tensor; the other three likewise.
        var_b: variance of the base model's world, positive.
        mean_r: mean of the tuned model's world.
        var_r: variance of the tuned model's world, positive.
        scheduler: any diffusers scheduler that does not clip, after `set_timesteps`. It is left as it is.
        schedule: g, as in `sfumato.annealed_guidance`.
        num_inference_steps: sets the timesteps of a copy of the scheduler; `None` takes them as they are.
        eta: DDIM's η.
        blend: `"predictions"`, or `"weights"` for base + g(u) ΔW on `AnalyticDenoiser`, whose mean and log-variance are
            linear in its weights: a step with weight g follows N(m_b + g Δm, v_b^(1-g) v_r^g).
        **parameters: the schedule's parameters, its `cap` and its `clock`.

    Returns:
        Mean and variance, as floats if all four values were numbers, else as float64 tensors.

    Raises:
        ValueError: a variance <= 0, or a scheduler without timesteps, that clips, or stochastic and not named above.
    """
    values = mean_b, var_b, mean_r, var_r
    worlds = _worlds(*values)
    if blend not in ("predictions", "weights"):
        raise ValueError(f"blend is 'predictions' or 'weights', not {blend!r}")
    scheduler = with_timesteps(scheduler, num_inference_steps)
    weights = guidance_weights(scheduler, make_schedule(schedule, **parameters))

    def denoise(index: int, alpha: float, sigma: float) -> Map:
        return _blended(worlds, weights[index], alpha, sigma, blend)

    if has_affine_steps(scheduler):
        *_, (mean, variance) = _propagate(affine_steps(scheduler, eta), denoise, scheduler, worlds[0])
    elif eta:
        raise ValueError(f"eta is known for DDIMScheduler only, not for {type(scheduler).__name__}")
    else:
        mean, variance = probed_law(scheduler, denoise, worlds[0].shape)
    if any(isinstance(value, Tensor) for value in values):
        return mean, variance
    return float(mean), float(variance)


def trajectory_kl(
    mean_b: Value,
    var_b: Value,
    mean_r: Value,
    var_r: Value,
    scheduler: Any,
    *,
    num_inference_steps: int | None = None,
    eta: float = 0.0,
) -> Tensor:
    """KL(tuned || base) of each stochastic step, in expectation along the tuned model's own trajectories.

    Two steps N(μ_r, s²) and N(μ_b, s²) from the same x_t differ by (μ_r - μ_b)² / (2 s²). The sum over the steps is the
    KL of the whole trajectories and bounds the KL of the images from above. Steps without noise, such as the last one,
    have no likelihood and are left out.

    Args:
        mean_b: mean of the base model's world, a number or tensor; the other three likewise.
        var_b: variance of the base model's world.
        mean_r: mean of the tuned model's world.
        var_r: variance of the tuned model's world.
        scheduler: a stochastic one for which `has_affine_steps` holds, after `set_timesteps`.
        num_inference_steps: as in `gaussian_aig`.
        eta: DDIM's η.

    Returns:
        (S, ...) float64, one row per stochastic step; a product of independent dimensions has the sum of their KLs.

    Raises:
        ValueError: the sampler is deterministic, for which there is no such KL; or as in `gaussian_aig`.
    """
    worlds = _worlds(mean_b, var_b, mean_r, var_r)
    scheduler = with_timesteps(scheduler, num_inference_steps)
    steps = affine_steps(scheduler, eta)

    def denoise(index: int, alpha: float, sigma: float) -> Map:
        return _posterior(worlds[2], worlds[3], alpha, sigma)

    rows = []
    for index, (mean, variance) in enumerate(_propagate(steps, denoise, scheduler, worlds[0])):
        if index == len(steps) or steps[index].noise <= LEAST:
            continue
        step = steps[index]
        base, tuned = _posterior(worlds[0], worlds[1], step.alpha, step.sigma), denoise(index, step.alpha, step.sigma)
        slope, offset = (step.follow * (r - b) for b, r in zip(base, tuned, strict=True))
        rows.append(((slope * mean + offset) ** 2 + slope**2 * variance) / (2 * step.noise**2))
    if not rows:
        raise ValueError(f"{type(scheduler).__name__} is deterministic here, so its steps have no KL: try DDIM, eta=1")
    return torch.stack(rows)


def continuous_law(
    mean_b: Value,
    var_b: Value,
    mean_r: Value,
    var_r: Value,
    sigma_max: float,
    weight: Callable[[float], float],
    steps: int = 1000,
) -> tuple[Tensor, Tensor]:
    """Mean and variance of AIG in the limit of infinitely many steps of the probability-flow ODE.

    In variance-exploding coordinates x = x0 + σ ε, from N(0, σ_max²) down to σ = 0,

        d ln v / dσ² = (1 - g) / (v_b + σ²) + g / (v_r + σ²)
        d m / dσ²    = (1 - g) (m - m_b) / (2 (v_b + σ²)) + g (m - m_r) / (2 (v_r + σ²)).

    Samplers reach it to O(1/N). Variance-preserving and flow models follow the same ODE in x / α, σ / α.

    Args:
        mean_b: mean of the base model's world, a number or tensor; the other three likewise.
        var_b: variance of the base model's world.
        mean_r: mean of the tuned model's world.
        var_r: variance of the tuned model's world.
        sigma_max: where sampling begins.
        weight: g as a function of σ. Jumps cost accuracy: 1e-10 for smooth weights, O(1/steps) otherwise.
        steps: Runge-Kutta steps of fourth order, uniform in asinh(σ / s) with s² the smallest variance.
    """
    b, v, r, w = _worlds(mean_b, var_b, mean_r, var_r)
    scale = float(torch.minimum(v, w).min()) ** 0.5

    def slope(tau: float, state: Tensor) -> Tensor:
        sigma = scale * math.sinh(tau)
        g = weight(sigma)
        pull_b, pull_r = (1 - g) / (v + sigma**2), g / (w + sigma**2)
        per_variance = torch.stack([(pull_b * (state[0] - b) + pull_r * (state[0] - r)) / 2, pull_b + pull_r])
        return 2 * sigma * scale * math.cosh(tau) * per_variance

    state = torch.stack([torch.zeros_like(b), torch.full_like(b, 2 * math.log(sigma_max))])
    tau = math.asinh(sigma_max / scale)
    h = -tau / steps
    for i in range(steps):
        t = tau + i * h
        k1 = slope(t, state)
        k2 = slope(t + h / 2, state + h / 2 * k1)
        k3 = slope(t + h / 2, state + h / 2 * k2)
        k4 = slope(max(t + h, 0.0), state + h * k3)
        state = state + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return state[0], state[1].exp()


def _worlds(*values: Value) -> tuple[Tensor, ...]:
    """Means and variances as float64 tensors of one shape."""
    worlds = torch.broadcast_tensors(*(torch.as_tensor(value, dtype=torch.float64) for value in values))
    if not (bool((worlds[1] > 0).all()) and bool((worlds[3] > 0).all())):
        raise ValueError("both variances must be positive")
    return tuple(worlds)


def with_timesteps(scheduler: Any, num_inference_steps: int | None) -> Any:
    if num_inference_steps is not None:
        scheduler = deepcopy(scheduler)
        scheduler.set_timesteps(num_inference_steps)
    elif getattr(scheduler, "num_inference_steps", None) is None:
        raise ValueError("the scheduler has no timesteps yet: call set_timesteps(N), or pass num_inference_steps=N")
    return scheduler


def guidance_weights(scheduler: Any, schedule: Schedule) -> list[float]:
    """g at each of the scheduler's timesteps; a timestep that comes twice counts once."""
    grid = denoised_timesteps(scheduler).tolist()
    rank = {timestep: index for index, timestep in enumerate(dict.fromkeys(grid))}
    weights = schedule.weights(read_grid(scheduler, schedule.clock))
    return [weights[rank[timestep]] for timestep in grid]


def _posterior(mean: Tensor, variance: Tensor, alpha: float, sigma: float) -> Map:
    """E[x0 | x] = slope · x + offset for x0 ~ N(mean, variance) and x = alpha · x0 + sigma · ε."""
    total = alpha**2 * variance + sigma**2
    return alpha * variance / total, mean * sigma**2 / total


def _blended(worlds: tuple[Tensor, ...], g: float, alpha: float, sigma: float, blend: str) -> Map:
    mean_b, var_b, mean_r, var_r = worlds
    if blend == "weights":
        return _posterior(mean_b + g * (mean_r - mean_b), var_b ** (1 - g) * var_r**g, alpha, sigma)
    base, tuned = _posterior(mean_b, var_b, alpha, sigma), _posterior(mean_r, var_r, alpha, sigma)
    return (1 - g) * base[0] + g * tuned[0], (1 - g) * base[1] + g * tuned[1]


def _propagate(
    steps: list[AffineStep], denoise: Callable[[int, float, float], Map], scheduler: Any, like: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """Mean and variance before the first step and after each one."""
    mean = torch.zeros_like(like)
    variance = torch.full_like(like, float(getattr(scheduler, "init_noise_sigma", 1.0)) ** 2)
    yield mean, variance
    for index, step in enumerate(steps):
        slope, offset = denoise(index, step.alpha, step.sigma)
        gain = step.keep + step.follow * slope
        mean, variance = gain * mean + step.follow * offset, gain**2 * variance + step.noise**2
        yield mean, variance
