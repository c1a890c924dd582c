"""The weights that a training changes, and the base model that they can be compared with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from sfumato.config import PrefixConfig, TrainingConfig
from sfumato.pipelines.adapters import (
    ATTENTION,
    AdapterSwitch,
    adapter_names,
    add_lora,
    denoiser,
    denoiser_name,
    freeze,
    present_targets,
    save_lora,
)
from sfumato.pipelines.prefix import cheaper, lower_precision
from sfumato.pipelines.state import TRAINED
from sfumato.pipelines.trained import save_denoiser

ADAPTER = "tuned"


class Weights(Protocol):
    """Trained weights of a pipeline.

    Attributes:
        parameters: what the optimiser changes, in float32.
    """

    parameters: list[nn.Parameter]

    def base(self) -> AbstractContextManager[None]:
        """A context in which the pipeline runs as the base model."""

    def prefix(self) -> AbstractContextManager[None]:
        """A context in which sampling without gradient is cheaper."""

    def show(self) -> None:
        """Let the pipeline compute with `parameters` as they are now, after they were changed."""

    def save(self, folder: Path) -> Path:
        """Write the weights so that diffusers can load them; returns the file or folder."""


class LoraWeights:
    """A LoRA on the denoiser; the base model is the LoRA switched off."""

    def __init__(self, pipe: Any, config: TrainingConfig):
        lora = config.lora
        assert lora is not None
        self.pipe = pipe
        self.savings = config.prefix
        self.parameters = add_lora(
            pipe,
            rank=lora.rank,
            alpha=lora.alpha,
            targets=lora.targets or ATTENTION,
            adapter=ADAPTER,
            seed=config.seed,
        )
        for parameter in self.parameters:
            parameter.data = parameter.data.float()
        self.switch = AdapterSwitch(denoiser(pipe), ADAPTER)

    def base(self) -> AbstractContextManager[None]:
        return self.switch.off()

    def prefix(self) -> AbstractContextManager[None]:
        return _cheaper(self.pipe, self.savings, self.switch)

    def show(self) -> None:
        pass

    def save(self, folder: Path) -> Path:
        return save_lora(self.pipe, folder, ADAPTER)


class FullWeights:
    """All weights of the denoiser; the base model is a copy of them in main memory.

    Where they are in half precision the optimiser changes copies in float32, which take their gradients over.
    """

    def __init__(self, pipe: Any, config: TrainingConfig):
        self.pipe, self.savings = pipe, config.prefix
        freeze(pipe)
        module = denoiser(pipe).requires_grad_(True)
        self.own: list[nn.Parameter] = list(module.parameters())
        self.first = [parameter.detach().to("cpu", copy=True) for parameter in self.own]
        self.parameters = [_in_float32(parameter) for parameter in self.own]
        setattr(module, TRAINED, True)

    @contextmanager
    def base(self) -> Iterator[None]:
        """Weights change places, so a gradient has to be taken where its forward was: both within, or both outside."""
        tuned = [parameter.data for parameter in self.own]
        for parameter, first in zip(self.own, self.first, strict=True):
            parameter.data = first.to(parameter.device)
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter, data in zip(self.own, tuned, strict=True):
                parameter.data = data
                parameter.requires_grad_(True)

    def prefix(self) -> AbstractContextManager[None]:
        return _cheaper(self.pipe, self.savings)

    @torch.no_grad()
    def show(self) -> None:
        for own, parameter in zip(self.own, self.parameters, strict=True):
            if own is not parameter:
                own.copy_(parameter)

    def save(self, folder: Path) -> Path:
        return save_denoiser(self.pipe, folder)


def _cheaper(pipe: Any, config: PrefixConfig, switch: AdapterSwitch | None = None) -> AbstractContextManager[None]:
    if config.dtype == "auto":
        dtype = lower_precision(denoiser(pipe))
    else:
        dtype = getattr(torch, config.dtype) if config.dtype else None
    return cheaper(pipe, switch if config.merge else None, dtype, config.denoiser_every)


def _in_float32(own: nn.Parameter) -> nn.Parameter:
    """The parameter itself, or if it has less precision a copy to which its gradients are handed over."""
    if torch.promote_types(own.dtype, torch.float32) == own.dtype:
        return own
    wide = nn.Parameter(own.detach().float())

    def hand_over(own: torch.Tensor) -> None:
        assert own.grad is not None
        wide.grad = own.grad.float() if wide.grad is None else wide.grad + own.grad
        own.grad = None

    own.register_post_accumulate_grad_hook(hand_over)
    return wide


def check_weights(pipe: Any, config: TrainingConfig) -> None:
    """Raise ValueError if the weights that are to be trained are not there, or not such that they can be."""
    module, name = denoiser(pipe), denoiser_name(pipe)
    if config.lora:
        present_targets(pipe, config.lora.targets or ATTENTION)
        if ADAPTER in adapter_names(module):
            raise ValueError(
                f"the {name} carries a LoRA {ADAPTER!r} already, as after a training: load the pipeline again, or "
                f"remove it by pipe.delete_adapters({ADAPTER!r})"
            )
        return
    if loras := adapter_names(module):
        raise ValueError(
            f"training.lora: null trains the whole {name}, but that carries LoRAs ({', '.join(loras)}): first remove "
            "them, or fuse them in and unload them"
        )
    if not all(parameter.is_floating_point() for parameter in module.parameters()):
        raise ValueError(f"training.lora: null trains the whole {name}, but that is quantised: load it without that")
    if hasattr(module, TRAINED):
        raise ValueError(
            f"the {name} has been trained already, so it is not the base model: load the pipeline again. To go on from "
            "a result, load that from its folder"
        )
    if config.memory.shard:
        raise ValueError(
            "training.memory.shard shares frozen weights out, and training.lora: null leaves none: give one of them up"
        )


def build_weights(pipe: Any, config: TrainingConfig) -> LoraWeights | FullWeights:
    """Make the pipeline ready to be trained as `config.lora` says."""
    return LoraWeights(pipe, config) if config.lora else FullWeights(pipe, config)
