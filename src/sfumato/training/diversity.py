"""A bonus for images that differ from the others of their prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from sfumato.metrics import Extractor


@dataclass(frozen=True)
class DiversityBonus:
    """The mean distance of an image to the other images of its prompt, in a space of features.

    The mean bonus of the images of one prompt is their `mean_pairwise_distance`. An objective that takes the bonus for
    a reward without gradient credits an image with its own bonus only, so it follows half the gradient of that mean.

    Attributes:
        coefficient: multiplies it where it is added to the shaped rewards.
        features: images (B, 3, H, W) to features (B, D); two of them differ by 1 - cos or by |x - y|², whichever the
            extractor's `distance` is.
    """

    coefficient: float
    features: Extractor

    def __call__(self, images: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        """The bonus of each image, (B,), with the gradient of the images.

        Args:
            images: (B, 3, H, W) in [0, 1], at least two of each prompt.
            prompts: one per image.

        Raises:
            ValueError: the features lose the gradient of the images.
        """
        x = self.features(images)
        if images.requires_grad and torch.is_grad_enabled() and not x.requires_grad:
            raise ValueError(
                f"training.regularizers.diversity.features: {type(self.features).__name__} has no gradient, which this "
                "objective needs: choose other features"
            )
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        cosine = self.features.distance == "cosine"
        x = F.normalize(x, dim=1) if cosine else x
        distances = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist").square()
        others = torch.tensor([[a == b for b in prompts] for a in prompts], device=x.device).fill_diagonal_(False)
        return (distances * others).sum(1) / others.sum(1) / (2 if cosine else 1)
