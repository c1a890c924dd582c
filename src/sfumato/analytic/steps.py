"""The steps of a diffusers scheduler as affine maps, from its tables alone; its `step` is never called here.

Every sampler step is affine in the sample and in the denoiser's x0. Sources: DDIM, arXiv 2010.02502 eq. 12 and 16;
DDPM, arXiv 2006.11239 eq. 7; Euler and ancestral Euler, arXiv 2206.00364 in k-diffusion's form; rectified flow, arXiv
2209.03003.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
from typing import Any


@dataclass(frozen=True)
class AffineStep:
    """One step x' = keep · x + follow · E[x0 | x] + noise · ξ with ξ ~ N(0, 1), taken at x = alpha · x0 + sigma · ε."""

    alpha: float
    sigma: float
    keep: float
    follow: float
    noise: float = 0.0


def has_affine_steps(scheduler: Any) -> bool:
    """Whether `affine_steps` knows this scheduler: it is of first order, and exactly of a class listed in `STEPS`."""
    return type(scheduler).__name__ in STEPS


def affine_steps(scheduler: Any, eta: float = 0.0) -> list[AffineStep]:
    """The steps that the scheduler takes over the timesteps it is set to, in float64 arithmetic on its own tables.

    Args:
        scheduler: one for which `has_affine_steps` holds, after `set_timesteps`.
        eta: DDIM's η, 0 for the deterministic sampler, 1 for the ancestral one.

    Raises:
        ValueError: another scheduler, one that clips, an unknown variance type, or η for another scheduler than DDIM.
    """
    name = type(scheduler).__name__
    if not has_affine_steps(scheduler):
        raise ValueError(f"the steps of {name} are not known in closed form: use one of {', '.join(STEPS)}")
    if name == "DDIMScheduler":
        return _ddim(scheduler, eta)
    if eta:
        raise ValueError(f"{name} has no eta: leave it at 0")
    return STEPS[name](scheduler)


def _ddim(scheduler: Any, eta: float = 0.0) -> list[AffineStep]:
    _refuse_clipping(scheduler)
    table = scheduler.alphas_cumprod.double()
    stride = scheduler.config.num_train_timesteps // scheduler.num_inference_steps
    steps = []
    for t in scheduler.timesteps.tolist():
        now = float(table[t])
        after = float(table[t - stride] if t >= stride else scheduler.final_alpha_cumprod)
        noise = eta * sqrt((1 - after) / (1 - now) * (1 - now / after))
        keep = sqrt(max(1 - after - noise**2, 0.0)) / sqrt(1 - now)
        steps.append(AffineStep(sqrt(now), sqrt(1 - now), keep, sqrt(after) - keep * sqrt(now), noise))
    return steps


def _ddpm(scheduler: Any) -> list[AffineStep]:
    _refuse_clipping(scheduler)
    kind = scheduler.config.variance_type
    if kind not in ("fixed_small", "fixed_large"):
        raise ValueError(f"no closed form for DDPMScheduler's variance_type {kind!r}: use 'fixed_small'")
    table = scheduler.alphas_cumprod.double()
    grid = scheduler.timesteps.tolist()
    steps = []
    for t, following in zip(grid, [*grid[1:], -1], strict=True):
        now, after = float(table[t]), float(table[following]) if following >= 0 else 1.0
        beta = 1 - now / after
        variance = max((1 - after) / (1 - now) * beta, 1e-20) if kind == "fixed_small" else beta
        keep, follow = sqrt(now / after) * (1 - after) / (1 - now), sqrt(after) * beta / (1 - now)
        steps.append(AffineStep(sqrt(now), sqrt(1 - now), keep, follow, sqrt(variance) if t > 0 else 0.0))
    return steps


def _euler(scheduler: Any) -> list[AffineStep]:
    sigmas = scheduler.sigmas.tolist()
    return [AffineStep(1.0, now, after / now, 1 - after / now) for now, after in pairwise(sigmas)]


def _euler_ancestral(scheduler: Any) -> list[AffineStep]:
    sigmas = scheduler.sigmas.tolist()
    steps = []
    for now, after in pairwise(sigmas):
        up = after * sqrt(now**2 - after**2) / now
        down = after**2 / now
        steps.append(AffineStep(1.0, now, down / now, 1 - down / now, up))
    return steps


def _flow_euler(scheduler: Any) -> list[AffineStep]:
    sigmas = scheduler.sigmas.tolist()
    steps = []
    for now, after in pairwise(sigmas):
        if scheduler.config.stochastic_sampling:
            steps.append(AffineStep(1 - now, now, 0.0, 1 - after, after))
        else:
            steps.append(AffineStep(1 - now, now, after / now, 1 - after / now))
    return steps


def _refuse_clipping(scheduler: Any) -> None:
    if scheduler.config.clip_sample or scheduler.config.thresholding:
        raise ValueError(
            f"this {type(scheduler).__name__} clips x0, so its samples are not Gaussian: make it with "
            "clip_sample=False and thresholding=False"
        )


STEPS: dict[str, Callable[[Any], list[AffineStep]]] = {
    "DDIMScheduler": _ddim,
    "DDPMScheduler": _ddpm,
    "EulerDiscreteScheduler": _euler,
    "EulerAncestralDiscreteScheduler": _euler_ancestral,
    "FlowMatchEulerDiscreteScheduler": _flow_euler,
}
"""Class name of a scheduler -> its steps."""
