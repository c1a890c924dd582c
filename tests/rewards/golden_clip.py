"""What golden/make_rewards_clip.py wrote, and how to compare with it."""

import json
from collections.abc import Iterator
from pathlib import Path

import torch

from sfumato.rewards import CLIPBackbone

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "rewards_clip.json").read_text())


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


@torch.no_grad()
def noise_in_every_matrix(backbone: CLIPBackbone) -> Iterator[str]:
    """Disturb one matrix of weights after the other by 1 %; yields the name of the one that is disturbed."""
    generator = torch.Generator().manual_seed(0)
    for name, weight in backbone.model.named_parameters():
        if weight.ndim > 1:
            before = weight.clone()
            weight *= 1 + 0.01 * torch.randn(weight.shape, generator=generator)
            backbone.forget_texts()
            yield name
            weight.copy_(before)
    backbone.forget_texts()
