"""Whether a reward's probabilities can be believed: temperature, reliability diagram, expected calibration error.

A pair's margin m = r_0 - r_1 says that image 0 is preferred with probability σ(m). Looked at from the side that the
reward takes, its confidence is σ(|m|), between 1/2 and 1, and it is right if the raters took that side; a tie counts as
half. Guo et al. 2017 (arXiv 1706.04599).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from sfumato.preferences.evaluate import wilson_interval

BINS = 10
SHARPEST = 100.0
"""Temperatures are sought between this and its inverse."""
DRAWS = 500


@dataclass(frozen=True)
class Bin:
    """Pairs of about the same confidence.

    Attributes:
        confidence: its mean, in [1/2, 1].
        right: share of the pairs in which the raters took the reward's side, a tie as half.
        low: lower end of the share's 95 % Wilson interval.
        high: upper end of the share's 95 % Wilson interval.
        count: number of pairs.
    """

    confidence: float
    right: float
    low: float
    high: float
    count: int


def fit_temperature(margins: torch.Tensor, labels: torch.Tensor) -> float:
    """T > 0 with the least Bradley-Terry loss of margins (N,) / T, within [1/100, 100].

    Labels are smoothed to (N y + 1) / (N + 2) as in Platt (1999): N pairs that are all right do not make the reward
    certain. The loss is convex in 1/T; its derivative, mean((σ(m/T) - y) m), is brought to 0 by bisection in log T.
    """
    m, y = margins.double().cpu(), (len(labels) * labels.double().cpu() + 1) / (len(labels) + 2)
    low, high = -np.log(SHARPEST), np.log(SHARPEST)
    for _ in range(60):
        middle = (low + high) / 2
        slope = ((torch.sigmoid(m * np.exp(middle)) - y) * m).mean()
        low, high = (low, middle) if slope > 0 else (middle, high)
    return float(np.exp(-(low + high) / 2))


def reliability(margins: torch.Tensor, labels: torch.Tensor) -> list[Bin]:
    """The pairs in ten bins of equal width over the confidence, without those that are empty."""
    confidence, right = _sides(margins, labels)
    place = _places(confidence)
    bins = []
    for number in range(BINS):
        inside = place == number
        if count := int(inside.sum()):
            low, high = wilson_interval(float(right[inside].sum()), count)
            bins.append(Bin(float(confidence[inside].mean()), float(right[inside].mean()), low, high, count))
    return bins


def calibration_error(bins: list[Bin]) -> float:
    """Expected calibration error: the mean over all pairs of their bin's |right - confidence|."""
    total = sum(each.count for each in bins)
    return sum(each.count * abs(each.right - each.confidence) for each in bins) / total


def error_by_chance(margins: torch.Tensor, labels: torch.Tensor, seed: int = 0) -> float:
    """The mean calibration error that a perfectly calibrated reward of the same margins has on so few pairs."""
    confidence, _ = _sides(margins, labels)
    place, generator = _places(confidence), np.random.default_rng(seed)
    known = np.bincount(place, confidence, BINS)
    errors = [
        np.abs(np.bincount(place, generator.random(len(place)) < confidence, BINS) - known).sum() for _ in range(DRAWS)
    ]
    return float(np.mean(errors) / len(place))


def describe_calibration(margins: torch.Tensor, labels: torch.Tensor) -> dict[str, Any]:
    """Reliability diagram and calibration error as plain values."""
    bins = reliability(margins, labels)
    return {
        "ece": calibration_error(bins),
        "ece_by_chance": error_by_chance(margins, labels),
        "bins": [asdict(each) for each in bins],
    }


def _sides(margins: torch.Tensor, labels: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Confidence (N,) and whether it was right (N,): 1, 0, or 1/2 for a tie."""
    m, y = margins.double().cpu(), labels.double().cpu()
    return torch.sigmoid(m.abs()).numpy(), torch.where(m >= 0, y, 1 - y).numpy()


def _places(confidence: np.ndarray) -> np.ndarray:
    """The bin (N,) of each pair."""
    return np.minimum(((confidence - 0.5) * 2 * BINS).astype(int), BINS - 1)
