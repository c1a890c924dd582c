"""The reward that is nothing but a CLIP's cosine."""

from __future__ import annotations

import torch

from sfumato.rewards.backbone import load_backbone
from sfumato.rewards.base import Device, Reward, Source
from sfumato.rewards.info import BUNDLED, RewardInfo


class CLIPScore:
    """CLIPScore = 100 max(cos(image, text), 0) of Hessel et al. (2021, arXiv 2104.08718); in [0, 100].

    The paper writes 2.5 for the 100 and puts "A photo depicts" before captions; 100 and the bare prompt are what the
    text-to-image literature and torchmetrics report (20 to 35 with CLIP ViT-L/14). Images are floats in [0, 1].
    Differentiable; where the cosine is negative the gradient is zero. The licence is that of the CLIP that is given;
    OpenAI's are under MIT.

    Args:
        model: folder or hub id of a `CLIPModel` with tokenizer and `preprocessor_config.json`.
        device: where the model runs.
        dtype: of its weights; float32 unless given.
    """

    name = "clip_score"
    range = (0.0, 100.0)
    differentiable = True

    def __init__(self, model: Source, device: Device = "cpu", dtype: torch.dtype | None = None):
        self.backbone = load_backbone(model, device=device, dtype=dtype)

    def __call__(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        return 100 * self.backbone.cosines(images, prompts).clamp(min=0)


def _clip_score(model: Source, device: Device = "cpu", dtype: torch.dtype | None = None) -> Reward:
    from sfumato import emoji64

    return CLIPScore(emoji64.scorer_path() if model == BUNDLED else model, device, dtype)


INFO = (
    RewardInfo(
        "clip_score",
        "100 max(cos(image, text), 0); model: folder, emoji64, or hub id such as openai/clip-vit-large-patch14 (MIT)",
        "[0, 100]",
        True,
        _clip_score,
        observed="15 to 40",
    ),
)
