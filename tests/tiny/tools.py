"""What tests do to pipelines and see in them."""

from __future__ import annotations

import copy
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer

from sfumato.pipelines.adapters import add_lora, denoiser


def perturbed_lora(pipe: Any, adapter: str = "default", seed: int = 0, **options: Any) -> list[torch.nn.Parameter]:
    """Add a LoRA with alpha = 2 r whose B is far from 0 too; returns its parameters."""
    parameters = add_lora(pipe, **{"rank": 2, "alpha": 4.0, "adapter": adapter, "seed": seed, **options})
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in parameters:
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(noise / parameter.shape[-1] ** 0.5)
    return parameters


def counted(module: torch.nn.Module) -> list[int]:
    """A list that grows by the batch size at every pass through a denoiser, seen at its first layer."""
    sizes: list[int] = []
    names = ("conv_in", "x_embedder", "pos_embed", "patch_embed", "patch_embedder", "img_in", "t_embedder")
    first = next(getattr(module, name) for name in names if isinstance(getattr(module, name, None), torch.nn.Module))
    first.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    return sizes


def footprint(pipe: Any) -> dict[str, Any]:
    """Everything that a context around a pipeline could leave behind, to be compared before and after."""
    module = denoiser(pipe)
    layers = [layer for layer in module.modules() if isinstance(layer, BaseTunerLayer)]
    return {
        "pipe": _identities(pipe),
        "denoiser": _identities(module),
        "scheduler": sorted(vars(pipe.scheduler)),
        "scheduler class": type(pipe.scheduler),
        "components": dict(pipe.config),
        "requires_grad": [parameter.requires_grad for parameter in module.parameters()],
        "training": [part.training for part in module.modules()],
        "adapters": [(copy.copy(layer._active_adapter), layer.disable_adapters) for layer in layers],
        "scaling": [dict(layer.scaling) for layer in layers],
        "gradient": torch.is_grad_enabled(),
        "random": torch.get_rng_state().tolist(),
    }


def _identities(thing: Any) -> dict[str, Any]:
    plain = (int, float, str, bool, dict, type(None))
    return {name: value if isinstance(value, plain) else id(value) for name, value in vars(thing).items()}
