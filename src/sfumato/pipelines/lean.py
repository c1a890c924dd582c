"""Less kept for the backward pass, for the same gradient: what torch keeps of a network though it is not needed."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.activations import GEGLU
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.conv import _ConvNd

from sfumato.pipelines.patching import patched


@contextmanager
def lean(*modules: nn.Module) -> Iterator[None]:
    """Let frozen convolutions forget their inputs, and GEGLUs compute their activation again in the backward pass.

    Torch keeps the input of every convolution for the gradient of its weight, also where the weight has none. Images
    and gradients are the same; without gradient, and under autocast, nothing is changed.
    """
    with ExitStack() as stack:
        for part in (part for module in modules for part in module.modules()):
            if isinstance(part, nn.Conv1d | nn.Conv2d | nn.Conv3d) and _forgets(part):
                stack.enter_context(patched(part, "_conv_forward", _forgetful(part)))
            elif type(part) is GEGLU:
                stack.enter_context(patched(part, "forward", _recomputing(part)))
        yield


def _forgets(conv: _ConvNd) -> bool:
    return not conv.weight.requires_grad and conv.padding_mode == "zeros" and not isinstance(conv.padding, str)


def _forgetful(conv: _ConvNd) -> Any:
    """`_conv_forward` in the place of the convolution's own; subclasses that pad for themselves call it too."""
    own = conv._conv_forward

    @functools.wraps(own)
    def forward(input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        trained = weight.requires_grad or (bias is not None and bias.requires_grad)
        if trained or not _attached(input) or input.dim() != weight.dim():
            return own(input, weight, bias)
        return _Convolution.apply(input, weight, bias, conv)

    return forward


def _recomputing(part: GEGLU) -> Any:
    own = part.forward

    @functools.wraps(own)
    def forward(hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if not (torch.is_grad_enabled() and not torch.is_autocast_enabled(hidden_states.device.type)):
            return own(hidden_states, *args, **kwargs)
        return _GatedGelu.apply(part.proj(hidden_states))

    return forward


def _attached(value: torch.Tensor) -> bool:
    return torch.is_grad_enabled() and value.requires_grad and not torch.is_autocast_enabled(value.device.type)


class _Convolution(torch.autograd.Function):
    """A convolution whose gradient passes to its input only, and that keeps its weight only."""

    @staticmethod
    def forward(ctx: Any, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, conv: _ConvNd) -> Any:
        ctx.save_for_backward(weight)
        ctx.layout, ctx.conv = (input.shape, input.stride()), conv
        return type(conv)._conv_forward(conv, input, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        (weight,), conv = ctx.saved_tensors, ctx.conv
        unread = torch.empty_strided(*ctx.layout, dtype=weight.dtype, device=weight.device)
        settings = [*map(list, (conv.stride, conv.padding, conv.dilation)), False, [0] * len(conv.stride), conv.groups]
        found = torch.ops.aten.convolution_backward(grad, unread, weight, None, *settings, [True, False, False])
        return found[0], None, None, None


class _GatedGelu(torch.autograd.Function):
    """hidden · gelu(gate) of their concatenation (..., 2 D), which alone is kept; (..., D)."""

    @staticmethod
    def forward(ctx: Any, both: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(both)
        hidden, gate = both.chunk(2, dim=-1)
        return hidden * F.gelu(gate)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        (both,) = ctx.saved_tensors
        hidden, gate = both.chunk(2, dim=-1)
        found = torch.empty_like(both)
        parts = found.chunk(2, dim=-1)
        torch.mul(grad, F.gelu(gate), out=parts[0])
        torch.ops.aten.gelu_backward.grad_input(grad * hidden, gate, grad_input=parts[1])
        return found
