"""The judge: a small convolutional classifier of what a picture shows and in which style it is drawn.

It is trained apart from every model that is tuned, with another architecture and seed, and serves as gold standard.
"""

import json
import os
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

SIZE = 64


class JudgeOutput(NamedTuple):
    """What the judge says about a batch: features (B, D), subcategory (B, S) and style (B, V) logits."""

    features: torch.Tensor
    subcategory: torch.Tensor
    style: torch.Tensor


class Residual(nn.Module):
    """Two convolutions with group normalisation and a skip, halving the resolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
        self.first_norm = nn.GroupNorm(8, outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.second_norm = nn.GroupNorm(8, outputs)
        self.skip = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, inputs, H, W) to (B, outputs, H/2, W/2)."""
        y = F.relu(self.first_norm(self.first(x)))
        y = self.second_norm(self.second(y))
        return F.relu(y + self.skip(F.avg_pool2d(x, 2)))


class Judge(nn.Module):
    """Classifier of subcategory and style for images of any size.

    Args:
        subcategories: names of the S subcategories, in the order of the logits.
        styles: names of the V styles, in the order of the logits.
        width: channels of the first stage; each of the four stages doubles the number up to 8 times.
    """

    def __init__(self, subcategories: list[str], styles: list[str], width: int = 24) -> None:
        super().__init__()
        self.subcategories, self.styles, self.width = list(subcategories), list(styles), width
        self.stem = nn.Conv2d(3, width, 3, padding=1, stride=2)
        stages = [(width, 2 * width), (2 * width, 4 * width), (4 * width, 8 * width)]
        self.stages = nn.Sequential(*(Residual(*stage) for stage in stages))
        self.subcategory_head = nn.Linear(8 * width, len(self.subcategories))
        self.style_head = nn.Linear(8 * width, len(self.styles))

    def forward(self, images: torch.Tensor) -> JudgeOutput:
        """Judge images, float in [0, 1], shape (B, 3, H, W); differentiable in the images.

        Returns:
            Features (B, D) before the heads, and unnormalised logits (B, S) and (B, V).
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images must have shape (B, 3, H, W), not {tuple(images.shape)}")
        if images.shape[-2:] != (SIZE, SIZE):
            images = F.interpolate(images, (SIZE, SIZE), mode="bilinear", align_corners=False, antialias=True)
        features = self.stages(F.relu(self.stem(images * 2 - 1))).mean((2, 3))
        return JudgeOutput(features, self.subcategory_head(features), self.style_head(features))

    @torch.no_grad()
    def labels(self, images: torch.Tensor) -> list[dict[str, str]]:
        """The likeliest subcategory and style of each image (B, 3, H, W) in [0, 1]."""
        output = self(images)
        pairs = zip(output.subcategory.argmax(1).tolist(), output.style.argmax(1).tolist(), strict=True)
        return [{"subcategory": self.subcategories[s], "style": self.styles[v]} for s, v in pairs]

    def save_pretrained(self, path: str | os.PathLike[str]) -> None:
        """Write config.json and model.safetensors (weights as they are, in their own dtype) into a folder."""
        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        config = {"subcategories": self.subcategories, "styles": self.styles, "width": self.width}
        (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
        save_file({name: value.contiguous() for name, value in self.state_dict().items()}, folder / "model.safetensors")

    @classmethod
    def from_pretrained(cls, path: str | os.PathLike[str]) -> "Judge":
        """Read a folder that ``save_pretrained`` wrote; float32, in evaluation mode, on the CPU."""
        folder = Path(path)
        judge = cls(**json.loads((folder / "config.json").read_text(encoding="utf-8")))
        judge.load_state_dict({k: v.float() for k, v in load_file(folder / "model.safetensors").items()})
        return judge.eval()
