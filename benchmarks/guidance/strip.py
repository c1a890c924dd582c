"""The picture in docs/blends.md: the same seeds under each blend."""

from __future__ import annotations

from pathlib import Path

import torch
from beds import tuned_emoji
from forms import Form
from PIL import Image, ImageDraw, ImageFont
from tqdm.auto import tqdm

from sfumato.images import grid, to_pil
from sfumato.pipelines.rollout import rollout

SIDE, LABEL, GAP, HEADER = 72, 190, 10, 26


@torch.no_grad()
def draw(forms: list[Form], prompts: list[str], seeds: int, steps: int, out: Path) -> Path:
    """One row per form, one block of columns per prompt, one column per seed; a WebP file."""
    pipe = tuned_emoji()
    block = seeds * SIDE
    sheet = Image.new("RGB", (LABEL + len(prompts) * (block + GAP), HEADER + len(forms) * (SIDE + 4)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(16)
    for column, prompt in enumerate(prompts):
        pen.text((LABEL + column * (block + GAP) + 4, 3), prompt, "#666666", font)
    for row, form in enumerate(tqdm(forms, desc="drawing", unit="row")):
        top = HEADER + row * (SIDE + 4)
        pen.text((8, top + SIDE // 2 - 10), form.name, "black", font)
        for column, prompt in enumerate(prompts):
            with form.on(pipe):
                call = {"num_inference_steps": steps, "guidance_scale": 3.0}
                images = rollout(pipe, prompt=prompt, seeds=range(seeds), **call).images
            picture = to_pil(grid([images])).resize((block, SIDE), Image.Resampling.LANCZOS)
            sheet.paste(picture, (LABEL + column * (block + GAP), top))
    out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(out, quality=80, method=6)
    return out
