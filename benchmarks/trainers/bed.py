"""What both sides train on: pipelines, rewards and settings. Read in the peers' environment too."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
import transformers
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import AutoModel, CLIPModel, CLIPTextConfig, CLIPTextModel, CLIPTokenizer

SOURCES = Path(__file__).parents[2] / "src"
EMOJI = SOURCES / "sfumato" / "assets" / "emoji64"
PROMPTS = ["animal", "bird", "flower", "fruit", "drink", "vehicle", "cat face", "heart"]
HELD_OUT = ["plant", "reptile", "mammal", "bug", "dessert", "aircraft", "weather", "transport"]
RANK = 4
"""Of TRL's LoRA, which is on the projections of attention and cannot be changed."""


@dataclass(frozen=True)
class Settings:
    """One training.

    Attributes:
        method: a key of `METHODS` in ours.py or theirs.py.
        folder: of the pipeline.
        reward: a key of `REWARDS`.
    """

    method: str
    folder: str
    reward: str = "redness"
    batch: int = 4
    steps: int = 20
    guidance: float = 5.0
    lr: float = 1e-3
    seed: int = 0


class Side(NamedTuple):
    """A training that is ready to run: its diffusers pipeline, and what does one update."""

    pipe: Any
    update: Callable[[], object]


def redness(images: torch.Tensor, prompts: Any) -> torch.Tensor:
    """How much redder than green images (B, 3, H, W) are, (B,)."""
    return (images[:, 0] - images[:, 1]).mean(dim=(1, 2))


@cache
def preference() -> Callable[[torch.Tensor, list[str]], torch.Tensor]:
    """The learned preference that the demonstration tunes to."""
    sys.path.append(str(SOURCES))
    if transformers.__version__.startswith("4."):
        _clip_as_in_transformers_5()
    from sfumato.rewards import build_reward

    return build_reward({"name": "preference", "model": "emoji64"})


def _clip_as_in_transformers_5() -> None:
    """Let sfumato's rewards load and call a CLIP in the peers' environment; TRL itself uses none."""
    load = AutoModel.from_pretrained
    AutoModel.from_pretrained = lambda *args, dtype=None, **options: load(*args, torch_dtype=dtype, **options)
    for name in ("get_image_features", "get_text_features"):
        setattr(CLIPModel, name, _in_an_output(getattr(CLIPModel, name)))


def _in_an_output(old: Callable[..., torch.Tensor]) -> Callable[..., SimpleNamespace]:
    return lambda *args, **options: SimpleNamespace(pooler_output=old(*args, **options))


REWARDS: dict[str, Callable[[], Callable[[torch.Tensor, Any], torch.Tensor]]] = {
    "redness": lambda: redness,
    "preference": preference,
}


def make(folder: Path) -> None:
    """Save the random pipeline: a UNet of 8.7 million weights, with the vocabulary of emoji-64."""
    torch.manual_seed(0)
    words = CLIPTokenizer.from_pretrained(EMOJI / "tokenizer")
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(64, 128, 192),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=64,
        attention_head_dim=8,
        norm_num_groups=16,
    )
    vae = AutoencoderKL(
        block_out_channels=(32, 64),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        sample_size=32,
    )
    text = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=words.model_max_length,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    parts = {"unet": unet, "vae": vae, "text_encoder": CLIPTextModel(text), "tokenizer": words, "scheduler": scheduler}
    pipe = StableDiffusionPipeline(**parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    pipe.save_pretrained(folder)
    shutil.rmtree(folder / "tokenizer")
    shutil.copytree(EMOJI / "tokenizer", folder / "tokenizer")  # older transformers read no tokenizer.json
