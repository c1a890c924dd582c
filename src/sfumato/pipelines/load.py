"""Load the pipeline that a recipe names."""

from __future__ import annotations

from typing import Any

import torch
from accelerate import PartialState

from sfumato.config import PipelineConfig


def default_device() -> torch.device:
    """This process's own accelerator if there is one, else the CPU."""
    return PartialState().device


def load_pipeline(config: PipelineConfig, device: torch.device | None = None) -> Any:
    """Load the bundled pipeline, one from a folder, or one from the Hugging Face hub; safetensors only.

    Raises:
        ValueError: there is no such pipeline, it has no safetensors weights, or no such scheduler exists.
    """
    import diffusers

    from sfumato.emoji64 import demo_pipeline

    dtype = getattr(torch, config.dtype)
    if config.path == "emoji64":
        pipe = demo_pipeline().to(dtype=dtype)
    else:
        try:
            pipe = diffusers.DiffusionPipeline.from_pretrained(config.path, torch_dtype=dtype, use_safetensors=True)
        except (OSError, ValueError) as error:
            raise ValueError(f"cannot load the pipeline {config.path!r}: {error}") from error
    if config.scheduler:
        cls = getattr(diffusers, config.scheduler, None)
        if cls is None:
            raise ValueError(f"diffusers has no scheduler {config.scheduler!r}: give a class name, say DDIMScheduler")
        pipe.scheduler = cls.from_config(pipe.scheduler.config, **config.scheduler_arguments)
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device or default_device())
