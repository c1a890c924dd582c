"""The reward that is a SigLIP's own logit."""

from __future__ import annotations

import torch

from sfumato.rewards.backbone import load_backbone
from sfumato.rewards.base import Device, Source
from sfumato.rewards.info import RewardInfo


class SigLIPScore:
    """r = exp(s) cos(image, text) + b, the log-odds that the text belongs to the image (Zhai et al. 2023, 2303.15343).

    SigLIPs are trained pair by pair: σ(r) is the probability that image and text belong together, on its own, without
    other texts to compare with. The reward is the logit, because σ has next to no gradient at either end: an image that
    does not show its prompt at all would not be told what to do. Both rank images alike. r lies in [b - exp(s), b +
    exp(s)]; published models have b of -13 to -17 and exp(s) of 110 to 120, so an image of something else (cosine near
    0) is near b, and 0, which is even odds, needs a cosine of 0.11 to 0.15. Images are floats in [0, 1].
    Differentiable.

    Args:
        model: folder or hub id of a `SiglipModel` with tokenizer and `preprocessor_config.json`: SigLIP, or SigLIP 2
            of a fixed size. Google's are under Apache-2.0.
        device: where the model runs.
        dtype: of its weights; float32 unless given.

    Raises:
        OSError: there is no such model, or it has no safetensors weights.
        ValueError: it is no SigLIP, or its weights are damaged or not all there.
    """

    name = "siglip_score"
    differentiable = True

    def __init__(self, model: Source, device: Device = "cpu", dtype: torch.dtype | None = None):
        self.backbone = load_backbone(model, device=device, dtype=dtype)
        if self.backbone.logit_bias is None:
            raise ValueError(f"siglip_score needs a SigLIP, and {model} has no logit_bias: for a CLIP take clip_score")
        self.scale, self.bias = self.backbone.logit_scale, self.backbone.logit_bias

    @property
    def range(self) -> tuple[float, float]:
        scale, bias = float(self.scale), float(self.bias)
        return bias - scale, bias + scale

    def __call__(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        return self.scale * self.backbone.cosines(images, prompts) + self.bias


INFO = (
    RewardInfo(
        "siglip_score",
        "log-odds that image and text belong together; model: folder or hub id of a SigLIP or SigLIP 2, such as "
        "google/siglip2-base-patch16-224 (Apache-2.0)",
        "[b - exp(s), b + exp(s)]",
        True,
        SigLIPScore,
        observed="near b, -17 to -13, of other things",
    ),
)
