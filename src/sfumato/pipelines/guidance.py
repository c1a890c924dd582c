"""Annealed Importance Guidance: at each denoiser call, blend what the base and the tuned model would do.

At a call with weight g the pipeline sees (1 - g) · base + g · tuned (Jena et al. 2024, arXiv 2409.06493), either of the
predictions or of the weights. The denoiser keeps its class; only its `forward` is replaced for a while, so that saving,
LoRA loading, compilation and offloading go on working.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from sfumato.pipelines.adapters import AdapterSwitch, denoiser, denoiser_name, tuned_adapter
from sfumato.pipelines.patching import patched
from sfumato.pipelines.state import POSITION
from sfumato.schedules import Schedule
from sfumato.schedules import schedule as make_schedule


class Clock:
    """Knows at which of how many distinct timesteps the pipeline's scheduler stands.

    `set_timesteps` gives the grid and resets, `step` advances. Second-order schedulers list a timestep twice; both
    calls there stand at the same index. The grid is read once per image, never inside the denoising loop.
    """

    def __init__(self, scheduler: Any):
        self.scheduler = scheduler
        self.ranks: list[int] = []
        self.on_reset: Callable[[], None] = lambda: None

    @contextmanager
    def running(self) -> Iterator[None]:
        scheduler = self.scheduler
        set_timesteps, step = scheduler.set_timesteps, scheduler.step

        @functools.wraps(set_timesteps)
        def set_and_reset(*args: Any, **kwargs: Any) -> Any:
            result = set_timesteps(*args, **kwargs)
            grid = scheduler.timesteps.tolist()
            order = {timestep: rank for rank, timestep in enumerate(dict.fromkeys(grid))}
            self.ranks = [order[timestep] for timestep in grid]
            setattr(scheduler, POSITION, 0)
            self.on_reset()
            return result

        @functools.wraps(step)
        def step_and_advance(*args: Any, **kwargs: Any) -> Any:
            result = step(*args, **kwargs)
            setattr(scheduler, POSITION, getattr(scheduler, POSITION, 0) + 1)
            return result

        with patched(scheduler, "set_timesteps", set_and_reset), patched(scheduler, "step", step_and_advance):
            try:
                yield
            finally:
                vars(scheduler).pop(POSITION, None)

    @property
    def index_and_count(self) -> tuple[int, int]:
        """Index of the current timestep among the distinct ones, and how many there are.

        Raises:
            RuntimeError: the denoiser was called outside a pipeline call.
        """
        if not self.ranks:
            raise RuntimeError("guidance needs the pipeline's scheduler: call the pipeline, not its denoiser alone")
        start = getattr(self.scheduler, "begin_index", None) or 0
        position = min(start + getattr(self.scheduler, POSITION, 0), len(self.ranks) - 1)
        return self.ranks[position] - self.ranks[start], self.ranks[-1] + 1 - self.ranks[start]


class Guidance:
    """The blend of base and tuned that is at work on a pipeline; made by `annealed_guidance`.

    Attributes:
        schedule: the weight of the tuned model.
        passes: denoiser forwards since the pipeline call began, base and tuned counted alike.
    """

    def __init__(self, pipe: Any, schedule: Schedule, adapter: str | None, base: Any, blend: str):
        if blend not in ("predictions", "weights"):
            raise ValueError(f"blend is 'predictions' or 'weights', not {blend!r}")
        self.pipe = pipe
        self.module = denoiser(pipe)
        self.schedule = schedule
        self.blend = blend
        self.base = _base_module(pipe, base)
        if self.base is not None and blend == "weights":
            raise ValueError("blend='weights' works on a LoRA; with a second model as base= use blend='predictions'")
        self.switch = None if self.base is not None else AdapterSwitch(self.module, tuned_adapter(pipe, adapter))
        self.clock = Clock(pipe.scheduler)
        self.clock.on_reset = self._begin
        self.passes = 0
        self._inside = False
        self._stack = ExitStack()
        self._forward: Callable[..., Any] | None = None

    def enable(self) -> Guidance:
        """Start blending.

        Raises:
            RuntimeError: the denoiser caches activations between calls, which base and tuned would share.
        """
        if getattr(self.module, "is_cache_enabled", False):
            raise RuntimeError("base and tuned would share the denoiser's cache: call its disable_cache() first")
        self._stack.enter_context(patched(self.pipe, "_sfumato_guidance", self))
        self._stack.enter_context(self.clock.running())
        self._install()
        self._stack.callback(self._uninstall)
        return self

    def disable(self) -> None:
        """Stop blending and leave the pipeline as it was before `enable`."""
        self._stack.close()

    def _begin(self) -> None:
        """A pipeline call begins: model offloading may have taken our forward away after the last one."""
        self.passes = 0
        self._install()

    def _install(self) -> None:
        current = vars(self.module).get("forward")
        if self._forward is not None and current is self._forward:
            return
        original = self.module.forward

        @functools.wraps(original)
        def forward(*args: Any, **kwargs: Any) -> Any:
            if self._inside or self._forward is None:
                return original(*args, **kwargs)
            self._inside = True
            try:
                return self._blended(original, args, kwargs)
            finally:
                self._inside = False

        self._forward, self._before = forward, current
        vars(self.module)["forward"] = forward

    def _uninstall(self) -> None:
        if vars(self.module).get("forward") is self._forward:
            if self._before is None:
                del vars(self.module)["forward"]
            else:
                vars(self.module)["forward"] = self._before
        self._forward = None

    def _blended(self, original: Callable[..., Any], args: tuple, kwargs: dict[str, Any]) -> Any:
        if self.pipe.scheduler is not self.clock.scheduler:
            raise RuntimeError("the pipeline's scheduler was replaced while guidance was on: turn guidance on again")
        g = self.schedule.at(*self.clock.index_and_count)
        if g != 1.0:
            self._refuse_recomputation()
        if self.blend == "weights" and g not in (0.0, 1.0):
            assert self.switch is not None
            self.passes += 1
            with self.switch.scaled(g):
                return original(*args, **kwargs)
        tuned = self._predict_tuned(original, args, kwargs) if g != 0.0 else None
        if g == 1.0:
            return tuned
        base = self._predict_base(original, args, kwargs)
        return base if tuned is None else lerp(base, tuned, g)

    def _predict_tuned(self, original: Callable[..., Any], args: tuple, kwargs: dict[str, Any]) -> Any:
        self.passes += 1
        return original(*args, **kwargs)

    def _predict_base(self, original: Callable[..., Any], args: tuple, kwargs: dict[str, Any]) -> Any:
        self.passes += 1
        if self.base is not None:
            return self.base(*args, **kwargs)
        assert self.switch is not None
        with self.switch.off():
            return original(*args, **kwargs)

    def _refuse_recomputation(self) -> None:
        checkpointing = getattr(self.module, "is_gradient_checkpointing", False)
        if self.switch is not None and torch.is_grad_enabled() and checkpointing:
            raise RuntimeError(
                "gradient through a blend with gradient checkpointing would be wrong, since recomputation sees other "
                "weights: call disable_gradient_checkpointing() on the denoiser, or sample under torch.no_grad()"
            )


def lerp(base: Any, tuned: Any, g: float) -> Any:
    """base + g (tuned - base) of every tensor in two equal trees of tuples, lists and model outputs."""
    if isinstance(base, torch.Tensor):
        return torch.lerp(base, tuned, g)
    if isinstance(base, dict):
        return type(base)(**{key: lerp(base[key], tuned[key], g) for key in base})
    if isinstance(base, tuple | list):
        return type(base)(lerp(b, t, g) for b, t in zip(base, tuned, strict=True))
    return base


def _base_module(pipe: Any, base: Any) -> nn.Module | None:
    """The denoiser of a second full checkpoint, given as a pipeline or as the module itself."""
    if base is None:
        return None
    module = base if isinstance(base, nn.Module) else denoiser(base)
    tuned = denoiser(pipe)
    if type(module) is not type(tuned):
        raise ValueError(f"base is a {type(module).__name__}, the pipeline's denoiser a {type(tuned).__name__}")
    if _shapes(module) != _shapes(tuned):
        raise ValueError(f"base and the {denoiser_name(pipe)} of the pipeline differ in shape: they must be one model")
    if not isinstance(base, nn.Module):
        kinds = [getattr(p.scheduler.config, "prediction_type", None) for p in (base, pipe)]
        if kinds[0] != kinds[1]:
            raise ValueError(f"base predicts {kinds[0]}, the pipeline {kinds[1]}: their predictions cannot be mixed")
    return module


def _shapes(module: nn.Module) -> dict[str, torch.Size]:
    """The shape of every weight of the base model, whatever adapters lie on it."""
    shapes = {name: parameter.shape for name, parameter in module.named_parameters()}
    return {name.replace(".base_layer.", "."): shape for name, shape in shapes.items() if ".lora_" not in name}


def enable_annealed_guidance(
    pipe: Any,
    schedule: str | Schedule | Callable[[float], float] = "power",
    *,
    adapter: str | None = None,
    base: Any = None,
    blend: str = "predictions",
    **parameters: Any,
) -> Guidance:
    """Blend base and tuned in every later call of `pipe`, until `disable_annealed_guidance(pipe)`.

    Takes what `annealed_guidance` takes.
    """
    if getattr(pipe, "_sfumato_guidance", None) is not None:
        raise RuntimeError("guidance is already on for this pipeline: call disable_annealed_guidance(pipe) first")
    return Guidance(pipe, make_schedule(schedule, **parameters), adapter, base, blend).enable()


def disable_annealed_guidance(pipe: Any) -> None:
    """Undo `enable_annealed_guidance`; nothing happens when guidance is off."""
    guidance = getattr(pipe, "_sfumato_guidance", None)
    if guidance is not None:
        guidance.disable()


@contextmanager
def annealed_guidance(
    pipe: Any,
    schedule: str | Schedule | Callable[[float], float] = "power",
    *,
    adapter: str | None = None,
    base: Any = None,
    blend: str = "predictions",
    **parameters: Any,
) -> Iterator[Guidance]:
    """Sample from a blend of base and tuned model: `with annealed_guidance(pipe, "power", p=2): pipe(...)`.

    The prediction at progress u is (1 - g(u)) · base + g(u) · tuned, arXiv 2409.06493. A model whose weight is 0 is not
    run, so that g = 0 and g = 1 are the plain base and tuned pipelines bit for bit, at their price.

    Args:
        pipe: any diffusers text-to-image pipeline with a LoRA on its denoiser, or the tuned one when `base` is given.
        schedule: g as a name of `sfumato.schedules.FORMULAS`, a callable g(u) on [0, 1], or a `Schedule`.
        adapter: the tuned adapter, if several are loaded; the others stay active in base and tuned alike.
        base: the base model as a second pipeline or denoiser, for full fine-tunes.
        blend: `"predictions"` as published (two forwards a step), or `"weights"`: base + g(u) ΔW, one forward a step.
        **parameters: the schedule's parameters, its `cap` and its `clock`.

    Raises:
        ValueError: a wrong schedule; no adapter or an ambiguous, inactive or fused one; a base of another kind.
        RuntimeError: guidance is already on, or the denoiser caches activations between calls.
    """
    guidance = enable_annealed_guidance(pipe, schedule, adapter=adapter, base=base, blend=blend, **parameters)
    try:
        yield guidance
    finally:
        guidance.disable()
