"""What a pipeline call would do, found out before it is done."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch

from sfumato.pipelines.adapters import denoiser
from sfumato.pipelines.calls import per_image, undecorated, undone
from sfumato.pipelines.clocks import denoised_timesteps
from sfumato.pipelines.patching import patched
from sfumato.pipelines.recording import begun
from sfumato.pipelines.rollout import Rollout, Step
from sfumato.pipelines.state import snapshot


class _Left(Exception):
    """Leads out of a pipeline call before any denoising."""


def planned_steps(pipe: Any, **arguments: Any) -> int:
    """The number of scheduler steps that `pipe(**arguments)` would take; only the prompt is encoded for it.

    It differs from `num_inference_steps` for schedulers of higher order.

    Raises:
        ValueError: the pipeline has no such argument (the nearest is named), or refuses its value.
    """
    known = inspect.signature(type(pipe).__call__).parameters
    for name in arguments:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f": did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"{type(pipe).__name__} takes no argument {name!r}{hint}")
    _set_timesteps(pipe, functools.partial(pipe, **arguments))
    return len(pipe.scheduler.timesteps)


def blank_rollout(pipe: Any, *, seeds: Sequence[int], **arguments: Any) -> Rollout:
    """A rollout of which nothing was sampled, for training on given images; only the prompts are encoded for it.

    Its steps hold the grid of noise levels and the scheduler as it begins anew at each, but no latents. So the model's
    prediction at noised images is `replay(pipe, blank, i, sample=noised(scheduler, blank.steps[i], x0, noise))`. As
    nothing is run, `num_inference_steps` can be large, for a grid that comes close to all the noise levels of training.

    Args:
        pipe: any text-to-image pipeline of diffusers.
        seeds: one per image, of the noise that a stochastic step would add.
        **arguments: as in `rollout`. The prompts can be changed at each `replay`.

    Returns:
        A rollout with empty images. Of schedulers of second order, only the steps at which they can begin.
    """
    arguments = per_image(arguments, len(seeds))
    generators = [torch.Generator("cpu").manual_seed(int(seed)) for seed in seeds]
    scheduler, empty = pipe.scheduler, torch.empty(0)
    with undone(pipe), torch.no_grad():
        call = functools.partial(undecorated(pipe), **arguments, generator=generators, output_type="latent")
        _set_timesteps(pipe, call)
        noise = [torch.Generator("cpu").manual_seed(int(seed)).get_state() for seed in seeds]
        state, count = snapshot(scheduler), len(denoised_timesteps(scheduler))
        steps = [
            Step(index, state["timesteps"][index], empty, empty, empty, begun(state, index), noise)
            for index in range(0, count, scheduler.order)
        ]
    return Rollout(torch.empty(len(seeds), 3, 0, 0), [int(seed) for seed in seeds], arguments, 0, steps)


def unguided(pipe: Any) -> dict[str, float]:
    """The arguments that switch classifier-free guidance off in a call of this pipeline.

    A guidance scale that the denoiser itself is told, in distilled models, is left as it is.
    """
    if "true_cfg_scale" in inspect.signature(type(pipe).__call__).parameters:
        return {"true_cfg_scale": 1.0}
    config = denoiser(pipe).config
    if config.get("guidance_embeds") or config.get("time_cond_proj_dim"):
        return {}
    with patched(pipe, "_guidance_scale", 1.0):
        off = not getattr(pipe, "do_classifier_free_guidance", False)
    return {"guidance_scale": 1.0 if off else 0.0}


def _set_timesteps(pipe: Any, call: Callable[[], Any]) -> None:
    """Run a pipeline call until its scheduler knows its timesteps.

    Raises:
        ValueError: that never happens.
    """
    set_timesteps = pipe.scheduler.set_timesteps

    @functools.wraps(set_timesteps)
    def set_and_leave(*args: Any, **kwargs: Any) -> None:
        set_timesteps(*args, **kwargs)
        raise _Left

    with patched(pipe.scheduler, "set_timesteps", set_and_leave):
        try:
            call()
        except _Left:
            return
    raise ValueError(f"{type(pipe).__name__} set no timesteps: sfumato works with pipelines that denoise")
