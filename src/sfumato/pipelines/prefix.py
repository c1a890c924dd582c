"""Cheaper steps where no gradient is wanted: contexts for the part of a rollout that comes before its last steps."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from sfumato.pipelines.adapters import AdapterSwitch, denoiser_name
from sfumato.pipelines.patching import patched
from sfumato.pipelines.skipping import denoised_every
from sfumato.pipelines.trees import leaves, mapped


@contextmanager
def cheaper(
    pipe: Any, merge: AdapterSwitch | None = None, dtype: torch.dtype | None = None, denoiser_every: int = 1
) -> Iterator[None]:
    """What is asked for of `merged`, `computed_in` and `denoised_every`."""
    with ExitStack() as stack:
        if merge is not None:
            stack.enter_context(merged(merge))
        if dtype is not None:
            stack.enter_context(computed_in(pipe, dtype))
        if denoiser_every > 1:
            stack.enter_context(denoised_every(pipe, denoiser_every))
        yield


@contextmanager
def merged(switch: AdapterSwitch) -> Iterator[None]:
    """Add an adapter's change to the weights meanwhile, which saves the adapter's own matrix products.

    Predictions are the same up to rounding, and the weights are put back bit for bit. Layers stay as they are where the
    weights are not float32, since less would lose much of the change, where they are sharded or quantised, and where
    the change is no sum (DoRA). Meanwhile no gradient reaches the adapter.
    """
    layers = [layer for layer in switch.layers if _adds(layer, switch.adapter)]
    before = [(layer._active_adapter, layer.get_base_layer().weight.data) for layer in layers]
    try:
        for layer in layers:
            weight = layer.get_base_layer().weight
            with torch.no_grad():
                weight.data = weight.data + layer.get_delta_weight(switch.adapter)
            layer._active_adapter = [name for name in layer.active_adapters if name != switch.adapter]
        yield
    finally:
        for layer, (active, weight) in zip(layers, before, strict=True):
            layer._active_adapter, layer.get_base_layer().weight.data = active, weight


def _adds(layer: Any, adapter: str) -> bool:
    """Whether the adapter is at work in a layer, and is a sum that its weights can hold."""
    weight = getattr(getattr(layer.get_base_layer(), "weight", None), "data", None)
    return (
        adapter in layer.active_adapters
        and type(weight) is torch.Tensor
        and weight.dtype == torch.float32
        and not getattr(layer, "use_dora", {}).get(adapter)
    )


def lower_precision(module: torch.nn.Module) -> torch.dtype | None:
    """bfloat16 if a module's weights are float32 and its device has instructions for bfloat16, else None."""
    weight = next(module.parameters())
    if weight.dtype != torch.float32:
        return None
    if weight.device.type == "cuda":
        has = torch.cuda.is_bf16_supported(including_emulation=False)
    elif weight.device.type == "cpu":
        about = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        has = about.get("avx512_bf16", False) or about.get("amx_bf16", False)
    else:
        has = False
    return torch.bfloat16 if has else None


@contextmanager
def computed_in(pipe: Any, dtype: torch.dtype) -> Iterator[None]:
    """Let the denoiser compute in another dtype by torch's autocast; what it gives keeps the dtype of its input."""
    module = getattr(pipe, denoiser_name(pipe))
    forward = module.forward

    @functools.wraps(forward)
    def lowered(*args: Any, **kwargs: Any) -> Any:
        wanted = leaves((args, kwargs))[0].dtype
        with torch.autocast(pipe.device.type, dtype):
            prediction = forward(*args, **kwargs)
        return mapped(lambda tensor: tensor.to(wanted), prediction)

    with patched(module, "forward", lowered):
        yield
