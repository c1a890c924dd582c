"""Annealed Importance Guidance: at each denoiser call, blend what the base and the tuned model would do.

At a call with weight g the pipeline sees (1 - g) · base + g · tuned (Jena et al. 2024, arXiv 2409.06493), either of the
predictions or of the weights. The denoiser keeps its class; only its `forward` is replaced for a while, so that saving,
LoRA loading, compilation and offloading go on working.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from sfumato.pipelines.adapters import adapter_names, denoiser, denoiser_name, tuned_adapters
from sfumato.pipelines.clocks import Clock
from sfumato.pipelines.models import FullModels, LoraModels, base_module
from sfumato.pipelines.patching import patched
from sfumato.pipelines.savings import Blender, Place, Savings
from sfumato.pipelines.state import GUIDANCE
from sfumato.schedules import Schedule
from sfumato.schedules import schedule as make_schedule

Adapters = str | Mapping[str, Any] | None
"""The tuned adapter by name, or several: name -> weight, schedule, or what `Schedule.to_dict` gave."""


class Guidance:
    """The blend of base and tuned that is at work on a pipeline; made by `annealed_guidance`.

    Attributes:
        schedule: the weight of the tuned model.
    """

    def __init__(self, pipe: Any, schedule: Schedule, adapter: Adapters, base: Any, blend: str, savings: Savings):
        if blend not in ("predictions", "weights"):
            raise ValueError(f"blend is 'predictions' or 'weights', not {blend!r}")
        if blend == "weights" and savings != Savings():
            raise ValueError("blend='weights' takes one forward a step already: savings are for blend='predictions'")
        if base is not None and (adapter is not None or savings.one_forward):
            raise ValueError("with a second model as base= neither adapter= nor one_forward has a meaning")
        self.pipe = pipe
        self.module = denoiser(pipe)
        self.schedule = schedule
        self.adapter = adapter
        self.blend = blend
        self.models: LoraModels | FullModels
        if base is not None:
            self.models, self._schedules = FullModels(self.module, base_module(pipe, base)), [schedule]
            if blend == "weights" and (adapter_names(self.module) or adapter_names(self.models.base)):
                raise ValueError("blend='weights' with a second model knows no LoRAs: fuse them and unload them first")
        else:
            names = tuned_adapters(pipe, adapter if adapter is None or isinstance(adapter, str) else list(adapter))
            self.models = LoraModels(self.module, names)
            if blend == "weights":
                self.models.check_linear()
            self._schedules = _schedules(schedule, adapter)
        self.blender = Blender(self.models, savings)
        self.clock = Clock(pipe.scheduler, (schedule.clock for schedule in self._schedules))
        self.clock.on_reset = self._begin
        self._inside = False
        self._stack = ExitStack()
        self._forward: Callable[..., Any] | None = None
        self._place: tuple[Any, str, Any] | None = None

    @property
    def passes(self) -> float:
        """Denoiser forwards since the pipeline call began, base and tuned alike; half a batch counts half."""
        return self.blender.passes

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able description: `annealed_guidance(pipe, **d)` blends the same way.

        Raises:
            ValueError: the schedule is a callable, or the base is a second model, which have no description.
        """
        if isinstance(self.models, FullModels):
            raise ValueError("guidance with a second model as base= cannot be written to JSON")
        adapter = self.adapter
        if isinstance(adapter, Mapping):
            adapter = {k: v.to_dict() if isinstance(v, Schedule) else v for k, v in adapter.items()}
        parts = {"adapter": adapter, "blend": self.blend, "savings": self.blender.savings.to_dict()}
        return self.schedule.to_dict() | {key: value for key, value in parts.items() if value}

    def enable(self) -> Guidance:
        """Start blending.

        Raises:
            RuntimeError: the denoiser caches activations between calls, which base and tuned would share, or it is
                guided already.
        """
        if getattr(self.module, GUIDANCE, None) is not None:
            raise RuntimeError("guidance is already on for another pipeline with this denoiser: disable it there first")
        self._refuse_caches()
        for guided in (self.pipe, self.module):
            self._stack.enter_context(patched(guided, GUIDANCE, self))
        self._stack.enter_context(self.clock.running())
        self._install()
        self._stack.callback(self._uninstall)
        return self

    def disable(self) -> None:
        """Stop blending and leave the pipeline as it was before `enable`."""
        self._stack.close()
        if isinstance(self.models, FullModels):
            self.models.close()

    def _begin(self) -> None:
        """A pipeline call begins: model offloading may have taken our forward away after the last one."""
        self._refuse_caches()
        self.blender.reset()
        self._install()

    def _install(self) -> None:
        place, name = _seam(self.pipe)
        if self._forward is not None and vars(place).get(name) is self._forward:
            return
        self._uninstall()
        original = getattr(place, name)

        @functools.wraps(original)
        def forward(*args: Any, **kwargs: Any) -> Any:
            if self._inside or self._forward is None:
                return original(*args, **kwargs)
            self._inside = True
            try:
                return self._blended(original, args, kwargs)
            finally:
                self._inside = False

        self._forward, self._place = forward, (place, name, vars(place).get(name))
        vars(place)[name] = forward

    def _uninstall(self) -> None:
        """Take our forward away from where it was put, which compilation may have left behind as the seam."""
        if self._place is None:
            return
        place, name, before = self._place
        if vars(place).get(name) is self._forward:
            if before is None:
                del vars(place)[name]
            else:
                vars(place)[name] = before
        self._forward = self._place = None

    def _blended(self, original: Callable[..., Any], args: tuple, kwargs: dict[str, Any]) -> Any:
        clock = self.clock
        if self.pipe.scheduler is not clock.scheduler:
            raise RuntimeError("the pipeline's scheduler was replaced while guidance was on: turn guidance on again")
        tuned = [clock.weight(schedule) for schedule in self._schedules]
        if tuned != [1.0]:
            self._refuse_recomputation()
        if self.blend == "weights":
            self.blender.passes += 1
            result = self.models.predict_weighted(tuned, original, (args, kwargs))
        else:
            weights, place = [1.0 - sum(tuned), *tuned], Place(clock.position, clock.calls, clock.seen)
            result = self.blender.predict(weights, original, (args, kwargs), place)
        clock.calls += 1
        return result

    def _refuse_caches(self) -> None:
        hooks = [getattr(part, "_diffusers_hook", None) for part in self.module.modules()]
        if any(hook._is_stateful for registry in hooks if registry is not None for hook in registry.hooks.values()):
            raise RuntimeError("base and tuned would share the denoiser's cache: call its disable_cache() first")

    def _refuse_recomputation(self) -> None:
        checkpointing = getattr(self.module, "is_gradient_checkpointing", False)
        if isinstance(self.models, LoraModels) and torch.is_grad_enabled() and checkpointing:
            raise RuntimeError(
                "gradient through a blend with gradient checkpointing would be wrong, since recomputation sees other "
                "weights: call disable_gradient_checkpointing() on the denoiser, or sample under torch.no_grad()"
            )


def _seam(pipe: Any) -> tuple[Any, str]:
    """The object and its attribute through which the pipeline runs its denoiser; compiled code lies below it."""
    module = getattr(pipe, denoiser_name(pipe))
    if module is denoiser(pipe) and module._compiled_call_impl is not None:
        return module, "_compiled_call_impl"
    return module, "forward"


def _schedules(schedule: Schedule, adapter: Adapters) -> list[Schedule]:
    """The weight of each tuned adapter."""
    if not isinstance(adapter, Mapping):
        return [schedule]
    found = []
    for name, value in adapter.items():
        own = make_schedule(**value) if isinstance(value, Mapping) else value
        if not isinstance(own, Schedule) and not (isinstance(own, int | float) and math.isfinite(own)):
            raise ValueError(f"adapter {name!r} takes a number, by which the schedule is multiplied, or a Schedule")
        found.append(own if isinstance(own, Schedule) else schedule.times(float(own)))
    return found


def enable_annealed_guidance(
    pipe: Any,
    schedule: str | Schedule | Callable[[float], float] = "power",
    *,
    adapter: Adapters = None,
    base: Any = None,
    blend: str = "predictions",
    savings: Savings | Mapping[str, Any] | None = None,
    **parameters: Any,
) -> Guidance:
    """Blend base and tuned in every later call of `pipe`, until `disable_annealed_guidance(pipe)`.

    Takes what `annealed_guidance` takes.
    """
    if getattr(pipe, GUIDANCE, None) is not None:
        raise RuntimeError("guidance is already on for this pipeline: call disable_annealed_guidance(pipe) first")
    chosen = savings if isinstance(savings, Savings) else Savings(**(savings or {}))
    return Guidance(pipe, make_schedule(schedule, **parameters), adapter, base, blend, chosen).enable()


def disable_annealed_guidance(pipe: Any) -> None:
    """Undo `enable_annealed_guidance`; nothing happens when guidance is off."""
    guidance = getattr(pipe, GUIDANCE, None)
    if guidance is not None:
        guidance.disable()


@contextmanager
def annealed_guidance(
    pipe: Any,
    schedule: str | Schedule | Callable[[float], float] = "power",
    *,
    adapter: Adapters = None,
    base: Any = None,
    blend: str = "predictions",
    savings: Savings | Mapping[str, Any] | None = None,
    **parameters: Any,
) -> Iterator[Guidance]:
    """Sample from a blend of base and tuned model: `with annealed_guidance(pipe, "power", p=2): pipe(...)`.

    The prediction at progress u is (1 - g(u)) · base + g(u) · tuned, arXiv 2409.06493. A model whose weight is 0 is not
    run, so that g = 0 and g = 1 are the plain base and tuned pipelines bit for bit, at their price.

    Args:
        pipe: any diffusers text-to-image pipeline with a LoRA on its denoiser, or the tuned one when `base` is given.
        schedule: g as a name of `sfumato.schedules.FORMULAS`, a callable g(u) on [0, 1], or a `Schedule`.
        adapter: the tuned adapter, if several are loaded; the others stay active in base and tuned alike. Or several
            tuned ones with weights λ_i, `{"pickscore": 0.7, "hps": 0.3}`: eps = (1 - Σ g_i) eps_base + Σ g_i eps_i with
            g_i = λ_i g(u). With the schedule constant, w = 1, this is Diffusion Blend (arXiv 2505.18547), and in weight
            space rewarded soups (arXiv 2306.04488). A `Schedule` in place of λ_i is that adapter's own g_i.
        base: the base model as a second pipeline or denoiser, for full fine-tunes. It may lie on the CPU while the
            pipeline is on a GPU: its layers are then streamed.
        blend: `"predictions"` as published (two forwards a step), or `"weights"`: base + g(u) ΔW, one forward a step;
            with a second model WiSE-FT (arXiv 2109.01903).
        savings: ways to do with fewer forwards, as a `Savings` or a dict of its fields.
        **parameters: the schedule's parameters, its `cap` and its `clock`.

    Raises:
        ValueError: a wrong schedule or saving; no adapter or an ambiguous, inactive or fused one; a base of another
            kind.
        RuntimeError: guidance is already on, or the denoiser caches activations between calls.
    """
    options = {"adapter": adapter, "base": base, "blend": blend, "savings": savings}
    guidance = enable_annealed_guidance(pipe, schedule, **options, **parameters)
    try:
        yield guidance
    finally:
        guidance.disable()
