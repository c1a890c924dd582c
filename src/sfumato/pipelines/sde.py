"""Stochastic sampling of flow-matching models, so that their steps have log-probabilities."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.utils.torch_utils import randn_tensor

from sfumato.pipelines.patching import patched


@contextmanager
def flow_sde(pipe: Any, noise_level: float = 0.7, window: tuple[int, int] | None = None) -> Iterator[None]:
    """Sample a flow-matching pipeline by an SDE with the marginals of its ODE (Flow-GRPO, arXiv 2505.05470, eq. 9).

    A step from σ to σ' becomes x' = x (1 + s² dt / 2σ) + v (1 + s² (1 - σ) / 2σ) dt + s √|dt| z, where dt = σ' - σ and
    s = a √(σ / (1 - σ)), with σ' for σ in this denominator where σ = 1. z comes from the images' generators. Rollouts,
    replays and log-probabilities within the context follow it; everything is undone at its end.

    The marginals are those of the ODE up to an error of order 1/N in a window away from σ = 1. Where s grows without
    bound towards σ = 1 it is of order N^(-a²), though small: 1 % of the variance at a = 0.7 and N from 100 to 400.

    Args:
        pipe: a pipeline whose scheduler takes Euler steps along a velocity, as FlowMatchEulerDiscreteScheduler does.
        noise_level: a >= 0; 0 is the ODE.
        window: the first stochastic step and the one after the last, as MixGRPO (arXiv 2507.21802) and Flow-GRPO-Fast
            choose a few; the others are the scheduler's own. `None` makes all but the last step stochastic, whose noise
            would stay in the image; a window that reaches it makes it stochastic too.

    Raises:
        ValueError: another scheduler, a negative noise level, a context of this kind inside another; or, in the first
            step, a window beyond the last.
    """
    if not 0 <= noise_level < float("inf"):
        raise ValueError(f"noise_level is a number >= 0, not {noise_level}")
    if window is not None and not 0 <= window[0] < window[1]:
        raise ValueError(f"window=(i, j) makes steps i to j - 1 stochastic, with 0 <= i < j, not {window}")
    scheduler = pipe.scheduler
    if hasattr(scheduler.step, "is_flow_sde"):
        raise ValueError("flow_sde is at work on this pipeline already: leave its context first")
    _check_capability(scheduler)
    ode, signature = scheduler.step, inspect.signature(scheduler.step)

    @functools.wraps(ode)
    def step(*args: Any, **kwargs: Any) -> Any:
        result = ode(*args, **kwargs)
        index, count = scheduler.step_index - 1, len(scheduler.sigmas) - 1
        first, end = window or (0, count - 1)
        if end > count:
            raise ValueError(f"the window {window} ends beyond the {count} steps of this run")
        if noise_level == 0 or not first <= index < end:
            return result
        given = signature.bind(*args, **kwargs).arguments
        velocity, sample = given["model_output"], given["sample"]
        sigma, following = scheduler.sigmas[index : index + 2]
        mean, std = sde_step(sample, velocity, sigma, following, noise_level)
        noise = randn_tensor(mean.shape, given.get("generator"), mean.device, mean.dtype)
        after = (mean + std * noise).to(velocity.dtype)
        return (after,) if isinstance(result, tuple) else type(result)(prev_sample=after)

    step.is_flow_sde = True  # type: ignore[attr-defined]
    with patched(scheduler, "step", step):
        yield


def sde_step(
    sample: torch.Tensor, velocity: torch.Tensor, sigma: torch.Tensor, following: torch.Tensor, noise_level: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean (B, ...) and standard deviation (0-d) of a step of the flow SDE, in float32 at least.

    Args:
        sample: x at σ, (B, ...).
        velocity: v = E[ε - x0 | x], (B, ...).
        sigma: σ, 0-d.
        following: σ' < σ, 0-d.
        noise_level: a.
    """
    x, v = (value.to(torch.promote_types(value.dtype, torch.float32)) for value in (sample, velocity))
    sigma, following = sigma.to(x), following.to(x)
    dt = following - sigma
    variance = noise_level**2 * sigma / (1 - torch.where(sigma == 1, following, sigma))
    mean = x * (1 + variance * dt / (2 * sigma)) + v * (1 + variance * (1 - sigma) / (2 * sigma)) * dt
    return mean, (variance * -dt).sqrt()


def _check_capability(scheduler: Any) -> None:
    """Refuse a scheduler whose own step is not x + v (σ' - σ) at x = (1 - σ) x0 + σ ε, or that takes no generator."""
    seeded = "generator" in inspect.signature(scheduler.step).parameters
    backwards = scheduler.config.get("invert_sigmas", False)
    steps_once = getattr(scheduler, "order", None) == 1 and hasattr(scheduler, "scale_noise")
    if not (seeded and steps_once and not backwards and _steps_along_velocity(scheduler)):
        raise ValueError(
            f"flow_sde makes Euler steps along a velocity stochastic, which {type(scheduler).__name__} does not take "
            "here: use a flow-matching pipeline with FlowMatchEulerDiscreteScheduler and stochastic_sampling=False"
        )


def _steps_along_velocity(scheduler: Any) -> bool:
    """Whether a fresh scheduler of this kind adds noise as (1 - σ) x0 + σ ε and steps to x + v (σ' - σ)."""
    zeros, ones = torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)
    fresh, other = (type(scheduler).from_config(scheduler.config) for _ in range(2))
    place = len(fresh.timesteps) // 2
    t, (sigma, following) = fresh.timesteps[place], fresh.sigmas[place : place + 2]
    pairs = [
        (fresh.scale_noise(ones, t[None], zeros), 1 - sigma),
        (fresh.scale_noise(zeros, t[None], ones), sigma),
        (fresh.step(zeros, t, ones).prev_sample, torch.ones(())),
        (other.step(ones, t, zeros).prev_sample, following - sigma),
    ]
    return all(torch.allclose(seen.double(), expected.double().expand_as(seen)) for seen, expected in pairs)
