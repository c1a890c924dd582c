"""Text encoders, autoencoders and a UNet of a few thousand weights, for the families to be put together from."""

from __future__ import annotations

from typing import Any

import diffusers
import torch
import transformers
from diffusers import AutoencoderKL
from tokenizers import AddedToken, Tokenizer, models
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.processors import TemplateProcessing

TOKENS = 16
"""Length of an encoded prompt."""


def clip(width: int = 8, projected: bool = False) -> tuple[Any, Any]:
    """CLIP over bytes: text encoder and tokenizer."""
    alphabet = sorted(ByteLevel.alphabet())
    words = [*alphabet, *(f"{letter}</w>" for letter in alphabet), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: index for index, token in enumerate(words)}
    tokenizer = transformers.CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=TOKENS)
    config = transformers.CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=TOKENS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    cls = transformers.CLIPTextModelWithProjection if projected else transformers.CLIPTextModel
    return cls(config).eval(), tokenizer


def t5(width: int = 8, kind: str = "T5") -> tuple[Any, Any]:
    """T5 or UMT5 over printable ASCII: text encoder and tokenizer."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -1.0), *((chr(c), -2.0) for c in range(33, 127))]
    tokenizer = transformers.T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=TOKENS)
    config = getattr(transformers, f"{kind}Config")
    size = {"d_model": width, "d_kv": 4, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    return getattr(transformers, f"{kind}EncoderModel")(config(vocab_size=len(pieces), **size)).eval(), tokenizer


def bert(width: int = 8) -> tuple[Any, Any]:
    """BERT over lower-case letters: text encoder and tokenizer."""
    letters = [chr(c) for c in range(97, 123)]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    vocabulary = {token: index for index, token in enumerate(words)}
    config = transformers.BertConfig(
        vocab_size=len(words),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=77,
    )
    return transformers.BertModel(config).eval(), transformers.BertTokenizer(vocab=vocabulary)


def language_model(kind: str, width: int = 8, **options: Any) -> tuple[Any, Any]:
    """A decoder such as `"Qwen3Model"` with one layer over bytes, and a tokenizer whose chat template adds nothing."""
    words = [*sorted(ByteLevel.alphabet()), "<pad>", "<bos>"]
    tokenizer = Tokenizer(models.BPE(vocab={token: index for index, token in enumerate(words)}, merges=[]))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens([AddedToken(word, special=True) for word in words[-2:]])
    start = [("<bos>", len(words) - 1)]
    tokenizer.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=start)
    wrapped = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<pad>",
        model_max_length=1024,
        chat_template="{% for message in messages %}{{ message['content'] }}{% endfor %}",
    )
    cls = getattr(transformers, kind)
    size = {
        "vocab_size": len(words),
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 4,
        "pad_token_id": len(words) - 2,
        "bos_token_id": len(words) - 1,
        "eos_token_id": len(words) - 2,
    }
    return cls(cls.config_class(**size, **options)).eval(), wrapped


def vae(channels: int = 4, **options: Any) -> AutoencoderKL:
    """The usual autoencoder, from `channels` latent channels to pixels at twice the size."""
    model = AutoencoderKL(
        block_out_channels=(4, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=channels,
        norm_num_groups=2,
        sample_size=16,
        **options,
    )
    return _dim(model, model.decoder.conv_out)


def _dim(model: Any, last: Any) -> Any:
    """Keep the pixels within (0, 1), where clamping keeps no gradient back."""
    with torch.no_grad():
        last.weight.mul_(0.3)
    return model.eval()


def deep_vae() -> Any:
    """Sana's autoencoder."""
    model = diffusers.AutoencoderDC(
        latent_channels=4,
        attention_head_dim=2,
        encoder_block_types=("ResBlock", "EfficientViTBlock"),
        decoder_block_types=("ResBlock", "EfficientViTBlock"),
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        encoder_qkv_multiscales=((), (5,)),
        decoder_qkv_multiscales=((), (5,)),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        downsample_block_type="conv",
        upsample_block_type="interpolate",
        decoder_norm_types="rms_norm",
        decoder_act_fns="silu",
    )
    return _dim(model, model.decoder.conv_out)


def video_vae() -> Any:
    """Qwen-Image's autoencoder."""
    model = diffusers.AutoencoderKLQwenImage(
        base_dim=4,
        z_dim=4,
        dim_mult=[1, 2],
        num_res_blocks=1,
        temperal_downsample=[False],
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
    )
    return _dim(model, model.decoder.conv_out)


def unet(**options: Any) -> Any:
    """The usual UNet with attention at its lower level."""
    return diffusers.UNet2DConditionModel(
        block_out_channels=(4, 8),
        layers_per_block=1,
        sample_size=8,
        norm_num_groups=2,
        attention_head_dim=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        **options,
    ).eval()
