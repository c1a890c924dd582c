"""A CLIP ViT-H/14 from the names of open_clip to those of a transformers `CLIPModel`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import torch

RENAMED = (
    (r"^visual\.class_embedding$", "vision_model.embeddings.class_embedding"),
    (r"^visual\.positional_embedding$", "vision_model.embeddings.position_embedding.weight"),
    (r"^visual\.conv1\.weight$", "vision_model.embeddings.patch_embedding.weight"),
    (r"^visual\.ln_pre\.", "vision_model.pre_layrnorm."),
    (r"^visual\.ln_post\.", "vision_model.post_layernorm."),
    (r"^visual\.proj$", "visual_projection.weight"),
    (r"^visual\.transformer\.resblocks\.", "vision_model.encoder.layers."),
    (r"^token_embedding\.weight$", "text_model.embeddings.token_embedding.weight"),
    (r"^positional_embedding$", "text_model.embeddings.position_embedding.weight"),
    (r"^ln_final\.", "text_model.final_layer_norm."),
    (r"^text_projection$", "text_projection.weight"),
    (r"^transformer\.resblocks\.", "text_model.encoder.layers."),
    (r"^logit_scale$", "logit_scale"),
)
"""Every name has the beginning of one of these, and a transformer's may go on with one of the following."""
LAYERS = (
    (r"\.attn\.out_proj\.", ".self_attn.out_proj."),
    (r"\.ln_([12])\.", r".layer_norm\1."),
    (r"\.mlp\.c_fc\.", ".mlp.fc1."),
    (r"\.mlp\.c_proj\.", ".mlp.fc2."),
)
TRANSPOSED = ("visual_projection.weight", "text_projection.weight")
VISION_HEAD, TEXT_HEAD = 80, 64
"""Numbers per attention head; the weights alone do not tell."""


def published(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same tensors in the names of a `CLIPModel`, whose attention has its three projections apart.

    Raises:
        ValueError: these are not the weights of a CLIP with a vision transformer by open_clip.
    """
    if "visual.proj" not in state or "text_projection" not in state:
        raise ValueError("these are not the weights of a CLIP ViT-H/14 by open_clip: give HPSv2's own checkpoint")
    found: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        renamed = _renamed(name)
        if fused := re.fullmatch(r"(.+)\.attn\.in_proj_(weight|bias)", renamed):
            for part, rows in zip("qkv", tensor.chunk(3), strict=True):
                found[f"{fused[1]}.self_attn.{part}_proj.{fused[2]}"] = rows
        else:
            found[renamed] = tensor.T if renamed in TRANSPOSED else tensor
    return found


def config(weights: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """`config.json` of the `CLIPModel` that has these weights, with the exact GELU and the heads of ViT-H/14."""
    patches = weights["vision_model.embeddings.patch_embedding.weight"]
    positions = len(weights["vision_model.embeddings.position_embedding.weight"])
    words = len(weights["text_model.embeddings.token_embedding.weight"])
    width = len(weights["text_projection.weight"])
    vision = {
        **_tower(weights, "vision_model", VISION_HEAD),
        "patch_size": patches.shape[-1],
        "image_size": patches.shape[-1] * math.isqrt(positions - 1),
        "projection_dim": width,
    }
    text = {
        **_tower(weights, "text_model", TEXT_HEAD),
        "vocab_size": words,
        "max_position_embeddings": len(weights["text_model.embeddings.position_embedding.weight"]),
        "bos_token_id": words - 2,
        "eos_token_id": words - 1,
        "pad_token_id": words - 1,
        "projection_dim": width,
    }
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": width,
        "text_config": text,
        "vision_config": vision,
    }


def _renamed(name: str) -> str:
    for old, new in RENAMED:
        if re.match(old, name):
            name = re.sub(old, new, name)
            break
    else:
        raise ValueError(f"{name!r} is no tensor of a CLIP ViT-H/14 by open_clip: give HPSv2's own checkpoint")
    for old, new in LAYERS:
        name = re.sub(old, new, name)
    return name


def _tower(weights: Mapping[str, torch.Tensor], tower: str, head: int) -> dict[str, Any]:
    inner, width = weights[f"{tower}.encoder.layers.0.mlp.fc1.weight"].shape
    numbers = [re.match(rf"{tower}\.encoder\.layers\.(\d+)\.", name) for name in weights]
    return {
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": 1 + max(int(found[1]) for found in numbers if found),
        "num_attention_heads": width // head,
        "hidden_act": "gelu",
    }
