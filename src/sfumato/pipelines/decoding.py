"""Decoding with gradient in little memory."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.models.autoencoders.vae import DecoderOutput
from torch.utils.checkpoint import checkpoint

from sfumato.pipelines.patching import patched


@contextmanager
def decoding_singly(pipe: Any) -> Iterator[None]:
    """Where the VAE decodes with gradient, it decodes one image at a time, and again in the backward pass.

    The memory is that of one image, the time that of one more decoding. The gradient is the same, up to the rounding
    that depends on the size of a batch; without gradient nothing is changed.
    """
    decode = pipe.vae.decode

    @functools.wraps(decode)
    def one_by_one(latents: torch.Tensor, return_dict: bool = True, **kwargs: Any) -> Any:
        if not (torch.is_grad_enabled() and latents.requires_grad):
            return decode(latents, return_dict=return_dict, **kwargs)

        def image(one: torch.Tensor) -> torch.Tensor:
            return decode(one, return_dict=False, **kwargs)[0]

        joined = torch.cat([checkpoint(image, one, use_reentrant=False) for one in latents.split(1)])
        return DecoderOutput(sample=joined) if return_dict else (joined,)

    with patched(pipe.vae, "decode", one_by_one):
        yield


def checkpoint_decoder(pipe: Any) -> None:
    """Switch the gradient checkpointing of the VAE itself on.

    Raises:
        ValueError: it has none.
    """
    check_vae(pipe)
    if not getattr(pipe.vae, "_supports_gradient_checkpointing", False):
        raise ValueError(
            f"a {type(pipe.vae).__name__} has no gradient checkpointing: set training.memory.decode_singly in its place"
        )
    pipe.vae.enable_gradient_checkpointing()


def check_vae(pipe: Any) -> None:
    """Raise ValueError if the pipeline does not decode by a VAE."""
    if getattr(pipe, "vae", None) is None:
        raise ValueError(f"a {type(pipe).__name__} has no VAE: leave training.memory's settings for decoders out")
