"""The idea in one picture: the same seeds under the base model, the tuned one, and Annealed Importance Guidance."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from tqdm.auto import tqdm

from sfumato.emoji64 import demo_pipeline, path
from sfumato.images import grid, to_pil
from sfumato.pipelines.adapters import base_weights, load_lora
from sfumato.pipelines.guidance import annealed_guidance
from sfumato.pipelines.rollout import rollout

PROMPTS = ("face", "fruit", "heart")
SEEDS = range(8)
SCALE = 2
MARGIN = 150


def quick_strip(out: Path) -> Path:
    """Draw every prompt and seed under base, tuned and AIG with the shipped tuned LoRA, and write one PNG to `out`.

    Raises:
        ValueError: `out` is no PNG.
    """
    if out.suffix.lower() != ".png":
        raise ValueError(f"{out} is not the name of a PNG: let it end in .png")
    pipe = demo_pipeline()
    load_lora(pipe, path("tuned"))
    ways: dict[str, AbstractContextManager] = {
        "base": base_weights(pipe),
        "tuned": nullcontext(),
        "AIG, power 2": annealed_guidance(pipe, "power", p=2),
    }
    strips: list[tuple[str, torch.Tensor]] = []
    with tqdm(total=len(ways) * len(PROMPTS), desc="drawing", unit="row") as bar:
        for name, way in ways.items():
            with way:
                rows = []
                for prompt in PROMPTS:
                    sampled = rollout(
                        pipe, prompt=prompt, seeds=list(SEEDS), num_inference_steps=20, guidance_scale=3.0
                    )
                    rows.append(sampled.images)
                    bar.update()
            strips.append((name, grid(rows)))
    out.parent.mkdir(parents=True, exist_ok=True)
    _labelled(strips).save(out)
    return out


def _labelled(strips: list[tuple[str, torch.Tensor]]) -> Image.Image:
    """The strips under each other, each with its name and prompts at the left."""
    height, width = (SCALE * side for side in strips[0][1].shape[-2:])
    sheet = Image.new("RGB", (width + MARGIN, len(strips) * (height + 24)), "white")
    draw = ImageDraw.Draw(sheet)
    large, small = ImageFont.load_default(22), ImageFont.load_default(16)
    for i, (name, strip) in enumerate(strips):
        top = i * (height + 24)
        sheet.paste(to_pil(strip).resize((width, height), Image.Resampling.LANCZOS), (MARGIN, top + 12))
        draw.text((10, top + 16), name, "black", large)
        for row, prompt in enumerate(PROMPTS):
            draw.text((10, top + 50 + row * height // len(PROMPTS)), prompt, "#666666", small)
    return sheet
