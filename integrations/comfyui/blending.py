"""A base and a tuned MODEL of ComfyUI made into one that follows the first early and the second late."""

from __future__ import annotations

from typing import Any

import torch

from sfumato.schedules import Schedule

from .clock import SigmaClock
from .lora import LoraLayers, factors

KEY = "sfumato"
ONE_CACHE_FOR_ALL = "easycache"
"""Key of ComfyUI's EasyCache, which would hand the tuned model's step what it has cached of the base model."""


def blended(base: Any, tuned: Any, schedule: Schedule, blend: str = "predictions") -> Any:
    """A clone of the MODEL `base` that is guided by `schedule`.

    If `tuned` is `base` with LoRAs loaded into it, both run on the same weights. If it is another checkpoint, ComfyUI
    loads it beside `base`. In either case patches and wrappers on `base` (ControlNet, IP-Adapter, other LoRAs, model
    sampling) act in both.

    Args:
        base: what is followed where g = 0.
        tuned: what is followed where g = 1.
        schedule: g.
        blend: `"predictions"`, (1 - g) base(x) + g tuned(x), or `"weights"`, one model with weights base + g LoRA.

    Raises:
        ValueError: the two cannot be blended.
    """
    model = base.clone()
    if base.is_clone(tuned):
        lora = LoraLayers(_difference(base, tuned))
        from comfy.patcher_extension import PatcherInjection

        model.set_injections(_free_key(model.injections), [PatcherInjection(inject=lora.inject, eject=lora.eject)])
        blender = Blender(schedule, lora=lora, one_forward=blend == "weights")
    else:
        if blend == "weights":
            raise ValueError(
                "two checkpoints have no LoRA between them whose strength could be annealed: blend their predictions, "
                "or extract the difference as a LoRA with ComfyUI's node 'Extract and Save Lora'"
            )
        _check_same_kind(base, tuned)
        model.set_additional_models(_free_key(model.additional_models), [tuned])
        blender = Blender(schedule, second=tuned)
    model.add_wrapper_with_key("apply_model", KEY, blender)
    return model


class Blender:
    """ComfyUI's `apply_model` wrapper: blends the denoised images that base and tuned model predict.

    At one noise level they are affine in eps, v or the flow, with the same coefficients for both, so that blending
    them is blending those.
    """

    def __init__(
        self, schedule: Schedule, *, lora: LoraLayers | None = None, second: Any = None, one_forward: bool = False
    ):
        self.clock = SigmaClock(schedule)
        self.lora = lora
        self.second = second
        self.one_forward = one_forward

    def __call__(
        self,
        executor: Any,
        x: torch.Tensor,
        t: torch.Tensor,
        c_concat: Any = None,
        c_crossattn: Any = None,
        control: Any = None,
        transformer_options: dict[str, Any] | None = None,
        **conds: Any,
    ) -> torch.Tensor:
        """The guided prediction for `x` [rows, ...] at the sigmas `t` [rows], which are equal.

        Raises:
            RuntimeError: no sampler is running, so the progress is not known; or a cache would mix up the models.
        """
        options = transformer_options or {}
        if not self.one_forward and ONE_CACHE_FOR_ALL in options.get("wrappers", {}).get("diffusion_model", {}):
            raise RuntimeError("EasyCache keeps one cache for base and tuned model: use LazyCache, or blend weights")
        if "sample_sigmas" not in options:
            raise RuntimeError("guidance needs the sampler's sigmas: use the model with a sampler node")
        g = self.clock.weight(float(t.flatten()[0]), options["sample_sigmas"], executor.class_obj.model_sampling)

        def run(tuned: bool) -> torch.Tensor:
            args = x, t, c_concat, c_crossattn, _own_lists(control)
            if not tuned:
                return executor(*args, dict(options), **conds)
            if self.lora is None:
                return self.second.model.apply_model(*args, _without_blenders(options), **conds)
            with self.lora.at(g if self.one_forward else 1.0):
                return executor(*args, dict(options), **conds)

        if g == 0.0:
            return run(tuned=False)
        if g == 1.0 or self.one_forward:
            return run(tuned=True)
        return torch.lerp(run(tuned=False), run(tuned=True), g)


def _own_lists(control: Any) -> Any:
    """A ControlNet's output for one run of the model, which empties the lists."""
    return control and {key: list(value) if isinstance(value, list) else value for key, value in control.items()}


def _without_blenders(options: dict[str, Any]) -> dict[str, Any]:
    """The options for the second model: our own wrapper would call it again."""
    wrappers = dict(options["wrappers"])
    wrappers["apply_model"] = {key: value for key, value in wrappers["apply_model"].items() if key != KEY}
    return {**options, "wrappers": wrappers}


def _free_key(taken: dict[str, Any]) -> str:
    """A key for this blend; a model that is blended already keeps the first."""
    return f"{KEY}{len(taken)}"


def _difference(base: Any, tuned: Any) -> dict[str, list[Any]]:
    """Layer name -> the LoRA factors that `tuned` has and `base` has not."""
    layers: dict[str, list[Any]] = {}
    for key in {**base.patches, **tuned.patches}:
        shared, patches = base.patches.get(key, []), tuned.patches.get(key, [])
        if len(patches) < len(shared) or any(a is not b for a, b in zip(shared, patches, strict=False)):
            raise ValueError(
                "the tuned model must be the base model with LoRAs added to it: it lacks some of the base's"
            )
        name, _, parameter = key.rpartition(".")
        added = patches[len(shared) :]
        if added and parameter != "weight":
            raise ValueError(f"{key}: only weights of layers can be annealed")
        if added:
            layers[name] = [factors(patch, key, base.model.get_submodule(name)) for patch in added]
    if not layers:
        raise ValueError("base and tuned model have the same weights: load a LoRA into the tuned one")
    return layers


def _check_same_kind(base: Any, tuned: Any) -> None:
    kinds = [
        (type(m.model).__name__, m.model.latent_format.__class__.__name__, _architecture(m)) for m in (base, tuned)
    ]
    if kinds[0] != kinds[1]:
        raise ValueError(f"base and tuned model are of different architectures or latents: {kinds[0]} and {kinds[1]}")
    if _noise_law(base) != _noise_law(tuned):
        raise ValueError("base and tuned model add noise differently (diffusion and flow matching)")


def _architecture(model: Any) -> dict[str, Any]:
    config = model.model.model_config.unet_config
    return {key: value for key, value in config.items() if key not in ("dtype", "device")}


def _noise_law(model: Any) -> list[float]:
    """Signal and noise at one level, whatever the class that says so."""
    sampling = model.get_model_object("model_sampling")
    sigma, zero, one = torch.tensor([0.5]), torch.zeros(1, 1), torch.ones(1, 1)
    return [sampling.noise_scaling(sigma, noise.clone(), latent).item() for noise, latent in ((zero, one), (one, zero))]
