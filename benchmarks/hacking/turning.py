"""Where a curve turns: from which update on, and at which proxy, gold only falls below its best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

REPETITIONS = 10_000
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """The looks of one training.

    Attributes:
        updates: of the L looks.
        proxy: means (L,P) over the images of each of P prompts.
        gold: likewise.
        vendi: mean over the prompts (L,).
    """

    updates: Array
    proxy: Array
    gold: Array
    vendi: Array

    @classmethod
    def of(cls, looks: Sequence[dict[str, Any]]) -> Curve:
        """From what the monitor saw."""

        def by_prompt(name: str) -> Array:
            return np.array([[np.mean(one) for one in look["eval/scores"][name].values()] for look in looks])

        updates = np.array([look["update"] for look in looks], dtype=float)
        vendi = np.array([look["eval/vendi"] for look in looks])
        return cls(updates, by_prompt("reward"), by_prompt("gold"), vendi)


@dataclass(frozen=True)
class Turn:
    """The look with the highest mean gold. Pairs are 95 % intervals over prompts, by bootstrap.

    Attributes:
        look: its number.
        update: its update.
        updates: likewise in resamples of the prompts.
        proxy: the mean proxy there.
        proxies: likewise.
        gain: gold there less that of the base model.
        gains: likewise, at each resample's own turn.
        fall: gold there less that at the last look.
        falls: likewise, at the turn of all prompts: its place is not chosen anew, or no fall could be negative.
        rising: share of resamples in which the last look has the highest gold, so that nothing has turned.
    """

    look: int
    update: float
    updates: tuple[float, float]
    proxy: float
    proxies: tuple[float, float]
    gain: float
    gains: tuple[float, float]
    fall: float
    falls: tuple[float, float]
    rising: float


def turn(curve: Curve, repetitions: int = REPETITIONS, seed: int = 0) -> Turn:
    """Find where a curve turns. Equal numbers of prompts are resampled alike, so that curves compare."""
    prompts = curve.gold.shape[1]
    drawn = np.random.default_rng(seed).multinomial(prompts, np.full(prompts, 1 / prompts), repetitions) / prompts
    gold, proxy = curve.gold @ drawn.T, curve.proxy @ drawn.T
    best, each = gold.argmax(0), np.arange(repetitions)
    mean = curve.gold.mean(1)
    look = int(mean.argmax())
    return Turn(
        look,
        float(curve.updates[look]),
        _interval(curve.updates[best]),
        float(curve.proxy[look].mean()),
        _interval(proxy[best, each]),
        float(mean[look] - mean[0]),
        _interval(gold[best, each] - gold[0]),
        float(mean[look] - mean[-1]),
        _interval(gold[look] - gold[-1]),
        float((best == len(mean) - 1).mean()),
    )


def _interval(values: Array) -> tuple[float, float]:
    low, high = np.quantile(values, (0.025, 0.975))
    return float(low), float(high)
