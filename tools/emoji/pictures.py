"""The two bundled pipelines as they are measured, their samples and contact sheets."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from PIL import Image

from tools.emoji.common import ASSETS, CACHE, FLOW_ASSETS, step_generator

PREVIEW = [
    "red apple", "fruit", "cat face", "face", "fox face", "mammal", "bird", "fish", "rose", "pizza",
    "red car, fluent style", "bus, noto style", "red heart, twemoji style", "dessert", "vehicle", "guitar", "house",
    "airplane", "animal", "penguin, fluent style", "smiling face, noto style", "smiling face, twemoji style",
    "cloud", "food",
]  # fmt: skip


@dataclass(frozen=True)
class Bundled:
    """A pipeline folder, the component in it that denoises, and the arguments of the measured call."""

    folder: Path
    part: str
    call: dict[str, Any] = field(default_factory=lambda: {"num_inference_steps": 16, "guidance_scale": 3.0})

    def load(self) -> DiffusionPipeline:
        """The exported pipeline in float32, quiet."""
        pipe = DiffusionPipeline.from_pretrained(self.folder, torch_dtype=torch.float32)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    def sample(self, pipe: DiffusionPipeline, prompts: list[str], seed: int = 0) -> torch.Tensor:
        """One image in [0, 1] per prompt; the noise depends on the seed and the position only."""
        noise = [torch.randn(4, 16, 16, generator=step_generator(seed, i)) for i in range(len(prompts))]
        parts = []
        for i in range(0, len(prompts), 32):
            output = pipe(prompts[i : i + 32], latents=torch.stack(noise[i : i + 32]), output_type="np", **self.call)
            parts.append(torch.from_numpy(output.images).permute(0, 3, 1, 2))
        return torch.cat(parts)

    def preview(self, step: int) -> None:
        """Two samples of each preview prompt, in one picture in the cache."""
        prompts = [prompt for prompt in PREVIEW for _ in range(2)]
        tile(self.sample(self.load(), prompts), 16).save(CACHE / f"preview-{self.folder.name}-{step:05d}.png")


UNET = Bundled(ASSETS, "unet")
FLOW = Bundled(FLOW_ASSETS, "transformer", {"num_inference_steps": 16, "guidance_scale": 3.0, "max_sequence_length": 1})


def tile(images: torch.Tensor, columns: int) -> Image.Image:
    """A contact sheet without captions."""
    rows = [torch.cat(list(row), 2) for row in images.split(columns)]
    sheet = (torch.cat(rows, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    return Image.fromarray(np.ascontiguousarray(sheet))
