"""Models at their published sizes, written down so that nothing has to be downloaded.

The numbers are those of the `config.json` files of stable-diffusion-v1-5, stable-diffusion-xl-base-1.0,
stable-diffusion-3.5-medium, FLUX.1-dev and Qwen-Image; what is not given is diffusers' default and theirs as well.
Built on torch's meta device or on fake tensors they take no memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import diffusers
import torch
import transformers

CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
CLIP_G = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20}


def clip(projection: int | None = None, **sizes: Any) -> Any:
    """CLIP's text model, with a projection if it has one."""
    config = transformers.CLIPTextConfig(vocab_size=49408, projection_dim=projection or 768, **sizes)
    return (transformers.CLIPTextModelWithProjection if projection else transformers.CLIPTextModel)(config)


def t5() -> Any:
    """The encoder of T5-v1.1-XXL."""
    sizes = {"d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64}
    config = transformers.T5Config(vocab_size=32128, feed_forward_proj="gated-gelu", tie_word_embeddings=False, **sizes)
    return transformers.T5EncoderModel(config)


def qwen_vl() -> Any:
    """Qwen2.5-VL-7B."""
    text = {
        "vocab_size": 152064,
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "tie_word_embeddings": False,
    }
    vision = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 3584}
    config = transformers.Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=False)
    return transformers.Qwen2_5_VLForConditionalGeneration(config)


def pickscore() -> Any:
    """The CLIP ViT-H/14 that PickScore is."""
    text = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
    vision = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 16}
    config = transformers.CLIPConfig(
        text_config=text, vision_config={**vision, "patch_size": 14, "image_size": 224}, projection_dim=1024
    )
    return transformers.CLIPModel(config)


def vae(channels: int = 4, **options: Any) -> Any:
    """The autoencoder of Stable Diffusion and of FLUX."""
    widths = (128, 256, 512, 512)
    return diffusers.AutoencoderKL(
        block_out_channels=widths,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=channels,
        **options,
    )


def unet_sd15() -> Any:
    return diffusers.UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)


def unet_sdxl() -> Any:
    return diffusers.UNet2DConditionModel(
        sample_size=128,
        block_out_channels=(320, 640, 1280),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 10),
        attention_head_dim=(5, 10, 20),
        cross_attention_dim=2048,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    )


def transformer_sd35_medium(plain: int = 11, dual: int = 13) -> Any:
    """Of its blocks, the first `dual` ones have two attentions."""
    return diffusers.SD3Transformer2DModel(
        sample_size=128,
        in_channels=16,
        out_channels=16,
        num_layers=plain + dual,
        num_attention_heads=24,
        attention_head_dim=64,
        caption_projection_dim=1536,
        pos_embed_max_size=384,
        dual_attention_layers=tuple(range(dual)),
        qk_norm="rms_norm",
    )


def transformer_flux(**depth: int) -> Any:
    return diffusers.FluxTransformer2DModel(guidance_embeds=True, **depth)


def unet_inputs(tokens: int, width: int, **added: int) -> Callable[[int, int], dict[str, torch.Tensor]]:
    def inputs(batch: int, size: int) -> dict[str, Any]:
        given: dict[str, Any] = {
            "sample": torch.randn(batch, 4, size // 8, size // 8),
            "timestep": torch.ones(()),
            "encoder_hidden_states": torch.randn(batch, tokens, width),
        }
        if added:
            given["added_cond_kwargs"] = {name: torch.randn(batch, length) for name, length in added.items()}
        return given

    return inputs


def sd3_inputs(batch: int, size: int) -> dict[str, Any]:
    return {
        "hidden_states": torch.randn(batch, 16, size // 8, size // 8),
        "timestep": torch.ones(batch),
        "encoder_hidden_states": torch.randn(batch, 333, 4096),
        "pooled_projections": torch.randn(batch, 2048),
    }


def flux_inputs(batch: int, size: int) -> dict[str, Any]:
    tokens = (size // 16) ** 2
    return {
        "hidden_states": torch.randn(batch, tokens, 64),
        "timestep": torch.ones(batch),
        "guidance": torch.ones(batch),
        "pooled_projections": torch.randn(batch, 768),
        "encoder_hidden_states": torch.randn(batch, 512, 4096),
        "txt_ids": torch.zeros(512, 3),
        "img_ids": torch.zeros(tokens, 3),
    }


def qwen_inputs(batch: int, size: int) -> dict[str, Any]:
    side = size // 16
    return {
        "hidden_states": torch.randn(batch, side * side, 64),
        "timestep": torch.ones(batch),
        "encoder_hidden_states": torch.randn(batch, 128, 3584),
        "encoder_hidden_states_mask": None,
        "img_shapes": [[(1, side, side)]] * batch,
    }


@dataclass(frozen=True)
class Model:
    """A published model.

    Attributes:
        name: for tables.
        size: pixels of a side.
        denoiser, vae: make these parts.
        encoders: make the text encoders.
        inputs: the denoiser's, from (batch, pixels of a side).
        rows: how many rows of a denoiser's batch an image takes with classifier-free guidance.
        calls: how many calls of the denoiser a step takes.
        depth: arguments of `denoiser` that count blocks of one kind, and the published values.
    """

    name: str
    size: int
    denoiser: Callable[..., Any]
    vae: Callable[[], Any]
    encoders: tuple[Callable[[], Any], ...]
    inputs: Callable[[int, int], dict[str, Any]]
    rows: int = 2
    calls: int = 1
    depth: dict[str, int] = field(default_factory=dict)


MODELS = {
    "sd15": Model("SD 1.5", 512, unet_sd15, vae, (lambda: clip(**CLIP_L),), unet_inputs(77, 768)),
    "sdxl": Model(
        "SDXL",
        1024,
        unet_sdxl,
        vae,
        (lambda: clip(**CLIP_L), lambda: clip(1280, **CLIP_G)),
        unet_inputs(77, 2048, text_embeds=1280, time_ids=6),
    ),
    "sd35m": Model(
        "SD3.5-M",
        1024,
        transformer_sd35_medium,
        lambda: vae(16, use_quant_conv=False, use_post_quant_conv=False),
        (lambda: clip(768, **CLIP_L), lambda: clip(1280, **CLIP_G), t5),
        sd3_inputs,
        depth={"plain": 11, "dual": 13},
    ),
    "flux": Model(
        "FLUX.1-dev",
        1024,
        transformer_flux,
        lambda: vae(16, use_quant_conv=False, use_post_quant_conv=False),
        (lambda: clip(**CLIP_L), t5),
        flux_inputs,
        rows=1,
        depth={"num_layers": 19, "num_single_layers": 38},
    ),
    "qwen": Model(
        "Qwen-Image",
        1024,
        diffusers.QwenImageTransformer2DModel,
        diffusers.AutoencoderKLQwenImage,
        (qwen_vl,),
        qwen_inputs,
        rows=1,
        calls=2,
        depth={"num_layers": 60},
    ),
}


def count(make: Callable[[], Any]) -> int:
    """The number of parameters, exactly, without making any."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in make().parameters())
