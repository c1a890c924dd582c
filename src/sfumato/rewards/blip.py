"""BLIP's image-grounded text encoder, made of transformers' parts, from weights under BLIP's own names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch

from sfumato.rewards.base import Device

HEAD = 64
"""Width of an attention head, in every vision transformer and BERT that BLIP was published with."""

IMAGE, TEXT = "visual_encoder.", "text_encoder."
"""What the names of the two parts begin with."""

RENAMED = {
    r"^cls_token$": "embeddings.class_embedding",
    r"^pos_embed$": "embeddings.position_embedding",
    r"^patch_embed\.proj\.": "embeddings.patch_embedding.",
    r"^norm\.": "post_layernorm.",
    r"^blocks\.": "encoder.layers.",
    r"\.norm([12])\.": r".layer_norm\1.",
    r"\.attn\.qkv\.": ".self_attn.qkv.",
    r"\.attn\.proj\.": ".self_attn.projection.",
}
"""From BLIP's names in the vision transformer to transformers'; in the text encoder they are the same."""


class BLIP:
    """A text read with an image in view: BLIP's image-grounded text encoder (Li et al. 2022, arXiv 2201.12086).

    A vision transformer gives one vector per patch; in every layer of a BERT each token looks at the other tokens, then
    at the patches. All sizes are those of the weights, which are frozen.

    Args:
        weights: by BLIP's names, `visual_encoder.*` and `text_encoder.*`; others are left alone.
        device: where the model runs.
        dtype: of the weights.

    Raises:
        ValueError: weights are missing or do not fit together.
    """

    def __init__(self, weights: Mapping[str, torch.Tensor], device: Device, dtype: torch.dtype):
        from transformers import BlipTextModel, BlipVisionModel

        image, text = _part(weights, IMAGE), _part(weights, TEXT)
        image_config, text_config = _configs(image, text)
        image = {_renamed(name): tensor for name, tensor in image.items()}
        self.image = _filled(BlipVisionModel, image_config, image, dtype).to(device)
        self.text = _filled(BlipTextModel, text_config, text, dtype, add_pooling_layer=False).to(device)

    def __call__(self, pixels: torch.Tensor, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Features (B,D) of the first tokens.

        Args:
            pixels: pixel values (B,3,h,w) of the size that the position embeddings are for.
            tokens: numbers (B,L).
            mask: (B,L), 1 for a token and 0 for padding.
        """
        patches = self.image(pixel_values=pixels.to(self.image.dtype)).last_hidden_state
        read = self.text(input_ids=tokens, attention_mask=mask, encoder_hidden_states=patches)
        return read.last_hidden_state[:, 0]


def _part(weights: Mapping[str, torch.Tensor], start: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(start): tensor for name, tensor in weights.items() if name.startswith(start)}


def _renamed(name: str) -> str:
    for pattern, replacement in RENAMED.items():
        name = re.sub(pattern, replacement, name)
    return name


def _configs(image: Mapping[str, torch.Tensor], text: Mapping[str, torch.Tensor]) -> tuple[Any, Any]:
    """The configurations of both parts, read off the shapes of their weights."""
    from transformers import BlipTextConfig, BlipVisionConfig

    try:
        width, _, patch, _ = image["patch_embed.proj.weight"].shape
        side = round((image["pos_embed"].shape[1] - 1) ** 0.5)
        words, text_width = text["embeddings.word_embeddings.weight"].shape
        image_config = BlipVisionConfig(
            hidden_size=width,
            intermediate_size=len(image["blocks.0.mlp.fc1.bias"]),
            num_hidden_layers=_depth(image),
            num_attention_heads=width // HEAD,
            image_size=side * patch,
            patch_size=patch,
            layer_norm_eps=1e-6,
        )
        text_config = BlipTextConfig(
            vocab_size=words,
            hidden_size=text_width,
            encoder_hidden_size=width,
            intermediate_size=len(text["encoder.layer.0.intermediate.dense.bias"]),
            num_hidden_layers=_depth(text),
            num_attention_heads=text_width // HEAD,
            max_position_embeddings=len(text["embeddings.position_embeddings.weight"]),
        )
    except KeyError as error:
        raise ValueError(f"BLIP's image-grounded text encoder lacks {error}: give the whole weights") from None
    return image_config, text_config


def _depth(weights: Mapping[str, torch.Tensor]) -> int:
    """Layers of a part: the first numbers in their names count them."""
    return 1 + max(int(found[1]) for name in weights if (found := re.match(r"\D+(\d+)\.", name)))


def _filled(kind: Any, config: Any, weights: dict[str, torch.Tensor], dtype: torch.dtype, **options: Any) -> Any:
    """A model of transformers with these weights, frozen."""
    model, report = kind.from_pretrained(
        None,
        config=config,
        state_dict=weights,
        dtype=dtype,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
        **options,
    )
    if wrong := sorted([*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])]):
        raise ValueError(f"BLIP lacks a fitting {wrong[0]} and would be partly random: give the whole weights")
    return model.eval().requires_grad_(False)
