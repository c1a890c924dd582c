"""A denoiser that is exact: a diffusers model whose weights are the means, variances and weights of a mixture."""

from __future__ import annotations

import math
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.loaders import PeftAdapterMixin
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from sfumato.analytic.levels import noise_level
from sfumato.analytic.worlds import PREDICTIONS, Mixture

HEADS = ("mean", "log_variance", "log_weight")
"""The denoiser's linear layers, which are all its weights and what a LoRA adapts."""


class AnalyticDenoiser(ModelMixin, ConfigMixin, PeftAdapterMixin):  # type: ignore[misc]
    """The exact denoiser of one Gaussian mixture per prompt, called like a `UNet2DConditionModel`.

    Three linear layers without bias read the mixture from the prompt's embedding: means, log-variances and log-weights
    (up to normalisation). So a LoRA on them makes it the exact denoiser of another mixture, at every scale of the LoRA:
    means are interpolated linearly, variances geometrically.

    Args:
        prompts: number of prompts, the width of the one-hot embedding.
        components: K.
        shape: (C, H, W) of an image, D = C H W dimensions.
        prediction_type: one of `PREDICTIONS`.
        num_train_timesteps: of the scheduler.
    """

    @register_to_config
    def __init__(
        self,
        prompts: int = 1,
        components: int = 1,
        shape: tuple[int, int, int] = (3, 1, 1),
        prediction_type: str = "epsilon",
        num_train_timesteps: int = 1000,
    ):
        super().__init__()
        if prediction_type not in PREDICTIONS:
            raise ValueError(f"unknown prediction type {prediction_type!r}: choose one of {', '.join(PREDICTIONS)}")
        size = components * math.prod(shape)
        self.mean = nn.Linear(prompts, size, bias=False)
        self.log_variance = nn.Linear(prompts, size, bias=False)
        self.log_weight = nn.Linear(prompts, components, bias=False)
        self.register_buffer("noise_to_signal", torch.zeros(num_train_timesteps))

    def world(self, encoder_hidden_states: Tensor) -> Mixture:
        """The mixtures that the weights, LoRA included, hold for prompt embeddings (B, P)."""
        shape = (-1, self.config["components"], math.prod(self.config["shape"]))
        return Mixture(
            torch.log_softmax(self.log_weight(encoder_hidden_states), -1),
            self.mean(encoder_hidden_states).view(shape),
            self.log_variance(encoder_hidden_states).view(shape).exp(),
        )

    def forward(
        self, sample: Tensor, timestep: Tensor | float, encoder_hidden_states: Tensor, return_dict: bool = True
    ) -> Any:
        """The exact prediction.

        Args:
            sample: (B, C, H, W), x_t in variance-preserving or flow coordinates.
            timestep: a number, or (B,).
            encoder_hidden_states: (B, P), one-hot prompts.
            return_dict: whether to wrap the prediction as diffusers' models do.

        Returns:
            The prediction, (B, C, H, W), in a tuple or in an output with the field `sample`.
        """
        timestep = torch.as_tensor(timestep, device=sample.device)
        kind = self.config["prediction_type"]
        alpha, sigma = (level.reshape(-1, 1) for level in noise_level(timestep, self.noise_to_signal, kind))
        prediction = self.world(encoder_hidden_states).predict(sample.flatten(1), alpha, sigma, kind).view_as(sample)
        return Transformer2DModelOutput(sample=prediction) if return_dict else (prediction,)
