"""How well a reward agrees with preferences it was not trained on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from sfumato.images import load_image
from sfumato.preferences.pairs import Pair
from sfumato.preferences.split import by_prompt
from sfumato.rewards import Reward, score

DRAWS = 2000


@dataclass(frozen=True)
class PreferenceAccuracy:
    """Agreement of a reward with labels.

    Attributes:
        accuracy: share of the decided pairs (no ties) in which the preferred image scores higher.
        low: lower end of its 95 % Wilson interval.
        high: upper end of its 95 % Wilson interval.
        decided: number of pairs that are no ties.
        loss: mean Bradley-Terry loss over all pairs; ln 2 is that of a constant reward.
    """

    accuracy: float
    low: float
    high: float
    decided: int
    loss: float

    @classmethod
    def from_margins(cls, margins: torch.Tensor, labels: torch.Tensor) -> PreferenceAccuracy:
        """From r_0 - r_1 (N,) and labels (N,); an undecided reward (margin 0) counts as half right."""
        decided = labels != 0.5
        right = torch.where(margins == 0, 0.5, ((margins > 0) == (labels > 0.5)).double())[decided].sum().item()
        count = int(decided.sum())
        low, high = wilson_interval(right, count)
        return cls(right / count if count else math.nan, low, high, count, bradley_terry_loss(margins, labels).item())


def bradley_terry_loss(margins: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """-[y log σ(m) + (1 - y) log σ(-m)], averaged, for margins m = r_0 - r_1 (N,) and labels y (N,).

    y = 1 if image 0 was preferred, 0 if image 1 was, 0.5 for a tie. Bradley & Terry (1952); for rewards of images
    Xu et al. 2023 (arXiv 2304.05977), Kirstain et al. 2023 (arXiv 2305.01569).
    """
    return F.binary_cross_entropy_with_logits(margins, labels.to(margins))


@torch.no_grad()
def evaluate_preference(
    reward: Reward, pairs: Sequence[Pair], read: Callable[[str], torch.Tensor] = load_image
) -> PreferenceAccuracy:
    """Score both images of every pair, of whatever sizes, with any reward.

    Raises:
        ValueError: there are no pairs.
    """
    if not pairs:
        raise ValueError("there are no pairs to evaluate on")
    found = []
    for pair in pairs:
        one, other = (score(reward, read(image)[None], [pair.prompt]) for image in (pair.image_0, pair.image_1))
        found.append(one - other)
    margins = torch.cat(found)
    return PreferenceAccuracy.from_margins(margins, margins.new_tensor([pair.label for pair in pairs]))


def interval_by_prompt(margins: torch.Tensor, labels: torch.Tensor, prompts: Sequence[str]) -> tuple[float, float]:
    """95 % interval of the accuracy by the bootstrap over prompts: pairs of one prompt are not independent.

    Of little use where all pairs are right or all wrong, and for fewer than about ten prompts; Wilson's holds there.
    """
    m, y = margins.double().cpu().numpy(), labels.double().cpu().numpy()
    right, decided = np.where(m == 0, 0.5, (m > 0) == (y > 0.5)), y != 0.5
    sums = np.array([[right[group][decided[group]].sum(), decided[group].sum()] for group in by_prompt(prompts)])
    generator = np.random.default_rng(0)
    drawn = (sums[generator.integers(len(sums), size=len(sums))].sum(0) for _ in range(DRAWS))
    shares = [good / count for good, count in drawn if count]
    low, high = np.quantile(shares, (0.025, 0.975)) if shares else (0.0, 1.0)
    return float(low), float(high)


def wilson_interval(successes: float, count: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's (1927) score interval of a proportion; (0, 1) where nothing was counted."""
    if count == 0:
        return 0.0, 1.0
    share, weight = successes / count, z * z / count
    centre = (share + weight / 2) / (1 + weight)
    half = z / (1 + weight) * math.sqrt(share * (1 - share) / count + weight / (4 * count))
    return max(0.0, centre - half), min(1.0, centre + half)
