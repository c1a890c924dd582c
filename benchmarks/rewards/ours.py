"""Our HPSv2 on the same weights, and what else makes a reward fast."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from bed import CHECKPOINT, MODEL, Bed
from tests.golden import seeded_clip

from sfumato.convert import convert_weights
from sfumato.preprocess import Preprocess
from sfumato.rewards import CLIPScore, HPSv2, PreferenceReward, Reward, WeightedSum, score


def ways(bed: Bed) -> dict[str, Callable[[], list[float]]]:
    """Name -> cosines of all pictures with their prompts; of two rewards, their sums."""
    folder = Path(bed.folder) / MODEL
    images, prompts = bed.pictures().float() / 255, bed.prompts()
    hps, half = HPSv2(folder, folder), HPSv2(folder, folder, dtype=torch.bfloat16)
    two: list[Reward] = [CLIPScore(folder), PreferenceReward(folder)]
    both = WeightedSum(two, [1, 1])

    def new(batch: int) -> list[float]:
        hps.backbone.forget_texts()
        return cosines(hps, batch)

    def cosines(reward: Reward, batch: int) -> list[float]:
        return [
            value / 100
            for at in range(0, len(images), batch)
            for value in _scores(reward, images[at : at + batch], prompts[at : at + batch])
        ]

    def apart() -> list[float]:
        return [sum(parts) for parts in zip(*(_scores(reward, images, prompts) for reward in two), strict=True)]

    return {
        "batch": lambda: cosines(hps, bed.count),
        "batch, new prompts": lambda: new(bed.count),
        "batch, bfloat16": lambda: cosines(half, bed.count),
        "one at a time": lambda: cosines(hps, 1),
        "one at a time, new prompts": lambda: new(1),
        "two rewards, one pass": lambda: _scores(both, images, prompts),
        "two rewards, two passes": apart,
        "products alone": lambda: _products(hps, bed.count),
    }


@torch.no_grad()
def _scores(reward: Reward, images: torch.Tensor, prompts: list[str]) -> list[float]:
    return score(reward, images, prompts).tolist()


@torch.no_grad()
def _products(reward: HPSv2, count: int) -> list[float]:
    """What no batch can do without: the linear layers of the image tower, one after the other, on any numbers."""
    tower = reward.backbone.model.vision_model
    rows = count * len(tower.embeddings.position_embedding.weight)
    for layer in tower.modules():
        if isinstance(layer, torch.nn.Linear):
            layer(torch.ones(()).expand(rows, layer.in_features).contiguous())
    return []


def save(bed: Bed) -> None:
    """Convert hpsv2's checkpoint, as users do, and put a tokenizer and CLIP's preprocessing beside it."""
    folder = convert_weights("hpsv2", [Path(bed.folder) / CHECKPOINT], Path(bed.folder) / MODEL)
    seeded_clip.tokenizer(folder)
    Preprocess().save_pretrained(folder)
