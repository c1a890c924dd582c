"""What noise a timestep stands for: alpha and sigma of x_t = alpha · x0 + sigma · ε, as the denoiser sees it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def prediction_type(scheduler: Any) -> str:
    """What the scheduler takes its model output for; flow-matching schedulers do not say it themselves.

    Raises:
        ValueError: a scheduler of another kind, neither variance-preserving nor flow matching.
    """
    name = type(scheduler).__name__
    if "FlowMatch" in name:
        return "flow_prediction"
    if "prediction_type" not in scheduler.config or not hasattr(scheduler, "alphas_cumprod"):
        raise ValueError(f"no closed form is known for the noise levels of {name}: use DDIM, Euler or flow matching")
    return scheduler.config.prediction_type


def noise_to_signal(scheduler: Any) -> Tensor:
    """sigma / alpha at every training timestep, (T,) in float64; for flow models too."""
    count = scheduler.config.num_train_timesteps
    if prediction_type(scheduler) == "flow_prediction":
        sigma = torch.arange(count, dtype=torch.float64) / count
        return sigma / (1 - sigma)
    alphas_cumprod = scheduler.alphas_cumprod.double()
    return ((1 - alphas_cumprod) / alphas_cumprod).sqrt()


def noise_level(timestep: Tensor, table: Tensor, prediction: str) -> tuple[Tensor, Tensor]:
    """alpha and sigma at timesteps, of their shape.

    Flow models have sigma = t / T and alpha = 1 - sigma. The others are variance-preserving; between the timesteps of
    the table sigma / alpha is linear, as in diffusers' Euler schedulers.

    Args:
        timestep: any shape, 0 to T, whole or not.
        table: `noise_to_signal` of the scheduler, (T,).
        prediction: what the model predicts; only `"flow_prediction"` makes a difference.
    """
    timestep = timestep.to(table)
    if prediction == "flow_prediction":
        sigma = timestep / len(table)
        return 1 - sigma, sigma
    low = timestep.floor().long().clamp(0, len(table) - 1)
    high = (low + 1).clamp(max=len(table) - 1)
    part = timestep - low
    ratio = torch.where(part == 0, table[low], torch.lerp(table[low], table[high], part))
    return torch.rsqrt(1 + ratio**2), torch.rsqrt(1 + ratio**-2)
