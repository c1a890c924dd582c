"""The five families on which the whole suite runs: SD, SDXL, SD3, FLUX, PixArt-Sigma."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers

from tests.tiny import parts
from tests.tiny.schedulers import make_scheduler


def _sd() -> Any:
    text_encoder, tokenizer = parts.clip()
    return diffusers.StableDiffusionPipeline(
        vae=parts.vae(),
        unet=parts.unet(cross_attention_dim=8),
        scheduler=make_scheduler("ddim"),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _sdxl() -> Any:
    (first, tokenizer), (second, tokenizer_2) = parts.clip(), parts.clip(projected=True)
    unet = parts.unet(
        cross_attention_dim=16,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 8,
        transformer_layers_per_block=(1, 2),
    )
    return diffusers.StableDiffusionXLPipeline(
        vae=parts.vae(),
        unet=unet,
        scheduler=make_scheduler("euler"),
        text_encoder=first,
        tokenizer=tokenizer,
        text_encoder_2=second,
        tokenizer_2=tokenizer_2,
        add_watermarker=False,
    )


def _sd3() -> Any:
    (first, tokenizer), (second, tokenizer_2) = parts.clip(16, projected=True), parts.clip(16, projected=True)
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=8,
        patch_size=1,
        in_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        caption_projection_dim=32,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        out_channels=4,
    )
    return diffusers.StableDiffusion3Pipeline(
        vae=parts.vae(shift_factor=0.05),
        transformer=transformer.eval(),
        scheduler=make_scheduler("flow"),
        text_encoder=first,
        tokenizer=tokenizer,
        text_encoder_2=second,
        tokenizer_2=tokenizer_2,
        text_encoder_3=None,
        tokenizer_3=None,
    )


def _flux() -> Any:
    (clip, tokenizer), (t5, tokenizer_2) = parts.clip(), parts.t5()
    transformer = diffusers.FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=8,
        pooled_projection_dim=8,
        axes_dims_rope=(4, 4, 8),
        guidance_embeds=True,
    )
    return diffusers.FluxPipeline(
        vae=parts.vae(shift_factor=0.05),
        transformer=transformer.eval(),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        text_encoder=clip,
        tokenizer=tokenizer,
        text_encoder_2=t5,
        tokenizer_2=tokenizer_2,
    )


def _pixart() -> Any:
    t5, tokenizer = parts.t5()
    transformer = diffusers.PixArtTransformer2DModel(
        sample_size=8,
        num_layers=2,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=3,
        caption_channels=8,
        cross_attention_dim=24,
        in_channels=4,
        out_channels=8,
        attention_bias=True,
        use_additional_conditions=False,
    )
    return diffusers.PixArtSigmaPipeline(
        vae=parts.vae(),
        transformer=transformer.eval(),
        scheduler=make_scheduler("ddim"),
        text_encoder=t5,
        tokenizer=tokenizer,
    )


BUILDERS: dict[str, Callable[[], Any]] = {"sd": _sd, "sdxl": _sdxl, "sd3": _sd3, "flux": _flux, "pixart": _pixart}
