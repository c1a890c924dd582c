"""x_t, x0, noise and the model's prediction at one noise level: each from the others, for every kind of prediction.

Write x_t = α x0 + σ ε, in the scale in which the pipeline holds its latents: α² + σ² = 1 for most, α = 1 for Euler's
kin, α + σ = 1 in flow matching. α and σ are read off the scheduler's own `add_noise` or `scale_noise`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch

from sfumato.pipelines.state import Step, restore

KINDS = ("epsilon", "sample", "v_prediction", "flow_prediction")
"""What a model may predict: the noise, x0, v with signal and noise scaled to squares that sum to 1, or noise - x0."""


def prediction_type(scheduler: Any) -> str:
    """What the scheduler takes its model output for, one of `KINDS`; flow-matching schedulers do not say it themselves.

    Raises:
        ValueError: something else, such as a prediction that the scheduler first scales by itself (EDM).
    """
    kind = scheduler.config.get("prediction_type", "flow_prediction" if hasattr(scheduler, "scale_noise") else None)
    kind = "sample" if kind == "original_sample" else kind
    if kind not in KINDS or hasattr(scheduler, "precondition_outputs"):
        raise ValueError(
            f"{type(scheduler).__name__} with prediction_type {kind!r} cannot be turned into x0: use a scheduler that "
            f"takes its model output for {', '.join(KINDS)}"
        )
    return kind


def predicted_original(scheduler: Any, step: Step) -> torch.Tensor:
    """The one-step prediction of x0 from a recorded step, with the gradient of its sample and its prediction.

    It is never clipped, also where the scheduler clips its own.

    Args:
        scheduler: the one that took the step; where it stands now does not matter.
        step: as `rollout` or `replay` recorded it.

    Returns:
        (B, ...), of the sample's dtype; computed in float32 at least.

    Raises:
        ValueError: the prediction is of an unknown kind, or the scheduler has no way to add noise.
    """
    kind = prediction_type(scheduler)
    alpha, sigma = noise_level(scheduler, step)
    size = math.hypot(alpha, sigma)
    x, prediction = _wide(step.sample), _wide(step.prediction)
    if kind == "epsilon":
        x = (x - sigma * prediction) / alpha
    elif kind == "sample":
        x = prediction
    elif kind == "v_prediction":
        x = (alpha / size * x - sigma * prediction) / size
    else:
        x = x - sigma * prediction
    return x.to(step.sample.dtype)


def target(scheduler: Any, step: Step, original: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """What a perfect model would predict at `noised(scheduler, step, original, noise)`, (B, ...).

    Raises:
        ValueError: as `predicted_original`.
    """
    kind = prediction_type(scheduler)
    if kind in ("epsilon", "sample"):
        return noise if kind == "epsilon" else original
    if kind == "flow_prediction":
        return noise - original
    alpha, sigma = noise_level(scheduler, step)
    return ((alpha * _wide(noise) - sigma * _wide(original)) / math.hypot(alpha, sigma)).to(original.dtype)


def noised(scheduler: Any, step: Step, original: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Clean latents brought to the noise level at which a step begins: α x0 + σ ε.

    Args:
        scheduler: the one that took the step, or would (`blank_rollout`).
        step: whose sample's place the result can take.
        original: x0, (B, ...) in the pipeline's own latent layout.
        noise: ε, standard normal; `noise_like` draws it per image.

    Returns:
        (B, ...), of x0's dtype; computed in float32 at least.

    Raises:
        ValueError: the scheduler has no way to add noise.
    """
    alpha, sigma = noise_level(scheduler, step)
    return (alpha * _wide(original) + sigma * _wide(noise)).to(original.dtype)


def noise_like(latents: torch.Tensor, seeds: Sequence[int]) -> torch.Tensor:
    """Standard normal noise of the latents' shape, dtype and device, drawn on the CPU by one seed per image."""
    if len(latents) != len(seeds):
        raise ValueError(f"{len(latents)} latents need as many seeds, not {len(seeds)}")
    rows = [torch.randn(latents.shape[1:], generator=torch.Generator().manual_seed(int(seed))) for seed in seeds]
    return torch.stack(rows).to(latents)


def noise_level(scheduler: Any, step: Step) -> tuple[float, float]:
    """α and σ where a step begins.

    Raises:
        ValueError: the scheduler has no way to add noise.
    """
    then = copy.copy(scheduler)
    restore(then, step.state)
    found = signal_and_noise(then, torch.as_tensor(step.timestep).reshape(1).cpu(), step.index)
    if found is None:
        raise ValueError(
            f"{type(scheduler).__name__} has neither add_noise nor scale_noise, which tell its noise level"
        )
    alpha, sigma = found
    return alpha, _seen_sigma(then, step, sigma) if alpha == 1.0 else sigma


def signal_and_noise(scheduler: Any, timestep: torch.Tensor, index: int | None = None) -> tuple[float, float] | None:
    """α and σ at a timestep (1,); None if the scheduler has no way to add noise.

    Args:
        index: the timestep's place in the scheduler's grid, where it is known; else the scheduler looks for it.
    """
    probe = copy.copy(scheduler)  # some move their tables to the device of the sample, or note where they are
    add = getattr(probe, "add_noise", None) or getattr(probe, "scale_noise", None)
    if add is None:
        return None
    vars(probe).update({name: index for name in ("_begin_index", "_step_index") if name in vars(probe)})
    clean, noise = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]], dtype=torch.float64)
    first, second = ("original_samples", "timesteps") if add.__name__ == "add_noise" else ("sample", "timestep")
    alpha, sigma = add(**{first: clean, "noise": noise, second: timestep})[0].tolist()
    return alpha, sigma


def _seen_sigma(scheduler: Any, step: Step, sigma: float) -> float:
    """σ where a solver of second order stands between two levels (KDPM2), for which `add_noise` gives that of the next.

    Schedulers with α = 1 show the denoiser x / √(1 + σ²), so their `scale_model_input` tells it.
    """
    vars(scheduler).update({"_step_index": step.index})
    one = torch.ones(1, device=torch.as_tensor(step.timestep).device)
    seen = math.sqrt(max(float(scheduler.scale_model_input(one, step.timestep)) ** -2 - 1, 0.0))
    return sigma if math.isclose(seen, sigma, rel_tol=0.01) else seen


def _wide(x: torch.Tensor) -> torch.Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
