"""What is noted on pipelines and schedulers; a scheduler's state, taken before a step and put back to run it again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

GUIDANCE = "_sfumato_guidance"
"""The attribute of a guided pipeline, and of its denoiser, that holds the `Guidance`."""
TRAINED = "_sfumato_trained"
"""The attribute of a denoiser whose own weights have been trained."""
POSITION = "_sfumato_position"
"""The scheduler attribute in which guidance counts the steps taken; part of the state like every other attribute."""


@dataclass(frozen=True)
class Step:
    """One scheduler step as it happened.

    Attributes:
        index: position in the scheduler's list of timesteps.
        timestep: what the scheduler was given, a 0-d tensor.
        sample: x_t, (B, ...) in the pipeline's own latent layout.
        prediction: what the scheduler saw as model output, that is after classifier-free guidance.
        next_sample: x_{t-1}.
        state: the scheduler's state just before the step.
        noise: the state of each image's generator just before the step.
        options: what else the pipeline gave the scheduler's `step`, such as `eta`.
    """

    index: int
    timestep: torch.Tensor
    sample: torch.Tensor
    prediction: torch.Tensor
    next_sample: torch.Tensor
    state: dict[str, Any] = field(repr=False)
    noise: list[torch.Tensor] = field(repr=False)
    options: dict[str, Any] = field(default_factory=dict, repr=False)


def snapshot(scheduler: Any) -> dict[str, Any]:
    """The scheduler's attributes, tensors copied and detached: histories, step index, grid of timesteps."""
    return {name: _frozen(value) for name, value in vars(scheduler).items() if _is_state(name, value)}


def restore(scheduler: Any, state: dict[str, Any]) -> None:
    """Give the scheduler the attributes of a snapshot; the snapshot can be used again."""
    attributes = vars(scheduler)
    for name in [name for name, value in attributes.items() if _is_state(name, value) and name not in state]:
        del attributes[name]
    attributes.update({name: _frozen(value) for name, value in state.items()})


def _is_state(name: str, value: Any) -> bool:
    return name != "_internal_dict" and not callable(value)


def _frozen(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, list):
        return [_frozen(item) for item in value]
    return value
