"""The optimisers that `training.optimizer` names, and the learning rate of an update."""

from __future__ import annotations

import math
from typing import Any

import torch

from sfumato.config import TrainingConfig


def build_optimizer(config: TrainingConfig, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """The optimiser over the trained parameters.

    Raises:
        ValueError: as `check_optimizer`.
    """
    check_optimizer(config, parameters[0].device)
    options: dict[str, Any] = {"lr": config.lr, "betas": config.betas, "weight_decay": config.weight_decay}
    if config.optimizer == "adamw":
        return torch.optim.AdamW(parameters, **options)
    from bitsandbytes.optim import AdamW8bit

    return AdamW8bit(parameters, **options)


def check_optimizer(config: TrainingConfig, device: torch.device) -> None:
    """Raise ValueError if the optimiser is not installed, or does not run on the device."""
    if config.optimizer != "adamw_8bit":
        return
    try:
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise ValueError(
            "training.optimizer: adamw_8bit needs bitsandbytes: pip install bitsandbytes, or set adamw"
        ) from error
    if device.type == "cpu":
        raise ValueError("training.optimizer: adamw_8bit does not run on a CPU: set adamw")


def learning_rate(config: TrainingConfig, number: int) -> float:
    """The learning rate of an update, a function of its number alone."""
    warmup = min(1.0, number / config.warmup_steps) if config.warmup_steps else 1.0
    done = max(0, number - 1 - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    decay = {"constant": 1.0, "linear": 1 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done))}
    return config.lr * warmup * decay[config.lr_schedule]
