"""Calling a pipeline with gradient, from given latents, and leaving nothing behind."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from diffusers.utils import logging

from sfumato.pipelines.patching import patched
from sfumato.pipelines.state import restore, snapshot

logger = logging.get_logger(__name__)

RESERVED = {
    "num_images_per_prompt": "give one seed per image instead, and repeat the prompt",
    "generator": "seeds=[...] makes one generator per image",
    "output_type": "a rollout returns tensors in [0, 1]",
    "return_dict": "a rollout returns a Rollout",
}


def undecorated(pipe: Any) -> Callable[..., Any]:
    """The pipeline's `__call__` without torch's `no_grad` around it, bound to the pipeline."""
    call = type(pipe).__call__
    return functools.partial(getattr(call, "__wrapped__", call), pipe)


def per_image(arguments: dict[str, Any], count: int) -> dict[str, Any]:
    """The pipeline arguments with every prompt repeated or checked to be one per image; a system prompt is for all."""
    if count == 0:
        raise ValueError("seeds is empty: give one seed per image")
    for name, reason in RESERVED.items():
        if name in arguments:
            raise ValueError(f"rollout takes no {name}: {reason}")
    result = dict(arguments)
    for name, value in arguments.items():
        if "prompt" not in name or name.startswith("system") or value is None:
            continue
        if isinstance(value, str):
            result[name] = [value] * count
        elif isinstance(value, list | torch.Tensor) and len(value) != count:
            raise ValueError(f"{name} has {len(value)} rows for {count} seeds: give one per seed, or a single string")
    return result


@contextmanager
def without_gradient_killers(pipe: Any) -> Iterator[None]:
    """Switch off the safety checker and the watermark, which leave torch and black out or alter images."""
    with ExitStack() as stack:
        for name in ("safety_checker", "watermark"):
            if getattr(pipe, name, None) is not None:
                logger.info(f"the {name} of this {type(pipe).__name__} is off during the rollout")
                stack.enter_context(patched(pipe, name, None))
        yield


@contextmanager
def undone(pipe: Any) -> Iterator[None]:
    """Undo what a call notes down on the pipeline and its scheduler, such as the timesteps and their number."""
    state, before = snapshot(pipe.scheduler), dict(vars(pipe))
    try:
        yield
    finally:
        restore(pipe.scheduler, state)
        vars(pipe).clear()
        vars(pipe).update(before)


@contextmanager
def started_at(pipe: Any, sample: torch.Tensor) -> Iterator[dict[str, Any]]:
    """Make the pipeline start from exactly these latents, in its own layout; gives the arguments to call it with.

    What diffusers' pipelines take as `latents` has another layout in some, and is scaled in others. So the result of
    their `prepare_latents` is replaced. A pipeline without it is given the latents and an initial sigma of 1.
    """
    if hasattr(pipe, "prepare_latents"):
        prepare = pipe.prepare_latents

        @functools.wraps(prepare)
        def prepared(*args: Any, **kwargs: Any) -> Any:
            made = prepare(*args, **kwargs)
            return (sample, *made[1:]) if isinstance(made, tuple) else sample

        with patched(pipe, "prepare_latents", prepared):
            yield {}
        return
    scheduler = pipe.scheduler
    cls = type(scheduler)
    one = property(lambda self: 1.0, lambda self, value: None)
    scheduler.__class__ = type(cls.__name__, (cls,), {"init_noise_sigma": one, "__module__": cls.__module__})
    try:
        yield {"latents": sample}
    finally:
        scheduler.__class__ = cls
