"""Base and tuned models behind one denoiser: a LoRA off and on, several LoRAs, or two full checkpoints.

Model 0 is the base, models 1, 2, ... the tuned ones. Each kind can be run, and have its weights interpolated.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

import torch
from torch import nn

from sfumato.pipelines.adapters import AdapterSwitch, denoiser, denoiser_name
from sfumato.pipelines.trees import Call, leaves

Forward = Callable[..., Any]


class Models(Protocol):
    """What guidance blends."""

    def predict(self, index: int, forward: Forward, call: Call) -> Any:
        """The prediction of one model; `forward` is the pipeline's own denoiser as it stands."""

    def predict_weighted(self, weights: Sequence[float], forward: Forward, call: Call) -> Any:
        """The prediction with the weights θ_0 + Σ_i w_i (θ_i - θ_0), w given for models 1, 2, ..."""


class LoraModels:
    """The base model and one tuned model per adapter, as one module whose adapters are switched."""

    def __init__(self, module: nn.Module, adapters: Sequence[str]):
        self.names = ["__base__", *adapters]
        self.switches = [AdapterSwitch(module, name) for name in adapters]

    def predict(self, index: int, forward: Forward, call: Call) -> Any:
        with ExitStack() as stack:
            for other, switch in enumerate(self.switches, start=1):
                if other != index:
                    stack.enter_context(switch.off())
            return forward(*call[0], **call[1])

    def predict_weighted(self, weights: Sequence[float], forward: Forward, call: Call) -> Any:
        with ExitStack() as stack:
            for weight, switch in zip(weights, self.switches, strict=True):
                stack.enter_context(switch.off() if weight == 0.0 else switch.scaled(weight))
            return forward(*call[0], **call[1])

    def check_linear(self) -> None:
        """Raise ValueError unless the weights of all adapters can be interpolated."""
        for switch in self.switches:
            switch.check_linear()

    def predict_rows(self, indices: Sequence[int], forward: Forward, call: Call) -> Any:
        """One forward in which row i is computed by model `indices[i]`, by peft's mixed batches.

        Raises:
            ValueError: adapters besides the blended ones are active, which a mixed batch would switch off; or a layer
                that peft cannot mix (DoRA, another tuner than LoRA).
        """
        names = [self.names[index] for index in indices]
        layers = {layer for switch in self.switches for layer in switch.layers}
        others = {name for layer in layers for name in layer.active_adapters} - set(self.names)
        if others:
            raise ValueError(f"one_forward would switch off the adapter {', '.join(sorted(others))}: leave it out")

        def choose(layer: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
            return args, {**kwargs, "adapter_names": names}

        with ExitStack() as stack:
            for layer in layers:
                stack.callback(layer.register_forward_pre_hook(choose, with_kwargs=True).remove)
            return forward(*call[0], **call[1])


class FullModels:
    """Two full checkpoints of one architecture; the tuned one is the pipeline's own.

    The base may lie on another device than the inputs, the CPU say: its layers are then streamed to where they are
    needed, by accelerate.
    """

    def __init__(self, module: nn.Module, base: nn.Module):
        self.module, self.base = module, base
        self._interpolated: tuple[float, list[torch.Tensor]] | None = None
        self._streamed = False

    def predict(self, index: int, forward: Forward, call: Call) -> Any:
        if index:
            return forward(*call[0], **call[1])
        self._stream_to(leaves(call)[0].device)
        return self.base(*call[0], **call[1])

    def predict_weighted(self, weights: Sequence[float], forward: Forward, call: Call) -> Any:
        (weight,) = weights
        if weight in (0.0, 1.0):
            return self.predict(int(weight), forward, call)
        if hasattr(self.module, "_hf_hook") or hasattr(self.base, "_hf_hook"):
            raise RuntimeError("weights of offloaded models cannot be interpolated: use blend='predictions'")
        if torch.is_grad_enabled() and any(parameter.requires_grad for parameter in self.module.parameters()):
            raise RuntimeError(
                "gradient through interpolated weights of full models would be wrong: use blend='predictions', or "
                "sample under torch.no_grad()"
            )
        with self._swapped(weight):
            return forward(*call[0], **call[1])

    @contextmanager
    def _swapped(self, weight: float) -> Iterator[None]:
        """The module's parameters are base + weight (tuned - base); a third copy of the weights, made per weight."""
        own = list(self.module.parameters())
        tuned = [parameter.data for parameter in own]
        if self._interpolated is None or self._interpolated[0] != weight:
            self._interpolated = None  # frees the last ones before new ones are made
            base = (parameter.data for parameter in self.base.parameters())
            mixed = [torch.lerp(b.to(t.device, t.dtype), t, weight) for b, t in zip(base, tuned, strict=True)]
            self._interpolated = weight, mixed
        for parameter, data in zip(own, self._interpolated[1], strict=True):
            parameter.data = data
        try:
            yield
        finally:
            for parameter, data in zip(own, tuned, strict=True):
                parameter.data = data

    def _stream_to(self, device: torch.device) -> None:
        from accelerate import cpu_offload

        if next(self.base.parameters()).device != device and not hasattr(self.base, "_hf_hook"):
            cpu_offload(self.base, execution_device=device)
            self._streamed = True

    def close(self) -> None:
        """Let go of interpolated weights and of the streaming."""
        from accelerate.hooks import remove_hook_from_module

        self._interpolated = None
        if self._streamed:
            remove_hook_from_module(self.base, recurse=True)
            self._streamed = False


def base_module(pipe: Any, base: Any) -> nn.Module:
    """The denoiser of a second full checkpoint, given as a pipeline or as the module itself.

    Raises:
        ValueError: it is another architecture, or predicts something else, or in other latents or noise.
    """
    module = base if isinstance(base, nn.Module) else denoiser(base)
    tuned = denoiser(pipe)
    if type(module) is not type(tuned):
        raise ValueError(f"base is a {type(module).__name__}, the pipeline's denoiser a {type(tuned).__name__}")
    if _shapes(module) != _shapes(tuned):
        raise ValueError(f"base and the {denoiser_name(pipe)} of the pipeline differ in shape: they must be one model")
    _check_same_config(module, tuned)
    if not isinstance(base, nn.Module):
        _check_same_conventions(pipe, base)
    return module


def _check_same_config(module: nn.Module, tuned: nn.Module) -> None:
    """Two of one shape may still compute differently; the image size that a model was made for is no difference."""
    theirs, ours = (dict(getattr(part, "config", {})) for part in (module, tuned))
    for name in sorted(theirs.keys() | ours.keys()):
        if not name.startswith("_") and name != "sample_size" and _json(theirs.get(name)) != _json(ours.get(name)):
            raise ValueError(
                f"base has {name} {theirs.get(name)}, the pipeline's denoiser {ours.get(name)}: they must be one model"
            )


def _json(value: Any) -> str:
    """As a file would hold it, where a tuple is a list."""
    return json.dumps(value, default=str)


def _check_same_conventions(pipe: Any, base: Any) -> None:
    kinds = [getattr(p.scheduler.config, "prediction_type", None) for p in (base, pipe)]
    if kinds[0] != kinds[1]:
        raise ValueError(f"base predicts {kinds[0]}, the pipeline {kinds[1]}: their predictions cannot be mixed")
    theirs, ours = (getattr(p.scheduler, "alphas_cumprod", None) for p in (base, pipe))
    if theirs is not None and ours is not None and not _alike(theirs, ours):
        raise ValueError("base and the pipeline have different noise schedules: their predictions cannot be mixed")
    for name in ("scaling_factor", "shift_factor", "latents_mean", "latents_std"):
        ours, theirs = (getattr(getattr(p, "vae", None), "config", {}).get(name) for p in (pipe, base))
        if ours != theirs:
            raise ValueError(
                f"the latents of base have {name} {theirs}, those of the pipeline {ours}: their predictions cannot be "
                "mixed"
            )


def _alike(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a.cpu(), b.cpu(), rtol=0, atol=1e-3)


def _shapes(module: nn.Module) -> dict[str, torch.Size]:
    """The shape of every weight of the base model, whatever adapters lie on it."""
    shapes = {name: parameter.shape for name, parameter in module.named_parameters()}
    return {name.replace(".base_layer.", "."): shape for name, shape in shapes.items() if ".lora_" not in name}
