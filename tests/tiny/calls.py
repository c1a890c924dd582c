"""Calls of the tiny pipelines: arguments that make a quick one, and its images."""

from __future__ import annotations

from typing import Any

import torch

from tests.tiny.parts import TOKENS

_SANA = {
    "max_sequence_length": TOKENS,
    "complex_human_instruction": None,
    "use_resolution_binning": False,
    "height": 32,
    "width": 32,
}
_OWN: dict[str, dict[str, Any]] = {
    "flux": {"max_sequence_length": TOKENS, "guidance_scale": 3.5, "height": 16, "width": 16},
    "sd3": {"guidance_scale": 3.0, "height": 16, "width": 16},
    "pixart": {"max_sequence_length": TOKENS, "clean_caption": False, "use_resolution_binning": False},
    "lcm": {"original_inference_steps": 10},
    "pixart-alpha": {"max_sequence_length": TOKENS, "clean_caption": False, "use_resolution_binning": False},
    "sana": _SANA,
    "sana-sprint": _SANA,
    "lumina": {"clean_caption": False, "height": 32, "width": 32},
    "lumina2": {"max_sequence_length": 2 * TOKENS, "system_prompt": "", "height": 32, "width": 32},
    "hunyuan": {"use_resolution_binning": False, "height": 16, "width": 16},
    "auraflow": {"max_sequence_length": TOKENS, "height": 16, "width": 16},
    "cogview4": {"max_sequence_length": TOKENS, "height": 16, "width": 16},
    "qwen-image": {"true_cfg_scale": 3.0, "height": 16, "width": 16},
    "z-image": {"max_sequence_length": TOKENS, "guidance_scale": 3.0, "height": 16, "width": 16},
    "chroma": {"max_sequence_length": TOKENS, "height": 16, "width": 16},
    "flux2": {"max_sequence_length": TOKENS, "text_encoder_out_layers": (1,), "height": 16, "width": 16},
}


def call(family: str, count: int = 2, steps: int = 3, **arguments: Any) -> dict[str, Any]:
    """The arguments of a quick pipeline call for `count` images, without generators and output type."""
    prompts = [f"{word} {family[:6]}" for word in ("red", "a green", "blue")]
    prompt = [prompts[i % len(prompts)] for i in range(count)]
    texts = {"prompt": prompt} if family not in _ENCODED else _ENCODED[family](count)
    return {**texts, "num_inference_steps": steps, **_OWN.get(family, {}), **arguments}


def _rows(count: int, *shape: int, seed: int) -> torch.Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))


def _kolors(count: int) -> dict[str, Any]:
    return {
        "prompt_embeds": _rows(count, TOKENS, 8, seed=1),
        "negative_prompt_embeds": _rows(count, TOKENS, 8, seed=2),
        "pooled_prompt_embeds": _rows(count, 8, seed=3),
        "negative_pooled_prompt_embeds": _rows(count, 8, seed=4),
    }


def _qwen(count: int) -> dict[str, Any]:
    return {
        "prompt_embeds": _rows(count, TOKENS, 8, seed=1),
        "prompt_embeds_mask": torch.arange(TOKENS).expand(count, -1) < 12,
        "negative_prompt_embeds": _rows(count, TOKENS, 8, seed=2),
        "negative_prompt_embeds_mask": torch.arange(TOKENS).expand(count, -1) < 4,
    }


_ENCODED = {"kolors": _kolors, "qwen-image": _qwen}
"""What is called by embeddings."""


def embedded(pipe: Any, family: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """The call with its prompts replaced by their embeddings, as `encode_prompt` gives them."""
    more = {
        "sd": {"device": "cpu", "num_images_per_prompt": 1, "do_classifier_free_guidance": True},
        "sd3": {"prompt_2": None, "prompt_3": None},
        "flux": {"prompt_2": None, "max_sequence_length": TOKENS},
        "pixart": {"max_sequence_length": TOKENS},
    }
    with torch.no_grad():
        encoded = pipe.encode_prompt(prompt=arguments["prompt"], **more.get(family, {}))
    names = {
        "sd": ("prompt_embeds", "negative_prompt_embeds"),
        "flux": ("prompt_embeds", "pooled_prompt_embeds"),
        "pixart": (
            "prompt_embeds",
            "prompt_attention_mask",
            "negative_prompt_embeds",
            "negative_prompt_attention_mask",
        ),
    }
    pooled = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
    found = dict(zip(names.get(family, pooled), encoded, strict=False))
    rest = {key: value for key, value in arguments.items() if key != "prompt"}
    return {**rest, **found, **({"negative_prompt": None} if family == "pixart" else {})}


def generators(seeds: list[int]) -> list[torch.Generator]:
    """One CPU generator per image, as `rollout` makes them."""
    return [torch.Generator("cpu").manual_seed(seed) for seed in seeds]


def images(pipe: Any, seeds: list[int], **arguments: Any) -> torch.Tensor:
    """The images of a plain `pipe(...)`, (B, 3, H, W)."""
    return pipe(**arguments, generator=generators(seeds), output_type="pt").images
