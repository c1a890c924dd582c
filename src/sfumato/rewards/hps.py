"""HPSv2 and HPSv2.1: a CLIP ViT-H/14 that was tuned on people's choices between generated pictures."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from sfumato.preprocess import Preprocess
from sfumato.rewards.backbone import load_backbone
from sfumato.rewards.base import Device, Source
from sfumato.rewards.info import RewardInfo

PROCESSOR = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"


@dataclass(frozen=True)
class Letterbox(Preprocess):
    """What hpsv2 does to an image: its longer edge becomes `size`, and black fills the square.

    The resize is an antialiased bicubic one of both edges at once, not clipped, as torchvision >= 0.17 does it to
    tensors; with an older torchvision, hpsv2 resizes without antialiasing and gives other scores.
    """

    size: int = 224
    crop: None = None

    def _resize(self, images: torch.Tensor) -> torch.Tensor:
        height, width = images.shape[-2:]
        scale = self.size / max(height, width)
        target = (round(height * scale), round(width * scale))
        if target != (height, width):
            images = F.interpolate(images, size=target, mode="bicubic", antialias=True)
        bottom, right = self.size - target[0], self.size - target[1]
        return F.pad(images, (right // 2, right - right // 2, bottom // 2, bottom - bottom // 2))


class HPSv2:
    """HPSv2 (Wu et al. 2023, arXiv 2306.09341): r = 100 cos(image, text) by CLIP ViT-H/14, tuned on the HPD v2.

    r lies in [-100, 100]; the means of published models are 23.5 (GLIDE) to 27.9. Only images of one prompt compare.
    The learned scale exp(s) is 100 too, so r is the logit of a Bradley-Terry model: a is preferred to b with the
    probability σ(r_a - r_b).

    The package hpsv2 has two ways of scoring, which disagree: `hpsv2.score` gives cos, of HPSv2 unless told otherwise;
    `hpsv2.evaluate` gives 100 cos, of HPSv2.1 unless told otherwise. Ours is 100 cos, as in the authors' tables; divide
    by 100 for the former. On a GPU both round to half precision, above 25 in steps of 0.024 of our units, which tells
    many images of a prompt no longer apart; here scores are float32. Images are floats in [0, 1], preprocessed by
    `Letterbox`. Differentiable. Weights under Apache-2.0.

    Args:
        model: folder that `sfumato convert-weights hpsv2` wrote.
        processor: folder or hub id of the tokenizer of CLIP ViT-H/14. The package also repairs damaged Unicode and HTML
            entities in prompts.
        device: where the model runs.
        dtype: of its weights; float32 unless given.

    Raises:
        OSError: there is no such folder, or it has no safetensors weights.
        ValueError: its weights are damaged or not all there.
    """

    name = "hpsv2"
    range = (-100.0, 100.0)
    differentiable = True

    def __init__(
        self, model: Source, processor: Source = PROCESSOR, device: Device = "cpu", dtype: torch.dtype | None = None
    ):
        self.backbone = load_backbone(model, processor, device, dtype, Letterbox())

    def __call__(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        return 100 * self.backbone.cosines(images, prompts)


class HPSv21(HPSv2):
    """HPSv2.1: `HPSv2` with the weights its authors published in 2024, tuned on better data; means 14.5 to 31.3."""

    name = "hpsv2.1"


INFO = tuple(
    RewardInfo(
        kind.name,
        f"what people chose on HPD v2 (CLIP-H); model: folder converted from {file}",
        "[-100, 100]",
        True,
        kind,
        model="xswu/HPSv2",
        licence="Apache-2.0",
        size="3.9 GB",
        observed=f"means of models {means}",
    )
    for kind, file, means in (
        (HPSv2, "HPS_v2_compressed.pt", "23.5 to 27.9"),
        (HPSv21, "HPS_v2.1_compressed.pt", "14.5 to 31.3"),
    )
)
