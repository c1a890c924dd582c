"""The weights that a training changes, and the base model that they can be compared with."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from sfumato.config import TrainingConfig
from sfumato.pipelines.adapters import ATTENTION, AdapterSwitch, add_lora, denoiser, save_lora
from sfumato.pipelines.prefix import cheaper

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

    def save(self, folder: Path) -> Path:
        """Write the weights so that diffusers can load them; returns the file."""


class LoraWeights:
    """A LoRA on the denoiser; the base model is the LoRA switched off."""

    def __init__(self, pipe: Any, config: TrainingConfig):
        lora = config.lora
        self.pipe = pipe
        self.merge, self.dtype = config.prefix.merge, config.prefix.dtype and getattr(torch, config.prefix.dtype)
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
        return cheaper(self.pipe, self.switch, self.merge, self.dtype)

    def save(self, folder: Path) -> Path:
        return save_lora(self.pipe, folder, ADAPTER)
