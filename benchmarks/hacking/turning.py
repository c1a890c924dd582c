"""Where a curve turns: from which update on, and at which proxy, gold only falls below its best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfumato.frontier.statistics import REPETITIONS, Interval, interval, paired_difference, resampling_weights

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
    """The look with the highest mean gold, with 95 % intervals over prompts.

    Attributes:
        look: its number.
        update: its update; the interval is that of the turns of resampled prompts.
        proxy: the mean proxy there; likewise.
        gain: gold there less that of the base model, of the same prompts and seeds.
        fall: gold there less that at the last look. It is never negative, as the look was chosen for its gold: what
            shows a fall is an interval that does not reach 0.
        rising: share of resamples in which the last look has the highest gold, so that nothing has turned.
    """

    look: int
    update: Interval
    proxy: Interval
    gain: Interval
    fall: Interval
    rising: float


def turn(curve: Curve, repetitions: int = REPETITIONS) -> Turn:
    """Find where a curve turns. Equal numbers of prompts are resampled alike, so that curves compare."""
    drawn = resampling_weights(curve.gold.shape[1], repetitions, 0).T
    gold, proxy = curve.gold @ drawn, curve.proxy @ drawn
    best = gold.argmax(0)
    look = int(curve.gold.mean(1).argmax())
    here = curve.gold[look]
    return Turn(
        look,
        interval(float(curve.updates[look]), curve.updates[best]),
        interval(float(curve.proxy[look].mean()), proxy[best, np.arange(repetitions)]),
        paired_difference(here, curve.gold[0], repetitions=repetitions),
        paired_difference(here, curve.gold[-1], repetitions=repetitions),
        float((best == len(gold) - 1).mean()),
    )
