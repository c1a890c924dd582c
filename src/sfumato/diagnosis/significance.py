"""Which changes between two models are more than chance: sign flips over prompts, corrected for their number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from sfumato.frontier.statistics import paired_difference

Array = NDArray[np.float64]
LEVEL = 0.05
FLIPS = 10_000
FEWEST_PROMPTS = 6
"""With 5 prompts there are 32 ways to flip signs, so that no p-value is below 2/32."""


@dataclass(frozen=True)
class Quantity:
    """One number per prompt, (m,), of the base, of the point that is examined, and of the base with other seeds.

    Attributes:
        unit: what counts as 1 in the change: the base's mean, or its spread.
    """

    base: Array
    point: Array
    again: Array
    unit: float = field(default=1.0, kw_only=True)


@dataclass(frozen=True)
class Change:
    """How a quantity of a point differs from the base's.

    Attributes:
        base: mean over prompts.
        point: mean over prompts.
        change: mean of point minus base, in units of the quantity.
        low: lower limit of its 95 % interval (paired, BCa over prompts).
        high: upper limit.
        noise: what the base with other seeds differs by, in the same units; 95 % of its sign flips are smaller.
        p: of the sign-flip test, corrected for all quantities of the point.
    """

    base: float
    point: float
    change: float
    low: float
    high: float
    noise: float
    p: float

    @property
    def established(self) -> bool:
        """Whether it is more than chance and more than the base's own noise."""
        return self.p <= LEVEL and abs(self.change) > self.noise

    def at_least(self, size: float) -> bool:
        """Whether it is established and exceeds `size` (signed) at the end of its interval that is nearer to 0."""
        return self.established and (self.low > size if size > 0 else self.high < size)

    def rose(self) -> bool:
        return self.established and self.change > 0

    def fell(self) -> bool:
        return self.established and self.change < 0


def changes(quantities: Mapping[str, Quantity]) -> dict[str, Change]:
    """Every quantity's change, with p-values that hold for all of them together.

    If a prompt's images came from the same model on both sides, the sign of its difference would be a toss. Each of
    the 2^m outcomes (or 10,000 drawn ones) gives every quantity a statistic |sum d| / |d|; p is how often the largest
    of them reaches the observed one (Westfall and Young 1993, max-T): the chance of any false alarm is at most 5 %,
    however the quantities depend on one another.

    Args:
        quantities: of m prompts each, m at least 2.
    """
    if not quantities:
        return {}
    differences = {name: q.point - q.base for name, q in quantities.items()}
    norms = np.array([np.linalg.norm(d) for d in differences.values()])
    norms[norms == 0] = 1
    signs = _signs(len(next(iter(differences.values()))))
    statistics = np.abs(signs @ np.array(list(differences.values())).T) / norms
    largest = statistics.max(1)
    found = {}
    for place, (name, q) in enumerate(quantities.items()):
        interval = paired_difference(q.point, q.base)
        noise = np.quantile(np.abs(signs @ (q.again - q.base)), 1 - LEVEL) / len(q.base)
        found[name] = Change(
            float(q.base.mean()),
            float(q.point.mean()),
            interval.mean / q.unit,
            interval.low / q.unit,
            interval.high / q.unit,
            float(noise / q.unit),
            float((largest >= statistics[0, place] - 1e-9).mean()),
        )
    return found


@lru_cache(maxsize=4)
def _signs(m: int) -> Array:
    """Flips (R, m) of ±1: all of them if that is no more than `FLIPS`, else drawn ones; the first flips nothing."""
    if 2 ** (m - 1) <= FLIPS:  # a flip and its opposite give the same statistic
        bits = np.arange(2 ** (m - 1))[:, None] >> np.arange(m) & 1
        return (1 - 2 * bits).astype(np.float64)
    drawn = (1 - 2 * np.random.default_rng(0).integers(2, size=(FLIPS, m))).astype(np.float64)
    drawn[0] = 1
    return drawn
