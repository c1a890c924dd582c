"""What the parts of an update hold in memory, measured on torch's fake tensors: any size, no memory, no device."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import astuple, dataclass
from functools import cache, partial
from types import SimpleNamespace
from typing import Any

import torch
from benchmarks.scaling.live import LiveBytes
from benchmarks.scaling.published import Model, pickscore
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from sfumato.pipelines.adapters import add_lora, trainable
from sfumato.pipelines.lean import lean as keeping_less


@dataclass(frozen=True)
class Part:
    """The memory of a part of an update, in bytes beyond its weights and inputs.

    Attributes:
        held: what its graph keeps until the backward pass.
        peak: the most at any time of its forward and backward pass.
        plain: the same of a forward pass without gradient.
    """

    held: int
    peak: int
    plain: int

    def plus(self, times: int, other: Part) -> Part:
        """This, and another so many times."""
        return Part(*(a + times * b for a, b in zip(astuple(self), astuple(other), strict=True)))


def measured(forward: Callable[[], torch.Tensor], leaves: Sequence[torch.Tensor]) -> Part:
    """Run a part forward and backward to its leaves."""
    with torch.no_grad(), LiveBytes() as live:
        forward()
    plain = live.peak
    gc.collect()
    with LiveBytes() as live:
        out = forward()
        held = live.now
        torch.autograd.grad(out, leaves, torch.ones_like(out), allow_unused=True)
    return Part(held, live.peak, plain)


def denoiser(
    model: Model,
    batch: int,
    dtype: torch.dtype,
    checkpointing: bool,
    rank: int = 32,
    size: int | None = None,
    lean: bool = True,
) -> Part:
    """One call of the denoiser on `batch` images with a LoRA. Where blocks are alike, two and three of a kind are
    measured, and the third is counted as often as there are more."""
    sizes = rank, batch, size or model.size, lean
    shallow = dict.fromkeys(model.depth, 2)
    found = first = _denoiser(model, shallow, dtype, checkpointing, *sizes)
    for kind, number in model.depth.items():
        more = _denoiser(model, {**shallow, kind: 3}, dtype, checkpointing, *sizes)
        found = found.plus(number - 2, more.plus(-1, first))
    return found


def _denoiser(
    model: Model,
    depth: dict[str, int],
    dtype: torch.dtype,
    checkpointing: bool,
    rank: int,
    batch: int,
    size: int,
    lean: bool,
) -> Part:
    module = _made(partial(model.denoiser, **depth), dtype)
    with_lora(module, rank)
    with FakeTensorMode(), keeping_less(module) if lean else nullcontext():
        _faked(module)
        if checkpointing:
            module.enable_gradient_checkpointing()
        given = _cast(model.inputs(model.rows * batch, size), dtype)
        return measured(lambda: module(**given, return_dict=False)[0], trainable(module))


def with_lora(module: Any, rank: int) -> int:
    """Add a LoRA in float32 to a denoiser's attention; its number of parameters."""
    name = "unet" if "UNet" in type(module).__name__ else "transformer"
    parameters = add_lora(SimpleNamespace(**{name: module}, components={name: module}), rank=rank)
    for parameter in parameters:
        parameter.data = parameter.data.float()
    return sum(parameter.numel() for parameter in parameters)


def decoder(
    model: Model,
    dtype: torch.dtype,
    checkpointing: bool,
    size: int | None = None,
    batch: int = 1,
    lean: bool = True,
) -> Part:
    """Decoding."""
    side = (size or model.size) // 8
    vae = _made(model.vae, dtype)
    with FakeTensorMode(), keeping_less(vae) if lean else nullcontext():
        _faked(vae)
        if checkpointing:
            vae.enable_gradient_checkpointing()
        channels = getattr(vae.config, "latent_channels", None) or vae.config.z_dim
        frames = (1,) if "z_dim" in vae.config else ()
        latents = torch.randn(batch, channels, *frames, side, side, dtype=dtype, requires_grad=True)
        return measured(lambda: vae.decode(latents, return_dict=False)[0], [latents])


@cache
def reward(dtype: torch.dtype = torch.float32, batch: int = 1) -> Part:
    """PickScore's image tower, in which images are alone."""
    tower = _made(pickscore, dtype).vision_model
    with FakeTensorMode():
        _faked(tower)
        pixels = torch.randn(batch, 3, 224, 224, dtype=dtype, requires_grad=True)
        return measured(lambda: tower(pixel_values=pixels).pooler_output, [pixels])


def _made(make: Callable[[], Any], dtype: torch.dtype) -> Any:
    """A model on the meta device."""
    with torch.device("meta"):
        return make().to(dtype).eval().requires_grad_(False)


def _faked(module: nn.Module) -> nn.Module:
    """The module with fake tensors, which say that they are on a CPU, in the place of those on the meta device."""
    for part in module.modules():
        for name, tensor in part._parameters.items():
            if tensor is not None:
                empty = torch.empty(tensor.shape, dtype=tensor.dtype)
                part._parameters[name] = nn.Parameter(empty, requires_grad=tensor.requires_grad)
        for holder in (part._buffers, vars(part)):
            found = {name: value for name, value in holder.items() if isinstance(value, torch.Tensor)}
            holder.update({name: torch.empty(value.shape, dtype=value.dtype) for name, value in found.items()})
    return module


def _cast(given: Any, dtype: torch.dtype) -> Any:
    if isinstance(given, dict):
        return {name: _cast(value, dtype) for name, value in given.items()}
    return given.to(dtype) if isinstance(given, torch.Tensor) else given
