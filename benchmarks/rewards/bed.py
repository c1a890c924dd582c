"""What both sides score: random CLIPs, pictures and prompts. Read in the package's environment too."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from tests.golden import seeded

CHECKPOINT, MODEL = "checkpoint.pt", "model"
"""In a size's folder: open_clip's weights as hpsv2 reads them, and the same as a folder of transformers."""


class Size(NamedTuple):
    """A CLIP of HPSv2's layout, whose heads are 80 numbers wide for images and 64 for texts, with patches of 32."""

    vision_width: int
    vision_layers: int
    text_width: int
    text_layers: int
    embedding: int

    def open_clip(self, words: int) -> dict[str, Any]:
        """As open_clip describes it, with so many words in its vocabulary."""
        vision = {"image_size": 224, "layers": self.vision_layers, "width": self.vision_width, "head_width": 80}
        text = {"width": self.text_width, "heads": self.text_width // 64, "layers": self.text_layers}
        vision, text = vision | {"patch_size": 32}, text | {"vocab_size": words}
        return {"embed_dim": self.embedding, "vision_cfg": vision, "text_cfg": text}


SIZES = {
    "tiny": Size(160, 2, 128, 2, 32),
    "small": Size(400, 6, 256, 6, 256),
    "ViT-B/32": Size(800, 12, 512, 12, 512),
}


class Bed(NamedTuple):
    """What is to be scored: `count` square pictures of `edge` pixels, each with a prompt of its own."""

    size: str
    folder: str
    count: int
    edge: int

    def pictures(self) -> torch.Tensor:
        """Seeded pictures (B,3,H,W), uint8."""
        return seeded.pictures(self.count, self.edge, self.edge)

    def prompts(self) -> list[str]:
        """As long as usual ones, twelve tokens, in the few words that the small vocabulary has."""
        return [" the ".join("sun" if number >> bit & 1 else "cat" for bit in range(5)) for number in range(self.count)]
