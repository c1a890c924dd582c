"""Load the pipeline that a recipe names."""

from __future__ import annotations

import difflib
import inspect
from typing import Any

import torch
from accelerate import PartialState
from safetensors import SafetensorError

from sfumato.config import PipelineConfig
from sfumato.pipelines.adapters import denoiser


def process_state() -> PartialState:
    """This process among those that `accelerate launch` or torchrun started, on a CPU too."""
    return PartialState(cpu=not torch.accelerator.is_available())


def default_device() -> torch.device:
    """This process's own accelerator if there is one, else the CPU."""
    return process_state().device


def load_pipeline(config: PipelineConfig, device: torch.device | None = None, shared_out: bool = False) -> Any:
    """Load a bundled pipeline, one from a folder, or one from the Hugging Face hub; safetensors only.

    Args:
        shared_out: leave the denoiser on the CPU, from where a training shares it out among devices.

    Raises:
        ValueError: there is no such pipeline, it has no safetensors weights, or no such scheduler or setting of it
            exists.
    """
    import diffusers

    from sfumato.emoji64 import PIPELINES, demo_pipeline

    dtype = getattr(torch, config.dtype)
    if config.path in PIPELINES:
        pipe: Any = demo_pipeline(config.path, dtype=dtype)
    else:
        try:
            pipe = diffusers.DiffusionPipeline.from_pretrained(config.path, dtype=dtype, use_safetensors=True)
        except (OSError, ValueError, SafetensorError) as error:
            raise ValueError(f"cannot load the pipeline {config.path!r}: {error}") from error
    if config.scheduler or config.scheduler_arguments:
        pipe.scheduler = _scheduler(pipe.scheduler, config)
    pipe.set_progress_bar_config(disable=True)
    device = device or default_device()
    if not shared_out:
        return pipe.to(device)
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module) and part is not denoiser(pipe):
            part.to(device)
    return pipe


def _scheduler(own: Any, config: PipelineConfig) -> Any:
    """The scheduler that a recipe asks for, with the settings of the pipeline's own where it says nothing else."""
    import diffusers

    cls = getattr(diffusers, config.scheduler, None) if config.scheduler else type(own)
    if not (isinstance(cls, type) and issubclass(cls, diffusers.SchedulerMixin)):
        raise ValueError(f"diffusers has no scheduler {config.scheduler!r}: give a class name, say DDIMScheduler")
    known = inspect.signature(cls.__init__).parameters
    for name in config.scheduler_arguments:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f": did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"pipeline.scheduler_arguments: {cls.__name__} takes no {name!r}{hint}")
    return cls.from_config(own.config, **config.scheduler_arguments)
