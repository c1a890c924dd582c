"""The other families, on which only the conformance suite runs. Their sizes follow diffusers' own tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
import torch
from diffusers.pipelines.kolors.pipeline_kolors import KolorsPipeline

from tests.tiny import parts
from tests.tiny.schedulers import make_scheduler


def _sd2() -> Any:
    """Stable Diffusion 2 predicts v, and projects with linear layers."""
    text_encoder, tokenizer = parts.clip()
    scheduler = make_scheduler("ddim")
    scheduler.register_to_config(prediction_type="v_prediction")
    return diffusers.StableDiffusionPipeline(
        vae=parts.vae(),
        unet=parts.unet(cross_attention_dim=8, use_linear_projection=True),
        scheduler=scheduler,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _lcm() -> Any:
    """A distilled model: noise is added anew at every step, and the guidance scale is an input of the UNet."""
    text_encoder, tokenizer = parts.clip()
    return diffusers.LatentConsistencyModelPipeline(
        vae=parts.vae(),
        unet=parts.unet(cross_attention_dim=8, time_cond_proj_dim=16),
        scheduler=diffusers.LCMScheduler(),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _kolors() -> Any:
    """Without text encoder: its tokenizer reads a sentencepiece file, without which diffusers hides the pipeline."""
    unet = parts.unet(
        cross_attention_dim=8,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 8,
        encoder_hid_dim=8,
        encoder_hid_dim_type="text_proj",
    )
    scheduler = make_scheduler("euler")
    return KolorsPipeline(parts.vae(), text_encoder=None, tokenizer=None, unet=unet, scheduler=scheduler)


def _pixart_alpha() -> Any:
    text_encoder, tokenizer = parts.t5()
    transformer = diffusers.PixArtTransformer2DModel(
        sample_size=8,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=3,
        caption_channels=8,
        cross_attention_dim=24,
        in_channels=4,
        out_channels=8,
        use_additional_conditions=False,
    )
    return diffusers.PixArtAlphaPipeline(
        vae=parts.vae(),
        transformer=transformer.eval(),
        scheduler=make_scheduler("dpm++2m"),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
    )


def _sana_transformer(**options: Any) -> Any:
    return diffusers.SanaTransformer2DModel(
        patch_size=1,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        num_attention_heads=2,
        attention_head_dim=4,
        num_cross_attention_heads=2,
        cross_attention_head_dim=4,
        cross_attention_dim=8,
        caption_channels=8,
        sample_size=32,
        **options,
    ).eval()


def _sana() -> Any:
    text_encoder, tokenizer = parts.language_model("Gemma2Model")
    return diffusers.SanaPipeline(
        vae=parts.deep_vae(),
        transformer=_sana_transformer(),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=7.0),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
    )


def _sana_sprint() -> Any:
    """A distilled model with TrigFlow's own scheduler and time."""
    text_encoder, tokenizer = parts.language_model("Gemma2Model")
    return diffusers.SanaSprintPipeline(
        vae=parts.deep_vae(),
        transformer=_sana_transformer(guidance_embeds=True, qk_norm="rms_norm_across_heads"),
        scheduler=diffusers.SCMScheduler(),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
    )


def _lumina() -> Any:
    """Lumina-Next, which learns sigma beside the velocity."""
    text_encoder, tokenizer = parts.language_model("GemmaModel")
    transformer = diffusers.LuminaNextDiT2DModel(
        sample_size=4,
        in_channels=4,
        hidden_size=8,
        num_layers=2,
        num_attention_heads=2,
        num_kv_heads=1,
        multiple_of=16,
        cross_attention_dim=8,
    )
    return diffusers.LuminaPipeline(
        vae=parts.vae(),
        transformer=transformer.eval(),
        scheduler=make_scheduler("flow"),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
    )


def _lumina2() -> Any:
    text_encoder, tokenizer = parts.language_model("Gemma2Model")
    transformer = diffusers.Lumina2Transformer2DModel(
        sample_size=4,
        in_channels=4,
        hidden_size=8,
        num_layers=1,
        num_refiner_layers=1,
        num_attention_heads=1,
        num_kv_heads=1,
        multiple_of=16,
        axes_dim_rope=(4, 2, 2),
        cap_feat_dim=8,
    )
    return diffusers.Lumina2Pipeline(
        vae=parts.vae(shift_factor=0.05),
        transformer=transformer.eval(),
        scheduler=make_scheduler("flow"),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
    )


def _hunyuan() -> Any:
    """HunyuanDiT predicts v and learns sigma beside it."""
    (bert, tokenizer), (t5, tokenizer_2) = parts.bert(), parts.t5()
    transformer = diffusers.HunyuanDiT2DModel(
        sample_size=8,
        num_layers=2,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=3,
        in_channels=4,
        hidden_size=24,
        cross_attention_dim=8,
        cross_attention_dim_t5=8,
        pooled_projection_dim=8,
    )
    scheduler = make_scheduler("ddim")
    scheduler.register_to_config(prediction_type="v_prediction")
    return diffusers.HunyuanDiTPipeline(
        vae=parts.vae(),
        transformer=transformer.eval(),
        scheduler=scheduler,
        text_encoder=bert,
        tokenizer=tokenizer,
        text_encoder_2=t5,
        tokenizer_2=tokenizer_2,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _auraflow() -> Any:
    text_encoder, tokenizer = parts.t5(kind="UMT5")
    transformer = diffusers.AuraFlowTransformer2DModel(
        sample_size=8,
        in_channels=4,
        num_mmdit_layers=1,
        num_single_dit_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        caption_projection_dim=16,
        joint_attention_dim=8,
        pos_embed_max_size=16,
    )
    with torch.no_grad():  # it has no biases, so that its gates would be next to nothing
        for block in (*transformer.joint_transformer_blocks, *transformer.single_transformer_blocks):
            block.norm1.linear.weight.mul_(20)
    return diffusers.AuraFlowPipeline(
        vae=parts.vae(),
        transformer=transformer.eval(),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=1.73),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
    )


def _cogview4() -> Any:
    text_encoder, tokenizer = parts.language_model("GlmModel")
    transformer = diffusers.CogView4Transformer2DModel(
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=4,
        num_attention_heads=2,
        text_embed_dim=8,
        time_embed_dim=8,
        condition_dim=4,
    )
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(
        base_shift=0.25, max_shift=0.75, use_dynamic_shifting=True, time_shift_type="linear"
    )
    return diffusers.CogView4Pipeline(
        vae=parts.vae(),
        transformer=transformer.eval(),
        scheduler=scheduler,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
    )


def _qwen() -> Any:
    """Called by embeddings: its text encoder is a vision-language model."""
    transformer = diffusers.QwenImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=8,
        axes_dims_rope=(4, 2, 2),
    )
    return diffusers.QwenImagePipeline(
        vae=parts.video_vae(),
        transformer=transformer.eval(),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        text_encoder=None,
        tokenizer=None,
    )


def _z_image() -> Any:
    text_encoder, tokenizer = parts.language_model("Qwen3Model")
    transformer = diffusers.ZImageTransformer2DModel(
        in_channels=4,
        dim=16,
        n_layers=1,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=8,
        axes_dims=[4, 2, 2],
        axes_lens=[64, 16, 16],
    )
    with torch.no_grad():  # these two are made by torch.empty
        transformer.x_pad_token.fill_(1.0)
        transformer.cap_pad_token.fill_(1.0)
    return diffusers.ZImagePipeline(
        vae=parts.vae(shift_factor=0.05),
        transformer=transformer.eval(),
        scheduler=make_scheduler("flow"),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
    )


def _chroma() -> Any:
    text_encoder, tokenizer = parts.t5()
    transformer = diffusers.ChromaTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=8,
        axes_dims_rope=(4, 4, 8),
        approximator_hidden_dim=16,
        approximator_layers=1,
        approximator_num_channels=16,
    )
    return diffusers.ChromaPipeline(
        vae=parts.vae(shift_factor=0.05),
        transformer=transformer.eval(),
        scheduler=make_scheduler("flow"),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
    )


def _flux2() -> Any:
    """FLUX.2 klein, whose single blocks join attention and feed-forward projections in one layer."""
    text_encoder, tokenizer = parts.language_model("Qwen3ForCausalLM")
    transformer = diffusers.Flux2Transformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=8,
        timestep_guidance_channels=16,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=False,
    )
    vae = diffusers.AutoencoderKLFlux2(
        block_out_channels=(4, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=2,
        sample_size=16,
    )
    return diffusers.Flux2KleinPipeline(
        vae=vae.eval(),
        transformer=transformer.eval(),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
    )


BUILDERS: dict[str, Callable[[], Any]] = {
    "sd2": _sd2,
    "lcm": _lcm,
    "kolors": _kolors,
    "pixart-alpha": _pixart_alpha,
    "sana": _sana,
    "sana-sprint": _sana_sprint,
    "lumina": _lumina,
    "lumina2": _lumina2,
    "hunyuan": _hunyuan,
    "auraflow": _auraflow,
    "cogview4": _cogview4,
    "qwen-image": _qwen,
    "z-image": _z_image,
    "chroma": _chroma,
    "flux2": _flux2,
}
