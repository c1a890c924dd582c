"""Less memory for the same gradient: what `training.memory` asks for, at work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from types import ModuleType
from typing import Any

import torch
from torch import nn

from sfumato.config.memory import MemoryConfig
from sfumato.pipelines.adapters import denoiser
from sfumato.pipelines.calls import per_image
from sfumato.pipelines.decoding import check_vae, checkpoint_decoder, decoding_singly
from sfumato.pipelines.lean import lean
from sfumato.pipelines.plan import planned_steps
from sfumato.pipelines.resting import Resting, TextEncoders
from sfumato.rewards import Reward
from sfumato.training.objective import Objective

CHEAP = 1 / 16
"""Share of the sampling steps: where no more of them carry gradient, computing them again takes a few percent of an
update."""


def checkpoint_denoiser(
    pipe: Any, wanted: bool | None, objective: Objective, prompt: str, call: dict[str, Any]
) -> None:
    """Switch the denoiser's gradient checkpointing on, if `wanted`.

    Args:
        wanted: None means where it is cheap: where only the last of many steps carry gradient.
        prompt, call: what is sampled.
    """
    module = denoiser(pipe)
    if wanted is None:
        steps = planned_steps(pipe, prompt=prompt, **call)
        attached = getattr(objective, "attached_steps", range)(steps)
        wanted = len(attached) <= CHEAP * steps and getattr(module, "_supports_gradient_checkpointing", False)
    if wanted:
        module.enable_gradient_checkpointing()


class RestingReward:
    """A reward whose modules are on their device from when it is called until its gradient has reached the images.

    Raises:
        ValueError: it holds no modules that could be found.
    """

    def __init__(self, reward: Reward):
        self.reward, self.modules = reward, Resting(modules_of(reward))
        self.name, self.range, self.differentiable = reward.name, reward.range, reward.differentiable

    def __call__(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        if not (torch.is_grad_enabled() and images.requires_grad):
            with self.modules.used():
                return self.reward(images, prompts)
        self.modules.come()
        images = images.view_as(images)  # of its own, so that all of its gradient comes from this call
        images.register_hook(lambda _: self.modules.go())
        return self.reward(images, prompts)


def modules_of(reward: Any) -> list[nn.Module]:
    """The modules that a reward keeps in its attributes, at any depth; raises ValueError if there are none."""
    found: list[nn.Module] = []
    seen: set[int] = set()
    todo = [reward]
    while todo:
        each = todo.pop()
        if id(each) in seen or isinstance(each, type | ModuleType):
            continue
        seen.add(id(each))
        if isinstance(each, nn.Module):
            found.append(each)
        elif isinstance(each, dict):
            todo.extend(each.values())
        elif isinstance(each, list | tuple):
            todo.extend(each)
        elif hasattr(each, "__dict__"):
            todo.extend(vars(each).values())
    if not found:
        raise ValueError(
            f"training.memory.offload: the reward {reward.name!r} has no torch modules among its attributes; leave "
            "`reward` out"
        )
    return found


class Savings:
    """What saves memory while a pipeline is trained.

    Attributes:
        reward: what is to be called in the reward's place.

    Raises:
        ValueError: the pipeline or the reward has not what would be saved on.
    """

    def __init__(self, config: MemoryConfig, pipe: Any, reward: Reward):
        check_memory(config, pipe, reward)
        self.config, self.pipe = config, pipe
        self.resting = RestingReward(reward) if "reward" in config.offload else None
        self.reward = self.resting or reward
        self.encoders = TextEncoders(pipe) if "text_encoders" in config.offload else None
        if config.decoder_checkpointing:
            checkpoint_decoder(pipe)

    @contextmanager
    def on(self) -> Iterator[None]:
        """For the time of the training."""
        with ExitStack() as stack:
            if self.config.lean:
                stack.enter_context(lean(*differentiated(self.pipe)))
            if self.config.decode_singly:
                stack.enter_context(decoding_singly(self.pipe))
            if self.resting:
                stack.enter_context(self.resting.modules.resting())
            if self.encoders:
                stack.enter_context(self.encoders.resting())
            yield

    def encode(self, prompts: list[str], call: dict[str, Any]) -> None:
        """Let a pipeline with a prompt cache encode all prompts while its text encoders are here anyway."""
        if self.encoders:
            with self.encoders.modules.used():
                for prompt in prompts:
                    planned_steps(self.pipe, **per_image({"prompt": prompt, **call}, 1))

    def looking(self) -> AbstractContextManager[None]:
        """While others may use the reward's modules too."""
        return self.resting.modules.used() if self.resting else nullcontext()


def differentiated(pipe: Any) -> list[nn.Module]:
    """The modules of a pipeline that a gradient passes through: the denoiser, and the VAE if there is one."""
    return [denoiser(pipe), *filter(None, [getattr(pipe, "vae", None)])]


def check_memory(config: MemoryConfig, pipe: Any, reward: Reward) -> None:
    """Raise ValueError if the pipeline or the reward has not what is to be saved on."""
    if config.decode_singly or config.decoder_checkpointing:
        check_vae(pipe)
    if "reward" in config.offload:
        modules_of(reward)
    if "text_encoders" in config.offload and not hasattr(pipe, "encode_prompt"):
        raise ValueError(
            f"a {type(pipe).__name__} has no encode_prompt, so its text encoders are needed all the time: leave "
            "`text_encoders` out of training.memory.offload"
        )
