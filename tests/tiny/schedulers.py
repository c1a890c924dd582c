"""Schedulers of diffusers under short names."""

from __future__ import annotations

from typing import Any

import diffusers

_BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
_DDIM = {**_BETAS, "clip_sample": False, "steps_offset": 1}
SCHEDULERS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "ddim": ("DDIMScheduler", _DDIM, {"eta": 0.0}),
    "ddim-eta-1": ("DDIMScheduler", _DDIM, {"eta": 1.0}),
    "pndm": ("PNDMScheduler", {**_BETAS, "skip_prk_steps": True, "steps_offset": 1}, {}),
    "euler": ("EulerDiscreteScheduler", _BETAS, {}),
    "euler-ancestral": ("EulerAncestralDiscreteScheduler", _BETAS, {}),
    "dpm++2m": ("DPMSolverMultistepScheduler", {**_BETAS, "algorithm_type": "dpmsolver++", "solver_order": 2}, {}),
    "heun": ("HeunDiscreteScheduler", _BETAS, {}),
    "unipc": ("UniPCMultistepScheduler", _BETAS, {}),
    "flow": ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}, {}),
    "flow-stochastic": ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0, "stochastic_sampling": True}, {}),
}
"""Name -> class in diffusers, its configuration, and the pipeline arguments that go with it."""
STOCHASTIC = ("ddim-eta-1", "euler-ancestral", "flow-stochastic")
WITH_HISTORY = ("pndm", "dpm++2m", "heun", "unipc")


def make_scheduler(name: str) -> Any:
    """A fresh scheduler of `SCHEDULERS`."""
    cls, config, _ = SCHEDULERS[name]
    return getattr(diffusers, cls)(**config)
