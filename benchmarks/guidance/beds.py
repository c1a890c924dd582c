"""What it is measured on: emoji-64 with its tuned LoRA, and wider random networks with a random one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import diffusers
import torch

from sfumato.emoji64 import demo_pipeline, path
from sfumato.pipelines.adapters import add_lora, load_lora
from sfumato.pipelines.load import default_device

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Bed:
    """A pipeline with a tuned LoRA, active and unmerged, and the arguments of a call that only denoises.

    Embeddings and initial latents are given and the final latents are taken, so that text encoder and decoder, which
    are the same for all forms, do not dilute the ratios.
    """

    pipe: Any
    call: dict[str, Any]

    def sample(self) -> torch.Tensor:
        """The final latents."""
        return self.pipe(**self.call, output_type="latent").images


def emoji(images: int = 8, steps: int = 12) -> Bed:
    """The bundled model with its own tuned LoRA."""
    return _stable_diffusion(tuned_emoji(), images, steps)


def tuned_emoji() -> Any:
    """The bundled pipeline with the tuned LoRA."""
    pipe = demo_pipeline()
    load_lora(pipe, path("tuned"))
    return pipe.to(default_device())


def wide_unet(images: int = 1, steps: int = 12, channels: tuple[int, ...] = (128, 256, 384)) -> Bed:
    """A random UNet with Stable Diffusion's blocks, at 24x24 latents."""
    torch.manual_seed(0)
    unet = diffusers.UNet2DConditionModel(
        sample_size=24,
        block_out_channels=channels,
        layers_per_block=1,
        attention_head_dim=8,
        cross_attention_dim=160,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    )
    pipe = demo_pipeline(unet=unet.eval())
    _random_lora(pipe)
    return _stable_diffusion(pipe.to(default_device()), images, steps)


def wide_dit(images: int = 1, steps: int = 12, layers: int = 6) -> Bed:
    """A random transformer with SD3's joint attention, width 384, at 32x32 latents."""
    torch.manual_seed(0)
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=32,
        patch_size=2,
        in_channels=16,
        num_layers=layers,
        attention_head_dim=64,
        num_attention_heads=6,
        joint_attention_dim=256,
        caption_projection_dim=384,
        pooled_projection_dim=256,
    )
    encoders = {f"{part}{i}": None for part in ("text_encoder", "tokenizer") for i in ("", "_2", "_3")}
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    pipe = diffusers.StableDiffusion3Pipeline(transformer.eval(), scheduler, vae=None, **encoders)
    pipe.set_progress_bar_config(disable=True)
    _random_lora(pipe)
    pipe.to(default_device())
    shapes = {"prompt_embeds": (32, 256), "pooled_prompt_embeds": (256,)}
    embeddings = {name: _noise(images, *shape) for name, shape in shapes.items()}
    embeddings |= {f"negative_{name}": torch.zeros_like(value) for name, value in embeddings.items()}
    return Bed(pipe, _call(embeddings, steps, _noise(images, 16, 32, 32)))


BEDS: dict[str, Callable[..., Bed]] = {"emoji-64": emoji, "wide UNet": wide_unet, "wide DiT": wide_dit}


def _stable_diffusion(pipe: Any, images: int, steps: int) -> Bed:
    with torch.no_grad():
        prompts = ["fruit"] * images
        guided, unguided = pipe.encode_prompt(prompts, pipe.device, 1, True)
    size = pipe.unet.config.sample_size
    embeddings = {"prompt_embeds": guided, "negative_prompt_embeds": unguided}
    return Bed(pipe, _call(embeddings, steps, _noise(images, 4, size, size)))


def _call(embeddings: Tensors, steps: int, latents: torch.Tensor) -> dict[str, Any]:
    return {**embeddings, "latents": latents, "num_inference_steps": steps, "guidance_scale": 3.0}


def _noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(default_device())


def _random_lora(pipe: Any) -> None:
    """A LoRA of rank 8 on attention whose update is about a tenth of the weights."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in add_lora(pipe, rank=8):
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / parameter.shape[-1] ** 0.5 / 4)
            parameter.requires_grad_(False)
