"""What the tests of training share: small settings, a reward that is easy to raise, and a look at the result."""

from __future__ import annotations

import torch

from sfumato.config import SamplingConfig, TrainingConfig
from sfumato.pipelines.adapters import denoiser
from sfumato.pipelines.rollout import rollout
from sfumato.training import Draft, Trainer
from tests import tiny

LORA = {"rank": 2, "targets": ["to_q", "to_v", "to_out.0", "conv2", "conv_out", "proj_out"]}
"""The last layer is among them, so that few updates change much."""
PROMPTS = ["red", "green", "blue"]
EXACT = {"dtype": None, "denoiser_every": 1}
"""Settings of the prefix: rounding aside, nothing is saved."""
SIZE = {"height": 16, "width": 16}
SAMPLING = {
    "sd": SamplingConfig(num_inference_steps=2, guidance_scale=2.0),
    "sd3": SamplingConfig(num_inference_steps=2, guidance_scale=3.0, arguments=SIZE),
}
NOISY = {
    "sd": SamplingConfig(num_inference_steps=4, guidance_scale=2.0, arguments={"eta": 1.0}),
    "sd3": SamplingConfig(num_inference_steps=4, guidance_scale=3.0, arguments=SIZE),
    "flux": SamplingConfig(num_inference_steps=4, guidance_scale=3.5, arguments={**SIZE, "max_sequence_length": 16}),
}
"""Sampling with steps that draw noise, or do within a flow SDE."""


def brightness(images, prompts):
    return images.mean(dim=(1, 2, 3))


def settings(**changes):
    small = {"lora": LORA, "steps": 3, "batch_size": 2, "lr": 1e-2, "checkpoint_every": 100}
    return TrainingConfig.model_validate({**small, "monitor_every": None, "prefix": EXACT, **changes})


def make_trainer(
    folder, family="sd", objective=None, reward=brightness, pipe=None, monitor=None, sampling=None, **changes
):
    return Trainer(
        pipe or tiny.pipeline(family),
        objective or Draft(),
        reward,
        PROMPTS,
        settings(**changes),
        sampling or SAMPLING[family],
        folder,
        monitor,
    )


def lora_weights(pipe):
    """The LoRA's matrices by name."""
    return {name: p.detach().clone() for name, p in denoiser(pipe).named_parameters() if "lora_" in name}


def captured_gradients(trainer):
    """A list that gets the gradients of every update, before the optimiser uses them up."""
    gradients = []
    step = trainer.state.optimizer.step

    def capture_and_step():
        gradients.append([parameter.grad.clone() for parameter in trainer.state.parameters])
        step()

    trainer.state.optimizer.step = capture_and_step
    return gradients


def sample(pipe, family="sd", prompt="red"):
    """Images of fixed seeds."""
    return rollout(pipe, prompt=prompt, seeds=[1, 2, 3, 4], **SAMPLING[family].call()).images


def assert_all_close(found, wanted, **tolerance):
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, **tolerance)
